//! Into a pool of processes: a call of Python becomes a payload and a future.

use std::collections::HashMap;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCFunction, PyDict, PyFunction, PyList, PyTuple, PyType};
use treadle_core::pool::processes::{Call, SubmitError};
use treadle_core::pool::tasks::TaskOptions;
use treadle_core::pool::wire;
use treadle_shm::BlockRef;

use crate::codec::Writer;
use crate::future::{FutureBase, Source, lock, new_future};
use crate::outcome::submit_error;
use crate::pickling;
use crate::processes::ProcessPool;

/// Payloads from this size on are copied with the interpreter's lock released.
const RELEASE_LOCK_FROM: usize = 64 * 1024;

/// Functions that the workers know by number, by the identity of an object that is kept alive here.
pub(crate) type Functions = HashMap<usize, (Py<PyAny>, u32, BlockRef)>;

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
        if let Some(admit) = &self.admit {
            admit.call1(function.py(), (function,))?;
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

    /// Submits the calls of a chunk; see `submit_chunk`.
    pub(crate) fn enter_chunk<'py>(
        &self,
        py: Python<'py>,
        function: &Bound<'py, PyAny>,
        (items, single): (&Bound<'py, PyList>, bool),
        (timeout, retries): (Option<f64>, u32),
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
}
