//! `_core.ProcessPool`: calls to payloads, payloads to the pool, ends of tasks back to their futures.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use treadle_core::pool::meter::{Buckets, Histogram};
use treadle_core::pool::places::Places;
use treadle_core::pool::processes::{self as core, Settings, Waited};
use treadle_core::pool::snapshot::Meters;
use treadle_core::pool::transfer::Transfer;
use treadle_core::pool::zygote::Launch;

use crate::calling::Functions;
use crate::choice::usable_cores;
use crate::completion::announcer;
use crate::future::{FutureBase, Observers, Source, lock};
use crate::outcome::submit_error;
use crate::pickling;
use crate::waiting::deadline_after;

/// How often a shutdown looks whether the last ends and notes have been handed over: that takes some ten microseconds.
const HAND_OVER_LOOK: Duration = Duration::from_micros(50);

/// A pool of worker processes.
#[pyclass(frozen, module = "treadle._core")]
pub(crate) struct ProcessPool {
    pub(crate) core: Arc<core::ProcessPool>,
    pub(crate) observers: Arc<Observers>,
    pub(crate) functions: Mutex<Functions>,
    pub(crate) may_wait: bool,
    /// Raises for a function that this pool's plan cannot run.
    pub(crate) admit: Option<Py<PyAny>>,
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

/// Wait, duration and turnaround.
fn times(found: &Meters) -> [HistogramTold; 3] {
    [&found.wait, &found.duration, &found.turnaround].map(histogram)
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
    /// The most threads, or coroutines, that each of so many processes may have.
    #[staticmethod]
    fn most_in_each(workers: u32) -> (u32, u32) {
        Places::most(workers)
    }

    /// Makes a pool; its workers start with the first call. `threads` and `coroutines` of each worker: 0 for one task at a time. `admit` is
    /// called with a function that is new to the pool, and raises if the plan cannot run it. The `inherited` descriptors become the pool's own; each worker gets copies of them.
    #[new]
    #[pyo3(signature = (*, workers, threads, coroutines, admit, program, arguments, environment, preparation, worker_fields, initializer, inherited, payload_limit, max_pending, metered=true))]
    #[allow(unsafe_code, clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        workers: u32,
        threads: u32,
        coroutines: u32,
        admit: Option<Py<PyAny>>,
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
        let (most_threads, most_coroutines) = Places::most(workers);
        if threads > most_threads || coroutines > most_coroutines {
            return Err(PyValueError::new_err(format!(
                "{workers} processes may have {most_threads} threads or {most_coroutines} coroutines each at most"
            )));
        }
        let places = match (threads, coroutines) {
            (0, 0) => Places::single(workers),
            (0, coroutines) => Places::coroutines(workers, coroutines),
            (threads, _) => Places::threads(workers, threads),
        };
        let settings = Settings {
            places,
            launch,
            worker_fields,
            initializer,
            inherited,
            arena_limit: payload_limit,
            max_pending,
            cores: usable_cores().ceil() as u32,
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
            admit,
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
        self.enter_chunk(py, function, (items, single), (timeout, retries))
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
        told.set_item("times", times(&snapshot.times))?;
        let functions: Vec<(&str, [HistogramTold; 3])> = snapshot
            .functions
            .iter()
            .map(|(name, meters)| (&**name, times(meters)))
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
            one.set_item("running", worker.running)?;
            one.set_item("running_s", worker.running_ns as f64 / 1e9)?;
            workers.append(one)?;
        }
        told.set_item("workers", workers)?;
        Ok(told)
    }

    /// What every worker does, with the stacks of those that have a task.
    fn dump(&self, py: Python<'_>) -> String {
        py.detach(|| self.core.dump())
    }
}
