//! Objects to bytes and out-of-band buffers (pickle protocol 5), and back.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::buffer::PyBuffer;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyModule, PyTuple};

use crate::future::lock;

/// Buffers of at least this many bytes travel out of band. Below it, the copy into the pickle costs less than the block.
const SMALLEST_BUFFER: usize = 16 * 1024;

/// Takes the out-of-band buffers of one pickle.
#[pyclass(frozen, module = "treadle._core")]
struct Sink {
    taken: Mutex<Vec<PyBuffer<u8>>>,
}

#[pymethods]
impl Sink {
    /// `True` keeps the buffer in the pickle.
    fn __call__(&self, buffer: &Bound<'_, PyAny>) -> bool {
        // A buffer that is not contiguous has no raw bytes; pickle then copies it.
        let Ok(raw) = buffer.call_method0(intern!(buffer.py(), "raw")) else {
            return true;
        };
        let Ok(bytes) = PyBuffer::<u8>::get(&raw) else {
            return true;
        };
        if bytes.len_bytes() < SMALLEST_BUFFER {
            return true;
        }
        lock(&self.taken).push(bytes);
        false
    }
}

/// A pickle and its buffers.
pub(crate) struct Pickled<'py> {
    pub(crate) bytes: Bound<'py, PyBytes>,
    pub(crate) buffers: Vec<PyBuffer<u8>>,
}

impl Pickled<'_> {
    /// The buffers as bytes, and whether each is read-only.
    pub(crate) fn slices(&self) -> Vec<(&[u8], bool)> {
        self.buffers
            .iter()
            .map(|buffer| (bytes_of(buffer), buffer.readonly()))
            .collect()
    }
}

#[allow(unsafe_code)]
fn bytes_of(buffer: &PyBuffer<u8>) -> &[u8] {
    // SAFETY: the view is contiguous (`PickleBuffer.raw` refuses others) and held for the borrow. As in the standard library, an
    // object that another thread changes while it is being pickled arrives torn; its memory stays valid.
    unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast(), buffer.len_bytes()) }
}

fn attribute<'a, 'py>(
    py: Python<'py>,
    slot: &'a PyOnceLock<Py<PyAny>>,
    module: &str,
    name: &str,
) -> PyResult<&'a Bound<'py, PyAny>> {
    Ok(slot
        .get_or_try_init(py, || {
            Ok::<_, PyErr>(PyModule::import(py, module)?.getattr(name)?.unbind())
        })?
        .bind(py))
}

/// A sink that no pickle uses at the moment: making one costs as much as a small pickle.
static SPARE_SINK: Mutex<Option<Py<Sink>>> = Mutex::new(None);

/// Pickles an object.
///
/// # Errors
/// Whatever the object's own pickling raises.
pub(crate) fn dump<'py>(object: &Bound<'py, PyAny>) -> PyResult<Pickled<'py>> {
    static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static PROTOCOL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static KEYWORDS: PyOnceLock<Py<PyTuple>> = PyOnceLock::new();
    let py = object.py();
    let spare = lock(&SPARE_SINK).take();
    let sink = match spare {
        Some(sink) => sink.into_bound(py),
        None => Bound::new(
            py,
            Sink {
                taken: Mutex::default(),
            },
        )?,
    };
    let dumps = attribute(py, &DUMPS, "_pickle", "dumps")?;
    let protocol = PROTOCOL.get_or_init(py, || {
        5i32.into_pyobject(py)
            .map_or_else(|never| match never {}, |five| five.into_any().unbind())
    });
    let keywords = KEYWORDS.get_or_try_init(py, || {
        Ok::<_, PyErr>(PyTuple::new(py, [intern!(py, "buffer_callback")])?.unbind())
    })?;
    let dumped = call_with_keyword(
        dumps,
        [object, protocol.bind(py), sink.as_any()],
        keywords.bind(py),
    );
    let buffers = std::mem::take(&mut *lock(&sink.get().taken));
    let bytes = dumped?.cast_into::<PyBytes>()?;
    *lock(&SPARE_SINK) = Some(sink.unbind());
    Ok(Pickled { bytes, buffers })
}

/// Calls `callee(first, second, keyword=third)` without building a tuple and a dictionary.
#[allow(unsafe_code)]
fn call_with_keyword<'py>(
    callee: &Bound<'py, PyAny>,
    arguments: [&Bound<'py, PyAny>; 3],
    keyword: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let pointers = arguments.map(Bound::as_ptr);
    // SAFETY: the three pointers are borrowed for the call; two of them are positional, and `keyword` names the third.
    unsafe {
        Bound::from_owned_ptr_or_err(
            callee.py(),
            ffi::PyObject_Vectorcall(callee.as_ptr(), pointers.as_ptr(), 2, keyword.as_ptr()),
        )
    }
}

/// What the main module defines exists in this process only: set when a function is seen that a worker cannot import from there, in a session of
/// commands or a notebook.
static MAIN_BY_VALUE: AtomicBool = AtomicBool::new(false);

/// Says whether what the main module defines must travel by value.
#[pyfunction]
pub(crate) fn send_main_by_value(by_value: bool) {
    MAIN_BY_VALUE.store(by_value, Ordering::Relaxed);
}

impl Pickled<'_> {
    /// The error of a pickle that names what no worker can import: it must be made again, by value.
    ///
    /// # Errors
    /// That.
    pub(crate) fn importable(self) -> PyResult<Self> {
        const MAIN: &[u8] = b"__main__";
        if MAIN_BY_VALUE.load(Ordering::Relaxed) {
            let bytes = self.bytes.as_bytes();
            if bytes.windows(MAIN.len()).any(|window| window == MAIN) {
                let error = payload(self.bytes.py(), "only_by_value")?.call0()?;
                return Err(PyErr::from_value(error));
            }
        }
        Ok(self)
    }
}

/// Rebuilds an object from its pickle and the buffers' exporters.
///
/// # Errors
/// Whatever the object's own unpickling raises.
pub(crate) fn load<'py>(
    py: Python<'py>,
    bytes: &[u8],
    buffers: Vec<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    load_bytes(copied(py, bytes)?, buffers)
}

/// The same for bytes that are Python's already.
///
/// # Errors
/// Whatever the object's own unpickling raises.
pub(crate) fn load_bytes<'py>(
    bytes: Bound<'py, PyBytes>,
    buffers: Vec<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = bytes.py();
    let loads = attribute(py, &LOADS, "_pickle", "loads")?;
    if buffers.is_empty() {
        return loads.call1((bytes,));
    }
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "buffers"), PyList::new(py, buffers)?)?;
    loads.call((bytes,), Some(&keywords))
}

/// Bytes as Python's own; `MemoryError` where `PyBytes::new` would panic.
///
/// # Errors
/// When there is no memory for them.
pub(crate) fn copied<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, bytes.len(), |target| {
        target.copy_from_slice(bytes);
        Ok(())
    })
}

/// A function of `treadle._payload`: what is said of calls in the parent. Workers do not load it.
pub(crate) fn payload<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    function(py, &MODULE, "treadle._payload", name)
}

/// A function of `treadle._outcome`: what is said of results and exceptions, in workers too.
pub(crate) fn outcome<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    function(py, &MODULE, "treadle._outcome", name)
}

/// Runs a coroutine to its end on this thread's own event loop.
///
/// # Errors
/// Whatever the coroutine raises.
pub(crate) fn run_coroutine<'py>(coroutine: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let py = coroutine.py();
    function(py, &MODULE, "treadle._coroutine", "run_coroutine")?.call1((coroutine,))
}

fn function<'py>(
    py: Python<'py>,
    slot: &PyOnceLock<Py<PyModule>>,
    module: &str,
    name: &str,
) -> PyResult<Bound<'py, PyAny>> {
    slot.get_or_try_init(py, || {
        Ok::<_, PyErr>(PyModule::import(py, module)?.unbind())
    })?
    .bind(py)
    .getattr(name)
}
