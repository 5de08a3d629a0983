//! `_core.LockWatch`: who has held the interpreter lock lately, for a program that somebody watches.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use pyo3::ffi;
use pyo3::prelude::*;
use treadle_probe::clock;
use treadle_probe::lock::{Absent, Holders};

use crate::future::lock;
use crate::meter::watch;

/// Looks in time, those that found the lock held, and how often each thread state held it.
type Seen = (u64, u64, HashMap<usize, u64>);

/// A sampler of the lock's holders.
#[pyclass(frozen, module = "treadle._core")]
pub(crate) struct LockWatch {
    holders: Mutex<Option<Holders>>,
    absent: Option<Absent>,
}

#[pymethods]
impl LockWatch {
    /// Finds the lock, proves it, and looks `rate_hz` times a second until nobody has asked for `linger_s`.
    #[new]
    fn new(py: Python<'_>, rate_hz: f64, linger_s: f64) -> LockWatch {
        let linger = Duration::try_from_secs_f64(linger_s).unwrap_or(Duration::MAX);
        let started = watch(py, false).and_then(|watched| {
            let seed = (clock::monotonic() * 1e9) as u64;
            Holders::start(watched.target.words, rate_hz, linger, seed)
                .map_err(|_| Absent::NoThread)
        });
        match started {
            Ok(holders) => LockWatch {
                holders: Mutex::new(Some(holders)),
                absent: None,
            },
            Err(absent) => LockWatch {
                holders: Mutex::new(None),
                absent: Some(absent),
            },
        }
    }

    /// Why the lock is not watched; None if it is, or was.
    #[getter]
    fn absent(&self) -> Option<&'static str> {
        self.absent.map(Absent::reason)
    }

    /// `(looks, held, {thread state: looks at which it held the lock})` since the start; None when the watch has ended.
    fn ask(&self) -> Option<Seen> {
        let found = lock(&self.holders).as_ref()?.ask()?;
        Some((
            found.looks,
            found.held,
            found.by_state.into_iter().collect(),
        ))
    }

    /// CPU seconds of the watch so far; 0 once it has ended.
    fn cpu_seconds(&self) -> f64 {
        lock(&self.holders)
            .as_ref()
            .map_or(0.0, Holders::cpu_seconds)
    }

    /// Ends the watch; safe to repeat, at the interpreter's exit, and in a forked child.
    fn close(&self, py: Python<'_>) {
        let holders = lock(&self.holders).take();
        py.detach(|| drop(holders));
    }
}

/// The calling thread's state in the interpreter, as a number that [`LockWatch::ask`] knows it by.
#[pyfunction]
#[allow(unsafe_code)]
pub(crate) fn thread_state(_py: Python<'_>) -> usize {
    // SAFETY: the token shows that this thread is attached; the address is compared, never followed.
    unsafe { ffi::PyThreadState_Get() as usize }
}
