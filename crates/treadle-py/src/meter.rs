//! The meter: the clocks around calls of the calling thread, and who held the interpreter lock meanwhile.
//!
//! What needs an attached thread is done here: setting the switch interval, naming the thread state, and the three situations of
//! the self-test. All else is `treadle-probe`'s.

use std::sync::Mutex;

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use treadle_probe::clock::{self, ThreadClock};
use treadle_probe::lock::{
    self, Absent, Interpreter, Proof, Sampler, Source, Tally, Target, Words,
};
use treadle_probe::process::{RunQueueFile, pauses};

use crate::future::lock as locked;

/// The lock's words, proved, and the thread that they were proved for.
pub(crate) struct Watched {
    pub(crate) target: Target,
    source: Source,
}

/// Clocks at the begin of a call, and their differences at its end.
#[derive(Clone, Copy, Default)]
struct Clocks {
    wall: f64,
    thread: f64,
    process: f64,
    sampler: f64,
    queued: f64,
    pauses: u64,
}

struct Running {
    sampler: Option<Sampler>,
    began: Clocks,
    counted_before: Tally,
    dropped: Tally,
    queue: Option<RunQueueFile>,
}

/// Measures calls of the thread that made it.
///
/// `begin()` and `end()` go around each call; `end` gives (wall, thread's CPU, other threads' CPU, run queue, pauses): four times in
/// seconds, the third without the sampler's own, the fourth None where the kernel does not tell; and how often the thread gave
/// its processor up by itself. `drop()` takes the last call out of the tally.
#[pyclass(frozen, module = "treadle._core")]
pub(crate) struct Meter {
    running: Mutex<Running>,
    absent: Option<Absent>,
    source: Option<Source>,
    rate_hz: f64,
}

#[pymethods]
impl Meter {
    /// Finds the lock, proves it, and starts to sample at `rate_hz` instants a second in the mean.
    ///
    /// With `search`, the lock is looked for even where Python has a table of offsets. Where the lock cannot be watched, `absent`
    /// says why and the clocks work all the same.
    #[new]
    #[pyo3(signature = (rate_hz, search=false))]
    fn new(py: Python<'_>, rate_hz: f64, search: bool) -> PyResult<Self> {
        if !(rate_hz > 0.0 && rate_hz <= 100_000.0) {
            return Err(PyValueError::new_err(format!(
                "the sampling rate is {rate_hz} a second, but it must be above 0 and at most 100,000"
            )));
        }
        let started = watch(py, search).and_then(|watched| {
            let seed = (clock::monotonic() * 1e9) as u64;
            let sampler =
                Sampler::start(watched.target, rate_hz, seed).map_err(|_| Absent::NoThread)?;
            Ok((sampler, watched.source))
        });
        let (sampler, source, absent) = match started {
            Ok((sampler, source)) => (Some(sampler), Some(source), None),
            Err(absent) => (None, None, Some(absent)),
        };
        Ok(Self {
            running: Mutex::new(Running {
                sampler,
                began: Clocks::default(),
                counted_before: Tally::default(),
                dropped: Tally::default(),
                queue: RunQueueFile::own(),
            }),
            absent,
            source,
            rate_hz,
        })
    }

    /// Why the lock is not watched; None if it is.
    #[getter]
    fn absent(&self) -> Option<&'static str> {
        self.absent.map(Absent::reason)
    }

    /// How the lock was found: "table" or "search".
    #[getter]
    fn source(&self) -> Option<&'static str> {
        self.source.map(Source::name)
    }

    /// Reads the clocks, the wall clock last.
    fn begin(&self) {
        let mut running = locked(&self.running);
        let running = &mut *running;
        if let Some(sampler) = &running.sampler {
            running.counted_before = sampler.tally();
            running.began.sampler = sampler.cpu_seconds();
            sampler.begin();
        }
        running.began.queued = running.queue.as_ref().map_or(0.0, RunQueueFile::waited_s);
        running.began.pauses = pauses();
        running.began.process = clock::process_cpu();
        running.began.thread = clock::thread_cpu();
        running.began.wall = clock::monotonic();
    }

    /// Reads them again, the wall clock first: (wall, thread, others, queued, pauses) since `begin`.
    fn end(&self) -> (f64, f64, f64, Option<f64>, u64) {
        let wall = clock::monotonic();
        let thread = clock::thread_cpu();
        let process = clock::process_cpu();
        let running = locked(&self.running);
        let began = running.began;
        let queued = running
            .queue
            .as_ref()
            .map(|file| file.waited_s() - began.queued);
        let mut own = 0.0;
        if let Some(sampler) = &running.sampler {
            sampler.end();
            own = sampler.cpu_seconds() - began.sampler;
        }
        let thread = thread - began.thread;
        (
            wall - began.wall,
            thread,
            process - began.process - thread - own,
            queued,
            // In a child forked within a call it counts from zero again.
            pauses().saturating_sub(began.pauses),
        )
    }

    /// Takes what was sampled since `begin` out of the tally.
    fn drop(&self) {
        let mut running = locked(&self.running);
        let running = &mut *running;
        if let Some(sampler) = &running.sampler {
            let last = sampler.tally().since(&running.counted_before);
            running.dropped = running.dropped.plus(&last);
        }
    }

    /// How many instants have been counted.
    fn samples(&self) -> u64 {
        self.counted().map_or(0, |tally| tally.samples())
    }

    /// What was counted, under the names of the measuring protocol; None where the lock is not watched.
    fn tally<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some(tally) = self.counted() else {
            return Ok(None);
        };
        let running = locked(&self.running);
        let Some(sampler) = &running.sampler else {
            return Ok(None);
        };
        let found = PyDict::new(py);
        found.set_item("held_running", tally.held_running)?;
        found.set_item("held_ready", tally.held_ready)?;
        found.set_item("held_blocked", tally.held_blocked)?;
        found.set_item("free_running", tally.free_running)?;
        found.set_item("free_ready", tally.free_ready)?;
        found.set_item("free_blocked", tally.free_blocked)?;
        found.set_item("rate_hz", self.rate_hz)?;
        found.set_item("late", tally.late)?;
        found.set_item("watched_s", tally.watched_ns as f64 * 1e-9)?;
        found.set_item("watched_releases", tally.watched_releases)?;
        found.set_item("lasting_releases", tally.lasting_releases)?;
        found.set_item("sampler_cpu_s", sampler.cpu_seconds())?;
        found.set_item("elapsed_s", sampler.elapsed_seconds())?;
        Ok(Some(found))
    }

    /// Ends the sampling; the tally is gone. Safe to repeat, at the interpreter's exit, and in a forked child.
    fn close(&self, py: Python<'_>) {
        let sampler = locked(&self.running).sampler.take();
        // The sampler takes no lock, but its last look may cost a millisecond that others can use.
        py.detach(|| drop(sampler));
    }
}

impl Meter {
    fn counted(&self) -> Option<Tally> {
        let running = locked(&self.running);
        running
            .sampler
            .as_ref()
            .map(|sampler| sampler.tally().since(&running.dropped))
    }
}

/// Finds and proves the lock of the caller's interpreter.
#[allow(unsafe_code)]
pub(crate) fn watch(py: Python<'_>, search: bool) -> Result<Watched, Absent> {
    let mut version = {
        let version = py.version_info();
        (version.major, version.minor)
    };
    if search {
        // No table is known for it, so that the search must do.
        version = (0, 0);
    }
    // SAFETY: `py` shows that this thread is attached; the three are addresses that are compared and searched, never owned.
    let interpreter = unsafe {
        Interpreter {
            current: ffi::PyInterpreterState_Get() as usize,
            main: ffi::PyInterpreterState_Main() as usize,
            thread_state: ffi::PyThreadState_Get() as usize,
            version,
        }
    };
    let mut before = None;
    let mut set_interval = |microseconds: Option<u32>| -> bool {
        set_switch_interval(py, microseconds, &mut before).is_ok()
    };
    // SAFETY: as above; a meter belongs to the interpreter that made it and is closed, at the latest, as that ends.
    let (words, source) = unsafe { lock::locate(interpreter, &mut set_interval) }?;
    let state = interpreter.thread_state;
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    let clock = ThreadClock::of(thread).ok_or(Absent::ClockStands)?;
    let proof = Proof {
        held: words.held_by(state),
        held_after_release: py.detach(|| words.held_by(state)),
        other: py.detach(|| seen_from_another_thread(words, state)),
        clock_moved: lock::clock_moves(clock),
    };
    proof.judge()?;
    Ok(Watched {
        target: Target {
            words,
            thread_state: state,
            clock,
            thread,
        },
        source,
    })
}

/// Whether the lock, taken by a thread of its own, looks held by that thread and not by `state`.
#[allow(unsafe_code)]
fn seen_from_another_thread(words: Words, state: usize) -> bool {
    let look = move || {
        Python::attach(|_py| {
            // SAFETY: attached.
            let other = unsafe { ffi::PyThreadState_Get() } as usize;
            words.held_by(other) && !words.held_by(state)
        })
    };
    std::thread::Builder::new()
        .spawn(look)
        .is_ok_and(|thread| thread.join().unwrap_or(false))
}

/// Sets the switch interval, or the one from before that `before` keeps.
fn set_switch_interval(
    py: Python<'_>,
    microseconds: Option<u32>,
    before: &mut Option<f64>,
) -> PyResult<()> {
    let sys = PyModule::import(py, "sys")?;
    let found: f64 = sys.getattr("getswitchinterval")?.call0()?.extract()?;
    let previous = *before.get_or_insert(found);
    // Python truncates to microseconds; half of one on top makes sure which.
    let wanted = microseconds.map_or(previous, |count| f64::from(count) * 1e-6) + 0.5e-6;
    sys.getattr("setswitchinterval")?.call1((wanted,))?;
    Ok(())
}
