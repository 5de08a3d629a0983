//! A task as Python objects: its function, loaded once, and its arguments or the items of its chunk.

use std::collections::HashMap;

use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict, PyList, PyTuple};
use treadle_core::pool::wire;
use treadle_core::pool::worker::{Holdings, Taken};
use treadle_shm::BlockRef;

use crate::codec;
use crate::lease::Lease;
use crate::pickling;

/// The functions of the pool's table that a thread of this process has loaded, by number.
pub(super) type Functions = HashMap<u32, Py<PyAny>>;

/// A task as Python objects.
pub(super) struct Ready<'py> {
    pub(super) function: Bound<'py, PyAny>,
    pub(super) work: Work<'py>,
}

pub(super) enum Work<'py> {
    One(Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>),
    /// Items of a chunk: each is one argument, or a tuple of them.
    Chunk(Vec<Bound<'py, PyAny>>, bool),
}

fn function<'py>(
    py: Python<'py>,
    holdings: &Holdings,
    known: &mut Functions,
    id: u32,
    block: BlockRef,
) -> PyResult<Bound<'py, PyAny>> {
    if let Some(function) = known.get(&id) {
        return Ok(function.bind(py).clone());
    }
    let pickle = holdings
        .read_block(block)
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    let function = pickling::load(py, &pickle, Vec::new())?;
    known.insert(id, function.clone().unbind());
    Ok(function)
}

/// Rebuilds a call, or a chunk of calls.
///
/// # Errors
/// Whatever the user's own unpickling raises.
pub(super) fn prepare<'py>(
    py: Python<'py>,
    holdings: &Holdings,
    known: &mut Functions,
    taken: &mut Taken,
    payload: &[u8],
) -> PyResult<Ready<'py>> {
    let known_function = match taken.function {
        Some((id, block)) => Some(function(py, holdings, known, id, block)?),
        None => None,
    };
    let function = || {
        known_function
            .clone()
            .ok_or_else(|| PyValueError::new_err("a task without its function"))
    };
    match taken.kind {
        wire::CALL_SCALARS | wire::CHUNK_SCALARS => {
            let apart = taken.buffers.as_slice();
            let values = codec::read_all(py, taken.body_of(payload), &apart)?;
            // Copied: the blocks go back now.
            taken.buffers.clear();
            let work = if taken.kind == wire::CALL_SCALARS {
                Work::One(PyTuple::new(py, values)?, None)
            } else {
                Work::Chunk(values, taken.single_argument)
            };
            Ok(Ready {
                function: function()?,
                work,
            })
        }
        kind => {
            let views = leases(py, taken)?;
            let bytes = pickling::copied(py, taken.body_of(payload))?;
            let object = pickling::load_bytes(bytes, views)?;
            match kind {
                wire::CALL_PICKLED => {
                    let (arguments, keywords) =
                        object.extract::<(Bound<'py, PyTuple>, Bound<'py, PyDict>)>()?;
                    Ok(Ready {
                        function: function()?,
                        work: Work::One(arguments, Some(keywords)),
                    })
                }
                wire::CALL_WHOLE => {
                    let (function, arguments, keywords) = object.extract::<(
                        Bound<'py, PyAny>,
                        Bound<'py, PyTuple>,
                        Bound<'py, PyDict>,
                    )>()?;
                    Ok(Ready {
                        function,
                        work: Work::One(arguments, Some(keywords)),
                    })
                }
                wire::CHUNK_PICKLED => Ok(Ready {
                    function: function()?,
                    work: chunk_of(&object, taken.single_argument)?,
                }),
                wire::CHUNK_WHOLE => {
                    let (function, items) =
                        object.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>)>()?;
                    Ok(Ready {
                        function,
                        work: chunk_of(&items, taken.single_argument)?,
                    })
                }
                _ => Err(PyValueError::new_err("a task of no known kind")),
            }
        }
    }
}

fn leases<'py>(py: Python<'py>, taken: &mut Taken) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let buffers = std::mem::take(&mut taken.buffers);
    let mut views: Vec<Bound<'py, PyAny>> = Vec::with_capacity(buffers.len());
    for (mapped, read_only) in buffers {
        views.push(if taken.copy_buffers {
            let copy = mapped
                .copy_to_vec()
                .map_err(|error| PyMemoryError::new_err(error.to_string()))?;
            if read_only {
                pickling::copied(py, &copy)?.into_any()
            } else {
                PyByteArray::new_with(py, copy.len(), |target| {
                    target.copy_from_slice(&copy);
                    Ok(())
                })?
                .into_any()
            }
        } else {
            Bound::new(py, Lease::of_argument(mapped, read_only))?.into_any()
        });
    }
    Ok(views)
}

fn chunk_of<'py>(items: &Bound<'py, PyAny>, single: bool) -> PyResult<Work<'py>> {
    let items = items.cast::<PyList>()?;
    Ok(Work::Chunk(items.iter().collect(), single))
}
