//! A thread's loop over its lane: take, call, reply.
//!
//! *Guarantees*: whatever a task raises, returns or cannot pickle becomes its record; an exception that is raised for one task's sake in a
//! thread never reaches the next. No lock is held while the user's code runs, so that a signal handler may look at the lane.

use std::ffi::c_long;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use treadle_core::pool::wire;
use treadle_core::pool::worker::{Holdings, Taken, WorkerSession};
use treadle_shm::{Caller, Place, Waited};

use super::answer::{self, Answer, dump_result};
use super::call::{Functions, Ready, Work, prepare};
use super::limits::Limits;
use crate::codec::{self, Writer};
use crate::future::lock;
use crate::pickling;
use crate::threads::is_coroutine;

/// One lane, and what the other threads of the process may do with it.
pub(super) struct Lane {
    session: Mutex<WorkerSession>,
    holdings: Arc<Holdings>,
    place: Place,
    /// Calls the lane's thread out of its sleep.
    pub(super) caller: Caller,
    /// Notes of threads that found the session in use; written before the next task, or at once if there is none.
    unsent: Mutex<Vec<Vec<u8>>>,
    /// The task in which an interruption was raised last: the signal for it may come again.
    interrupted: AtomicU64,
    window: Mutex<Window>,
    /// Whether it is one of several: then its thread is not the main thread, which alone sees signals.
    in_thread: bool,
}

/// While a task of a thread may be interrupted by an exception.
#[derive(Default)]
struct Window {
    /// The task; 0 when none may be.
    task: u64,
    thread: c_long,
    raised: bool,
}

/// What a turn of the loop brought.
enum Turn {
    Task,
    Nothing,
    Leave,
}

impl Lane {
    pub(super) fn new(session: WorkerSession, in_thread: bool) -> Lane {
        Lane {
            place: session.place(0),
            caller: session.caller(),
            holdings: session.holdings().clone(),
            session: Mutex::new(session),
            unsent: Mutex::default(),
            interrupted: AtomicU64::new(0),
            window: Mutex::default(),
            in_thread,
        }
    }

    pub(super) fn session(&self) -> MutexGuard<'_, WorkerSession> {
        lock(&self.session)
    }

    /// Sends a note of the lane's own thread, which has the task in hand that the note is about.
    pub(super) fn note(&self, pickle: &[u8]) -> bool {
        self.session().post(wire::NOTE, pickle).is_ok()
    }

    /// Sends a note of any thread.
    pub(super) fn note_from_elsewhere(&self, pickle: &[u8]) -> bool {
        lock(&self.unsent).push(pickle.to_vec());
        // The lane's thread may sleep with the session in its hands: never wait for it.
        match self.session.try_lock() {
            Ok(mut session) => self.send_notes(&mut session),
            Err(_) => {
                self.caller.call();
                true
            }
        }
    }

    fn send_notes(&self, session: &mut WorkerSession) -> bool {
        let notes = std::mem::take(&mut *lock(&self.unsent));
        // In a process of one task they are taken for that task's; of several, nobody can say.
        let task = if self.in_thread { 0 } else { session.current() };
        notes
            .iter()
            .all(|note| session.post_for(task, wire::NOTE, note).is_ok())
    }

    /// Whether the parent wants the task in hand interrupted; true once for each task. For the signal handler of a process of one task.
    pub(super) fn interrupt_requested(&self) -> bool {
        // The swap comes last: once for each task.
        self.place
            .heed()
            .is_some_and(|wanted| wanted != self.interrupted.swap(wanted, Ordering::Relaxed))
    }

    /// Raises an exception in the lane's thread if the parent wants its task interrupted; once for each task. Called by the main thread.
    #[allow(unsafe_code)]
    pub(super) fn raise_if_requested(&self, exception: &Bound<'_, PyAny>) {
        let Some(wanted) = self.place.heed() else {
            return;
        };
        let mut window = lock(&self.window);
        if window.task != wanted || window.raised {
            return;
        }
        window.raised = true;
        // SAFETY: this thread is attached to the interpreter; the class is alive, and the interpreter takes a reference of its own.
        unsafe { ffi::PyThreadState_SetAsyncExc(window.thread, exception.as_ptr()) };
    }

    fn open_window(&self, task: u64, thread: c_long) {
        if self.in_thread {
            *lock(&self.window) = Window {
                task,
                thread,
                raised: false,
            };
        }
    }

    /// From here on nothing is raised for this task. What was and has not come yet never comes.
    #[allow(unsafe_code)]
    fn close_window(&self) {
        if !self.in_thread {
            return;
        }
        let mut window = lock(&self.window);
        window.task = 0;
        if window.raised {
            // SAFETY: this thread is attached to the interpreter; no exception means that a pending one is dropped.
            unsafe { ffi::PyThreadState_SetAsyncExc(window.thread, std::ptr::null_mut()) };
        }
    }

    /// Runs tasks until the parent asks to leave, or the process has reached a limit.
    pub(super) fn run_tasks(&self, py: Python<'_>, limits: &Limits) -> PyResult<()> {
        // An address, which fits; the binding has the sign of the oldest interpreters.
        let thread = PyModule::import(py, "_thread")?
            .call_method0("get_ident")?
            .extract::<u64>()? as c_long;
        let mut known = Functions::new();
        let mut payload = Vec::new();
        loop {
            match self.turn(py, &mut known, &mut payload, limits, thread)? {
                Turn::Task if limits.reached().is_none() => {}
                Turn::Nothing => py.check_signals()?,
                Turn::Task | Turn::Leave => break,
            }
        }
        // A wake-up spent on this lane is for somebody who stays.
        self.session().pass_on();
        Ok(())
    }

    fn turn(
        &self,
        py: Python<'_>,
        known: &mut Functions,
        payload: &mut Vec<u8>,
        limits: &Limits,
        thread: c_long,
    ) -> PyResult<Turn> {
        let taken = {
            let mut session = self.session();
            self.send_notes(&mut session);
            if session.stop_requested() {
                None
            } else {
                limits.count(|| session.take(payload))
            }
        };
        match taken {
            Some(Ok(taken)) => self.handle(py, known, taken, payload, thread)?,
            Some(Err((task, error))) => {
                let error = answer::unreadable(py, &error)?;
                answer::reply(py, || self.session(), 0, task, Err(error))?;
            }
            None if limits.reached().is_some() => return Ok(Turn::Leave),
            None => {
                let waited = py.detach(|| self.session().wait(None));
                return Ok(if waited == Waited::Stop {
                    Turn::Leave
                } else {
                    Turn::Nothing
                });
            }
        }
        limits.look();
        Ok(Turn::Task)
    }

    /// One task from its bytes to its record.
    fn handle(
        &self,
        py: Python<'_>,
        known: &mut Functions,
        mut taken: Taken,
        payload: &[u8],
        thread: c_long,
    ) -> PyResult<()> {
        let task = taken.task;
        if taken.interrupted {
            self.interrupted.store(task, Ordering::Relaxed);
            let error = PyErr::from_value(pickling::outcome(py, "interrupted_early")?.call0()?);
            return answer::reply(py, || self.session(), 0, task, Err(error));
        }
        self.open_window(task, thread);
        let prepared = prepare(py, &self.holdings, known, &mut taken, payload);
        let (ran, rebuilt) = match prepared {
            Ok(ready) => (self.run(task, ready), true),
            Err(error) => (Err(error), false),
        };
        let packed = match &ran {
            Ok(answer) => answer.pack(py),
            Err(error) => Err(error.clone_ref(py)),
        };
        self.close_window();
        let packed = match packed {
            Err(error) if !rebuilt => Err(answer::not_rebuilt(py, &error)?),
            packed => packed,
        };
        answer::reply(py, || self.session(), 0, task, packed)
    }

    fn run<'py>(&self, task: u64, ready: Ready<'py>) -> PyResult<Answer<'py>> {
        match ready.work {
            Work::One(arguments, keywords) => {
                let result = finish_coroutine(ready.function.call(arguments, keywords.as_ref())?)?;
                Ok(Answer::One(result))
            }
            Work::Chunk(items, single) => self.run_chunk(task, &ready.function, items, single),
        }
    }

    /// Runs the items of a chunk, one after the other, as far as the parent leaves them here. Each result is kept as soon as it is there.
    fn run_chunk<'py>(
        &self,
        task: u64,
        function: &Bound<'py, PyAny>,
        items: Vec<Bound<'py, PyAny>>,
        single: bool,
    ) -> PyResult<Answer<'py>> {
        let began = Instant::now();
        let mut more = {
            let mut session = self.session();
            session.begin_chunk(task, items.len());
            session.next_item()
        };
        let mut spare = Vec::new();
        for item in items {
            if !more {
                break;
            }
            let kept = if single {
                function.call1((item,))
            } else {
                item.cast_into::<PyTuple>()
                    .map_err(PyErr::from)
                    .and_then(|arguments| function.call1(arguments))
            }
            .and_then(finish_coroutine)
            .and_then(|result| self.keep(task, &result, &mut spare));
            more = match kept {
                Ok(more) => more,
                Err(error) => {
                    self.session()
                        .cut_chunk(task)
                        .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
                    return Err(error);
                }
            };
        }
        Ok(Answer::Chunk(began.elapsed().as_secs_f64()))
    }

    /// Puts one result of a chunk into the draft; whether there is another item to run.
    fn keep(&self, task: u64, result: &Bound<'_, PyAny>, spare: &mut Vec<u8>) -> PyResult<bool> {
        let py = result.py();
        let mut writer = Writer::from(std::mem::take(spare), 0);
        writer.out.clear();
        let kept = if writer.write(result) {
            self.session().keep(
                task,
                &mut |first, out| {
                    if first == 0 || writer.apart.is_empty() {
                        out.extend_from_slice(&writer.out);
                    } else {
                        let mut again = Writer::from(std::mem::take(out), first);
                        again.write(result);
                        *out = again.out;
                    }
                },
                &writer.apart,
            )
        } else {
            let pickled = dump_result(result)?;
            let bytes = pickled.bytes.as_bytes();
            let buffers = pickled.slices();
            self.session().keep(
                task,
                &mut |first, out| codec::write_pickled(out, bytes, first, buffers.len()),
                &buffers,
            )
        };
        *spare = writer.out;
        match kept {
            Ok(more) => Ok(more),
            Err(error) => Err(PyErr::from_value(
                pickling::outcome(py, "no_memory")?.call1((error.to_string(),))?,
            )),
        }
    }
}

fn finish_coroutine(result: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    if is_coroutine(&result) {
        pickling::run_coroutine(result)
    } else {
        Ok(result)
    }
}
