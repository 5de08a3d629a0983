//! How the end of a call is told: waiters under the condition, listeners, callbacks; each once.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};

use pyo3::exceptions::PyIndexError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use treadle_core::pool::cell::{Marks, Phase};
use treadle_core::pool::processes as core;
use treadle_core::pool::tasks::TaskId;

use crate::condition::Condition;
use crate::future::{Face, FutureBase, Local, LocalOutcome, Observers, Source, lock};
use crate::pickling;

impl FutureBase {
    /// Marks the future observed, before one of its fields is handed out.
    pub(crate) fn observe(slf: &Bound<'_, Self>) {
        let this = slf.get();
        FutureBase::track(slf);
        let phase = match this.source() {
            Source::Local(local) => local.cell.mark_observed(),
            Source::Process {
                pool,
                id,
                cell,
                observers,
            } => {
                let mut entries = lock(observers);
                if cell.observed() {
                    // Entered before; its end may be on the way to being announced, and the entry is needed for that.
                    return;
                }
                // Entered first: the end may be announced as soon as the mark is set.
                let before = entries.insert(*id, slf.clone().unbind());
                let phase = pool.observe(cell);
                let needless = match phase {
                    Some(Phase::Finished | Phase::Cancelled) => entries.remove(id),
                    _ => None,
                };
                // What is dropped may run a finaliser.
                drop(entries);
                drop((before, needless));
                phase
            }
        };
        if matches!(phase, Some(Phase::Finished | Phase::Cancelled)) {
            // It ended while nobody observed it: there is nobody to tell.
            this.announced.store(true, Ordering::Release);
        }
    }

    pub(crate) fn condition<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (this, py) = (slf.get(), slf.py());
        if let Some(condition) = &this.face().condition {
            return Ok(condition.bind(py).clone());
        }
        let made = Bound::new(py, Condition::new(py)?)?.into_any();
        let condition = this
            .face()
            .condition
            .get_or_insert_with(|| made.unbind())
            .bind(py)
            .clone();
        FutureBase::observe(slf);
        Ok(condition)
    }

    pub(crate) fn list<'py>(
        slf: &Bound<'py, Self>,
        which: impl Fn(&mut Face) -> &mut Option<Py<PyList>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let (this, py) = (slf.get(), slf.py());
        FutureBase::condition(slf)?;
        if let Some(list) = which(&mut this.face()) {
            return Ok(list.bind(py).clone());
        }
        let made = PyList::empty(py).unbind();
        Ok(which(&mut this.face()).get_or_insert(made).bind(py).clone())
    }

    /// Tells the installed waiters that the outcome is there, once, under the condition.
    pub(crate) fn announce(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let py = slf.py();
        if this.announced.load(Ordering::Acquire) {
            return Ok(());
        }
        let condition = this
            .face()
            .condition
            .as_ref()
            .map(|condition| condition.clone_ref(py));
        let Some(condition) = condition.map(|condition| condition.into_bound(py)) else {
            // Only a listener: nobody waits on a condition that was never made.
            this.announced.store(true, Ordering::Release);
            return Ok(());
        };
        condition.call_method0(intern!(py, "acquire"))?;
        let told = (|| {
            if this.announced.swap(true, Ordering::AcqRel) {
                return Ok(());
            }
            let waiters = this.face().waiters.as_ref().map(|list| list.clone_ref(py));
            if let Some(waiters) = waiters {
                let method = match this.phase() {
                    Phase::Cancelled => intern!(py, "add_cancelled"),
                    _ if FutureBase::failed(slf)? => intern!(py, "add_exception"),
                    _ => intern!(py, "add_result"),
                };
                for waiter in waiters.bind(py).iter() {
                    waiter.call_method1(method, (slf,))?;
                }
            }
            condition.call_method0(intern!(py, "notify_all")).map(drop)
        })();
        condition.call_method0(intern!(py, "release"))?;
        told
    }

    /// Announces the outcome and runs the callbacks, each once.
    pub(crate) fn complete(slf: &Bound<'_, Self>) -> PyResult<()> {
        FutureBase::announce(slf)?;
        let py = slf.py();
        let (listener, callbacks) = {
            let mut face = slf.get().face();
            face.called_back = true;
            let callbacks = face.callbacks.as_ref().map(|list| list.clone_ref(py));
            (face.listener.take(), callbacks)
        };
        if let Some(listener) = listener {
            listener.call1(py, (slf,))?;
        }
        let Some(callbacks) = callbacks else {
            return Ok(());
        };
        // Taken out one by one: another thread may be putting one in at this moment (without the interpreter's lock, truly so), and then comes
        // here itself. Whoever takes it out runs it.
        let callbacks = callbacks.bind(py);
        while !callbacks.is_empty() {
            let callback = match callbacks.call_method1(intern!(py, "pop"), (0,)) {
                Ok(callback) => callback,
                Err(error) if error.is_instance_of::<PyIndexError>(py) => break,
                Err(error) => return Err(error),
            };
            pickling::payload(py, "run_callback")?.call1((slf, callback))?;
        }
        Ok(())
    }

    /// Stores the outcome of a task of this process and tells whoever waits.
    pub(crate) fn finish_local(slf: &Bound<'_, Self>, outcome: LocalOutcome) -> PyResult<()> {
        FutureBase::end_local(slf, outcome).map(drop)
    }

    /// The same; true when somebody was told, which may have taken its time.
    pub(crate) fn end_local(slf: &Bound<'_, Self>, outcome: LocalOutcome) -> PyResult<bool> {
        let this = slf.get();
        let Some(local) = this.local() else {
            return Ok(false);
        };
        FutureBase::track_for(slf, &outcome);
        // Under one lock: two threads may end it at the same time (its own, and the one that keeps deadlines), and what the first one stored stays.
        let (before, marks) = {
            let mut face = this.face();
            if local.cell.settled() {
                return Ok(false);
            }
            (face.outcome.replace(outcome), local.cell.end())
        };
        // What is dropped may run a finaliser.
        drop(before);
        let Some(marks) = marks else {
            return Ok(false);
        };
        FutureBase::after_local(slf, local, marks)?;
        Ok(marks.waited || marks.observed || this.by_hand())
    }

    pub(crate) fn after_local(slf: &Bound<'_, Self>, local: &Local, marks: Marks) -> PyResult<()> {
        let by_hand = slf.get().by_hand();
        if by_hand {
            FutureBase::after_cancel_by_hand(slf)?;
        } else if marks.observed {
            FutureBase::announce(slf)?;
        } else {
            slf.get().announced.store(true, Ordering::Release);
        }
        // Sleepers first: a callback may take its time.
        if marks.waited {
            local.parking.wake_all();
        }
        if marks.observed && !by_hand {
            FutureBase::complete(slf)?;
        }
        Ok(())
    }

    /// A future made by hand was cancelled: its callbacks run, its waiters are told by `set_running_or_notify_cancel`.
    pub(crate) fn after_cancel_by_hand(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let condition = FutureBase::condition(slf)?;
        condition.call_method0(intern!(py, "acquire"))?;
        let told = condition.call_method0(intern!(py, "notify_all"));
        condition.call_method0(intern!(py, "release"))?;
        told?;
        slf.call_method0(intern!(py, "_invoke_callbacks")).map(drop)
    }
}

/// What a process pool calls when observed calls have ended or workers have logged something.
pub(crate) fn announcer(
    observers: Arc<Observers>,
    pool: Arc<OnceLock<Weak<core::ProcessPool>>>,
) -> core::Announce {
    Box::new(move |ids: &[TaskId]| {
        // While the interpreter is being finalised there is nobody to tell.
        let _ = Python::try_attach(|py| {
            for id in ids {
                let future = lock(&observers).remove(id);
                if let Some(future) = future
                    && let Err(error) = FutureBase::complete(future.bind(py))
                {
                    error.write_unraisable(py, Some(future.bind(py)));
                }
            }
            let notes = pool
                .get()
                .and_then(Weak::upgrade)
                .map(|pool| pool.take_notes())
                .unwrap_or_default();
            for note in notes {
                let delivered = pickling::payload(py, "deliver_note").and_then(|deliver| {
                    let pickle = PyBytes::new(py, note.body.as_slice());
                    deliver.call1((note.worker, note.task, pickle))
                });
                if let Err(error) = delivered {
                    error.write_unraisable(py, None);
                }
            }
        });
    })
}
