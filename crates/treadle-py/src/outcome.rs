//! Outcomes as Python objects: results, exceptions, and the reasons why there is neither.

use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;
use treadle_core::pool::cell::Phase;
use treadle_core::pool::outcome::{After, Failure, Outcome, Reply, Stopped};
use treadle_core::pool::processes::SubmitError;
use treadle_core::pool::wire;

use crate::codec;
use crate::future::{FutureBase, LocalOutcome, Source};
use crate::lease::leases;
use crate::pickling;

impl FutureBase {
    pub(crate) fn failed(slf: &Bound<'_, Self>) -> PyResult<bool> {
        Ok(match slf.get().source() {
            Source::Process { cell, .. } => match cell.outcome() {
                Some(Outcome::Reply(reply)) => wire::is_raised(reply.kind),
                Some(Outcome::Failed(_)) => true,
                // A chunk says itself where it ended.
                Some(Outcome::Parts(..)) | None => false,
            },
            Source::Local(_) => matches!(FutureBase::outcome(slf)?, Some(Err(_))),
        })
    }

    /// The outcome as Python objects, decoded once.
    pub(crate) fn outcome(slf: &Bound<'_, Self>) -> PyResult<Option<LocalOutcome>> {
        let (this, py) = (slf.get(), slf.py());
        let copy = |outcome: &LocalOutcome| match outcome {
            Ok(value) => Ok(value.clone_ref(py)),
            Err(error) => Err(error.clone_ref(py)),
        };
        // The standard library's `__init__` stores a result of None, which a cancelled future does not have.
        if this.phase() == Phase::Cancelled {
            return Ok(None);
        }
        if let Some(outcome) = &this.face().outcome {
            return Ok(Some(copy(outcome)));
        }
        let Source::Process { cell, pool, .. } = this.source() else {
            return Ok(None);
        };
        let Some(raw) = cell.outcome() else {
            return Ok(None);
        };
        let began_ns = if is_timed(raw) {
            pool.begin_call()
        } else {
            None
        };
        let decoded = match raw {
            Outcome::Reply(reply) => match decode(py, reply) {
                Ok(decoded) => decoded,
                Err(error) => Err(unreadable(py, &error)?),
            },
            Outcome::Failed(failure) => Err(explain(py, failure)?),
            Outcome::Parts(parts, end) => Ok(decode_chunk(py, parts, end)?),
        };
        if let Some(began) = began_ns {
            pool.note_rebuilt(treadle_shm::monotonic_nanoseconds().saturating_sub(began));
        }
        FutureBase::track_for(slf, &decoded);
        let mut face = this.face();
        let kept = face.outcome.get_or_insert(decoded);
        Ok(Some(copy(kept)))
    }
}

/// Whether rebuilding it takes longer than two looks at the clock.
fn is_timed(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Reply(reply) => reply.kind != wire::VALUE_SCALAR || !reply.buffers.is_empty(),
        Outcome::Failed(_) => false,
        Outcome::Parts(..) => true,
    }
}

pub(crate) fn decode(py: Python<'_>, reply: &Reply) -> PyResult<LocalOutcome> {
    let mut body = reply.body();
    let apart = reply.buffers.as_slice();
    Ok(match reply.kind {
        wire::VALUE_SCALAR => Ok(codec::read(py, &mut body, &apart)?.unbind()),
        wire::VALUES => Ok(chunk(py, &[], Some(reply))?),
        wire::VALUE_PICKLED => Ok(pickling::load(py, body, leases(py, &reply.buffers)?)?.unbind()),
        wire::RAISED | wire::RAISED_FINAL => {
            let error = pickling::outcome(py, "load_exception")?
                .call1((body, leases(py, &reply.buffers)?))?;
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

/// A chunk's outcome; see `_payload.Chunk`.
fn decode_chunk(py: Python<'_>, parts: &[Reply], end: &Outcome) -> PyResult<Py<PyAny>> {
    let error = match end {
        Outcome::Reply(reply) if reply.kind == wire::VALUES => {
            return chunk(py, parts, Some(reply));
        }
        Outcome::Reply(reply) => match decode(py, reply) {
            Ok(Err(error)) => error,
            Ok(Ok(_)) => unreadable(py, &PyValueError::new_err("a chunk without its end"))?,
            Err(error) => unreadable(py, &error)?,
        },
        Outcome::Failed(failure) => explain(py, failure)?,
        Outcome::Parts(_, inner) => return decode_chunk(py, parts, inner),
    };
    let whole = chunk(py, parts, None)?;
    let whole = whole.bind(py);
    // A result that cannot be rebuilt came before whatever ended the chunk.
    if whole.getattr("exception")?.is_none() {
        whole.setattr("exception", error)?;
    }
    Ok(whole.clone().unbind())
}

/// The results of a chunk, up to one that cannot be rebuilt here.
fn chunk(py: Python<'_>, parts: &[Reply], last: Option<&Reply>) -> PyResult<Py<PyAny>> {
    let results = PyList::empty(py);
    let mut seconds = py.None();
    let mut failure = py.None();
    let read = |reply: &Reply, mut body: &[u8]| -> PyResult<()> {
        while !body.is_empty() {
            results.append(codec::read(py, &mut body, &reply.buffers.as_slice())?)?;
        }
        Ok(())
    };
    let mut read_parts = || -> PyResult<()> {
        for part in parts {
            read(part, part.body())?;
        }
        if let Some(last) = last {
            let mut body = last.body();
            seconds = codec::read(py, &mut body, &last.buffers.as_slice())?.unbind();
            read(last, body)?;
        }
        Ok(())
    };
    if let Err(error) = read_parts() {
        failure = unreadable(py, &error)?;
    }
    Ok(pickling::payload(py, "Chunk")?
        .call1((seconds, results, failure))?
        .unbind())
}

pub(crate) fn unreadable(py: Python<'_>, error: &PyErr) -> PyResult<Py<PyAny>> {
    Ok(pickling::outcome(py, "unreadable_result")?
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

/// What became of a call that was to stop, as `_payload` takes it.
fn word(after: After) -> &'static str {
    match after {
        After::Stopped => "stopped",
        After::Replaced => "replaced",
        After::RunsOn => "runs on",
    }
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
        Failure::TimedOut(late) => pickling::payload(py, "timed_out")?.call1((
            late.seconds,
            (
                late.worker,
                late.pid,
                late.task.number,
                &*late.task.function,
            ),
            word(late.after),
        ))?,
        Failure::Interrupted(stopped, after) => {
            pickling::payload(py, "interrupted")?.call1((place(stopped), word(*after)))?
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

/// The exception of a call for which the program has no memory.
pub(crate) fn no_memory() -> PyErr {
    PyMemoryError::new_err(SubmitError::NoMemory.to_string())
}

/// The exception of a call that could not be submitted.
pub(crate) fn submit_error(py: Python<'_>, error: &SubmitError) -> PyErr {
    let make = match error {
        SubmitError::NoMemory => return no_memory(),
        SubmitError::ShutDown => pickling::payload(py, "shut_down"),
        SubmitError::Broken(_) => pickling::payload(py, "pool_broken"),
        SubmitError::Memory(_) | SubmitError::TooLarge { .. } => pickling::outcome(py, "no_memory"),
        SubmitError::Full
        | SubmitError::Interrupted
        | SubmitError::Descriptor(_)
        | SubmitError::Supervisor(_) => pickling::payload(py, "not_started"),
        SubmitError::Forked => pickling::payload(py, "forked"),
    };
    let made = make.and_then(|make| match error {
        SubmitError::ShutDown => make.call0(),
        _ => make.call1((error.to_string(),)),
    });
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}
