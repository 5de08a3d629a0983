//! Outcomes as Python objects: results, exceptions, and the reasons why there is neither.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;
use treadle_core::pool::cell::Phase;
use treadle_core::pool::outcome::{Failure, Outcome, Reply, Stopped};
use treadle_core::pool::wire;

use crate::codec;
use crate::future::{FutureBase, LocalOutcome, Source};
use crate::lease::Lease;
use crate::pickling;

impl FutureBase {
    pub(crate) fn failed(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(match self.source() {
            Source::Process { cell, .. } => match cell.outcome() {
                Some(Outcome::Reply(reply)) => {
                    matches!(reply.kind, wire::RAISED | wire::RAISED_FINAL)
                }
                Some(Outcome::Failed(_)) => true,
                None => false,
            },
            Source::Local(_) => matches!(self.outcome(py)?, Some(Err(_))),
        })
    }

    /// The outcome as Python objects, decoded once.
    pub(crate) fn outcome(&self, py: Python<'_>) -> PyResult<Option<LocalOutcome>> {
        let copy = |outcome: &LocalOutcome| match outcome {
            Ok(value) => Ok(value.clone_ref(py)),
            Err(error) => Err(error.clone_ref(py)),
        };
        // The standard library's `__init__` stores a result of None, which a cancelled future does not have.
        if self.phase() == Phase::Cancelled {
            return Ok(None);
        }
        if let Some(outcome) = &self.face().outcome {
            return Ok(Some(copy(outcome)));
        }
        let Source::Process { cell, .. } = self.source() else {
            return Ok(None);
        };
        let Some(raw) = cell.outcome() else {
            return Ok(None);
        };
        let decoded = match raw {
            Outcome::Reply(reply) => match decode(py, reply) {
                Ok(decoded) => decoded,
                Err(error) => Err(unreadable(py, &error)?),
            },
            Outcome::Failed(failure) => Err(explain(py, failure)?),
        };
        let mut face = self.face();
        let kept = face.outcome.get_or_insert(decoded);
        Ok(Some(copy(kept)))
    }
}

pub(crate) fn decode(py: Python<'_>, reply: &Reply) -> PyResult<LocalOutcome> {
    let mut body = reply.body();
    let apart = reply.buffers.as_slice();
    Ok(match reply.kind {
        wire::VALUE_SCALAR => Ok(codec::read(py, &mut body, &apart)?.unbind()),
        wire::VALUES_SCALAR => Ok(PyList::new(py, codec::read_all(py, body, &apart)?)?
            .into_any()
            .unbind()),
        wire::VALUE_PICKLED => Ok(pickling::load(py, body, leases(py, reply)?)?.unbind()),
        wire::RAISED | wire::RAISED_FINAL => {
            let error =
                pickling::payload(py, "load_exception")?.call1((body, leases(py, reply)?))?;
            if let Some(stopped) = &reply.stopped {
                pickling::payload(py, "name_interrupted")?.call1((&error, place(stopped)))?;
            }
            Err(error.unbind())
        }
        _ => {
            return Err(PyValueError::new_err(
                "a worker sent a reply of no known kind",
            ));
        }
    })
}

pub(crate) fn leases<'py>(py: Python<'py>, reply: &Reply) -> PyResult<Vec<Bound<'py, PyAny>>> {
    reply
        .buffers
        .iter()
        .map(|buffer| Ok(Bound::new(py, Lease::of_reply(buffer.clone()))?.into_any()))
        .collect()
}

pub(crate) fn unreadable(py: Python<'_>, error: &PyErr) -> PyResult<Py<PyAny>> {
    Ok(pickling::payload(py, "unreadable_result")?
        .call1((error.value(py),))?
        .unbind())
}

/// Worker, process, task and function, as `_payload` takes them.
fn place(stopped: &Stopped) -> (u32, i32, u64, &str) {
    (
        stopped.worker,
        stopped.pid,
        stopped.task.number,
        &stopped.task.function,
    )
}

/// The exception that tells a failure.
pub(crate) fn explain(py: Python<'_>, failure: &Failure) -> PyResult<Py<PyAny>> {
    let exception = match failure {
        Failure::WorkerDied {
            worker,
            pid,
            ending,
            deaths,
            task,
        } => pickling::payload(py, "worker_died")?.call1((
            *worker,
            *pid,
            ending.to_string(),
            *deaths,
            task.number,
            &*task.function,
        ))?,
        Failure::TimedOut {
            seconds,
            worker,
            pid,
            task,
        } => pickling::payload(py, "timed_out")?
            .call1((*seconds, (*worker, *pid, task.number, &*task.function)))?,
        Failure::Interrupted(stopped) => {
            pickling::payload(py, "interrupted")?.call1((place(stopped),))?
        }
        Failure::PoolBroken(reason) => pickling::payload(py, "pool_broken")?.call1((&**reason,))?,
        Failure::Unreadable(what) => pickling::payload(py, "unreadable_reply")?.call1((*what,))?,
    };
    Ok(exception.unbind())
}

/// An exception class of `concurrent.futures`.
pub(crate) fn standard_error(py: Python<'_>, name: &str) -> PyResult<PyErr> {
    let class = PyModule::import(py, "concurrent.futures")?.getattr(name)?;
    Ok(PyErr::from_value(class.call0()?))
}
