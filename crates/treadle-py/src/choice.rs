//! The choice and the command line, as functions of `treadle._core`: arguments in, JSON or an exit code out.

use std::io::{IsTerminal, stderr, stdout};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::{PyKeyboardInterrupt, PyValueError};
use pyo3::prelude::*;
use rustix::termios::tcgetwinsize;
use treadle_core::choice::check::Asking;
use treadle_core::choice::compare::Silent;
use treadle_core::choice::laboratory::Surroundings;
use treadle_core::choice::{self, ChoiceError, Request};
use treadle_top::World;

use crate::future::lock;
use crate::pickling;

/// A pending signal's exception, taken at the first look that found one.
#[derive(Default)]
struct Signals(Mutex<Option<PyErr>>);

impl Signals {
    /// Whether the user interrupted. Looks with the interpreter's lock, which the caller has released.
    fn interrupted(&self) -> bool {
        if lock(&self.0).is_none()
            && let Err(error) = Python::attach(|py| py.check_signals())
        {
            *lock(&self.0) = Some(error);
        }
        lock(&self.0).is_some()
    }
}

fn error_of(py: Python<'_>, error: &ChoiceError, signals: Signals) -> PyErr {
    let kind = match error {
        ChoiceError::Interrupted => {
            return signals
                .0
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .unwrap_or_else(|| PyKeyboardInterrupt::new_err(()));
        }
        ChoiceError::Usage { .. } => "usage",
        ChoiceError::Function { .. } => "function",
    };
    match pickling::payload(py, "choice_failed")
        .and_then(|make| make.call1((kind, error.to_string(), error.hint(), error.detail())))
    {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// The interpreter in which this package is installed.
fn python(py: Python<'_>) -> PyResult<String> {
    PyModule::import(py, "sys")?
        .getattr("executable")?
        .extract()
}

/// Runs the command `treadle` with these words, the program's name first; returns its exit code.
#[pyfunction]
pub(crate) fn command(py: Python<'_>, words: Vec<String>) -> PyResult<i32> {
    let python = PathBuf::from(python(py)?);
    let directory = std::env::current_dir()?;
    Ok(py.detach(|| {
        let signals = Signals::default();
        let interrupted = || signals.interrupted();
        let environment = |name: &str| std::env::var(name).ok();
        let terminal = stdout()
            .is_terminal()
            .then(|| tcgetwinsize(stdout()).ok())
            .flatten();
        let mut world = World {
            stdout: &mut stdout(),
            stderr: &mut stderr(),
            python,
            interrupted: &interrupted,
            terminal: terminal.map(|size| (size.ws_col, size.ws_row)),
            rewrite: stderr().is_terminal(),
            directory,
            environment: &environment,
            laboratory: None,
        };
        treadle_top::run(words.get(1..).unwrap_or_default(), &mut world)
    }))
}

/// Runs the choice without the interpreter's lock, with the monotonic clock, until it ends or a signal came.
fn detached<T: Send>(
    py: Python<'_>,
    signals: &Signals,
    choose: impl FnOnce(Surroundings<'_>) -> T + Send,
) -> T {
    py.detach(|| {
        let interrupted = || signals.interrupted();
        choose(Surroundings {
            clock: &treadle_probe::clock::monotonic,
            interrupted: &interrupted,
        })
    })
}

/// Compares the plans for a function over its inputs: a request as JSON in, the comparison as JSON out.
#[pyfunction]
pub(crate) fn compare(py: Python<'_>, request: &str) -> PyResult<String> {
    let bad = |error: serde_json::Error| PyValueError::new_err(format!("no request: {error}"));
    let mut request: Request = serde_json::from_str(request).map_err(bad)?;
    if request.python.is_none() {
        request.python = Some(python(py)?);
    }
    let signals = Signals::default();
    let outcome = detached(py, &signals, |surroundings| {
        choice::compare(&request, &mut Silent, surroundings)
    });
    let comparison = outcome.map_err(|error| error_of(py, &error, signals))?;
    serde_json::to_string(&comparison).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Checks recorded decisions: a request as JSON in, the report as JSON out. What cannot be read is a record error.
#[pyfunction]
pub(crate) fn check(py: Python<'_>, request: &str) -> PyResult<String> {
    let bad = |error: serde_json::Error| PyValueError::new_err(format!("no request: {error}"));
    let mut asking: Asking = serde_json::from_str(request).map_err(bad)?;
    if asking.python.is_none() {
        asking.python = Some(python(py)?);
    }
    let signals = Signals::default();
    let outcome = detached(py, &signals, |surroundings| {
        choice::check::check(&asking, &mut Silent, surroundings)
    });
    let report = outcome.map_err(|error| match error {
        ChoiceError::Usage { .. } => record_error(py, &error),
        _ => error_of(py, &error, signals),
    })?;
    serde_json::to_string(&report).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// The nearest `treadle.toml` of `directory` or above it, and the names of its decisions.
#[pyfunction]
pub(crate) fn list_decisions(py: Python<'_>, directory: &str) -> PyResult<(String, Vec<String>)> {
    choice::check::decisions(Path::new(directory))
        .map(|(path, names)| (path.display().to_string(), names))
        .map_err(|error| record_error(py, &error))
}

/// The error of a record that cannot be read.
fn record_error(py: Python<'_>, error: &ChoiceError) -> PyErr {
    let text = match error.detail() {
        Some(detail) => format!("{error}\n\n{detail}"),
        None => error.to_string(),
    };
    match pickling::payload(py, "record_failed").and_then(|make| make.call1((text, error.hint()))) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// The plan recorded under `name` in the nearest `treadle.toml` of `directory` or above it, as JSON.
#[pyfunction]
pub(crate) fn load_decision(py: Python<'_>, directory: &str, name: &str) -> PyResult<String> {
    match choice::load_decision(Path::new(directory), name) {
        Ok(plan) => {
            serde_json::to_string(&plan).map_err(|error| PyValueError::new_err(error.to_string()))
        }
        Err(error) => Err(record_error(py, &error)),
    }
}

/// The cores of this worker's share in thousandths; 0 when this process is no worker.
static SHARE: AtomicU32 = AtomicU32::new(0);

/// Limits what [`usable_cores`] says to a worker's share of the machine.
#[pyfunction]
pub(crate) fn limit_cores(cores: f64) {
    SHARE.store((cores * 1000.0).clamp(1.0, 4e9) as u32, Ordering::Relaxed);
}

/// The cores that this process may use: the smallest of its affinity and the quota of every control group above it; in a worker, at most
/// the worker's share.
#[pyfunction]
pub(crate) fn usable_cores() -> f64 {
    let cores = treadle_probe::usable_cores().cores;
    match SHARE.load(Ordering::Relaxed) {
        0 => cores,
        share => cores.min(f64::from(share) / 1000.0),
    }
}

/// The bytes that this process may take before the machine swaps or a control group's limit ends it; 0 where nobody can tell.
#[pyfunction]
pub(crate) fn available_memory() -> u64 {
    treadle_probe::memory::memory().available.unwrap_or(0)
}

/// The HTML page of a comparison that comes as JSON.
#[pyfunction]
pub(crate) fn page(comparison: &str) -> PyResult<String> {
    let comparison: choice::Comparison = serde_json::from_str(comparison)
        .map_err(|error| PyValueError::new_err(format!("no comparison: {error}")))?;
    let origin = treadle_top::html::Origin {
        command: None,
        date: treadle_top::html::today(),
    };
    Ok(treadle_top::html::page(&comparison, &origin))
}
