//! `_core.ZygoteEnd`: a zygote's end of the socket over which its program asks for workers.

use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use treadle_core::pool::zygote_end::{self, Event, Order};

/// What a worker that is to be forked is told, and the numbers of its descriptors.
type Told<'py> = (Vec<Bound<'py, PyBytes>>, Vec<i32>);

/// A zygote's end of its socket. For the zygote's one thread.
#[pyclass(module = "treadle._core")]
pub(crate) struct ZygoteEnd {
    /// None in a worker.
    end: Option<zygote_end::ZygoteEnd>,
    /// The order that is being followed.
    order: Option<Order>,
}

impl ZygoteEnd {
    fn end(&mut self) -> PyResult<&mut zygote_end::ZygoteEnd> {
        self.end
            .as_mut()
            .ok_or_else(|| PyRuntimeError::new_err("this process is a worker, not a zygote"))
    }
}

#[pymethods]
impl ZygoteEnd {
    /// Takes over the descriptor of the socket.
    #[new]
    #[allow(unsafe_code)]
    fn new(descriptor: i32) -> PyResult<ZygoteEnd> {
        if descriptor < 0 {
            return Err(PyValueError::new_err("a zygote needs an open descriptor"));
        }
        // SAFETY: the caller hands over a descriptor that it does not use again.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(ZygoteEnd {
            end: Some(zygote_end::ZygoteEnd::new(socket)),
            order: None,
        })
    }

    /// The fields of the first message; none when the program is gone.
    fn preparation<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Vec<Bound<'py, PyBytes>>>> {
        let end = self.end()?;
        let fields = py.detach(|| end.preparation());
        Ok(fields.map(|fields| as_bytes(py, &fields)))
    }

    /// Watches the program; false when it has ended.
    fn watch_parent(&mut self, parent: i32) -> PyResult<bool> {
        Ok(self.end()?.watch_parent(parent))
    }

    /// Tells that workers can be forked.
    fn say_ready(&mut self) -> PyResult<()> {
        self.end()?.say_ready();
        Ok(())
    }

    /// Tells why none will be, in UTF-8.
    fn say_failed(&mut self, reason: &[u8]) -> PyResult<()> {
        self.end()?.say_failed(reason);
        Ok(())
    }

    /// Waits until a worker is to be forked; none when the program is gone. Raises `OSError` where waiting fails.
    fn next_order<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Told<'py>>> {
        loop {
            let end = self.end()?;
            match py.detach(|| end.next_event()) {
                Event::Interrupted => py.check_signals()?,
                Event::Gone => return Ok(None),
                Event::Failed(error) => return Err(error.into()),
                Event::Order(order) => {
                    let fields = as_bytes(py, &order.fields);
                    let descriptors = order.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
                    self.order = Some(order);
                    return Ok(Some((fields, descriptors)));
                }
            }
        }
    }

    /// Tells that the order was followed by process `pid`, or could not be (0).
    fn say_forked(&mut self, pid: i32) -> PyResult<()> {
        let Some(order) = self.order.take() else {
            return Err(PyRuntimeError::new_err("no worker was asked for"));
        };
        let end = self.end()?;
        if pid == 0 {
            end.say_not_forked(&order.tag);
        } else {
            end.say_forked(&order.tag, pid);
        }
        Ok(())
    }

    /// In the worker: what is the zygote's is closed, and the descriptors of the order are the caller's.
    fn leave(&mut self) {
        self.end = None;
        for descriptor in self
            .order
            .take()
            .into_iter()
            .flat_map(|order| order.descriptors)
        {
            let _ = descriptor.into_raw_fd();
        }
    }
}

fn as_bytes<'py>(py: Python<'py>, fields: &[Vec<u8>]) -> Vec<Bound<'py, PyBytes>> {
    fields.iter().map(|field| PyBytes::new(py, field)).collect()
}
