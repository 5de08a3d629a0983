//! A lease: shared memory as an object with Python's buffer protocol.
//!
//! The exporter owns the block, so that whatever is built on it (an array, a memoryview of a memoryview) keeps it. When the last view is gone,
//! the block goes back to the process that allocated it.

use std::ffi::c_int;
use std::sync::Arc;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use treadle_core::pool::outcome::Buffer;
use treadle_shm::Mapped;

use crate::codec::Apart;
use crate::pickling;

enum Holding {
    Reply(Arc<Buffer>),
    Argument(Mapped),
}

/// Bytes in shared memory, returned to their owner when the last view of them is gone.
#[pyclass(frozen, module = "treadle._core")]
pub(crate) struct Lease {
    holding: Holding,
    read_only: bool,
}

impl Lease {
    pub(crate) fn of_reply(buffer: Arc<Buffer>) -> Lease {
        let read_only = buffer.read_only;
        Lease {
            holding: Holding::Reply(buffer),
            read_only,
        }
    }

    pub(crate) fn of_argument(mapped: Mapped, read_only: bool) -> Lease {
        Lease {
            holding: Holding::Argument(mapped),
            read_only,
        }
    }

    fn mapped(&self) -> &Mapped {
        match &self.holding {
            Holding::Reply(buffer) => &buffer.mapped,
            Holding::Argument(mapped) => mapped,
        }
    }
}

#[pymethods]
impl Lease {
    #[allow(unsafe_code)]
    unsafe fn __getbuffer__(
        slf: PyRef<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        if flags & ffi::PyBUF_WRITABLE != 0 && slf.read_only {
            return Err(PyBufferError::new_err(
                "this shared memory is read-only: the object it came from was",
            ));
        }
        let mapped = slf.mapped();
        let (pointer, length, read_only) =
            (mapped.as_ptr(), mapped.len(), c_int::from(slf.read_only));
        // SAFETY: `pointer` is valid for `length` bytes for as long as the lease lives, and the view holds a reference to the lease.
        // A block is lent to one process at a time, so nobody else writes to it while this view lives.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                pointer.cast_mut().cast(),
                length as isize,
                read_only,
                flags,
            )
        };
        if filled != 0 {
            Err(PyErr::fetch(slf.py()))
        } else {
            Ok(())
        }
    }

    #[allow(unsafe_code)]
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {}
}

/// The bytes of a block as a slice.
#[allow(unsafe_code)]
fn slice_of(mapped: &Mapped) -> &[u8] {
    // SAFETY: the pointer is valid for `len` bytes while `mapped` lives. Its writer finished before it committed the record or published the
    // task that names the block; a process that writes there later damages the value that is read, which is bytes whatever it is.
    unsafe { std::slice::from_raw_parts(mapped.as_ptr(), mapped.len()) }
}

fn text_of<'py>(py: Python<'py>, mapped: &Mapped) -> PyResult<Bound<'py, PyString>> {
    PyString::from_bytes(py, slice_of(mapped))
}

/// The buffers of a reply, for pickle.
pub(crate) fn leases<'py>(
    py: Python<'py>,
    buffers: &[Arc<Buffer>],
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    buffers
        .iter()
        .map(|buffer| Ok(Bound::new(py, Lease::of_reply(buffer.clone()))?.into_any()))
        .collect()
}

impl Apart for &[Arc<Buffer>] {
    fn bytes<'py>(&self, py: Python<'py>, index: usize) -> Option<PyResult<Bound<'py, PyBytes>>> {
        Some(pickling::copied(py, slice_of(&self.get(index)?.mapped)))
    }

    fn text<'py>(&self, py: Python<'py>, index: usize) -> Option<PyResult<Bound<'py, PyString>>> {
        Some(text_of(py, &self.get(index)?.mapped))
    }

    fn buffers<'py>(
        &self,
        py: Python<'py>,
        first: usize,
        count: usize,
    ) -> Option<PyResult<Vec<Bound<'py, PyAny>>>> {
        let buffers = self.get(first..first.checked_add(count)?)?;
        Some(leases(py, buffers))
    }
}

impl Apart for &[(Mapped, bool)] {
    fn bytes<'py>(&self, py: Python<'py>, index: usize) -> Option<PyResult<Bound<'py, PyBytes>>> {
        Some(pickling::copied(py, slice_of(&self.get(index)?.0)))
    }

    fn text<'py>(&self, py: Python<'py>, index: usize) -> Option<PyResult<Bound<'py, PyString>>> {
        Some(text_of(py, &self.get(index)?.0))
    }
}
