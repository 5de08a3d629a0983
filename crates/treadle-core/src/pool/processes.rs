//! A pool of worker processes.
//!
//! *Guarantees*
//! - Every submitted task's cell is settled exactly once: by its worker's record, by a cancel that took it back before any worker had it, or
//!   with the reason why there is no reply.
//! - One worker's death costs what it was running: one task, or one for each of its threads or coroutines; each is run again if it may be.
//! - No lock is held while a thread sleeps or while the interpreter's lock is taken.
//!
//! *Locks*, always taken in this order: `readers` (draining the rings) → `state` → `arena`.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

use treadle_shm::{Arena, BlockRef, Board, PeerArena, Publisher, RingReader, Shape, ShmError};

use super::deadlines::Kill;
use super::functions::Functions;
use super::labels::Labels;
use super::lock;
use super::meter::Histogram;
use super::outcome::Bytes;
use super::places::Places;
use super::snapshot::{Counts, Meters};
use super::supervisor::{Order, Supervisor};
use super::tasks::{Held, TaskId, TaskOptions, Tasks};
use super::transfer::Transfer;
use super::zygote::Launch;

/// Task slots of a board: enough that two workers on tasks of a microsecond do not run dry while the collector sleeps a millisecond.
const SLOTS: u32 = 2048;

/// Address space that a pool must find for its threads, its board and its first payloads: with half of it a thread's start or a small
/// allocation, which cannot be refused politely, ended the program (measured with `ulimit -v`).
const OWN_MEMORY: usize = 8 << 20;

/// The part of the payloads in flight that the program's heap keeps of results that were dropped: a 64th of the available memory, where the payloads may
/// take a quarter.
const RESULTS_KEPT: u64 = 16;

/// How a pool is built.
#[derive(Debug)]
pub struct Settings {
    /// How many workers, and how many tasks each of them runs at a time.
    pub places: Places,
    /// How workers are started.
    pub launch: Launch,
    /// What every worker is told at its start, beside its number.
    pub worker_fields: Vec<Vec<u8>>,
    /// The pickled initializer and its arguments.
    pub initializer: Option<Vec<u8>>,
    /// Descriptors that the initializer's arguments stand for; each worker gets copies of them.
    pub inherited: Vec<OwnedFd>,
    /// Most bytes of payloads that may lie in the parent's arena; `submit` waits beyond it.
    pub arena_limit: u64,
    /// Most unfinished tasks; `submit` waits beyond it.
    pub max_pending: Option<usize>,
    /// Cores that the workers may use; 0 = not known. Those beyond it stay asleep while tasks are very short.
    pub cores: u32,
    /// Whether times and sizes are counted; off only to measure what that costs.
    pub metered: bool,
}

/// Tells the future's side that observed tasks have ended.
pub type Announce = Box<dyn Fn(&[TaskId]) + Send + Sync>;

/// Why a task could not be submitted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// `shutdown` was called.
    #[error("cannot schedule new futures after shutdown")]
    ShutDown,
    /// The pool can run nothing any more.
    #[error("{0}")]
    Broken(Arc<str>),
    /// Shared memory could not be had.
    #[error(transparent)]
    Memory(#[from] ShmError),
    /// The program has none left for one more task.
    #[error(
        "there is no memory left for one more call\n\n\
         hint: let calls end, bound them with max_pending, or give the program more memory (ulimit -v)"
    )]
    NoMemory,
    /// The payload is larger than the pool's limit.
    #[error(
        "a payload of {bytes} bytes is larger than the pool's limit of {limit} bytes for payloads in flight"
    )]
    TooLarge {
        /// The payload's size.
        bytes: u64,
        /// The pool's limit.
        limit: u64,
    },
    /// The pool is of the process that this one was forked from.
    #[error(
        "this executor was made before this process was forked, and its workers belong to the parent process\n\n\
         hint: make an executor of its own in the forked process"
    )]
    Forked,
    /// The pool's limit on pending tasks or payload bytes is reached, and the caller does not wait.
    #[error("the pool takes no more calls at this instant")]
    Full,
    /// A signal came while `submit` waited.
    #[error("interrupted")]
    Interrupted,
    /// A worker needs descriptors, and none was left.
    #[error(
        "the descriptors that a worker needs could not be had: {0}\n\nhint: close files, use fewer workers, or raise the limit (ulimit -n)"
    )]
    Descriptor(#[source] io::Error),
    /// The supervisor could not be started.
    #[error("the thread that watches the workers could not be started: {0}")]
    Supervisor(#[source] io::Error),
}

/// One call, encoded.
#[derive(Debug)]
pub struct Call<'a> {
    /// What the body is, from [`wire`], and flags.
    pub kind: u32,
    /// The function, when it is one of the pool's table.
    pub function: Option<(u32, BlockRef)>,
    /// What the function is called, from [`ProcessPool::add_function`] or [`ProcessPool::label`].
    pub label: u32,
    /// The body.
    pub body: &'a [u8],
    /// The out-of-band buffers and whether each is read-only.
    pub buffers: &'a [(&'a [u8], bool)],
    /// Time-out and retries.
    pub options: TaskOptions,
    /// Whether to sleep while the pool's limits are reached.
    pub wait: bool,
    /// When its pickling began, in nanoseconds of the monotonic clock; `None` when that is not timed.
    pub began_ns: Option<u64>,
}

/// How far a pool is in its life.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Life {
    Open,
    /// Takes no more tasks; ends when the last is done.
    ShuttingDown,
    /// Every worker has left, or never was.
    Ended,
}

/// What the pool knows of one worker's place.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// Which start of a worker holds the place; 0 when nobody does.
    pub(super) tag: u64,
    /// Its process, as the zygote told; 0 until then.
    pub(super) pid: i32,
    /// The same as the worker says itself, which is there before it takes a task: for showing, never for signals.
    pub(super) said_pid: i32,
    pub(super) ready: bool,
    pub(super) asked_to_stop: bool,
    /// It said that it leaves by plan (`max_tasks_per_child`, `max_memory_per_child`, stop).
    pub(super) retired: bool,
    pub(super) arena: Option<Arc<PeerArena>>,
    /// Blocks of the parent's arena that a finished task of this worker still holds.
    pub(super) lent: Vec<Held>,
    /// Tasks that did not stop when they were asked to. The process takes no other any more, and is replaced when it runs nothing else.
    pub(super) overdue: Vec<TaskId>,
    pub(super) tasks_done: u64,
    /// How many workers have been started for this place.
    pub(super) starts: u64,
    pub(super) dump: Option<OwnedFd>,
}

impl Seat {
    /// The process that holds the place, for whoever reads it; 0 while it is being started.
    pub(super) fn shown_pid(&self) -> i32 {
        if self.pid == 0 {
            self.said_pid
        } else {
            self.pid
        }
    }
}

/// What the `state` lock guards.
pub(super) struct State {
    pub(super) publisher: Publisher,
    pub(super) tasks: Tasks,
    pub(super) backlog: VecDeque<TaskId>,
    pub(super) seats: Vec<Seat>,
    pub(super) life: Life,
    pub(super) broken: Option<Arc<str>>,
    pub(super) started: bool,
    pub(super) timed: usize,
    pub(super) shortest_timeout: Duration,
    pub(super) kills: Vec<Kill>,
    pub(super) deaths_in_a_row: u32,
    pub(super) initializer: Option<BlockRef>,
    pub(super) counts: Counts,
    /// By the number of the function's name.
    pub(super) meters: Functions<Meters>,
    /// Payloads of calls.
    pub(super) arguments: Transfer,
    /// Records with results. Their time is in `rebuilding`.
    pub(super) results: Transfer,
    pub(super) collector_running: bool,
    pub(super) labels: Labels,
}

/// What a wait ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// What was waited for is there.
    Done,
    /// The time is over.
    TimedOut,
    /// A signal came; look whether it asks for something, and wait again.
    Interrupted,
}

/// What a worker logged or warned.
#[derive(Debug)]
pub struct Note {
    /// The worker's number in its pool.
    pub worker: u32,
    /// Which submission the task was that it had in hand, counted from 1; 0 for none.
    pub task: u64,
    /// The note, pickled.
    pub body: Bytes,
}

/// A pool of worker processes.
pub struct ProcessPool {
    pub(super) settings: Settings,
    pub(super) places: Places,
    pub(super) board: Arc<Board>,
    pub(super) readers: Mutex<Vec<RingReader>>,
    pub(super) state: Mutex<State>,
    pub(super) arena: Mutex<Arena>,
    pub(super) supervisor: Supervisor,
    pub(super) launch: Arc<Launch>,
    pub(super) announce: Announce,
    /// Unfinished tasks whose futures are observed.
    pub(super) observed: AtomicUsize,
    /// Observed tasks that ended and were not announced yet.
    pub(super) endings: Mutex<Vec<TaskId>>,
    pub(super) collector_bell: Condvar,
    pub(super) collector_asked: Mutex<bool>,
    pub(super) collector_in_wait: AtomicBool,
    /// The collector looks at nothing until it is woken, or does not run.
    pub(super) collector_sleeps: AtomicBool,
    /// How often the collector sent waiting threads to look for signals.
    pub(super) nudges: AtomicUsize,
    pub(super) unfinished: AtomicUsize,
    /// When the shared memory was last looked at, in nanoseconds.
    pub(super) inspected: AtomicU64,
    pub(super) notes: Mutex<Vec<Note>>,
    /// Nanoseconds for rebuilding results.
    pub(super) rebuilding: Mutex<Histogram>,
    /// Held while ends and notes are handed over, from taking them on.
    pub(super) handing_over: Mutex<()>,
    /// The thread that hands over now; 0 for none.
    pub(super) handed_by: AtomicI32,
    forks: u32,
    pub(super) this: Weak<ProcessPool>,
}

impl ProcessPool {
    /// Makes the pool's shared memory. Workers are started by the first task.
    ///
    /// # Errors
    /// When shared memory or the supervisor's thread cannot be had.
    pub fn new(settings: Settings, announce: Announce) -> Result<Arc<ProcessPool>, SubmitError> {
        treadle_shm::check_address_space(OWN_MEMORY)?;
        let results = settings.arena_limit / RESULTS_KEPT;
        treadle_heap::freed::keep(usize::try_from(results).unwrap_or(usize::MAX));
        let board = Arc::new(Board::create(Shape {
            slots: SLOTS,
            workers: settings.places.lane_count(),
            ring_bytes: settings.places.ring_bytes(),
            hands: settings.places.hands(),
        })?);
        board.set_cores(settings.cores);
        let mut arena = Arena::create(settings.arena_limit)?;
        let initializer = match &settings.initializer {
            Some(bytes) => {
                let mut block = arena.allocate(bytes.len())?;
                block.write_at(0, bytes);
                Some(block.reference())
            }
            None => None,
        };
        let supervisor = Supervisor::of_this_process().map_err(SubmitError::Supervisor)?;
        let places = settings.places;
        let seats = (0..places.workers()).map(|_| Seat::default()).collect();
        let readers = (0..places.lane_count())
            .map(|lane| RingReader::new(board.clone(), lane))
            .collect();
        let state = State {
            publisher: Publisher::new(board.clone()),
            tasks: Tasks::default(),
            backlog: VecDeque::new(),
            seats,
            life: Life::Open,
            broken: None,
            started: false,
            timed: 0,
            shortest_timeout: Duration::MAX,
            kills: Vec::new(),
            deaths_in_a_row: 0,
            initializer,
            counts: Counts::default(),
            meters: Functions::default(),
            arguments: Transfer::default(),
            results: Transfer::default(),
            collector_running: false,
            labels: Labels::default(),
        };
        let pool = Arc::new_cyclic(|this| ProcessPool {
            places,
            launch: Arc::new(settings.launch.clone()),
            settings,
            board,
            readers: Mutex::new(readers),
            state: Mutex::new(state),
            arena: Mutex::new(arena),
            supervisor,
            announce,
            observed: AtomicUsize::new(0),
            endings: Mutex::default(),
            collector_bell: Condvar::new(),
            collector_asked: Mutex::new(false),
            collector_in_wait: AtomicBool::new(false),
            collector_sleeps: AtomicBool::new(true),
            nudges: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            inspected: AtomicU64::new(0),
            notes: Mutex::default(),
            rebuilding: Mutex::default(),
            handing_over: Mutex::default(),
            handed_by: AtomicI32::new(0),
            forks: super::forks(),
            this: this.clone(),
        });
        pool.supervisor.order(Order::Watch(pool.this.clone()));
        // It loads what the workers have in common while the program prepares its first calls.
        pool.supervisor.order(Order::Prepare(pool.launch.clone()));
        Ok(pool)
    }

    /// Whether this is the process that made the pool (a forked child only holds a picture of it).
    pub fn is_mine(&self) -> bool {
        self.forks == super::forks()
    }

    /// A result was rebuilt, in so many nanoseconds.
    pub fn note_rebuilt(&self, nanoseconds: u64) {
        lock(&self.rebuilding).add(nanoseconds);
    }

    /// This pool, counted; `None` while it is being dropped.
    pub(super) fn myself(&self) -> Option<Arc<ProcessPool>> {
        self.this.upgrade()
    }
}

impl Drop for ProcessPool {
    fn drop(&mut self) {
        if !self.is_mine() {
            return;
        }
        let tags: Vec<u64> = lock(&self.state)
            .seats
            .iter()
            .map(|seat| seat.tag)
            .filter(|tag| *tag != 0)
            .collect();
        for tag in tags {
            self.supervisor.order(Order::Signal {
                tag,
                signal: super::supervisor::KILL,
            });
        }
    }
}
