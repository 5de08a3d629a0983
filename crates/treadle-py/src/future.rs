//! The native half of `treadle.Future`: state, result and waiting without the standard library's condition variable.
//!
//! `treadle.Future` derives from this class and from `concurrent.futures.Future`. The standard library's own functions (`wait`, `as_completed`,
//! `asyncio.wrap_future`) reach into `_condition`, `_state`, `_waiters` and `_done_callbacks`; these appear when they are first touched, and
//! touching them marks the future *observed*: from then on its completion is also announced there, by the collector, before `_state` says FINISHED.
//! A future that nobody observes costs one allocation and no lock.
//!
//! *Guarantees*: `_state` says FINISHED only when every installed waiter has been told, so that `as_completed` never sees a future twice.
//! Callbacks run once. No native lock is held while Python code runs, so that none is held where a build without the interpreter's lock stops all
//! threads; and nothing here relies on that lock to keep two steps together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyTuple, PyType};
use treadle_core::pool::cell::{Cell, Phase};
use treadle_core::pool::outcome::Outcome;
use treadle_core::pool::processes::ProcessPool;
use treadle_core::pool::tasks::TaskId;
use treadle_shm::Parking;

use crate::pickling;

/// An outcome as asyncio wants it: a result, or an exception.
type Ended = (Option<Py<PyAny>>, Option<Py<PyAny>>);

/// How a task of this process ends: a result, or an exception.
pub(crate) type LocalOutcome = Result<Py<PyAny>, Py<PyAny>>;

/// A task that runs in this process, or a future that somebody made by hand.
#[derive(Default)]
pub(crate) struct Local {
    pub(crate) cell: Cell<()>,
    pub(crate) parking: Parking,
    /// Its state is written through the standard library's fields, by whoever made it: then so are its waiters told.
    pub(crate) by_hand: AtomicBool,
}

/// Where a future's outcome comes from.
pub(crate) enum Source {
    Local(Local),
    Process {
        pool: Arc<ProcessPool>,
        id: TaskId,
        cell: Arc<Cell<Outcome>>,
        observers: Arc<Observers>,
    },
}

/// The observed futures of one process pool, kept until their end is announced.
pub(crate) type Observers = Mutex<HashMap<TaskId, Py<FutureBase>>>;

/// What only Python sees, made on first touch.
#[derive(Default)]
pub(crate) struct Face {
    pub(crate) condition: Option<Py<PyAny>>,
    pub(crate) waiters: Option<Py<PyList>>,
    pub(crate) callbacks: Option<Py<PyList>>,
    /// The callbacks were taken: one that comes now runs at once.
    pub(crate) called_back: bool,
    pub(crate) outcome: Option<LocalOutcome>,
    /// Called with the future when it has ended, before the callbacks: how asyncio hears of it without a condition variable.
    pub(crate) listener: Option<Py<PyAny>>,
}

/// The native half of a future.
#[pyclass(subclass, frozen, weakref, module = "treadle._core")]
pub(crate) struct FutureBase {
    source: OnceLock<Source>,
    face: Mutex<Face>,
    /// The completion was announced to waiters (or there was nobody to announce it to).
    pub(crate) announced: AtomicBool,
}

/// The class `treadle.Future`, told to this module by the package.
static FUTURE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// Tells this module which class its futures have.
#[pyfunction]
pub(crate) fn register_future(py: Python<'_>, class: Bound<'_, PyType>) -> PyResult<()> {
    FUTURE
        .set(py, class.unbind())
        .map_err(|_| PyRuntimeError::new_err("the future's class is set already"))
}

/// Makes a `treadle.Future` without running `concurrent.futures.Future.__init__`, which costs ten times as much as the rest.
#[allow(unsafe_code)]
pub(crate) fn new_future(py: Python<'_>, source: Source) -> PyResult<Bound<'_, FutureBase>> {
    static EMPTY: PyOnceLock<Py<PyTuple>> = PyOnceLock::new();
    let class = FUTURE
        .get(py)
        .ok_or_else(|| PyRuntimeError::new_err("treadle is not imported completely"))?
        .bind(py);
    let empty = EMPTY
        .get_or_init(py, || PyTuple::empty(py).unbind())
        .bind(py);
    // SAFETY: the class derives from FutureBase (it was made by the package from it) and its `tp_new` is FutureBase's, inherited; it is
    // called with the class and an empty tuple, as `type.__call__` does. What it makes is an instance of the class.
    let future: Bound<'_, FutureBase> = unsafe {
        let class = class.as_type_ptr();
        let new = (*class)
            .tp_new
            .ok_or_else(|| PyTypeError::new_err("the future's class cannot be instantiated"))?;
        Bound::from_owned_ptr_or_err(py, new(class, empty.as_ptr(), std::ptr::null_mut()))?
            .cast_into_unchecked()
    };
    FutureBase::untrack(&future);
    let _ = future.get().source.set(source);
    Ok(future)
}

/// A pending future of a task of this process, for the strategies written in Python; unlike `Future()` its waiters are told by `_finish`,
/// `_fail` and `cancel`.
#[pyfunction]
pub(crate) fn pending_future(py: Python<'_>) -> PyResult<Bound<'_, FutureBase>> {
    new_future(py, Source::Local(Local::default()))
}

/// Which futures the cyclic collector looks at.
///
/// One that was just made refers to nothing, and most end with a number, a text or `None`: the collector would visit each of the thousands that
/// wait several times for nothing, which takes as long as the rest of a tiny task. So a future is left out until it refers to something that may
/// refer back: an outcome of a type with references, a callback, a condition, an attribute. (Only what is put into `vars(future)` itself is not seen.)
impl FutureBase {
    /// Leaves a future that was just made out of what the collector looks at.
    #[allow(unsafe_code)]
    fn untrack(_slf: &Bound<'_, Self>) {
        #[cfg(not(Py_GIL_DISABLED))]
        // SAFETY: a live object of a type with cyclic collection; leaving out one that is left out already does nothing.
        unsafe {
            ffi::PyObject_GC_UnTrack(_slf.as_ptr().cast());
        }
    }

    /// Has the collector look at the future from now on.
    #[allow(unsafe_code)]
    pub(crate) fn track(_slf: &Bound<'_, Self>) {
        #[cfg(not(Py_GIL_DISABLED))]
        // SAFETY: a live, whole object of a type with cyclic collection, which is not looked at yet; the interpreter's lock is held between
        // the question and the change.
        unsafe {
            if ffi::PyObject_GC_IsTracked(_slf.as_ptr()) == 0 {
                ffi::PyObject_GC_Track(_slf.as_ptr().cast());
            }
        }
    }

    /// The same, if this outcome may refer back to the future.
    #[allow(unsafe_code)]
    pub(crate) fn track_for(slf: &Bound<'_, Self>, outcome: &LocalOutcome) {
        let (Ok(value) | Err(value)) = outcome;
        // SAFETY: a live object has a type.
        if unsafe { ffi::PyType_IS_GC(ffi::Py_TYPE(value.as_ptr())) } != 0 {
            FutureBase::track(slf);
        }
    }
}

impl FutureBase {
    pub(crate) fn source(&self) -> &Source {
        self.source.get_or_init(|| Source::Local(Local::default()))
    }

    /// The part of a future whose task runs in this process.
    pub(crate) fn local(&self) -> Option<&Local> {
        match self.source() {
            Source::Local(local) => Some(local),
            Source::Process { .. } => None,
        }
    }

    pub(crate) fn face(&self) -> MutexGuard<'_, Face> {
        lock(&self.face)
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.source() {
            Source::Local(local) => local.cell.phase(),
            Source::Process { cell, .. } => cell.phase(),
        }
    }

    pub(crate) fn observed(&self) -> bool {
        match self.source() {
            Source::Local(local) => local.cell.observed(),
            Source::Process { cell, .. } => cell.observed(),
        }
    }

    /// Whether the outcome is there and nobody must still be told before it may be seen.
    pub(crate) fn settled(&self) -> bool {
        matches!(self.phase(), Phase::Finished | Phase::Cancelled)
            && (!self.observed() || self.announced.load(Ordering::Acquire) || self.by_hand())
    }

    pub(crate) fn by_hand(&self) -> bool {
        match self.source() {
            Source::Local(local) => local.by_hand.load(Ordering::Acquire),
            Source::Process { .. } => false,
        }
    }
}

/// Locks; what a panicking thread left is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[pymethods]
impl FutureBase {
    #[new]
    fn new() -> FutureBase {
        FutureBase {
            source: OnceLock::new(),
            face: Mutex::default(),
            announced: AtomicBool::new(false),
        }
    }

    /// Returns the result, waiting for it up to `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn result(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        FutureBase::awaited(slf, timeout)?
            .map_err(|error| PyErr::from_value(error.into_bound(slf.py())))
    }

    /// Returns the exception, or `None`, waiting up to `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn exception(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Option<Py<PyAny>>> {
        Ok(FutureBase::awaited(slf, timeout)?.err())
    }

    /// Whether the call has ended or was cancelled.
    fn done(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let this = slf.get();
        if let Source::Process { pool, cell, .. } = this.source()
            && !cell.settled()
        {
            slf.py().detach(|| pool.drain());
        }
        if this.settled() {
            return Ok(true);
        }
        if matches!(this.phase(), Phase::Finished | Phase::Cancelled) {
            FutureBase::announce(slf)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether the call was cancelled before it began.
    fn cancelled(&self) -> bool {
        self.phase() == Phase::Cancelled
    }

    /// Whether a worker has the call now.
    fn running(&self, py: Python<'_>) -> bool {
        match self.source() {
            Source::Local(local) => local.cell.phase() == Phase::Running,
            Source::Process { pool, id, cell, .. } => py.detach(|| {
                pool.drain();
                !cell.settled() && pool.is_running(*id)
            }),
        }
    }

    /// Cancels the call if no worker has it yet; exact.
    fn cancel(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let this = slf.get();
        match this.source() {
            Source::Local(local) => match local.cell.cancel() {
                Some(marks) => FutureBase::after_local(slf, local, marks)?,
                None => return Ok(this.cancelled()),
            },
            Source::Process {
                pool,
                id,
                cell,
                observers,
            } => {
                if !slf.py().detach(|| pool.is_mine() && pool.cancel(*id)) {
                    return Ok(cell.phase() == Phase::Cancelled);
                }
                let watched = lock(observers).remove(id);
                if watched.is_some() {
                    FutureBase::complete(slf)?;
                }
            }
        }
        Ok(true)
    }

    /// Takes a pending future of an executor made by hand for running; false when it was cancelled, and its waiters are told so.
    fn set_running_or_notify_cancel(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let this = slf.get();
        match this.local() {
            Some(local) if local.cell.start() => Ok(true),
            Some(_) if this.phase() == Phase::Cancelled => {
                FutureBase::announce(slf)?;
                Ok(false)
            }
            _ => Err(PyRuntimeError::new_err(
                "Future in unexpected state: it runs or has ended",
            )),
        }
    }

    /// Calls `callback(future)` when the call has ended or was cancelled; at once if it has.
    fn add_done_callback(slf: &Bound<'_, Self>, callback: Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let fresh = PyList::empty(py).unbind();
        let late = this.by_hand() && matches!(this.phase(), Phase::Finished | Phase::Cancelled);
        let list = {
            let mut face = this.face();
            (!face.called_back && !late).then(|| face.callbacks.get_or_insert(fresh).clone_ref(py))
        };
        let Some(list) = list else {
            pickling::payload(py, "run_callback")?.call1((slf, callback))?;
            return Ok(());
        };
        list.bind(py).append(callback)?;
        if !this.observed() {
            FutureBase::observe(slf);
        }
        if this.announced.load(Ordering::Acquire) && !this.by_hand() {
            // It ended before anybody observed it, or it was completed while the callback was being entered.
            FutureBase::complete(slf)?;
        }
        Ok(())
    }

    #[getter(_condition)]
    fn condition_attribute<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        FutureBase::condition(slf)
    }

    #[setter(_condition)]
    fn set_condition_attribute(slf: &Bound<'_, Self>, value: Py<PyAny>) {
        let before = slf.get().face().condition.replace(value);
        drop(before);
        FutureBase::observe(slf);
    }

    #[getter(_waiters)]
    fn waiters_attribute<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let list = FutureBase::list(slf, |face| &mut face.waiters)?;
        crate::threads::waiters_of(slf, list)
    }

    #[setter(_waiters)]
    fn set_waiters_attribute(slf: &Bound<'_, Self>, value: Py<PyList>) {
        FutureBase::track(slf);
        let before = slf.get().face().waiters.replace(value);
        drop(before);
    }

    #[getter(_done_callbacks)]
    fn done_callbacks_attribute<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyList>> {
        FutureBase::list(slf, |face| &mut face.callbacks)
    }

    #[setter(_done_callbacks)]
    fn set_done_callbacks_attribute(slf: &Bound<'_, Self>, value: Py<PyList>) {
        FutureBase::track(slf);
        let before = slf.get().face().callbacks.replace(value);
        drop(before);
    }

    #[getter(_state)]
    fn state_attribute(&self, py: Python<'_>) -> &'static str {
        match self.phase() {
            Phase::Cancelled if self.by_hand() && !self.announced.load(Ordering::Acquire) => {
                "CANCELLED"
            }
            Phase::Cancelled if self.settled() => "CANCELLED_AND_NOTIFIED",
            Phase::Cancelled => "CANCELLED",
            Phase::Finished if self.settled() => "FINISHED",
            _ if self.running(py) => "RUNNING",
            _ => "PENDING",
        }
    }

    #[setter(_state)]
    fn set_state_attribute(slf: &Bound<'_, Self>, value: &str) -> PyResult<()> {
        let this = slf.get();
        let Some(local) = this.local() else {
            return Err(PyRuntimeError::new_err(
                "the state of a pool's future is set by its pool",
            ));
        };
        local.by_hand.store(true, Ordering::Release);
        match value {
            "PENDING" => {}
            "RUNNING" => _ = local.cell.start(),
            "CANCELLED" => _ = local.cell.cancel(),
            "CANCELLED_AND_NOTIFIED" => {
                _ = local.cell.cancel();
                this.announced.store(true, Ordering::Release);
            }
            "FINISHED" => {
                // The standard library's set_result notifies and calls back itself after this.
                _ = local.cell.finish(());
                this.announced.store(true, Ordering::Release);
                local.parking.wake_all();
            }
            other => {
                return Err(PyValueError::new_err(format!(
                    "no future has the state {other:?}"
                )));
            }
        }
        Ok(())
    }

    #[getter(_result)]
    fn result_attribute(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        Ok(FutureBase::outcome(slf)?.and_then(Result::ok))
    }

    #[setter(_result)]
    fn set_result_attribute(slf: &Bound<'_, Self>, value: Py<PyAny>) {
        let this = slf.get();
        if !value.is_none(slf.py()) || this.face().outcome.is_none() {
            FutureBase::track(slf);
            let before = this.face().outcome.replace(Ok(value));
            drop(before);
        }
    }

    #[getter(_exception)]
    fn exception_attribute(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        Ok(FutureBase::outcome(slf)?.and_then(Result::err))
    }

    #[setter(_exception)]
    fn set_exception_attribute(slf: &Bound<'_, Self>, value: Py<PyAny>) {
        if !value.is_none(slf.py()) {
            FutureBase::track(slf);
            let before = slf.get().face().outcome.replace(Err(value));
            drop(before);
        }
    }

    /// The task's id in its process pool; 0 for other futures.
    #[getter(_task)]
    fn task_attribute(&self) -> u64 {
        match self.source() {
            Source::Process { id, .. } => *id,
            Source::Local(_) => 0,
        }
    }

    /// Takes a pending task of this process for running; false when it was cancelled. For the strategies written in Python.
    fn _start(&self) -> bool {
        self.local().is_some_and(|local| local.cell.start())
    }

    /// Ends a task of this process with a result. For the strategies written in Python.
    fn _finish(slf: &Bound<'_, Self>, value: Py<PyAny>) -> PyResult<()> {
        FutureBase::finish_local(slf, Ok(value))
    }

    /// Ends a task of this process with an exception. For the strategies written in Python.
    fn _fail(slf: &Bound<'_, Self>, error: Py<PyAny>) -> PyResult<()> {
        FutureBase::finish_local(slf, Err(error))
    }

    /// Has `listener(future)` called once when the call has ended; false, and not called, when it has ended already.
    fn _listen(slf: &Bound<'_, Self>, listener: Py<PyAny>) -> bool {
        let this = slf.get();
        this.face().listener = Some(listener);
        FutureBase::observe(slf);
        if matches!(this.phase(), Phase::Finished | Phase::Cancelled)
            && this.face().listener.take().is_some()
        {
            return false;
        }
        true
    }

    /// The outcome of an ended call: `(result, None)`, `(None, exception)`, or `None` when it was cancelled.
    fn _ended(slf: &Bound<'_, Self>) -> PyResult<Option<Ended>> {
        Ok(FutureBase::outcome(slf)?.map(|outcome| match outcome {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(error)),
        }))
    }

    /// Announces the end of an observed future and runs its callbacks. Called by the collector.
    fn _complete(slf: &Bound<'_, Self>) -> PyResult<()> {
        FutureBase::complete(slf)
    }

    /// Asks the worker to stop this running task; kills the worker after `grace` seconds. False when no worker runs it.
    fn _interrupt_in_process(&self, py: Python<'_>, grace: f64) -> PyResult<bool> {
        let grace = Duration::try_from_secs_f64(grace.max(0.0))
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        match self.source() {
            Source::Process { pool, id, .. } => Ok(py.detach(|| pool.interrupt(*id, grace))),
            Source::Local(_) => Ok(false),
        }
    }

    /// An attribute of somebody's own may refer back to the future.
    #[allow(unsafe_code)]
    fn __setattr__(
        slf: &Bound<'_, Self>,
        name: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        FutureBase::track(slf);
        // SAFETY: three live objects; this is what a class without `__setattr__` does.
        let set =
            unsafe { ffi::PyObject_GenericSetAttr(slf.as_ptr(), name.as_ptr(), value.as_ptr()) };
        if set < 0 {
            return Err(PyErr::fetch(slf.py()));
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Never waits: the collector may run while this thread holds the lock, and then it just looks again later.
        let Ok(face) = self.face.try_lock() else {
            return Ok(());
        };
        if let Some(condition) = &face.condition {
            visit.call(condition)?;
        }
        if let Some(waiters) = &face.waiters {
            visit.call(waiters)?;
        }
        if let Some(callbacks) = &face.callbacks {
            visit.call(callbacks)?;
        }
        if let Some(listener) = &face.listener {
            visit.call(listener)?;
        }
        match &face.outcome {
            Some(Ok(value) | Err(value)) => visit.call(value),
            None => Ok(()),
        }
    }

    fn __clear__(&self) {
        let face = self
            .face
            .try_lock()
            .map(|mut face| std::mem::take(&mut *face));
        drop(face);
    }
}
