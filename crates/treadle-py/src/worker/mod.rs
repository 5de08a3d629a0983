//! `_core.Worker`: a worker process's end of its pool, and the ways in which its tasks run.
//!
//! ```text
//! one task      main thread: take ─► function (by number, loaded once) ─► arguments ─► call ─► reply          lane
//! threads       the same in each thread, on a lane of its own; the main thread sleeps and sees signals        lane × t
//! coroutines    the main thread runs a loop, which claims and replies; a watcher tells it of work             looped
//! ```

use std::cell::Cell;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use treadle_core::pool::places::Places;
use treadle_core::pool::wire;
use treadle_core::pool::worker::{Holdings, WorkerSession};
use treadle_shm::{BlockRef, Parking};

use crate::lease::Lease;
use lane::Lane;
use limits::Limits;
use looped::{LoopCall, Looped};

mod answer;
mod call;
mod lane;
mod limits;
mod looped;

/// Longer notes are refused: they would crowd results out of the ring.
const LONGEST_NOTE: usize = 32 * 1024;

thread_local! {
    /// Which of its process's lanes this thread runs.
    static LANE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// A worker's end of a process pool.
#[pyclass(frozen, module = "treadle._core")]
pub(crate) struct Worker {
    holdings: Arc<Holdings>,
    /// One, or one for each thread; none for a loop.
    lanes: Vec<Lane>,
    looped: Option<Arc<Looped>>,
    limits: Limits,
    /// Threads that have left their lanes.
    left: AtomicUsize,
    parking: Parking,
}

impl Worker {
    fn post(&self, kind: u32, body: &[u8]) -> PyResult<()> {
        let posted = match (&self.looped, self.lanes.first()) {
            (Some(looped), _) => looped.giving().post_for(0, kind, body),
            (None, Some(lane)) => lane.session().post_for(0, kind, body),
            (None, None) => Ok(()),
        };
        posted.map_err(|error| PyRuntimeError::new_err(error.to_string()))
    }

    fn looped(&self) -> PyResult<&Looped> {
        self.looped
            .as_deref()
            .ok_or_else(|| PyRuntimeError::new_err("this worker has no loop"))
    }

    fn lane(&self, index: usize) -> PyResult<&Lane> {
        self.lanes
            .get(index)
            .ok_or_else(|| PyValueError::new_err(format!("this worker has no lane {index}")))
    }
}

#[pymethods]
impl Worker {
    /// Opens the descriptors that the parent sent and takes them over. `threads` and `coroutines`: how many of them run in this process;
    /// 0 for one task at a time in the main thread.
    #[new]
    #[pyo3(signature = (*, board, parent_arena, arena, worker, workers, threads, coroutines, payload_limit, most_tasks, most_growth))]
    #[allow(unsafe_code, clippy::too_many_arguments)]
    fn new(
        board: i32,
        parent_arena: i32,
        arena: i32,
        worker: u32,
        workers: u32,
        threads: u32,
        coroutines: u32,
        payload_limit: u64,
        most_tasks: Option<u64>,
        most_growth: Option<u64>,
    ) -> PyResult<Worker> {
        if [board, parent_arena, arena]
            .iter()
            .any(|descriptor| *descriptor < 0)
        {
            return Err(PyValueError::new_err(
                "a worker needs three open descriptors",
            ));
        }
        // SAFETY: the caller hands over three descriptors that it received for this worker and does not use again.
        let (board, parent_arena, arena) = unsafe {
            (
                OwnedFd::from_raw_fd(board),
                OwnedFd::from_raw_fd(parent_arena),
                OwnedFd::from_raw_fd(arena),
            )
        };
        let holdings = Holdings::open(board, parent_arena, arena, payload_limit)
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        let session = |lane| WorkerSession::new(holdings.clone(), lane);
        let (lanes, looped) = if coroutines > 0 {
            (Vec::new(), Some(Looped::start(&holdings, worker)?))
        } else {
            let lanes = Places::threads(workers, threads.max(1)).lanes_of(worker);
            let lanes = lanes.map(|lane| Lane::new(session(lane), threads > 0));
            (lanes.collect(), None)
        };
        Ok(Worker {
            holdings,
            lanes,
            looped,
            limits: Limits::new(most_tasks, most_growth),
            left: AtomicUsize::new(0),
            parking: Parking::default(),
        })
    }

    /// The bytes of a block of the parent's arena, named by 64 hexadecimal digits.
    fn read_block<'py>(&self, py: Python<'py>, digits: &str) -> PyResult<Bound<'py, PyBytes>> {
        let mut bytes = [0; 32];
        for (place, byte) in bytes.iter_mut().enumerate() {
            let pair = digits
                .get(2 * place..2 * place + 2)
                .ok_or_else(|| PyValueError::new_err("a block's name has 64 digits"))?;
            *byte = u8::from_str_radix(pair, 16)
                .map_err(|_| PyValueError::new_err("a block's name is hexadecimal"))?;
        }
        let block = self
            .holdings
            .read_block(BlockRef::from_bytes(bytes))
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &block))
    }

    /// A block of the parent's arena, named by its 32 bytes, as read-only memory.
    fn view_block<'py>(&self, py: Python<'py>, name: [u8; 32]) -> PyResult<Bound<'py, Lease>> {
        let mapped = self
            .holdings
            .view_block(BlockRef::from_bytes(name))
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        Bound::new(py, Lease::of_argument(mapped, true))
    }

    /// Tells the parent that the initializer has run.
    fn ready(&self) -> PyResult<()> {
        self.limits.begin();
        self.post(wire::READY, &std::process::id().to_le_bytes())
    }

    /// Tells the parent that the initializer failed.
    fn initializer_failed(&self, text: &str) -> PyResult<()> {
        let cut = text.len().min(16 * 1024);
        self.post(wire::INITIALIZER_FAILED, &text.as_bytes()[..cut])
    }

    /// Tells the parent that this process leaves because it has reached a limit, if it has. The last that it says.
    fn retire(&self) -> PyResult<()> {
        match self.limits.reached() {
            Some(why) => self.post(wire::RETIRED, why.as_bytes()),
            None => Ok(()),
        }
    }

    /// Sends the parent a pickled note (a log record, a warning) of the task on whose behalf it is called; false when it is too long. `task`
    /// says which that is where a loop runs them, 0 for none.
    #[pyo3(signature = (pickle, task=0))]
    fn note(&self, pickle: &[u8], task: u64) -> bool {
        if pickle.len() > LONGEST_NOTE {
            return false;
        }
        if let Some(looped) = &self.looped {
            return looped.giving().post_for(task, wire::NOTE, pickle).is_ok();
        }
        match (
            LANE.get().and_then(|lane| self.lanes.get(lane)),
            self.lanes.first(),
        ) {
            (Some(lane), _) => lane.note(pickle),
            (None, Some(lane)) => lane.note_from_elsewhere(pickle),
            (None, None) => false,
        }
    }

    /// Whether the parent wants the task in hand interrupted; true once for each task. For the signal handler of a process of one task.
    fn interrupt_requested(&self) -> bool {
        self.lanes.first().is_some_and(Lane::interrupt_requested)
    }

    /// Runs tasks in this thread until the parent asks this worker to leave, or its tasks or memory are at their limit.
    fn run_tasks(&self, py: Python<'_>) -> PyResult<()> {
        self.lane(0)?.run_tasks(py, &self.limits)
    }

    /// The same in one of several threads, each with a lane of its own.
    fn run_lane(&self, py: Python<'_>, index: usize) -> PyResult<()> {
        let lane = self.lane(index)?;
        LANE.set(Some(index));
        let ran = lane.run_tasks(py, &self.limits);
        LANE.set(None);
        if self.limits.reached().is_some() {
            // Those that sleep take no task any more.
            for other in &self.lanes {
                other.caller.call();
            }
        }
        self.left.fetch_add(1, Ordering::SeqCst);
        self.parking.wake_all();
        ran
    }

    /// Sleeps until so many threads have left their lanes. In the main thread, whose signal handlers run meanwhile.
    fn await_lanes(&self, py: Python<'_>, count: usize) -> PyResult<()> {
        loop {
            let seen = self.parking.seen();
            if self.left.load(Ordering::SeqCst) >= count {
                return Ok(());
            }
            // A signal that comes just before the sleep does not end it; the parent sends its own again.
            py.detach(|| self.parking.sleep(seen, None));
            py.check_signals()?;
        }
    }

    /// Raises `exception`, a class, in the threads whose tasks the parent wants interrupted; once for each task.
    fn raise_where_requested(&self, exception: &Bound<'_, PyAny>) {
        for lane in &self.lanes {
            lane.raise_if_requested(exception);
        }
    }

    /// The descriptor that is readable when the loop shall look for calls.
    fn bell(&self) -> PyResult<i32> {
        Ok(self.looped()?.descriptor())
    }

    /// Hears the bell.
    fn hush(&self) -> PyResult<()> {
        self.looped()?.hush();
        Ok(())
    }

    /// The next call for the loop: hand, task, function, arguments, keywords. `None` when there is none: the bell rings when there is.
    fn next_call<'py>(&self, py: Python<'py>) -> PyResult<Option<LoopCall<'py>>> {
        self.looped()?.next(py, &self.limits)
    }

    /// Whether the loop gets no more calls.
    fn has_stopped(&self) -> PyResult<bool> {
        Ok(self.looped()?.has_stopped())
    }

    /// Ends the task in a hand with its result.
    fn finish(
        &self,
        py: Python<'_>,
        hand: u32,
        task: u64,
        result: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.looped()?.finish(py, hand, task, result, &self.limits)
    }

    /// Ends the task in a hand with an exception.
    fn fail(&self, py: Python<'_>, hand: u32, task: u64, error: Bound<'_, PyAny>) -> PyResult<()> {
        let error = PyErr::from_value(error);
        self.looped()?.fail(py, hand, task, error, &self.limits)
    }

    /// The hands and tasks that the parent wants interrupted.
    fn interrupts(&self) -> PyResult<Vec<(u32, u64)>> {
        Ok(self.looped()?.heed())
    }
}
