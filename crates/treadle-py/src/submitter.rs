//! The native base of `treadle.Executor`: `submit` without a Python frame for the strategies of this module.

use std::sync::OnceLock;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::outcome::no_memory;
use crate::processes::ProcessPool;
use crate::threads::ThreadPool;

/// Where calls go.
enum Target {
    Processes(Py<ProcessPool>),
    /// The queue, and what starts one more thread.
    Threads(Py<ThreadPool>, Py<PyAny>),
    /// `submit(function, arguments, keywords, options)` of a strategy, the same that does not wait for room, and the options.
    Strategy(Py<PyAny>, Py<PyAny>, Py<PyAny>),
}

struct Binding {
    target: Target,
    timeout: Option<f64>,
    retries: u32,
}

/// Submits calls to one strategy under some per-task options.
#[pyclass(subclass, frozen, module = "treadle._core")]
pub(crate) struct Submitter {
    bound: OnceLock<Binding>,
}

#[pymethods]
impl Submitter {
    #[new]
    #[pyo3(signature = (*_arguments, **_keywords))]
    fn new(_arguments: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> Submitter {
        Submitter {
            bound: OnceLock::new(),
        }
    }

    /// Says where calls go: a `_core` pool (with `grow` for threads), or a strategy's `submit` and `submit_now` with its options.
    #[pyo3(signature = (target, now, grow, options, timeout, retries))]
    fn _bind(
        &self,
        target: Bound<'_, PyAny>,
        now: Py<PyAny>,
        grow: Option<Py<PyAny>>,
        options: Py<PyAny>,
        timeout: Option<f64>,
        retries: u32,
    ) -> PyResult<()> {
        let target = if let Ok(pool) = target.cast::<ProcessPool>() {
            Target::Processes(pool.clone().unbind())
        } else if let (Ok(pool), Some(grow)) = (target.cast::<ThreadPool>(), grow) {
            Target::Threads(pool.clone().unbind(), grow)
        } else {
            Target::Strategy(target.unbind(), now, options)
        };
        self.bound
            .set(Binding {
                target,
                timeout,
                retries,
            })
            .map_err(|_| PyRuntimeError::new_err("an executor is bound once"))
    }

    /// Schedules ``function(*args, **kwargs)`` and returns its future.
    ///
    /// Raises:
    ///     PoolShutDown: after ``shutdown``.
    ///     PoolBroken: when the pool can run nothing any more.
    ///     PlanError: when the plan cannot run such a function.
    ///     PayloadMemoryError: when there is no shared memory for the arguments.
    ///     MemoryError: when the program has no memory left for one more call.
    ///     RuntimeError: when the interpreter is ending.
    #[pyo3(signature = (function, /, *args, **kwargs))]
    fn submit<'py>(
        &self,
        py: Python<'py>,
        function: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.enter(py, function, args, kwargs, true)
    }

    /// The same, and ``None`` where ``submit`` would wait for room.
    #[pyo3(signature = (function, /, *args, **kwargs))]
    fn _submit_now<'py>(
        &self,
        py: Python<'py>,
        function: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.enter(py, function, args, kwargs, false)
    }
}

impl Submitter {
    fn enter<'py>(
        &self,
        py: Python<'py>,
        function: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        wait: bool,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let bound = self.bound.get().ok_or_else(|| {
            PyRuntimeError::new_err(
                "this executor was not initialised: call super().__init__() first",
            )
        })?;
        if crate::HEAP.is_low() {
            return Err(no_memory());
        }
        match &bound.target {
            Target::Processes(pool) => {
                let options = (bound.timeout, bound.retries);
                let entered = pool
                    .get()
                    .enter(py, function, (args, kwargs), options, wait)?;
                Ok(entered.map(Bound::into_any))
            }
            Target::Threads(pool, grow) => {
                let entered = pool.get().submit(
                    py,
                    function.clone().unbind(),
                    args.clone().unbind(),
                    kwargs.map(|kwargs| kwargs.clone().unbind()),
                    bound.timeout,
                    bound.retries,
                )?;
                match entered {
                    Some((future, idle)) => {
                        if pool.get().wants_thread(idle) || bound.timeout.is_some() {
                            grow.call1(py, (idle, bound.timeout.is_some()))?;
                        }
                        Ok(Some(future.into_any()))
                    }
                    // Closed: the crew knows whether it was shut down or broke.
                    None => Ok(Some(grow.call1(py, (-1, false))?.into_bound(py))),
                }
            }
            Target::Strategy(submit, now, options) => {
                let empty;
                let kwargs = match kwargs {
                    Some(kwargs) => kwargs,
                    None => {
                        empty = PyDict::new(py);
                        &empty
                    }
                };
                let submit = if wait { submit } else { now };
                let entered = submit.bind(py).call1((function, args, kwargs, options))?;
                Ok((!entered.is_none()).then_some(entered))
            }
        }
    }
}
