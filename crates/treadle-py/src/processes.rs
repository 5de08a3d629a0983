//! `_core.ProcessPool`: calls to payloads, payloads to the pool, ends of tasks back to their futures.

use std::collections::HashMap;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCFunction, PyDict, PyFunction, PyList, PyTuple, PyType};
use treadle_core::pool::meter::{Buckets, Histogram};
use treadle_core::pool::processes::{self as core, Call, Settings, SubmitError, Waited};
use treadle_core::pool::tasks::TaskOptions;
use treadle_core::pool::transfer::Transfer;
use treadle_core::pool::wire;
use treadle_core::pool::zygote::Launch;
use treadle_shm::BlockRef;

use crate::codec::Writer;
use crate::completion::announcer;
use crate::future::{FutureBase, Observers, Source, lock, new_future};
use crate::outcome::submit_error;
use crate::pickling;
use crate::waiting::deadline_after;

/// Payloads from this size on are copied with the interpreter's lock released.
const RELEASE_LOCK_FROM: usize = 64 * 1024;

/// How often a shutdown looks whether the last ends and notes have been handed over: that takes some ten microseconds.
const HAND_OVER_LOOK: Duration = Duration::from_micros(50);

/// Functions that the workers know by number, by the identity of an object that is kept alive here.
type Functions = HashMap<usize, (Py<PyAny>, u32, BlockRef)>;

/// A pool of worker processes.
#[pyclass(frozen, module = "treadle._core")]
pub(crate) struct ProcessPool {
    core: Arc<core::ProcessPool>,
    observers: Arc<Observers>,
    functions: Mutex<Functions>,
    may_wait: bool,
}

/// What is to be called.
enum Callee {
    Known(u32, BlockRef),
    /// It travels with the arguments; the number of its name.
    Carried(u32),
}

impl ProcessPool {
    fn options(timeout: Option<f64>, retries: u32) -> PyResult<TaskOptions> {
        let timeout = match timeout {
            Some(seconds) => Some(Duration::try_from_secs_f64(seconds).map_err(|_| {
                PyValueError::new_err(format!(
                    "timeout must be a number of seconds above 0, not {seconds}"
                ))
            })?),
            None => None,
        };
        Ok(TaskOptions { timeout, retries })
    }

    fn callee(&self, function: &Bound<'_, PyAny>) -> PyResult<Callee> {
        let key = function.as_ptr() as usize;
        if let Some((_, id, block)) = lock(&self.functions).get(&key) {
            return Ok(Callee::Known(*id, *block));
        }
        // Only what can never change between two submits may be kept: plain functions, built-in ones and classes.
        let plain = function.is_exact_instance_of::<PyFunction>()
            || function.is_exact_instance_of::<PyCFunction>()
            || function.is_instance_of::<PyType>();
        if !plain {
            return self.carried(function);
        }
        let py = function.py();
        let described: Option<(Bound<'_, PyBytes>, String)> =
            pickling::payload(py, "by_reference")?
                .call1((function,))?
                .extract()?;
        let Some((pickle, label)) = described else {
            return self.carried(function);
        };
        let (id, block) = self
            .core
            .add_function(pickle.as_bytes(), &label)
            .map_err(|error| submit_error(py, &error))?;
        lock(&self.functions).insert(key, (function.clone().unbind(), id, block));
        Ok(Callee::Known(id, block))
    }

    fn carried(&self, function: &Bound<'_, PyAny>) -> PyResult<Callee> {
        let named = pickling::payload(function.py(), "name_of")?.call1((function,))?;
        Ok(Callee::Carried(self.core.label(named.extract()?)))
    }

    /// The call's future; `None` when the pool is full and the call does not wait.
    fn send<'py>(
        &self,
        py: Python<'py>,
        call: &Call<'_>,
    ) -> PyResult<Option<Bound<'py, FutureBase>>> {
        let bytes = call.body.len()
            + call
                .buffers
                .iter()
                .map(|(buffer, _)| buffer.len())
                .sum::<usize>();
        let entered = if self.may_wait && call.wait || bytes >= RELEASE_LOCK_FROM {
            loop {
                match py.detach(|| self.core.submit(call)) {
                    Err(SubmitError::Interrupted) => py.check_signals()?,
                    other => break other,
                }
            }
        } else {
            self.core.submit(call)
        };
        let (id, cell) = match entered {
            Err(SubmitError::Full) => return Ok(None),
            other => other.map_err(|error| submit_error(py, &error))?,
        };
        let source = Source::Process {
            pool: self.core.clone(),
            id,
            cell,
            observers: self.observers.clone(),
        };
        Ok(Some(new_future(py, source)?))
    }

    /// Sends a pickled call or chunk. What pickle refused goes by value if `otherwise` can (an optional library), else the future has failed
    /// with the error that explains. `kinds`: of the body as pickled, and of one that carries its function.
    fn send_pickled<'py>(
        &self,
        py: Python<'py>,
        kinds: (u32, u32),
        (known, label): (Option<(u32, BlockRef)>, u32),
        pickled: PyResult<pickling::Pickled<'py>>,
        otherwise: impl FnOnce(&PyErr) -> PyResult<Bound<'py, PyAny>>,
        (options, wait, began_ns): (TaskOptions, bool, Option<u64>),
    ) -> PyResult<Option<Bound<'py, FutureBase>>> {
        let (kind, function, pickled) = match pickled.and_then(pickling::Pickled::importable) {
            Ok(pickled) => (kinds.0, known, pickled),
            Err(error) => match otherwise(&error) {
                Ok(bytes) => {
                    let bytes = bytes.cast_into::<PyBytes>()?;
                    let buffers = Vec::new();
                    (kinds.1, None, pickling::Pickled { bytes, buffers })
                }
                Err(error) => return ProcessPool::failed(py, &error).map(Some),
            },
        };
        let call = Call {
            kind,
            function,
            label,
            body: pickled.bytes.as_bytes(),
            buffers: &pickled.slices(),
            options,
            wait,
            began_ns,
        };
        self.send(py, &call)
    }

    /// Submits `function(*arguments, **keywords)`. `None` when the pool is full and the call does not wait.
    pub(crate) fn enter<'py>(
        &self,
        py: Python<'py>,
        function: &Bound<'py, PyAny>,
        (arguments, keywords): (&Bound<'py, PyTuple>, Option<&Bound<'py, PyDict>>),
        (timeout, retries): (Option<f64>, u32),
        wait: bool,
    ) -> PyResult<Option<Bound<'py, FutureBase>>> {
        let options = ProcessPool::options(timeout, retries)?;
        let keywords = keywords.filter(|keywords| !keywords.is_empty());
        let (known, label) = match self.callee(function)? {
            Callee::Known(id, block) => (Some((id, block)), id),
            Callee::Carried(label) => (None, label),
        };
        if known.is_some() && keywords.is_none() {
            let mut writer = Writer::default();
            if arguments
                .as_slice()
                .iter()
                .all(|argument| writer.write(argument))
            {
                let call = Call {
                    kind: wire::CALL_SCALARS,
                    function: known,
                    label,
                    body: &writer.out,
                    buffers: &writer.apart,
                    options,
                    wait,
                    began_ns: self.begin_copying(&writer),
                };
                return self.send(py, &call);
            }
        }
        let empty;
        let keywords = match keywords {
            Some(keywords) => keywords,
            None => {
                empty = PyDict::new(py);
                &empty
            }
        };
        let began_ns = self.core.begin_call();
        let (kind, pickled) = match known {
            Some(_) => (
                wire::CALL_PICKLED,
                pickling::dump((arguments, keywords).into_pyobject(py)?.as_any()),
            ),
            None => (
                wire::CALL_WHOLE,
                pickling::dump((function, arguments, keywords).into_pyobject(py)?.as_any()),
            ),
        };
        let otherwise = |error: &PyErr| {
            pickling::payload(py, "dump_call_otherwise")?.call1((
                function,
                arguments,
                keywords,
                error.value(py),
            ))
        };
        self.send_pickled(
            py,
            (kind, wire::CALL_WHOLE),
            (known, label),
            pickled,
            otherwise,
            (options, wait, began_ns),
        )
    }

    /// When the way of coded values begins: timed only if there is something to copy beside them.
    fn begin_copying(&self, writer: &Writer<'_>) -> Option<u64> {
        if writer.apart.is_empty() {
            return None;
        }
        self.core.begin_call()
    }

    /// A future that has failed already, as the standard library's does when a call cannot be pickled.
    fn failed<'py>(py: Python<'py>, error: &PyErr) -> PyResult<Bound<'py, FutureBase>> {
        let future = new_future(py, Source::Local(crate::future::Local::default()))?;
        FutureBase::finish_local(&future, Err(error.value(py).clone().into_any().unbind()))?;
        Ok(future)
    }
}

/// Bounds in seconds, counts and sum, as `treadle.strategies.Histogram` takes them.
pub(crate) type HistogramTold = (Vec<f64>, Vec<u64>, f64);

/// A histogram for Python.
pub(crate) fn histogram(found: &Histogram) -> HistogramTold {
    (
        Histogram::bounds_s().to_vec(),
        found.counts().to_vec(),
        found.sum_s(),
    )
}

/// Bounds in bytes, counts and sum, as `treadle.strategies.Sizes` takes them.
pub(crate) type SizesTold = (Vec<u64>, Vec<u64>, u64);

fn sizes<const FIRST_POWER: u32>(found: &Buckets<FIRST_POWER>) -> SizesTold {
    (
        Buckets::<FIRST_POWER>::bounds().to_vec(),
        found.counts().to_vec(),
        found.sum(),
    )
}

/// In band, out of band and time, as `treadle.strategies.Transfer` takes them.
fn transfer(found: &Transfer) -> (SizesTold, SizesTold, HistogramTold) {
    (
        sizes(&found.in_band),
        sizes(&found.out_of_band),
        histogram(&found.time),
    )
}

#[pymethods]
impl ProcessPool {
    /// Makes a pool; its workers start with the first call. The `inherited` descriptors become the pool's own; each worker gets copies of them.
    #[new]
    #[pyo3(signature = (*, workers, program, arguments, environment, preparation, worker_fields, initializer, inherited, payload_limit, max_pending, metered=true))]
    #[allow(unsafe_code, clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        workers: u32,
        program: String,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
        preparation: Vec<Vec<u8>>,
        worker_fields: Vec<Vec<u8>>,
        initializer: Option<Vec<u8>>,
        inherited: Vec<i32>,
        payload_limit: u64,
        max_pending: Option<usize>,
        metered: bool,
    ) -> PyResult<ProcessPool> {
        let launch = Launch {
            program,
            arguments,
            environment,
            preparation,
        };
        if inherited.iter().any(|descriptor| *descriptor < 0) {
            return Err(PyValueError::new_err("an inherited descriptor is not open"));
        }
        let inherited = inherited
            .into_iter()
            // SAFETY: the caller hands over descriptors that it duplicated for this pool and does not use again.
            .map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) })
            .collect();
        let settings = Settings {
            workers,
            launch,
            worker_fields,
            initializer,
            inherited,
            arena_limit: payload_limit,
            max_pending,
            metered,
        };
        let observers: Arc<Observers> = Arc::default();
        let slot = Arc::new(OnceLock::new());
        let core = core::ProcessPool::new(settings, announcer(observers.clone(), slot.clone()))
            .map_err(|error| submit_error(py, &error))?;
        let _ = slot.set(Arc::downgrade(&core));
        Ok(ProcessPool {
            core,
            observers,
            functions: Mutex::default(),
            may_wait: max_pending.is_some(),
        })
    }

    /// Submits `function(*arguments, **keywords)`; waits while the pool is full.
    #[pyo3(signature = (function, arguments, keywords, timeout, retries))]
    fn submit<'py>(
        &self,
        py: Python<'py>,
        function: &Bound<'py, PyAny>,
        arguments: &Bound<'py, PyTuple>,
        keywords: Option<&Bound<'py, PyDict>>,
        timeout: Option<f64>,
        retries: u32,
    ) -> PyResult<Option<Bound<'py, FutureBase>>> {
        self.enter(
            py,
            function,
            (arguments, keywords),
            (timeout, retries),
            true,
        )
    }

    /// Submits the calls `function(item)` (`single`) or `function(*item)` for every item of a list, as one task whose result is a
    /// `treadle._payload.Chunk`.
    #[pyo3(signature = (function, items, single, timeout, retries))]
    fn submit_chunk<'py>(
        &self,
        py: Python<'py>,
        function: &Bound<'py, PyAny>,
        items: &Bound<'py, PyList>,
        single: bool,
        timeout: Option<f64>,
        retries: u32,
    ) -> PyResult<Option<Bound<'py, FutureBase>>> {
        let options = ProcessPool::options(timeout, retries)?;
        let flag = if single { wire::SINGLE_ARGUMENT } else { 0 };
        let (known, label) = match self.callee(function)? {
            Callee::Known(id, block) => (Some((id, block)), id),
            Callee::Carried(label) => (None, label),
        };
        if known.is_some() {
            let held: Vec<Bound<'py, PyAny>> = items.iter().collect();
            let mut writer = Writer::default();
            if held.iter().all(|item| writer.write(item)) {
                let call = Call {
                    kind: wire::CHUNK_SCALARS | flag,
                    function: known,
                    label,
                    body: &writer.out,
                    buffers: &writer.apart,
                    options,
                    wait: true,
                    began_ns: self.begin_copying(&writer),
                };
                return self.send(py, &call);
            }
        }
        let began_ns = self.core.begin_call();
        let (kind, pickled) = match known {
            Some(_) => (wire::CHUNK_PICKLED, pickling::dump(items.as_any())),
            None => (
                wire::CHUNK_WHOLE,
                pickling::dump((function, items).into_pyobject(py)?.as_any()),
            ),
        };
        let otherwise = |error: &PyErr| {
            pickling::payload(py, "dump_chunk_otherwise")?.call1((function, items, error.value(py)))
        };
        let kinds = (kind | flag, wire::CHUNK_WHOLE | flag);
        self.send_pickled(
            py,
            kinds,
            (known, label),
            pickled,
            otherwise,
            (options, true, began_ns),
        )
    }

    /// Takes the items of a running chunk back that have not begun, when a worker has nothing else to do: the first of them.
    fn split_chunk(&self, future: &Bound<'_, FutureBase>) -> Option<u32> {
        let Source::Process { id, .. } = future.get().source() else {
            return None;
        };
        self.core.split(*id).map(|(first, _)| first)
    }

    /// Puts a value where every worker reads it: the names of the blocks of its pickle and of its out-of-band buffers.
    fn share<'py>(
        &self,
        py: Python<'py>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let pickled = pickling::dump(value)?.importable()?;
        let mut parts: Vec<&[u8]> = vec![pickled.bytes.as_bytes()];
        let slices = pickled.slices();
        parts.extend(slices.iter().map(|(bytes, _)| *bytes));
        let blocks = py.detach(|| {
            parts
                .iter()
                .map(|part| self.core.share(part))
                .collect::<Result<Vec<_>, _>>()
        });
        let blocks = blocks.map_err(|error| submit_error(py, &error))?;
        Ok(blocks
            .iter()
            .map(|block| PyBytes::new(py, &block.to_bytes()))
            .collect())
    }

    /// Takes no more calls; the workers leave after the last.
    fn begin_shutdown(&self, py: Python<'_>) {
        if self.core.is_mine() {
            py.detach(|| self.core.begin_shutdown());
        }
    }

    /// Cancels every call that no worker has, except, with `spare_starting`, those for which a worker is being started; announces those
    /// that are observed.
    #[pyo3(signature = (spare_starting=false))]
    fn cancel_all(&self, py: Python<'_>, spare_starting: bool) -> PyResult<usize> {
        let cancelled = py.detach(|| self.core.cancel_all(spare_starting));
        for id in &cancelled {
            let future = lock(&self.observers).remove(id);
            if let Some(future) = future {
                FutureBase::complete(future.bind(py))?;
            }
        }
        Ok(cancelled.len())
    }

    /// Waits until every worker has left; false when the time was over.
    #[pyo3(signature = (timeout=None))]
    fn wait_for_end(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let deadline = deadline_after(timeout)?;
        if !self.core.is_mine() {
            return Ok(true);
        }
        loop {
            match py.detach(|| self.core.wait_for_end(deadline)) {
                Waited::Done => break,
                Waited::TimedOut => return Ok(false),
                Waited::Interrupted => py.check_signals()?,
            }
        }
        // What workers logged last, and the last callbacks: a thread that is at them while the interpreter ends would end the process.
        while !self.core.has_handed_over() {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
            py.detach(|| std::thread::sleep(HAND_OVER_LOOK));
            py.check_signals()?;
        }
        Ok(true)
    }

    /// Ends every unfinished call with this reason and kills the workers.
    fn break_down(&self, py: Python<'_>, reason: &str) {
        py.detach(|| self.core.break_down(reason));
    }

    /// Sends every worker SIGTERM, or SIGKILL when `force`.
    fn signal_workers(&self, py: Python<'_>, force: bool) {
        py.detach(|| self.core.signal_workers(force));
    }

    /// Why the pool is broken, or `None`.
    fn broken(&self) -> Option<String> {
        self.core.broken().map(|reason| reason.to_string())
    }

    /// The pool at this instant.
    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let snapshot = py.detach(|| self.core.snapshot());
        let told = PyDict::new(py);
        told.set_item("submitted", snapshot.counts.submitted)?;
        told.set_item("answered", snapshot.counts.answered)?;
        told.set_item("cancelled", snapshot.counts.cancelled)?;
        told.set_item("lost", snapshot.counts.lost)?;
        told.set_item("retried", snapshot.counts.retried)?;
        told.set_item("timed_out", snapshot.counts.timed_out)?;
        told.set_item("worker_deaths", snapshot.counts.deaths)?;
        told.set_item("running", snapshot.running)?;
        told.set_item(
            "queued",
            snapshot.unfinished.saturating_sub(snapshot.running),
        )?;
        told.set_item("payload_bytes", snapshot.payload_bytes)?;
        told.set_item("oldest_s", snapshot.oldest_ns.map(|age| age as f64 / 1e9))?;
        told.set_item("turnaround", histogram(&snapshot.turnaround))?;
        let functions: Vec<(&str, HistogramTold)> = snapshot
            .functions
            .iter()
            .map(|(name, turnaround)| (&**name, histogram(turnaround)))
            .collect();
        told.set_item("functions", functions)?;
        told.set_item("arguments", transfer(&snapshot.arguments))?;
        told.set_item("results", transfer(&snapshot.results))?;
        let workers = PyList::empty(py);
        for worker in snapshot.workers {
            let one = PyDict::new(py);
            one.set_item("worker", worker.worker)?;
            one.set_item("pid", worker.pid)?;
            one.set_item("state", worker.state)?;
            one.set_item("tasks", worker.tasks)?;
            one.set_item("restarts", worker.restarts)?;
            one.set_item("running_s", worker.running_ns as f64 / 1e9)?;
            workers.append(one)?;
        }
        told.set_item("workers", workers)?;
        Ok(told)
    }

    /// `(worker, pid, descriptor)` of each worker's file for stacks; the caller closes the descriptors.
    fn dump_files(&self) -> PyResult<Vec<(u32, i32, i32)>> {
        let files = self
            .core
            .dump_files()
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(files
            .into_iter()
            .map(|(worker, pid, file)| (worker, pid, file.into_raw_fd()))
            .collect())
    }
}
