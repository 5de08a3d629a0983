//! Meters for each function, for the pools whose tasks run in this process: how long tasks waited and ran.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyFunction};
use treadle_core::pool::functions::Functions;
use treadle_core::pool::meter::{self, Histogram};
use treadle_probe::clock;

use crate::future::lock;
use crate::pickling;
use crate::processes::{HistogramTold, histogram};

/// What a callable is called whose name cannot be had.
const UNNAMED: &str = "a function";

/// Wrappers in wrappers are looked through no deeper than this.
const DEEPEST: usize = 8;

/// From submission to start, and from there to the end.
#[derive(Default)]
pub(crate) struct Times {
    pub(crate) wait: Histogram,
    pub(crate) duration: Histogram,
}

/// The times by function, and what makes their keys stay theirs.
#[derive(Default)]
pub(crate) struct TimesByFunction {
    functions: Functions<Times>,
    /// Objects whose addresses are keys; small ones: code, classes, functions of modules.
    kept: Vec<Py<PyAny>>,
}

/// Name, wait and duration, as they are told to Python.
pub(crate) type TimesTold = (String, HistogramTold, HistogramTold);

impl TimesByFunction {
    /// Counts a task; false when its function is to be entered first.
    pub(crate) fn note(&mut self, key: u64, wait_ns: u64, duration_ns: u64) -> bool {
        let Some(times) = self.functions.of(key) else {
            return false;
        };
        times.wait.add(wait_ns);
        times.duration.add(duration_ns);
        true
    }

    /// Enters a function. What makes its key is kept.
    pub(crate) fn enter(&mut self, named: Named) {
        self.functions.enter(named.key, named.name);
        self.kept.push(named.keeper);
    }

    /// All functions that have ended tasks.
    pub(crate) fn told(&self) -> Vec<TimesTold> {
        self.functions
            .iter()
            .filter(|(_, times)| times.wait.count() > 0)
            .map(|(name, times)| {
                (
                    name.to_owned(),
                    histogram(&times.wait),
                    histogram(&times.duration),
                )
            })
            .collect()
    }
}

/// A function's key, its name, and the object whose address the key is.
pub(crate) struct Named {
    pub(crate) key: u64,
    pub(crate) name: Arc<str>,
    /// Held, so that the key stays this function's.
    keeper: Py<PyAny>,
}

/// The name of a function, for [`TimesByFunction::enter`]. Runs Python code: no lock may be held.
pub(crate) fn named(function: &Bound<'_, PyAny>) -> Named {
    let (inner, keeper) = known_by(function);
    let name = pickling::payload(function.py(), "name_of")
        .and_then(|name_of| name_of.call1((inner,)))
        .and_then(|name| name.extract::<String>());
    Named {
        key: keeper.as_ptr() as u64,
        name: name.unwrap_or_else(|_| UNNAMED.to_owned()).into(),
        keeper: keeper.unbind(),
    }
}

/// By which number the function is known, as long as what makes it is kept.
pub(crate) fn key(function: &Bound<'_, PyAny>) -> u64 {
    code_of(function).unwrap_or_else(|| known_by(function).1.as_ptr() as u64)
}

/// [`identity`]; a callable that cannot be looked at is known by its class.
fn known_by<'py>(function: &Bound<'py, PyAny>) -> (Bound<'py, PyAny>, Bound<'py, PyAny>) {
    identity(function).unwrap_or_else(|_| (function.clone(), function.get_type().into_any()))
}

/// The address of a Python function's code, which all functions of one `def` share.
#[allow(unsafe_code)]
fn code_of(function: &Bound<'_, PyAny>) -> Option<u64> {
    if !function.is_exact_instance_of::<PyFunction>() {
        return None;
    }
    // SAFETY: it is exactly a function; the call reads a field of it and returns it borrowed. Only the address is used.
    let code = unsafe { pyo3::ffi::PyFunction_GetCode(function.as_ptr()) };
    Some(code as u64)
}

/// What a callable calls in the end, and the object that it is known by: the code of a function, a built-in function of a module, else the class.
fn identity<'py>(callable: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    static METHOD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static PARTIAL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = callable.py();
    let method = METHOD
        .get_or_try_init(py, || class(py, "types", "MethodType"))?
        .bind(py);
    let partial = PARTIAL
        .get_or_try_init(py, || class(py, "functools", "partial"))?
        .bind(py);
    let mut inner = callable.clone();
    for _ in 0..DEEPEST {
        let kind = inner.get_type();
        if kind.is(method) {
            inner = inner.getattr(intern!(py, "__func__"))?;
        } else if kind.is(partial) {
            inner = inner.getattr(intern!(py, "func"))?;
        } else {
            break;
        }
    }
    let keeper = if inner.is_exact_instance_of::<PyFunction>() {
        inner.getattr(intern!(py, "__code__"))?
    } else if inner.is_exact_instance_of::<PyCFunction>() && !is_bound(&inner)? {
        inner.clone()
    } else {
        inner.get_type().into_any()
    };
    Ok((inner, keeper))
}

/// Whether a built-in function is a method of some object, which must not be kept alive.
fn is_bound(function: &Bound<'_, PyAny>) -> PyResult<bool> {
    let owner = function.getattr(intern!(function.py(), "__self__"))?;
    Ok(!owner.is_none() && !owner.is_instance_of::<PyModule>())
}

fn class(py: Python<'_>, module: &str, name: &str) -> PyResult<Py<PyAny>> {
    Ok(PyModule::import(py, module)?.getattr(name)?.unbind())
}

fn nanoseconds(seconds: f64) -> u64 {
    Duration::try_from_secs_f64(seconds.max(0.0)).map_or(u64::MAX, |time| {
        u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
    })
}

/// How long the tasks of a strategy that is written in Python waited and ran, for each function.
#[pyclass(frozen, module = "treadle._core")]
pub(crate) struct TaskMeters {
    times: Mutex<TimesByFunction>,
}

#[pymethods]
impl TaskMeters {
    #[new]
    fn new() -> TaskMeters {
        TaskMeters {
            times: Mutex::default(),
        }
    }

    /// A task has ended; the two are seconds of `time.monotonic`.
    fn ended(&self, function: &Bound<'_, PyAny>, submitted: f64, began: f64) {
        let key = key(function);
        let wait = nanoseconds(began - submitted);
        let duration = nanoseconds(clock::monotonic() - began);
        if lock(&self.times).note(key, wait, duration) {
            return;
        }
        let named = named(function);
        let mut times = lock(&self.times);
        times.enter(named);
        times.note(key, wait, duration);
    }

    /// `(name, histogram from submission to start, histogram from start to end)` of every function that has ended tasks.
    fn read(&self) -> Vec<TimesTold> {
        lock(&self.times).told()
    }
}

/// A histogram of times in which nothing was counted.
#[pyfunction]
pub(crate) fn empty_histogram() -> HistogramTold {
    histogram(&Histogram::default())
}

/// The seconds that so many looks at the clock and additions to histograms cost in this process.
#[pyfunction]
pub(crate) fn meter_cost(looks: u32, additions: u32) -> f64 {
    let (look, addition) = meter::costs_s();
    f64::from(looks) * look + f64::from(additions) * addition
}
