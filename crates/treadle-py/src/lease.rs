//! A lease: shared memory as an object with Python's buffer protocol.
//!
//! The exporter owns the block, so that whatever is built on it (an array, a memoryview of a memoryview) keeps it. When the last view is gone,
//! the block goes back to the process that allocated it.

use std::ffi::c_int;
use std::sync::Arc;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use treadle_core::pool::outcome::Buffer;
use treadle_shm::Mapped;

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
