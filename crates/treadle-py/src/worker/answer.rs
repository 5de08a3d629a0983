//! What a task's record is made of: its result, packed, or its exception.
//!
//! Packing may run the user's code (a result's own pickling); writing does not.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyFloat};
use treadle_core::pool::wire;
use treadle_core::pool::worker::{WorkerError, WorkerSession};

use crate::codec::Writer;
use crate::pickling;

/// What a task brought.
pub(super) enum Answer<'py> {
    One(Bound<'py, PyAny>),
    /// A chunk ran to its end, in so many seconds; its results stand in the draft.
    Chunk(f64),
}

/// A record's body, ready to be written.
pub(super) enum Packed<'a, 'py> {
    Scalar(Writer<'a>),
    Pickled(pickling::Pickled<'py>),
    /// The end of a chunk.
    Chunk(Vec<u8>),
    /// [`wire::RAISED`] or [`wire::RAISED_FINAL`], and the pickled exception.
    Raised(u32, Vec<u8>),
}

impl<'py> Answer<'py> {
    /// Packs it.
    ///
    /// # Errors
    /// The task's own: its result does not pickle.
    pub(super) fn pack<'a>(&'a self, py: Python<'py>) -> PyResult<Packed<'a, 'py>> {
        match self {
            Answer::One(result) => pack(result),
            Answer::Chunk(seconds) => {
                let seconds = PyFloat::new(py, *seconds).into_any();
                let mut writer = Writer::default();
                writer.write(&seconds);
                Ok(Packed::Chunk(writer.out))
            }
        }
    }
}

/// Packs one result.
///
/// # Errors
/// As [`Answer::pack`].
pub(super) fn pack<'a, 'py>(result: &'a Bound<'py, PyAny>) -> PyResult<Packed<'a, 'py>> {
    let mut writer = Writer::default();
    if writer.write(result) {
        return Ok(Packed::Scalar(writer));
    }
    Ok(Packed::Pickled(dump_result(result)?))
}

/// Packs an exception.
///
/// # Errors
/// When that raises, which it does only where Python itself is at its end.
pub(super) fn raised<'py>(py: Python<'py>, error: PyErr) -> PyResult<Packed<'static, 'py>> {
    // Not `value`: that leaves the traceback behind.
    let error = error.into_value(py);
    let again = pickling::outcome(py, "may_run_again")?
        .call1((&error,))?
        .is_truthy()?;
    let kind = if again {
        wire::RAISED
    } else {
        wire::RAISED_FINAL
    };
    let bytes = pickling::outcome(py, "dump_exception")?
        .call1((error,))?
        .cast_into::<PyBytes>()?;
    Ok(Packed::Raised(kind, bytes.as_bytes().to_vec()))
}

impl Packed<'_, '_> {
    /// Writes the record of the task in this hand.
    fn write(&self, session: &mut WorkerSession, hand: u32, task: u64) -> Result<(), WorkerError> {
        match self {
            Packed::Scalar(writer) => {
                session.reply_from(hand, task, wire::VALUE_SCALAR, &writer.out, &writer.apart)
            }
            Packed::Pickled(pickled) => session.reply_from(
                hand,
                task,
                wire::VALUE_PICKLED,
                pickled.bytes.as_bytes(),
                &pickled.slices(),
            ),
            Packed::Chunk(head) => session.end_chunk(task, head),
            Packed::Raised(kind, bytes) => session.reply_from(hand, task, *kind, bytes, &[]),
        }
    }
}

/// Ends a task with its record. `session` is asked for at each try, so that it is held while a record is written and not longer.
///
/// # Errors
/// When not even an exception can be written.
pub(super) fn reply<S: std::ops::DerefMut<Target = WorkerSession>>(
    py: Python<'_>,
    session: impl Fn() -> S,
    hand: u32,
    task: u64,
    packed: PyResult<Packed<'_, '_>>,
) -> PyResult<()> {
    let packed = match packed {
        Ok(packed) => packed,
        Err(error) => raised(py, error)?,
    };
    let written = packed.write(&mut session(), hand, task);
    if let Err(error) = written {
        let error =
            PyErr::from_value(pickling::outcome(py, "no_memory")?.call1((error.to_string(),))?);
        raised(py, error)?
            .write(&mut session(), hand, task)
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    }
    Ok(())
}

/// The exception of a task whose bytes could not be read.
///
/// # Errors
/// When it cannot be made.
pub(super) fn unreadable(py: Python<'_>, error: &WorkerError) -> PyResult<PyErr> {
    let text = error.to_string();
    Ok(if error.is_exhaustion() {
        PyErr::from_value(pickling::outcome(py, "no_memory")?.call1((text,))?)
    } else {
        PyRuntimeError::new_err(text)
    })
}

/// The exception of a task whose call could not be rebuilt.
///
/// # Errors
/// When it cannot be made.
pub(super) fn not_rebuilt(py: Python<'_>, error: &PyErr) -> PyResult<PyErr> {
    let made = pickling::outcome(py, "unreadable_call")?.call1((error.value(py),))?;
    Ok(PyErr::from_value(made))
}

pub(super) fn dump_result<'py>(result: &Bound<'py, PyAny>) -> PyResult<pickling::Pickled<'py>> {
    let py = result.py();
    pickling::dump(result).or_else(|error| {
        // By value, when an optional library can; else the error that explains.
        let bytes = pickling::outcome(py, "dump_result_otherwise")?
            .call1((result, error.value(py)))?
            .cast_into::<PyBytes>()?;
        Ok(pickling::Pickled {
            bytes,
            buffers: Vec::new(),
        })
    })
}
