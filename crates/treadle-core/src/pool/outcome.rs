//! How a task of a process pool ends: the reply of its worker, or the reason why there is none.

use std::fmt;
use std::sync::Arc;

use treadle_shm::{Draft, Mapped, PeerArena, ShmError};

use super::wire::{self, IN_ARENA, Packet, WireError};

/// Bytes that mostly are few: up to 22 stand in the value itself.
#[derive(Clone)]
pub enum Bytes {
    /// The first `.0` of `.1`.
    Few(u8, [u8; 22]),
    /// More than 22.
    Many(Box<[u8]>),
}

impl Default for Bytes {
    fn default() -> Self {
        Bytes::Few(0, [0; 22])
    }
}

impl Bytes {
    /// Copies the bytes.
    pub fn copy_of(bytes: &[u8]) -> Bytes {
        if bytes.len() <= 22 {
            let mut few = [0; 22];
            few[..bytes.len()].copy_from_slice(bytes);
            Bytes::Few(bytes.len() as u8, few)
        } else {
            Bytes::Many(bytes.into())
        }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Few(length, few) => &few[..usize::from(*length)],
            Bytes::Many(many) => many,
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes", self.as_slice().len())
    }
}

/// One out-of-band buffer of a reply; it stands in its worker's arena until it is dropped.
#[derive(Debug)]
pub struct Buffer {
    /// The bytes.
    pub mapped: Mapped,
    /// Whether the object that it came from was read-only.
    pub read_only: bool,
}

/// What a worker wrote: a result or an exception.
#[derive(Debug)]
pub struct Reply {
    /// What the body is: [`wire::VALUE_SCALAR`] and its neighbours.
    pub kind: u32,
    /// The whole packet; the body begins at `body_at`.
    packet: Bytes,
    body_at: usize,
    /// Its out-of-band buffers, in order.
    pub buffers: Vec<Arc<Buffer>>,
    /// Set when `interrupt` was called for the task while it ran.
    pub stopped: Option<Box<Stopped>>,
}

impl Reply {
    /// Reads a record.
    ///
    /// # Errors
    /// When the worker wrote something that is no record.
    pub fn read(kind: u32, bytes: &[u8], arena: Option<&PeerArena>) -> Result<Reply, WireError> {
        let packet = if kind & IN_ARENA != 0 {
            let arena = arena.ok_or(WireError("a block of a worker that has no arena"))?;
            let whole = arena
                .map(wire::read_reference(bytes)?)
                .map_err(|error| not_mapped(&error))?;
            let whole = whole.copy_to_vec().map_err(|error| not_mapped(&error))?;
            Bytes::Many(whole.into_boxed_slice())
        } else {
            Bytes::copy_of(bytes)
        };
        Reply::of_packet(kind & !IN_ARENA, packet, arena)
    }

    /// The part of a chunk's record that its worker had not committed when it died.
    ///
    /// # Errors
    /// As [`Reply::read`].
    pub fn of_draft(draft: &Draft, arena: Option<&PeerArena>) -> Result<Reply, WireError> {
        let mut packet = Vec::with_capacity(draft.body.len() + 2);
        wire::write_buffers(&mut packet, &draft.references);
        packet.extend_from_slice(&draft.body);
        Reply::of_packet(wire::VALUES_PART, Bytes::copy_of(&packet), arena)
    }

    fn of_packet(kind: u32, packet: Bytes, arena: Option<&PeerArena>) -> Result<Reply, WireError> {
        let parts = Packet::read(packet.as_slice())?;
        let mut buffers = Vec::new();
        for buffer in parts.buffers() {
            let arena = arena.ok_or(WireError("a buffer of a worker that has no arena"))?;
            let mapped = arena
                .map(buffer.block)
                .map_err(|error| not_mapped(&error))?;
            buffers.push(Arc::new(Buffer {
                mapped,
                read_only: buffer.read_only,
            }));
        }
        let body_at = packet.as_slice().len() - parts.body.len();
        Ok(Reply {
            kind,
            packet,
            body_at,
            buffers,
            stopped: None,
        })
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.packet.as_slice()[self.body_at..]
    }
}

fn not_mapped(error: &ShmError) -> WireError {
    WireError(match error {
        ShmError::Map { .. } => {
            "no address space or memory is left to map the worker's block (see ulimit -v)"
        }
        ShmError::Memory { .. } => "no memory is left for a copy of it (see ulimit -v)",
        _ => "a reference to a block outside the worker's arena",
    })
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// By the pool, because this task of it would not stop and let nothing else run there.
    KilledFor(Named),
    /// Nobody could say.
    Unknown,
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exited(code) => write!(formatter, "exited with code {code}"),
            Ending::Signalled(signal) => match signal_name(*signal) {
                Some(name) => write!(formatter, "was killed by signal {signal} ({name})"),
                None => write!(formatter, "was killed by signal {signal}"),
            },
            Ending::KilledFor(task) => write!(
                formatter,
                "was killed by the pool, because task {} ({}) in it would not stop and held the interpreter's lock,",
                task.number, task.function
            ),
            Ending::Unknown => write!(formatter, "ended for a reason that is not known"),
        }
    }
}

/// The name of a signal, as in `<signal.h>`.
pub fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// What a task is called in an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Which submission to its pool it is, counted from 1.
    pub number: u64,
    /// Its function's module and qualified name.
    pub function: Arc<str>,
}

/// A running task that `interrupt` was called for, and where it ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// The worker's number in its pool.
    pub worker: u32,
    /// The worker's process.
    pub pid: i32,
    /// The task.
    pub task: Named,
}

/// What became of a call that was to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It stopped by itself.
    Stopped,
    /// Its worker was killed and replaced.
    Replaced,
    /// It runs on; its worker takes no other task and is replaced when the others that it runs have ended.
    RunsOn,
}

/// A task that was over its time.
#[derive(Debug, Clone, PartialEq)]
pub struct TimedOut {
    /// The time-out in seconds.
    pub seconds: f64,
    /// The worker's number in its pool.
    pub worker: u32,
    /// The worker's process.
    pub pid: i32,
    /// The task.
    pub task: Named,
    /// What became of the call.
    pub after: After,
}

/// Why a task has no reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    /// The worker that ran it died.
    WorkerDied {
        /// The worker's number in its pool.
        worker: u32,
        /// The worker's process.
        pid: i32,
        /// How it ended.
        ending: Ending,
        /// How many workers this task has killed.
        deaths: u32,
        /// The task.
        task: Named,
    },
    /// It ran longer than its time-out.
    TimedOut(TimedOut),
    /// `interrupt` was called for it, and the exception in its worker did not stop it.
    Interrupted(Stopped, After),
    /// The pool can run nothing any more.
    PoolBroken(Arc<str>),
    /// The worker's reply could not be read.
    Unreadable(&'static str),
}

/// How a task ends.
#[derive(Debug)]
pub enum Outcome {
    /// With what its worker wrote.
    Reply(Reply),
    /// Without a reply.
    Failed(Failure),
    /// A chunk that brought results before it ended like this.
    Parts(Vec<Reply>, Box<Outcome>),
}
