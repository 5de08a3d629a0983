//! The condition variable that the standard library's functions find in a future.
//!
//! `concurrent.futures.wait` and `as_completed` lock it to install a waiter, and hardly anybody ever sleeps on it. So it is a re-entrant lock, and
//! becomes a `threading.Condition` over that lock when somebody waits: making one takes as long as the rest of a tiny task, and leaves nine
//! objects for the cyclic collector to visit.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};

/// A `threading.Condition` that is made when it is needed.
#[pyclass(frozen, weakref, module = "treadle._core")]
pub(crate) struct Condition {
    lock: Py<PyAny>,
    whole: PyOnceLock<Py<PyAny>>,
}

impl Condition {
    /// One that nobody has locked.
    pub(crate) fn new(py: Python<'_>) -> PyResult<Condition> {
        static RLOCK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        Ok(Condition {
            lock: RLOCK.import(py, "threading", "RLock")?.call0()?.unbind(),
            whole: PyOnceLock::new(),
        })
    }

    fn whole<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        static CONDITION: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let whole = self.whole.get_or_try_init(py, || {
            let class = CONDITION.import(py, "threading", "Condition")?;
            class.call1((&self.lock,)).map(Bound::unbind)
        })?;
        Ok(whole.bind(py))
    }

    /// Whoever waits made the whole of it first, with the lock that who notifies holds now.
    fn waited_on<'py>(&self, py: Python<'py>) -> PyResult<Option<&Bound<'py, PyAny>>> {
        if let Some(whole) = self.whole.get(py) {
            return Ok(Some(whole.bind(py)));
        }
        let owned = self.lock.call_method0(py, intern!(py, "_is_owned"))?;
        if owned.is_truthy(py)? {
            Ok(None)
        } else {
            Err(PyRuntimeError::new_err("cannot notify on un-acquired lock"))
        }
    }
}

#[pymethods]
impl Condition {
    #[pyo3(signature = (*args, **kwargs))]
    fn acquire(
        &self,
        py: Python<'_>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        self.lock
            .call_method(py, intern!(py, "acquire"), args, kwargs)
    }

    fn release(&self, py: Python<'_>) -> PyResult<()> {
        self.lock.call_method0(py, intern!(py, "release")).map(drop)
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.lock.call_method0(py, intern!(py, "acquire"))
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, py: Python<'_>, _raised: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.release(py)
    }

    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let whole = self.whole(py)?;
        Ok(whole
            .call_method1(intern!(py, "wait"), (timeout,))?
            .unbind())
    }

    #[pyo3(signature = (predicate, timeout=None))]
    fn wait_for(
        &self,
        py: Python<'_>,
        predicate: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<Py<PyAny>> {
        let whole = self.whole(py)?;
        Ok(whole
            .call_method1(intern!(py, "wait_for"), (predicate, timeout))?
            .unbind())
    }

    #[pyo3(signature = (n=1))]
    fn notify(&self, py: Python<'_>, n: usize) -> PyResult<()> {
        match self.waited_on(py)? {
            Some(whole) => whole.call_method1(intern!(py, "notify"), (n,)).map(drop),
            None => Ok(()),
        }
    }

    fn notify_all(&self, py: Python<'_>) -> PyResult<()> {
        match self.waited_on(py)? {
            Some(whole) => whole.call_method0(intern!(py, "notify_all")).map(drop),
            None => Ok(()),
        }
    }

    /// Whatever else a `threading.Condition` has.
    fn __getattr__<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.whole(py)?.getattr(name.cast::<PyString>()?)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "<treadle condition, {}>",
            self.lock.bind(py).repr()?
        ))
    }
}
