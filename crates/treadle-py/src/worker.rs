//! `_core.Worker`: the loop that runs in a worker process.
//!
//! ```text
//! take ─► function (by number, loaded once) ─► arguments ─► call ─► reply
//! ```
//!
//! *Guarantees*: whatever a task raises, returns or cannot pickle becomes its record; only the worker's own end leaves the loop. No lock is held
//! while the user's code runs, so that a signal handler may look at the session.

use std::collections::HashMap;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pyo3::exceptions::{PyMemoryError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyFloat, PyList, PyTuple};
use treadle_core::pool::wire;
use treadle_core::pool::worker::{Taken, WorkerError, WorkerSession};
use treadle_shm::{BlockRef, Caller, Waited};

use crate::codec::{self, Writer};
use crate::future::lock;
use crate::lease::Lease;
use crate::pickling;
use crate::threads::is_coroutine;

/// The memory of a worker is looked at no more often than this: reading it costs microseconds.
const MEMORY_LOOK_NS: u128 = 10_000_000;

/// Longer notes are refused: they would crowd results out of the ring.
const LONGEST_NOTE: usize = 32 * 1024;

/// A worker's end of a process pool.
#[pyclass(frozen, module = "treadle._core")]
pub(crate) struct Worker {
    session: Mutex<WorkerSession>,
    /// Notes of threads that found the session in use; written before the next task, or at once if there is none.
    unsent: Mutex<Vec<Vec<u8>>>,
    /// Wakes the main thread to write them.
    caller: Caller,
    /// The task in which an interruption was raised last: the signal for it may come again.
    interrupted: AtomicU64,
    most_tasks: Option<u64>,
    most_growth: Option<u64>,
}

/// A task as Python objects.
struct Ready<'py> {
    function: Bound<'py, PyAny>,
    work: Work<'py>,
}

enum Work<'py> {
    One(Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>),
    /// Items of a chunk: each is one argument, or a tuple of them.
    Chunk(Vec<Bound<'py, PyAny>>, bool),
}

/// What a task's record is made of.
enum Answer<'py> {
    One(Bound<'py, PyAny>),
    /// A chunk ran to its end, in so many seconds; its results stand in the draft.
    Chunk(f64),
    /// [`wire::RAISED`] or [`wire::RAISED_FINAL`], and the pickled exception.
    Raised(u32, Vec<u8>),
}

impl Worker {
    fn session(&self) -> std::sync::MutexGuard<'_, WorkerSession> {
        lock(&self.session)
    }

    fn function<'py>(
        &self,
        py: Python<'py>,
        known: &mut HashMap<u32, Py<PyAny>>,
        id: u32,
        block: BlockRef,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(function) = known.get(&id) {
            return Ok(function.bind(py).clone());
        }
        let pickle = self
            .session()
            .read_block(block)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let function =
            pickling::payload(py, "load_function")?.call1((PyBytes::new(py, &pickle),))?;
        known.insert(id, function.clone().unbind());
        Ok(function)
    }

    fn prepare<'py>(
        &self,
        py: Python<'py>,
        known: &mut HashMap<u32, Py<PyAny>>,
        taken: &mut Taken,
    ) -> PyResult<Ready<'py>> {
        let known_function = match taken.function {
            Some((id, block)) => Some(self.function(py, known, id, block)?),
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
                let values = codec::read_all(py, self.session().body(taken), &apart)?;
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
                let object = {
                    let bytes = pickling::copied(py, self.session().body(taken))?;
                    pickling::load_bytes(bytes, views)?
                };
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

    fn run<'py>(&self, task: u64, ready: Ready<'py>) -> PyResult<Answer<'py>> {
        match ready.work {
            Work::One(arguments, keywords) => {
                let result = finish_coroutine(ready.function.call(arguments, keywords.as_ref())?)?;
                Ok(Answer::One(result))
            }
            Work::Chunk(items, single) => self.run_chunk(task, &ready.function, items, single),
        }
    }

    /// Runs the items of a chunk, one after the other, as far as the parent leaves them here. Each result is kept as soon as it is there.
    fn run_chunk<'py>(
        &self,
        task: u64,
        function: &Bound<'py, PyAny>,
        items: Vec<Bound<'py, PyAny>>,
        single: bool,
    ) -> PyResult<Answer<'py>> {
        let began = Instant::now();
        let mut more = {
            let mut session = self.session();
            session.begin_chunk(task, items.len());
            session.next_item()
        };
        let mut spare = Vec::new();
        for item in items {
            if !more {
                break;
            }
            let kept = if single {
                function.call1((item,))
            } else {
                item.cast_into::<PyTuple>()
                    .map_err(PyErr::from)
                    .and_then(|arguments| function.call1(arguments))
            }
            .and_then(finish_coroutine)
            .and_then(|result| self.keep(task, &result, &mut spare));
            more = match kept {
                Ok(more) => more,
                Err(error) => {
                    self.session()
                        .cut_chunk(task)
                        .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
                    return Err(error);
                }
            };
        }
        Ok(Answer::Chunk(began.elapsed().as_secs_f64()))
    }

    /// Puts one result of a chunk into the draft; whether there is another item to run.
    fn keep(&self, task: u64, result: &Bound<'_, PyAny>, spare: &mut Vec<u8>) -> PyResult<bool> {
        let py = result.py();
        let mut writer = Writer::from(std::mem::take(spare), 0);
        writer.out.clear();
        let kept = if writer.write(result) {
            self.session().keep(
                task,
                &mut |first, out| {
                    if first == 0 || writer.apart.is_empty() {
                        out.extend_from_slice(&writer.out);
                    } else {
                        let mut again = Writer::from(std::mem::take(out), first);
                        again.write(result);
                        *out = again.out;
                    }
                },
                &writer.apart,
            )
        } else {
            let pickled = dump_result(result)?;
            let bytes = pickled.bytes.as_bytes();
            let buffers = pickled.slices();
            self.session().keep(
                task,
                &mut |first, out| codec::write_pickled(out, bytes, first, buffers.len()),
                &buffers,
            )
        };
        *spare = writer.out;
        match kept {
            Ok(more) => Ok(more),
            Err(error) => Err(PyErr::from_value(
                pickling::payload(py, "no_memory")?.call1((error.to_string(),))?,
            )),
        }
    }

    /// Writes a task's record. The outer error is the task's own: its result does not pickle.
    fn reply(
        &self,
        py: Python<'_>,
        task: u64,
        answer: &Answer<'_>,
    ) -> PyResult<Result<(), WorkerError>> {
        let pickled;
        let pickled = match answer {
            Answer::Raised(kind, bytes) => {
                return Ok(self.session().reply(task, *kind, bytes, &[]));
            }
            Answer::One(result) => {
                let mut writer = Writer::default();
                if writer.write(result) {
                    return Ok(self.session().reply(
                        task,
                        wire::VALUE_SCALAR,
                        &writer.out,
                        &writer.apart,
                    ));
                }
                pickled = dump_result(result)?;
                &pickled
            }
            Answer::Chunk(seconds) => {
                let seconds = PyFloat::new(py, *seconds);
                let mut writer = Writer::default();
                writer.write(&seconds);
                return Ok(self.session().end_chunk(task, &writer.out));
            }
        };
        let body = pickled.bytes.as_bytes();
        Ok(self
            .session()
            .reply(task, wire::VALUE_PICKLED, body, &pickled.slices()))
    }

    fn raised<'py>(py: Python<'py>, error: PyErr) -> PyResult<Answer<'py>> {
        // Not `value`: that leaves the traceback behind.
        let error = error.into_value(py);
        let again = pickling::payload(py, "may_run_again")?
            .call1((&error,))?
            .is_truthy()?;
        let kind = if again {
            wire::RAISED
        } else {
            wire::RAISED_FINAL
        };
        let bytes = pickling::payload(py, "dump_exception")?
            .call1((error,))?
            .cast_into::<PyBytes>()?;
        Ok(Answer::Raised(kind, bytes.as_bytes().to_vec()))
    }

    fn send_notes(&self, session: &mut WorkerSession) -> bool {
        let notes = std::mem::take(&mut *lock(&self.unsent));
        notes
            .iter()
            .all(|note| session.post(wire::NOTE, note).is_ok())
    }

    /// One task from its bytes to its record.
    fn handle(
        &self,
        py: Python<'_>,
        known: &mut HashMap<u32, Py<PyAny>>,
        mut taken: Taken,
    ) -> PyResult<()> {
        let task = taken.task;
        let prepared = if taken.interrupted {
            self.interrupted.store(task, Ordering::Relaxed);
            Err(PyErr::from_value(
                pickling::payload(py, "interrupted_early")?.call0()?,
            ))
        } else {
            self.prepare(py, known, &mut taken)
        };
        let answer = match prepared {
            Ok(ready) => self.run(task, ready),
            Err(error) => Err(PyErr::from_value(
                pickling::payload(py, "unreadable_call")?.call1((error.value(py),))?,
            )),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => Worker::raised(py, error)?,
        };
        let written = match self.reply(py, task, &answer) {
            Ok(written) => written,
            Err(error) => self.reply(py, task, &Worker::raised(py, error)?)?,
        };
        if let Err(error) = written {
            let error =
                PyErr::from_value(pickling::payload(py, "no_memory")?.call1((error.to_string(),))?);
            self.reply(py, task, &Worker::raised(py, error)?)?
                .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        }
        Ok(())
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

fn dump_result<'py>(result: &Bound<'py, PyAny>) -> PyResult<pickling::Pickled<'py>> {
    let py = result.py();
    pickling::dump(result).or_else(|error| {
        // By value, when an optional library can; else the error that explains.
        let bytes = pickling::payload(py, "dump_result_otherwise")?
            .call1((result, error.value(py)))?
            .cast_into::<PyBytes>()?;
        Ok(pickling::Pickled {
            bytes,
            buffers: Vec::new(),
        })
    })
}

fn finish_coroutine(result: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    if is_coroutine(&result) {
        pickling::payload(result.py(), "run_coroutine")?.call1((result,))
    } else {
        Ok(result)
    }
}

/// This process's resident bytes.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_size())
}

fn page_size() -> u64 {
    treadle_shm::page_bytes()
}

#[pymethods]
impl Worker {
    /// Opens the descriptors that the parent sent and takes them over.
    #[new]
    #[pyo3(signature = (*, board, parent_arena, arena, worker, payload_limit, most_tasks, most_growth))]
    #[allow(unsafe_code, clippy::too_many_arguments)]
    fn new(
        board: i32,
        parent_arena: i32,
        arena: i32,
        worker: u32,
        payload_limit: u64,
        most_tasks: Option<u64>,
        most_growth: Option<u64>,
    ) -> PyResult<Worker> {
        if [board, parent_arena, arena]
            .iter()
            .any(|descriptor| *descriptor < 0)
        {
            return Err(PyValueError::new_err(
                "a worker needs three open descriptors",
            ));
        }
        // SAFETY: the caller hands over three descriptors that it received for this worker and does not use again.
        let (board, parent_arena, arena) = unsafe {
            (
                OwnedFd::from_raw_fd(board),
                OwnedFd::from_raw_fd(parent_arena),
                OwnedFd::from_raw_fd(arena),
            )
        };
        let session = WorkerSession::open(board, parent_arena, arena, worker, payload_limit)
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        Ok(Worker {
            caller: session.caller(),
            session: Mutex::new(session),
            unsent: Mutex::default(),
            interrupted: AtomicU64::new(0),
            most_tasks,
            most_growth,
        })
    }

    /// The bytes of a block of the parent's arena, named by 64 hexadecimal digits.
    fn read_block<'py>(&self, py: Python<'py>, digits: &str) -> PyResult<Bound<'py, PyBytes>> {
        let mut bytes = [0; 32];
        for (place, byte) in bytes.iter_mut().enumerate() {
            let pair = digits
                .get(2 * place..2 * place + 2)
                .ok_or_else(|| PyValueError::new_err("a block's name has 64 digits"))?;
            *byte = u8::from_str_radix(pair, 16)
                .map_err(|_| PyValueError::new_err("a block's name is hexadecimal"))?;
        }
        let block = self
            .session()
            .read_block(BlockRef::from_bytes(bytes))
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &block))
    }

    /// A block of the parent's arena, named by its 32 bytes, as read-only memory.
    fn view_block<'py>(&self, py: Python<'py>, name: [u8; 32]) -> PyResult<Bound<'py, Lease>> {
        let mapped = self
            .session()
            .view_block(BlockRef::from_bytes(name))
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        Bound::new(py, Lease::of_argument(mapped, true))
    }

    /// Tells the parent that the initializer has run.
    fn ready(&self) -> PyResult<()> {
        self.session()
            .post(wire::READY, b"")
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))
    }

    /// Tells the parent that the initializer failed.
    fn initializer_failed(&self, text: &str) -> PyResult<()> {
        let cut = text.len().min(16 * 1024);
        self.session()
            .post(wire::INITIALIZER_FAILED, &text.as_bytes()[..cut])
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))
    }

    /// Sends the parent a pickled note (a log record, a warning); false when it is too long.
    fn note(&self, pickle: &[u8]) -> bool {
        if pickle.len() > LONGEST_NOTE {
            return false;
        }
        lock(&self.unsent).push(pickle.to_vec());
        // The main thread may sleep with the session in its hands: never wait for it.
        match self.session.try_lock() {
            Ok(mut session) => self.send_notes(&mut session),
            Err(_) => {
                self.caller.call();
                true
            }
        }
    }

    /// Whether the parent wants the task in hand interrupted; true once for each task. For the signal handler.
    fn interrupt_requested(&self) -> bool {
        let session = self.session();
        let wanted = session.interrupt_requested();
        // The swap comes last: once for each task.
        wanted != 0
            && wanted == session.current()
            && wanted != self.interrupted.swap(wanted, Ordering::Relaxed)
    }

    /// Runs tasks until the parent asks this worker to leave, or its tasks or memory are at their limit.
    fn run_tasks(&self, py: Python<'_>) -> PyResult<()> {
        let mut known = HashMap::new();
        let mut done = 0;
        let baseline = resident_bytes().unwrap_or(0);
        let mut looked = Instant::now();
        loop {
            let taken = {
                let mut session = self.session();
                self.send_notes(&mut session);
                if session.stop_requested() {
                    None
                } else {
                    session.take()
                }
            };
            match taken {
                Some(Ok(taken)) => self.handle(py, &mut known, taken)?,
                Some(Err((task, error))) => {
                    let text = error.to_string();
                    let error = if error.is_exhaustion() {
                        PyErr::from_value(pickling::payload(py, "no_memory")?.call1((text,))?)
                    } else {
                        PyRuntimeError::new_err(text)
                    };
                    let error = Worker::raised(py, error)?;
                    self.reply(py, task, &error)?
                        .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
                }
                None => {
                    let waited = py.detach(|| self.session().wait(None));
                    if waited == Waited::Stop {
                        return Ok(());
                    }
                    py.check_signals()?;
                    continue;
                }
            }
            done += 1;
            let full = self.most_tasks.is_some_and(|most| done >= most);
            let fat = self.most_growth.is_some_and(|most| {
                let due = looked.elapsed().as_nanos() >= MEMORY_LOOK_NS;
                due && {
                    looked = Instant::now();
                    resident_bytes().is_some_and(|bytes| bytes.saturating_sub(baseline) > most)
                }
            });
            if full || fat {
                let why: &[u8] = if full {
                    b"max_tasks_per_child"
                } else {
                    b"max_memory_per_child"
                };
                return self
                    .session()
                    .post(wire::RETIRED, why)
                    .map_err(|error| PyRuntimeError::new_err(error.to_string()));
            }
        }
    }
}
