//! A pool of worker processes.
//!
//! *Guarantees*
//! - Every submitted task's cell is settled exactly once: by its worker's record, by a cancel that took it back before any worker had it, or
//!   with the reason why there is no reply.
//! - One worker's death costs the task that it was running; the task is run again if it may be.
//! - No lock is held while a thread sleeps or while the interpreter's lock is taken.
//!
//! *Locks*, always taken in this order: `readers` (draining the rings) → `state` → `arena`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

use treadle_shm::{
    Arena, BlockRef, Board, PeerArena, Publisher, RingReader, SLOT_PAYLOAD, Shape, ShmError, Woken,
};

use super::cell::{Cell, Marks, Phase};
use super::deaths::{Kill, Why};
use super::outcome::{Bytes, Failure, Outcome, Reply};
use super::supervisor::{Order, SpawnRequest, Supervisor};
use super::tasks::{Held, Task, TaskId, TaskOptions, Tasks};
use super::wire::{self, BufferRef};
use super::zygote::Launch;
use super::{lock, monotonic_ns, nanoseconds};

/// Task slots of a board: enough that two workers on tasks of a microsecond do not run dry while the collector sleeps a millisecond.
const SLOTS: u32 = 2048;
/// Bytes of a worker's result ring.
const RING_BYTES: u32 = 128 * 1024;

/// Whoever has waited this long without a ring looks whether the shared memory is sound. Such damage is rare and its victim stands
/// still anyway; a look costs some ten microseconds.
const INSPECTION: Duration = Duration::from_millis(900);

/// Numbers every start of a worker, in all pools of this process: the supervisor knows workers by it.
static NEXT_TAG: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// Where a thread puts its payloads together.
    static PAYLOAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Deadlines of tasks that have not begun are looked at no more often than this, however short they are: a look costs microseconds.
const FINEST_LOOK: Duration = Duration::from_millis(5);

/// How a pool is built.
#[derive(Debug)]
pub struct Settings {
    /// How many workers.
    pub workers: u32,
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
    /// The body.
    pub body: &'a [u8],
    /// The out-of-band buffers and whether each is read-only.
    pub buffers: &'a [(&'a [u8], bool)],
    /// Time-out and retries.
    pub options: TaskOptions,
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
    pub(super) pid: i32,
    pub(super) ready: bool,
    pub(super) asked_to_stop: bool,
    /// It said that it leaves by plan (`max_tasks_per_child`, `max_memory_per_child`, stop).
    pub(super) retired: bool,
    pub(super) arena: Option<Arc<PeerArena>>,
    /// Blocks of the parent's arena that a finished task of this worker still holds.
    pub(super) lent: Vec<Held>,
    pub(super) tasks_done: u64,
    /// How many workers have been started for this place.
    pub(super) starts: u64,
    pub(super) dump: Option<OwnedFd>,
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
    pub(super) collector_running: bool,
    pub(super) function_labels: Vec<Arc<str>>,
}

/// What has happened in a pool since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks submitted.
    pub submitted: u64,
    /// Tasks that a worker answered, with a result or an exception.
    pub answered: u64,
    /// Tasks cancelled before they began.
    pub cancelled: u64,
    /// Tasks that ended without a reply.
    pub lost: u64,
    /// Tasks that were run again.
    pub retried: u64,
    /// Of those that ended without a reply, those over their time.
    pub timed_out: u64,
    /// Workers that died unasked.
    pub deaths: u64,
}

/// One worker in a [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSnapshot {
    /// Its number in the pool.
    pub worker: u32,
    /// Its process; 0 while it is being started.
    pub pid: i32,
    /// starting, idle, busy or absent.
    pub state: &'static str,
    /// Tasks that it has finished.
    pub tasks: u64,
    /// How often its place was filled again.
    pub restarts: u64,
    /// Nanoseconds since its task began; 0 when it has none.
    pub running_ns: u64,
}

/// A pool at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Unfinished tasks.
    pub unfinished: usize,
    /// Of these, taken by a worker.
    pub running: usize,
    /// What has happened.
    pub counts: Counts,
    /// The workers.
    pub workers: Vec<WorkerSnapshot>,
    /// Bytes of payloads in the parent's arena.
    pub payload_bytes: u64,
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

/// A pool of worker processes.
pub struct ProcessPool {
    pub(super) settings: Settings,
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
    inspected: AtomicU64,
    pub(super) notes: Mutex<Vec<(u32, Bytes)>>,
    forks: u32,
    this: Weak<ProcessPool>,
}

impl ProcessPool {
    /// Makes the pool's shared memory. Workers are started by the first task.
    ///
    /// # Errors
    /// When shared memory or the supervisor's thread cannot be had.
    pub fn new(settings: Settings, announce: Announce) -> Result<Arc<ProcessPool>, SubmitError> {
        let board = Arc::new(Board::create(Shape {
            slots: SLOTS,
            workers: settings.workers,
            ring_bytes: RING_BYTES,
        })?);
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
        let seats = (0..settings.workers).map(|_| Seat::default()).collect();
        let readers = (0..settings.workers)
            .map(|worker| RingReader::new(board.clone(), worker))
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
            collector_running: false,
            function_labels: Vec::new(),
        };
        let pool = Arc::new_cyclic(|this| ProcessPool {
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
            forks: super::forks(),
            this: this.clone(),
        });
        pool.supervisor.order(Order::Watch(pool.this.clone()));
        Ok(pool)
    }

    /// Whether this is the process that made the pool (a forked child only holds a picture of it).
    pub fn is_mine(&self) -> bool {
        self.forks == super::forks()
    }

    /// This pool, counted; `None` while it is being dropped.
    pub(super) fn myself(&self) -> Option<Arc<ProcessPool>> {
        self.this.upgrade()
    }

    /// Enters a pickled function into the table; tasks then name it by the returned number and block.
    ///
    /// # Errors
    /// When the arena has no room for it.
    pub fn add_function(&self, pickle: &[u8], label: &str) -> Result<(u32, BlockRef), SubmitError> {
        if !self.is_mine() {
            return Err(SubmitError::Forked);
        }
        let id = {
            let mut state = lock(&self.state);
            state.function_labels.push(label.into());
            state.function_labels.len() as u32 - 1
        };
        let mut block = lock(&self.arena).allocate(pickle.len())?;
        block.write_at(0, pickle);
        Ok((id, block.reference()))
    }

    /// Puts bytes into the parent's arena for every worker to read, until the pool is dropped.
    ///
    /// # Errors
    /// When the arena has no room for them.
    pub fn share(&self, bytes: &[u8]) -> Result<BlockRef, SubmitError> {
        Ok(self.allocate(&[bytes])?.block)
    }

    /// Submits one call. Sleeps while the pool's limits on pending tasks or payload bytes are reached.
    ///
    /// # Errors
    /// See [`SubmitError`]. [`SubmitError::Interrupted`] means that a signal came while it waited: look at it and call again.
    pub fn submit(&self, call: &Call<'_>) -> Result<(TaskId, Arc<Cell<Outcome>>), SubmitError> {
        if !self.is_mine() {
            return Err(SubmitError::Forked);
        }
        if let Some(limit) = self.settings.max_pending {
            self.wait_until(|| self.unfinished.load(Ordering::SeqCst) < limit.max(1))?;
        }
        PAYLOAD.with_borrow_mut(|payload| {
            let mut blocks = Vec::new();
            match self.place(call, payload, &mut blocks) {
                Ok(kind) => self.enter(kind, payload, blocks, call.options),
                Err(error) => {
                    self.give_back(&blocks);
                    Err(error)
                }
            }
        })
    }

    fn enter(
        &self,
        kind: u32,
        payload: &[u8],
        blocks: Vec<Held>,
        options: TaskOptions,
    ) -> Result<(TaskId, Arc<Cell<Outcome>>), SubmitError> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let refusal = match (&state.broken, &state.life) {
            (Some(reason), _) => Some(SubmitError::Broken(reason.clone())),
            (None, Life::Open) => None,
            (None, _) => Some(SubmitError::ShutDown),
        };
        if let Some(refusal) = refusal {
            drop(guard);
            self.give_back(&blocks);
            return Err(refusal);
        }
        let cell: Arc<Cell<Outcome>> = Arc::default();
        let task = Task {
            cell: cell.clone(),
            kind,
            payload: Bytes::default(),
            blocks,
            position: None,
            options,
            retries_left: options.retries,
            deaths: 0,
        };
        let mut look = false;
        if let Some(timeout) = options.timeout {
            state.timed += 1;
            if timeout < state.shortest_timeout || state.timed == 1 {
                state.shortest_timeout = state.shortest_timeout.min(timeout);
                look = true;
            }
        }
        state.counts.submitted += 1;
        self.unfinished.fetch_add(1, Ordering::SeqCst);
        let id = state.tasks.insert(task);
        let position = if state.backlog.is_empty() {
            state.publisher.publish(id, kind, payload)
        } else {
            None
        };
        let published = position.is_some();
        let first_waiting = !published && state.backlog.is_empty();
        if !published {
            state.backlog.push_back(id);
        }
        if let Some(task) = state.tasks.get(id) {
            task.position = position;
            // A payload is kept only where it may be needed again.
            if !published || options.retries > 0 {
                task.payload = Bytes::copy_of(payload);
            }
        }
        let start = !std::mem::replace(&mut state.started, true);
        drop(guard);
        if start {
            for worker in 0..self.settings.workers {
                self.start_worker(worker);
            }
        } else if published {
            self.board.wake_for_work();
        }
        if first_waiting || self.collector_sleeps.load(Ordering::SeqCst) {
            self.wake_collector();
        }
        if look {
            self.supervisor.order(Order::Look);
        }
        Ok((id, cell))
    }

    /// Writes what stands in the slot: the payload itself when it fits, else the reference of the block that holds it. Returns the kind.
    fn place(
        &self,
        call: &Call<'_>,
        payload: &mut Vec<u8>,
        blocks: &mut Vec<Held>,
    ) -> Result<u32, SubmitError> {
        let mut kind = call.kind;
        let mut buffers = Vec::with_capacity(call.buffers.len());
        for (bytes, read_only) in call.buffers {
            let held = self.allocate(&[bytes])?;
            blocks.push(held);
            buffers.push(BufferRef {
                block: held.block,
                read_only: *read_only,
            });
        }
        payload.clear();
        if let Some((id, block)) = call.function {
            kind |= wire::HAS_FUNCTION;
            wire::write_function(payload, id, block);
        }
        wire::write_buffers(payload, &buffers);
        if call.options.retries > 0 {
            kind |= wire::COPY_BUFFERS;
        }
        if payload.len() + call.body.len() <= SLOT_PAYLOAD {
            payload.extend_from_slice(call.body);
            return Ok(kind);
        }
        let held = self.allocate(&[payload, call.body])?;
        blocks.push(held);
        payload.clear();
        payload.extend_from_slice(&held.block.to_bytes());
        Ok(kind | wire::IN_ARENA)
    }

    /// Takes a block of the parent's arena and fills it; waits for room when tasks in flight hold it.
    fn allocate(&self, parts: &[&[u8]]) -> Result<Held, SubmitError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        loop {
            let taken = lock(&self.arena).allocate(length);
            match taken {
                Ok(mut block) => {
                    let mut offset = 0;
                    for part in parts {
                        block.write_at(offset, part);
                        offset += part.len();
                    }
                    return Ok(Held {
                        block: block.reference(),
                        serial: block.serial(),
                    });
                }
                Err(ShmError::Full { .. }) => {
                    if length as u64 > self.settings.arena_limit {
                        return Err(SubmitError::TooLarge {
                            bytes: length as u64,
                            limit: self.settings.arena_limit,
                        });
                    }
                    let before = self.unfinished.load(Ordering::SeqCst);
                    if before == 0 {
                        // Nothing in flight will give memory back: only views that workers keep hold it.
                        return Err(SubmitError::TooLarge {
                            bytes: length as u64,
                            limit: self.settings.arena_limit,
                        });
                    }
                    self.wait_until(|| self.unfinished.load(Ordering::SeqCst) < before)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn give_back(&self, blocks: &[Held]) {
        if !blocks.is_empty() {
            let mut arena = lock(&self.arena);
            for block in blocks {
                arena.free_serial(block.block, block.serial);
            }
        }
    }

    /// Starts a worker in this place.
    pub(super) fn start_worker(&self, worker: u32) {
        let tag = NEXT_TAG.fetch_add(1, Ordering::Relaxed);
        match self.spawn_request(worker, tag) {
            Ok(request) => self.supervisor.order(Order::Spawn(tag, request)),
            Err(error) => {
                self.break_down(&format!("a worker could not be started: {error}"));
                self.worker_absent(worker);
            }
        }
    }

    fn spawn_request(&self, worker: u32, tag: u64) -> Result<SpawnRequest, SubmitError> {
        let theirs = Arena::create(self.settings.arena_limit)?;
        let dump = rustix::fs::memfd_create("treadle-dump", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(io::Error::from);
        let copy = |descriptor: std::os::fd::BorrowedFd<'_>| {
            descriptor
                .try_clone_to_owned()
                .map_err(SubmitError::Descriptor)
        };
        let dump = dump.map_err(SubmitError::Descriptor)?;
        let mut descriptors = vec![
            copy(self.board.fd())?,
            copy(lock(&self.arena).fd())?,
            copy(theirs.fd())?,
            copy(dump.as_fd())?,
        ];
        for inherited in &self.settings.inherited {
            descriptors.push(copy(inherited.as_fd())?);
        }
        let arena = PeerArena::open(copy(theirs.fd())?)?;
        let initializer = {
            let mut state = lock(&self.state);
            let seat = &mut state.seats[worker as usize];
            let starts = seat.starts + 1;
            *seat = Seat {
                tag,
                arena: Some(Arc::new(arena)),
                dump: Some(dump),
                starts,
                ..Seat::default()
            };
            state.initializer
        };
        let mut fields = vec![worker.to_string().into_bytes()];
        fields.push(
            initializer
                .map(|block| hexadecimal(&block.to_bytes()))
                .unwrap_or_default()
                .into_bytes(),
        );
        fields.extend(self.settings.worker_fields.iter().cloned());
        Ok(SpawnRequest {
            pool: self.this.clone(),
            worker,
            launch: self.launch.clone(),
            fields,
            descriptors,
        })
    }

    /// Takes every record out of the rings; returns how many tasks it settled. Another thread that drains already is not waited for.
    pub fn drain(&self) -> usize {
        if !self.is_mine() {
            return 0;
        }
        match self.readers.try_lock() {
            Ok(mut readers) => self.drain_with(&mut readers),
            Err(_) => 0,
        }
    }

    pub(super) fn drain_with(&self, readers: &mut [RingReader]) -> usize {
        let mut records: Vec<(u32, TaskId, Record)> = Vec::new();
        let mut corrupt = Vec::new();
        for (worker, reader) in (0u32..).zip(readers.iter_mut()) {
            if reader.is_empty() {
                continue;
            }
            let mut arena = None;
            let read = reader.read(&mut |record| {
                let kind = record.kind & wire::BODY;
                let parsed = if kind >= wire::READY {
                    Record::Event(kind, Bytes::copy_of(record.bytes))
                } else {
                    if arena.is_none() {
                        arena = lock(&self.state).seats[worker as usize].arena.clone();
                    }
                    match Reply::read(record.kind, record.bytes, arena.as_deref()) {
                        Ok(reply) => Record::Outcome(Outcome::Reply(reply)),
                        Err(error) => {
                            Record::Outcome(Outcome::Failed(Failure::Unreadable(error.0)))
                        }
                    }
                };
                records.push((worker, record.task, parsed));
            });
            if read.is_err() {
                corrupt.push(worker);
            }
        }
        for worker in corrupt {
            self.kill_worker(worker);
        }
        let mut liars = Vec::new();
        if records.is_empty() {
            return 0;
        }
        let mut ended = Ended::default();
        let mut settled = 0;
        {
            let mut guard = lock(&self.state);
            let state = &mut *guard;
            for (worker, task, record) in records {
                match record {
                    Record::Event(kind, body) => {
                        self.note_event(state, worker, kind, body, &mut ended)
                    }
                    Record::Outcome(_)
                        if state.broken.is_none() && state.tasks.get(task).is_none() =>
                    {
                        // No task of ours: this worker's memory, or its slot, was overwritten. Its death shows what is missing.
                        liars.push(worker);
                    }
                    Record::Outcome(outcome) => {
                        settled +=
                            usize::from(self.accept(state, worker, task, outcome, &mut ended));
                    }
                }
            }
            ended.published = refill(state);
        }
        for worker in liars {
            self.kill_worker(worker);
        }
        self.after_settling(ended, &[]);
        settled
    }

    /// A worker's reply to a task. Returns whether the task is settled by it.
    fn accept(
        &self,
        state: &mut State,
        worker: u32,
        id: TaskId,
        outcome: Outcome,
        ended: &mut Ended,
    ) -> bool {
        state.deaths_in_a_row = 0;
        let seat = &mut state.seats[worker as usize];
        seat.tasks_done += 1;
        let raised = matches!(&outcome, Outcome::Reply(reply) if reply.kind == wire::RAISED);
        let Some(task) = state.tasks.get(id) else {
            return false;
        };
        let interrupted = state
            .kills
            .iter()
            .any(|kill| kill.task == id && kill.why == Why::Interrupted);
        if raised && !interrupted && task.retries_left > 0 && !task.cell.settled() {
            task.retries_left -= 1;
            task.position = None;
            state.counts.retried += 1;
            state.backlog.push_back(id);
            return false;
        }
        let Some(task) = state.tasks.remove(id) else {
            return false;
        };
        state.counts.answered += 1;
        if task.options.retries > 0 {
            // The worker copied what it needed: blocks of a task that may run again are never released by a worker.
            self.give_back(&task.blocks);
        } else if !task.blocks.is_empty() {
            self.lend(&mut state.seats[worker as usize].lent, &task.blocks);
        }
        self.settle(state, id, &task, outcome, ended);
        true
    }

    /// Remembers blocks that a worker releases itself when the last view of them is gone, in case it dies before.
    fn lend(&self, lent: &mut Vec<Held>, blocks: &[Held]) {
        if lent.len() >= 64 {
            let arena = lock(&self.arena);
            lent.retain(|held| arena.is_live(held.block, held.serial));
        }
        lent.extend_from_slice(blocks);
    }

    /// Stores a removed task's outcome and remembers whom to tell.
    pub(super) fn settle(
        &self,
        state: &mut State,
        id: TaskId,
        task: &Task,
        outcome: Outcome,
        ended: &mut Ended,
    ) {
        if task.options.timeout.is_some() {
            state.timed = state.timed.saturating_sub(1);
            if state.timed == 0 {
                state.shortest_timeout = Duration::MAX;
            }
        }
        self.unfinished.fetch_sub(1, Ordering::SeqCst);
        ended.count += 1;
        if let Some(marks) = task.cell.finish(outcome) {
            ended.mark(id, marks);
        }
    }

    /// What follows when tasks have ended, once no lock is held.
    pub(super) fn after_settling(&self, ended: Ended, freed: &[Held]) {
        self.give_back(freed);
        if !ended.observed.is_empty() {
            self.observed
                .fetch_sub(ended.observed.len(), Ordering::SeqCst);
            lock(&self.endings).extend_from_slice(&ended.observed);
            self.wake_collector();
        }
        if ended.published {
            self.board.wake_for_work();
        }
        if ended.notes {
            self.wake_collector();
        }
        if ended.waited || ended.ready {
            self.board.ring_parent();
        }
        if ended.count > 0 && self.unfinished.load(Ordering::SeqCst) == 0 {
            self.finish_shutdown_if_due();
        }
    }

    fn note_event(
        &self,
        state: &mut State,
        worker: u32,
        kind: u32,
        body: Bytes,
        ended: &mut Ended,
    ) {
        match kind {
            wire::READY => {
                state.seats[worker as usize].ready = true;
                ended.ready = true;
            }
            wire::RETIRED => state.seats[worker as usize].retired = true,
            wire::INITIALIZER_FAILED => {
                let text = String::from_utf8_lossy(body.as_slice()).into_owned();
                self.break_down_with(state, &text, ended);
            }
            wire::NOTE => {
                lock(&self.notes).push((worker, body));
                ended.notes = true;
            }
            _ => {}
        }
    }

    /// Takes a task back if no worker has it yet.
    pub fn cancel(&self, id: TaskId) -> bool {
        if !self.is_mine() {
            return false;
        }
        let mut ended = Ended::default();
        let blocks = {
            let mut guard = lock(&self.state);
            let state = &mut *guard;
            let Some(task) = state.tasks.get(id) else {
                return false;
            };
            let taken_back = match task.position {
                Some(position) => self.board.retract(position, id),
                // It stays in the backlog, where its id names nothing any more: looking for it would make cancelling many quadratic.
                None => true,
            };
            if !taken_back {
                return false;
            }
            let Some(task) = state.tasks.remove(id) else {
                return false;
            };
            if task.options.timeout.is_some() {
                state.timed = state.timed.saturating_sub(1);
            }
            state.counts.cancelled += 1;
            self.unfinished.fetch_sub(1, Ordering::SeqCst);
            ended.count += 1;
            if let Some(marks) = task.cell.cancel() {
                // The canceller itself completes the future; only sleepers are told here.
                ended.waited |= marks.waited;
                if marks.observed {
                    self.observed.fetch_sub(1, Ordering::SeqCst);
                }
            }
            ended.published = refill(state);
            task.blocks
        };
        self.after_settling(ended, &blocks);
        true
    }

    /// Cancels every task that no worker has taken; returns their ids. With `spare_starting`, as many stay as workers are
    /// being started for them: the standard library's pool counts those as begun.
    pub fn cancel_all(&self, spare_starting: bool) -> Vec<TaskId> {
        if !self.is_mine() {
            return Vec::new();
        }
        let waiting: Vec<TaskId> = {
            let state = lock(&self.state);
            let starting = state
                .seats
                .iter()
                .filter(|seat| seat.tag != 0 && !seat.ready && !seat.retired)
                .count();
            let waits = |(id, task): &(TaskId, &Task)| {
                task.position
                    .is_none_or(|position| self.board.is_waiting(position, *id))
            };
            let spared = if spare_starting { starting } else { 0 };
            let tasks = state.tasks.iter().filter(waits).skip(spared);
            tasks.map(|(id, _)| id).collect()
        };
        waiting
            .into_iter()
            .rev()
            .filter(|id| self.cancel(*id))
            .collect()
    }

    /// Whether a worker has taken this task.
    pub fn is_running(&self, id: TaskId) -> bool {
        if !self.is_mine() {
            return false;
        }
        let mut state = lock(&self.state);
        match state.tasks.get(id).map(|task| task.position) {
            Some(Some(position)) => !self.board.is_waiting(position, id),
            _ => false,
        }
    }

    /// Marks a future observed: its end is announced from now on. Returns the phase at that moment, `None` when it was observed before.
    pub fn observe(&self, cell: &Cell<Outcome>) -> Option<Phase> {
        // Counted first: the collector must not sleep between the mark and the count.
        let others = self.observed.fetch_add(1, Ordering::SeqCst);
        let phase = cell.mark_observed();
        if matches!(phase, None | Some(Phase::Finished | Phase::Cancelled)) {
            self.observed.fetch_sub(1, Ordering::SeqCst);
        } else if others == 0 {
            // With others, the collector is listening to every commit as it is.
            self.wake_collector();
        }
        phase
    }

    /// Sleeps until the task is settled, draining the rings meanwhile.
    pub fn wait(&self, id: TaskId, cell: &Cell<Outcome>, deadline: Option<Instant>) -> Waited {
        let mut marked = false;
        let nudges = self.nudges.load(Ordering::SeqCst);
        loop {
            if cell.settled() {
                return Waited::Done;
            }
            self.drain();
            if cell.settled() {
                return Waited::Done;
            }
            if !marked {
                marked = true;
                cell.mark_waited();
                continue;
            }
            match self.sleep(id, deadline, || cell.settled()) {
                Waited::Done if self.nudges.load(Ordering::SeqCst) != nudges && !cell.settled() => {
                    return Waited::Interrupted;
                }
                Waited::Done => {}
                other => return other,
            }
        }
    }

    /// Sleeps until the condition holds, draining the rings meanwhile.
    fn wait_until(&self, holds: impl Fn() -> bool) -> Result<(), SubmitError> {
        // A signal that comes just before a sleep does not end it, so the caller looks for signals now and then.
        let look_for_signals = Instant::now() + Duration::from_millis(100);
        while !holds() {
            self.drain();
            if holds() {
                break;
            }
            // Any commit may make it true.
            let slept = self.sleep(0, Some(look_for_signals), &holds);
            if slept == Waited::Interrupted || Instant::now() >= look_for_signals {
                return Err(SubmitError::Interrupted);
            }
        }
        Ok(())
    }

    /// One sleep at the board's doorbell; [`Waited::Done`] means only that it is worth looking again.
    pub(super) fn sleep(
        &self,
        want: TaskId,
        deadline: Option<Instant>,
        holds: impl Fn() -> bool,
    ) -> Waited {
        let timeout = match deadline {
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => Some(left),
                _ => return Waited::TimedOut,
            },
            None => None,
        };
        let ticket = self.board.prepare_wait(want);
        if holds() || self.has_records() {
            self.board.cancel_wait(ticket);
            return Waited::Done;
        }
        let slice = timeout.unwrap_or(INSPECTION).min(INSPECTION);
        match self.board.wait(ticket, Some(slice)) {
            Woken::Rung => Waited::Done,
            Woken::TimedOut => {
                // By the clock, not by this sleep: callers may wait in shorter pieces.
                let now = monotonic_ns();
                let before = self.inspected.load(Ordering::Relaxed);
                if now.saturating_sub(before) >= nanoseconds(INSPECTION) {
                    self.inspected.store(now, Ordering::Relaxed);
                    self.inspect();
                }
                Waited::Done
            }
            Woken::Interrupted => Waited::Interrupted,
        }
    }

    /// Whether a ring has something to drain. While another thread drains, there may be.
    fn has_records(&self) -> bool {
        match self.readers.try_lock() {
            Ok(readers) => readers.iter().any(|reader| !reader.is_empty()),
            Err(_) => {
                std::thread::yield_now();
                true
            }
        }
    }

    /// Takes no more tasks; when the last unfinished one has ended, the workers are asked to leave.
    pub fn begin_shutdown(&self) {
        if !self.is_mine() {
            return;
        }
        {
            let mut state = lock(&self.state);
            if state.life == Life::Open {
                state.life = if state.started {
                    Life::ShuttingDown
                } else {
                    Life::Ended
                };
            }
        }
        self.finish_shutdown_if_due();
        self.wake_collector();
    }

    pub(super) fn finish_shutdown_if_due(&self) {
        let mut state = lock(&self.state);
        if state.life != Life::ShuttingDown || self.unfinished.load(Ordering::SeqCst) > 0 {
            return;
        }
        let mut present = false;
        for (worker, seat) in (0u32..).zip(&mut state.seats) {
            if seat.tag != 0 {
                present = true;
                seat.asked_to_stop = true;
                self.board.request_stop(worker);
            }
        }
        if !present {
            state.life = Life::Ended;
            drop(state);
            self.board.ring_parent();
        }
    }

    /// Sleeps until every worker of a pool that shuts down has left.
    pub fn wait_for_end(&self, deadline: Option<Instant>) -> Waited {
        let over = || lock(&self.state).life == Life::Ended;
        let nudges = self.nudges.load(Ordering::SeqCst);
        loop {
            if over() {
                return Waited::Done;
            }
            self.drain();
            match self.sleep(0, deadline, over) {
                Waited::Done if self.nudges.load(Ordering::SeqCst) != nudges && !over() => {
                    return Waited::Interrupted;
                }
                Waited::Done => {}
                other => return other,
            }
        }
    }

    /// Whether every worker has left for good.
    pub fn has_ended(&self) -> bool {
        lock(&self.state).life == Life::Ended
    }

    /// Why the pool is broken, if it is.
    pub fn broken(&self) -> Option<Arc<str>> {
        lock(&self.state).broken.clone()
    }

    /// The pool at this instant.
    pub fn snapshot(&self) -> Snapshot {
        self.drain();
        let payload_bytes = lock(&self.arena).outstanding_bytes();
        let state = lock(&self.state);
        let now = monotonic_ns();
        let workers: Vec<WorkerSnapshot> = (0u32..)
            .zip(&state.seats)
            .map(|(worker, seat)| {
                let task = self.board.current_task(worker);
                let started = self.board.task_started_at(worker);
                let what = match (seat.tag, seat.ready, task) {
                    (0, _, _) => "absent",
                    (_, false, _) => "starting",
                    (_, true, 0) => "idle",
                    _ => "busy",
                };
                WorkerSnapshot {
                    worker,
                    pid: seat.pid,
                    state: what,
                    tasks: seat.tasks_done,
                    restarts: seat.starts.saturating_sub(1),
                    running_ns: if task == 0 {
                        0
                    } else {
                        now.saturating_sub(started)
                    },
                }
            })
            .collect();
        Snapshot {
            unfinished: state.tasks.len(),
            running: workers
                .iter()
                .filter(|worker| worker.state == "busy")
                .count(),
            counts: state.counts,
            workers,
            payload_bytes,
        }
    }

    /// Each present worker's number, pid and the file its stacks are dumped to.
    ///
    /// # Errors
    /// When a descriptor cannot be copied.
    pub fn dump_files(&self) -> io::Result<Vec<(u32, i32, OwnedFd)>> {
        let state = lock(&self.state);
        (0u32..)
            .zip(&state.seats)
            .filter(|(_, seat)| seat.ready && seat.pid != 0)
            .filter_map(|(worker, seat)| {
                seat.dump
                    .as_ref()
                    .map(|dump| Ok((worker, seat.pid, dump.try_clone()?)))
            })
            .collect()
    }

    /// Takes what workers printed, warned or logged: the worker's number and the pickled note.
    pub fn take_notes(&self) -> Vec<(u32, Bytes)> {
        std::mem::take(&mut *lock(&self.notes))
    }

    /// How soon a timed task can be over its time, or an interrupted one must be killed.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let mut next = state.kills.iter().map(|kill| kill.at).min();
        if state.timed > 0 {
            let now = Instant::now();
            let now_ns = monotonic_ns();
            // A timed task that begins later than now ends later than this.
            let mut soonest = now.checked_add(state.shortest_timeout.max(FINEST_LOOK));
            for worker in 0..self.settings.workers {
                let id = self.board.current_task(worker);
                let Some(timeout) = state.tasks.get(id).and_then(|task| task.options.timeout)
                else {
                    continue;
                };
                if state
                    .kills
                    .iter()
                    .any(|kill| kill.task == id && kill.why == Why::TimedOut)
                {
                    // Its worker is being killed: its end is what comes next.
                    continue;
                }
                let ran = now_ns.saturating_sub(self.board.task_started_at(worker));
                let left = Duration::from_nanos(nanoseconds(timeout).saturating_sub(ran));
                soonest = soonest.min(now.checked_add(left)).or(soonest);
            }
            next = match (next, soonest) {
                (Some(first), Some(second)) => Some(first.min(second)),
                (first, second) => first.or(second),
            };
        }
        next
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

enum Record {
    Outcome(Outcome),
    Event(u32, Bytes),
}

/// Whom to tell, once no lock is held.
#[derive(Debug, Default)]
pub(super) struct Ended {
    count: usize,
    waited: bool,
    ready: bool,
    notes: bool,
    /// Tasks went from the backlog into the queue, where a worker may sleep.
    pub(super) published: bool,
    observed: Vec<TaskId>,
}

impl Ended {
    fn mark(&mut self, id: TaskId, marks: Marks) {
        self.waited |= marks.waited;
        if marks.observed {
            self.observed.push(id);
        }
    }

    pub(super) fn wake_waiters(&mut self) {
        self.waited = true;
    }
}

/// Publishes a task of the table; false when the queue is full.
fn publish(state: &mut State, id: TaskId) -> bool {
    let Some(task) = state.tasks.get(id) else {
        return true;
    };
    task.position = state
        .publisher
        .publish(id, task.kind, task.payload.as_slice());
    task.position.is_some()
}

/// Moves tasks from the backlog into free slots.
pub(super) fn refill(state: &mut State) -> bool {
    let mut any = false;
    while state.publisher.has_room()
        && let Some(id) = state.backlog.pop_front()
    {
        if !publish(state, id) {
            state.backlog.push_front(id);
            break;
        }
        any = true;
    }
    any
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
