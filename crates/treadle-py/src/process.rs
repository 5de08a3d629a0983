//! What a worker process asks of the kernel about itself.

use std::os::fd::{FromRawFd, OwnedFd};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use treadle_heap::freed;

/// Makes the kernel kill this process when the thread that forked it ends; false when that has happened already.
///
/// `parent` is the process that must still be the parent.
#[pyfunction]
pub(crate) fn die_with_parent(parent: i32) -> PyResult<bool> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| PyOSError::new_err(error.to_string()))?;
    // It may have ended between the fork and the call above.
    Ok(rustix::process::getppid().is_some_and(|now| now.as_raw_nonzero().get() == parent))
}

/// Called in a forked child: the pools of its parent are not its own, nor is the socket at which the parent tells of them.
#[pyfunction]
#[allow(unsafe_code)]
pub(crate) fn note_fork() {
    treadle_core::pool::note_fork();
    if let Some(socket) = treadle_core::live::desk::leave_in_child() {
        // SAFETY: the desk has given it up in this process: its owner was forgotten, and its thread is not here.
        drop(unsafe { OwnedFd::from_raw_fd(socket) });
    }
}

/// Makes this process's heap keep memory that is freed at its end, up to 64 MiB; once a process.
#[pyfunction]
pub(crate) fn keep_freed_memory() {
    freed::keep(0);
}

/// Allocates, for good, what is free in the midst of the heap, so that a fork's own blocks stand together; the bytes set aside.
#[pyfunction]
pub(crate) fn set_holes_aside() -> usize {
    freed::set_holes_aside()
}

/// Gives memory that is allocated and not in use back to the kernel, where the C library can.
#[pyfunction]
pub(crate) fn trim_heap() {
    freed::trim();
}
