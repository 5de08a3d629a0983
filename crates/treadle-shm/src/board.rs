//! The board: one shared-memory file with the task slots and a lane for every worker.
//!
//! A worker that has several tasks in hand at a time has as many *hands* on its lane, each with a journal of its own. Hands are numbered
//! through: hand `h` of worker `w` is number `w * hands + h`, and that number is the owner that a taken slot names. With one hand for each
//! worker, the usual case, the number is the worker's.
//!
//! *Guarantees*: every method may be called from any thread; none takes a lock that lives in shared memory.
//! *Assumes*: the parent creates it and the workers open it; the methods below "parent side" are the parent's.

use crate::clock::{cpu_mark, monotonic_nanoseconds};
use crate::error::ShmError;
use crate::layout::{Hand, HandWords, HEADER_BYTES, Header, LAYOUT_VERSION, Lane, MAGIC, Shape};
use crate::park::wake_one;
use crate::ring::RingView;
use crate::segment::{Mapping, check_sealed, create_file, file_bytes, grow_file};
use crate::slots::{Queue, Slot};
use crate::sync::{AtomicU64, Mutex, Ordering, Slept};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::time::Duration;

/// No side spins longer, whatever the header says: past this a sleep costs less than the spin
/// (transport study, 3.3: a cross-CPU wake-up is 33 us in the median).
pub(crate) const MAX_SPIN: Duration = Duration::from_micros(50);
/// A wake-up sent this recently, with somebody dozing, is enough (transport study, 4 "Wake policy": it took
/// 20 000 tiny tasks from thousands of wake-ups to 90-350).
const WAKE_THROTTLE_NANOSECONDS: u64 = 50_000;
/// The same while the queue is well served: the one that dozes then looks for itself whether more are needed.
const CROWDED_THROTTLE_NANOSECONDS: u64 = 8 * WAKE_THROTTLE_NANOSECONDS;
/// A worker that has had its task for so long does not count among those that take tasks fast.
const LONG_TASK_NANOSECONDS: u64 = 500_000;

/// How a wait of the parent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The bell rang: look again.
    Rung,
    /// The time was up.
    TimedOut,
    /// A signal arrived; run its handler and come back.
    Interrupted,
}

/// An armed wait; hand it to [`Board::wait`] or [`Board::cancel_wait`].
#[derive(Debug)]
#[must_use = "an armed wait is ended by wait or cancel_wait"]
pub struct Ticket {
    seen: u32,
    want: u64,
}

/// The shared memory of one pool.
#[derive(Debug)]
pub struct Board {
    fd: OwnedFd,
    map: Mapping,
    shape: Shape,
    /// The publisher's next position.
    pub(crate) published: AtomicU64,
    /// How far each ring was read: the parent's own memory, for the shared word could be overwritten.
    pub(crate) read_heads: Box<[AtomicU64]>,
    /// Threads of the parent that wait.
    waiting: Mutex<u32>,
    /// When this process last woke a worker, in nanoseconds.
    last_wake: AtomicU64,
}

impl Board {
    /// Makes the shared memory of a new pool and has all its pages.
    ///
    /// # Errors
    /// `Shape` for impossible sizes, `Create`, `Map` or `Grow` when the system refuses.
    pub fn create(shape: Shape) -> Result<Board, ShmError> {
        const WHAT: &str = "treadle-board";
        shape.check()?;
        let page = rustix::param::page_size() as u64;
        let bytes = shape.bytes().next_multiple_of(page);
        let fd = create_file(WHAT)?;
        grow_file(&fd, 0, bytes, WHAT)?;
        let map = Mapping::new(&fd, 0, bytes, WHAT)?;
        // The rings may be big and mostly unused, but a worker must never die of a missing page.
        map.populate(&fd, 0, 0, map.len())?;
        let board = Board::over(fd, map, shape);
        board.queue().format();
        let header = board.header();
        header.slots.store(shape.slots, Ordering::Relaxed);
        header.workers.store(shape.workers, Ordering::Relaxed);
        header.ring_bytes.store(shape.ring_bytes, Ordering::Relaxed);
        header.hands.store(shape.hands, Ordering::Relaxed);
        header.spin_nanoseconds.store(0, Ordering::Relaxed);
        header.version.store(LAYOUT_VERSION, Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Release);
        Ok(board)
    }

    /// Opens the board that a parent created.
    ///
    /// # Errors
    /// `Layout` for a file that is no board of this build, `Corrupt` for one whose sizes are not the file's,
    /// `Map` when the system refuses.
    pub fn open(fd: OwnedFd) -> Result<Board, ShmError> {
        const WHAT: &str = "treadle-board";
        let foreign = |found: String| ShmError::Layout { expected: LAYOUT_VERSION, found };
        check_sealed(&fd)?;
        let bytes = file_bytes(&fd)?;
        if bytes < HEADER_BYTES {
            return Err(foreign(format!("it has {bytes} bytes")));
        }
        let map = Mapping::new(&fd, 0, bytes, WHAT)?;
        // The shape is read once and checked; nothing is read through this provisional one but the header.
        let board = Board::over(fd, map, Shape { slots: 0, workers: 0, ring_bytes: 0, hands: 1 });
        let header = board.header();
        if header.magic.load(Ordering::Acquire) != MAGIC {
            return Err(foreign("it does not begin with our mark".to_owned()));
        }
        let version = header.version.load(Ordering::Relaxed);
        if version != LAYOUT_VERSION {
            return Err(foreign(format!("it has layout {version}")));
        }
        let shape = Shape {
            slots: header.slots.load(Ordering::Relaxed),
            workers: header.workers.load(Ordering::Relaxed),
            ring_bytes: header.ring_bytes.load(Ordering::Relaxed),
            hands: header.hands.load(Ordering::Relaxed),
        };
        shape.check().map_err(|error| ShmError::Corrupt(error.to_string()))?;
        if shape.bytes() > bytes {
            let text = format!("a board of {} bytes says it needs {}", bytes, shape.bytes());
            return Err(ShmError::Corrupt(text));
        }
        let Board { fd, map, .. } = board;
        Ok(Board::over(fd, map, shape))
    }

    fn over(fd: OwnedFd, map: Mapping, shape: Shape) -> Board {
        Board {
            fd,
            map,
            shape,
            published: AtomicU64::new(0),
            read_heads: (0..shape.workers).map(|_| AtomicU64::new(0)).collect(),
            waiting: Mutex::new(0),
            last_wake: AtomicU64::new(0),
        }
    }

    /// The file, to be handed to workers.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The sizes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    // ---- the parts, for this crate

    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the mapping is page-aligned and at least HEADER_BYTES long (`create` and `open` checked), `Header`
        // fits into that and consists of atomics, which any bytes are valid for and any process may change.
        unsafe { self.map.at(0).cast::<Header>().as_ref() }
    }

    pub(crate) fn queue(&self) -> Queue<'_> {
        let start = self.map.at(HEADER_BYTES as usize).cast::<Slot>();
        // SAFETY: `shape.slots` slots lie at HEADER_BYTES inside the mapping (`create` sized it, `open` checked it),
        // aligned to 64; `Slot` consists of atomics.
        let slots = unsafe { std::slice::from_raw_parts(start.as_ptr(), self.shape.slots as usize) };
        Queue::new(slots, &self.header().queue_head.0)
    }

    /// # Panics
    /// When there is no such worker.
    pub(crate) fn lane(&self, worker: u32) -> &Lane {
        assert!(worker < self.shape.workers, "no worker {worker} on a board of {}", self.shape.workers);
        // SAFETY: worker is below shape.workers, so its lane lies inside the mapping, aligned to 64 as slots and rings
        // are multiples of 64; `Lane` consists of atomics.
        unsafe { self.map.at(self.shape.lane_offset(worker) as usize).cast::<Lane>().as_ref() }
    }

    pub(crate) fn ring(&self, worker: u32) -> RingView<'_> {
        let lane = self.lane(worker);
        let start = self.map.at(self.shape.ring_offset(worker) as usize).cast::<AtomicU64>();
        // SAFETY: as for `lane`: the ring's bytes follow the lane inside the mapping, aligned to 64.
        let words = unsafe { std::slice::from_raw_parts(start.as_ptr(), self.shape.ring_bytes as usize / 8) };
        RingView { words, tail: &lane.worker.tail, head: &lane.parent.head }
    }

    /// # Panics
    /// When there is no such hand.
    pub(crate) fn hand(&self, owner: u32) -> HandWords<'_> {
        let (worker, hand) = match self.shape.hands {
            1 => (owner, 0),
            hands => (owner / hands, owner % hands),
        };
        let lane = self.lane(worker);
        if hand == 0 {
            let words = &lane.worker;
            return HandWords {
                current: &words.current,
                started: &words.started,
                heard: &words.heard,
                interrupt: &lane.parent.interrupt,
            };
        }
        let offset = self.shape.hands_offset(worker) as usize + (hand as usize - 1) * size_of::<Hand>();
        // SAFETY: the hand is one of `shape.hands`, whose room beyond the first follows the draft inside the mapping, aligned to 64;
        // `Hand` consists of atomics.
        let words: &Hand = unsafe { self.map.at(offset).cast::<Hand>().as_ref() };
        HandWords { current: &words.current, started: &words.started, heard: &words.heard, interrupt: &words.interrupt }
    }

    pub(crate) fn draft_start(&self, worker: u32) -> NonNull<u8> {
        self.map.at(self.shape.draft_offset(worker) as usize)
    }

    /// How long this side may spin for somebody on the CPU marked `other`: not at all on the same CPU, where spinning
    /// only keeps the other from running.
    pub(crate) fn spin_budget(&self, other: u32) -> Duration {
        let budget = Duration::from_nanos(self.header().spin_nanoseconds.load(Ordering::Relaxed).into());
        if budget.is_zero() || other == 0 || other == cpu_mark() { Duration::ZERO } else { budget.min(MAX_SPIN) }
    }

    /// Passes a wake-up on without looking at the throttle, unless the queue is well served and somebody dozes, who looks after it.
    pub(crate) fn pass_wake_on(&self) {
        if self.queue().has_work() {
            let door = |worker| &self.lane(worker).door.0;
            if wake_one(&self.header().idle, self.shape.workers, door, || self.is_well_served(None, monotonic_nanoseconds())) {
                self.mark_pace(monotonic_nanoseconds());
            }
        }
    }

    pub(crate) fn mark_pace(&self, now: u64) {
        self.header().pace.mark(self.queue().head(), now);
    }

    /// Whether tasks are taken so fast that one more worker would only stand in the way: the others that are awake fill the cores. `me`
    /// is the worker that asks, and does not count.
    pub(crate) fn is_well_served(&self, me: Option<u32>, now: u64) -> bool {
        let header = self.header();
        // Who has had a task for long may be asleep in it.
        let takes = |worker: u32| {
            let words = &self.lane(worker).worker;
            words.current.load(Ordering::Relaxed) == 0
                || now.saturating_sub(words.started.load(Ordering::Relaxed)) < LONG_TASK_NANOSECONDS
        };
        header.pace.is_fast(self.queue().head(), now)
            && header
                .pace
                .filled_by(|cores| header.idle.awake(self.shape.workers).filter(|one| Some(*one) != me && takes(*one)).take(cores).count())
    }

    // ---- parent side

    /// Sets how long either side may spin before it sleeps; 0, the default, is never, and 50 us is the most.
    ///
    /// Worth it only with more CPUs than workers.
    pub fn set_spin(&self, budget: Duration) {
        let budget = budget.min(MAX_SPIN).as_nanos() as u32;
        self.header().spin_nanoseconds.store(budget, Ordering::Relaxed);
    }

    /// Sets how many cores the workers may use; 0, the default, is unknown. With more workers than that, those beyond it stay
    /// asleep while tasks are so short that the others keep up.
    pub fn set_cores(&self, cores: u32) {
        self.header().pace.set_cores(cores);
    }

    /// Wakes one idle worker if a published task needs one; call it after publishing one task or many.
    ///
    /// Nearly free while nobody idles. Right after another wake-up, and while a worker dozes on a short timer, it leaves
    /// the work to that worker, which wakes the next.
    pub fn wake_for_work(&self) {
        let header = self.header();
        let mut now = 0;
        let woke = wake_one(
            &header.idle,
            self.shape.workers,
            |worker| &self.lane(worker).door.0,
            || {
                now = monotonic_nanoseconds();
                let since = now.saturating_sub(self.last_wake.load(Ordering::Relaxed));
                since < WAKE_THROTTLE_NANOSECONDS || since < CROWDED_THROTTLE_NANOSECONDS && self.is_well_served(None, now)
            },
        );
        if woke {
            let now = if now == 0 { monotonic_nanoseconds() } else { now };
            self.last_wake.store(now, Ordering::Relaxed);
            self.mark_pace(now);
            header.parent_cpu.store(cpu_mark(), Ordering::Relaxed);
        }
    }

    /// Rings one worker.
    ///
    /// # Panics
    /// When there is no such worker, as all methods that take one.
    pub fn wake_worker(&self, worker: u32) {
        self.lane(worker).door.0.ring();
    }

    /// Rings every worker.
    pub fn wake_all_workers(&self) {
        (0..self.shape.workers).for_each(|worker| self.wake_worker(worker));
    }

    /// Asks a worker to leave after the task in hand, and wakes it.
    pub fn request_stop(&self, worker: u32) {
        self.lane(worker).parent.stop.store(1, Ordering::SeqCst);
        self.wake_worker(worker);
    }

    /// The task in a hand; 0 = none. With one hand for each worker the hand's number is the worker's.
    pub fn current_task(&self, owner: u32) -> u64 {
        // [journal] Acquire
        self.hand(owner).current.load(Ordering::Acquire)
    }

    /// When the task in a hand was claimed, in nanoseconds of `CLOCK_MONOTONIC`; 0 = no task.
    pub fn task_started_at(&self, owner: u32) -> u64 {
        self.in_hand(owner).map_or(0, |(_, started)| started)
    }

    /// The task in a hand and when it was claimed (nanoseconds of `CLOCK_MONOTONIC`), read as a pair.
    pub fn in_hand(&self, owner: u32) -> Option<(u64, u64)> {
        let words = self.hand(owner);
        let mut task = words.current.load(Ordering::Acquire); // [journal]
        // The worker writes 0, the time, the task: a pair read between two equal tasks is a pair. A worker that
        // claims faster than we read has no deadline to miss, so two tries do.
        for _ in 0..2 {
            if task == 0 {
                return None;
            }
            let started = words.started.load(Ordering::Acquire);
            let again = words.current.load(Ordering::Acquire);
            if again == task {
                return Some((task, started));
            }
            task = again;
        }
        None
    }

    /// Says that the worker of a hand shall interrupt `task` in it (0 = none); a signal then makes it look.
    pub fn set_interrupt(&self, owner: u32, task: u64) {
        let words = self.hand(owner);
        // What was heard of an earlier call for this very task says nothing about this one.
        words.heard.store(0, Ordering::SeqCst);
        words.interrupt.store(task, Ordering::SeqCst);
    }

    /// The task for which the worker of a hand was last called ([`Board::set_interrupt`]) and heard it; 0 = none.
    pub fn heard(&self, owner: u32) -> u64 {
        self.hand(owner).heard.load(Ordering::SeqCst)
    }

    /// Whether a hand is taking some task out of its slot at this instant, before its journal names it. Dear: it looks at every slot.
    pub fn is_taking(&self, owner: u32) -> bool {
        self.queue().is_taking(owner)
    }

    /// Whether a published task still waits: nobody claimed or retracted it.
    pub fn is_waiting(&self, position: u64, task: u64) -> bool {
        self.queue().is_ready(position, task)
    }

    /// The hand that is taking this task out of its slot at this instant, before its journal names it.
    pub fn taker(&self, position: u64, task: u64) -> Option<u32> {
        self.queue().taker(position, task).filter(|owner| *owner < self.shape.owners())
    }

    /// Whether a published task is in its slot still: nobody claimed it, or its claimer has not yet taken it over into its
    /// journal.
    ///
    /// When this says no, then [`Board::current_task`] names the task, or its record is committed, or it was lost with
    /// damaged memory: ask in this order.
    pub fn holds(&self, position: u64, task: u64) -> bool {
        self.queue().holds(position, task)
    }

    /// How many words of the header and the queue cannot come from this protocol; not 0 = some process overwrote them,
    /// and the board should be given up.
    pub fn damage(&self) -> usize {
        self.queue().damage(|| self.published.load(Ordering::Acquire)) + self.header_damage()
    }

    /// Repairs what is only a hint, after a stand-still: with tasks waiting, sets the head back; wakes every
    /// worker, whatever the counts of sleepers say. Right at any time, and dear.
    pub fn mend(&self) {
        self.queue().rewind(self.published.load(Ordering::Acquire));
        (0..self.shape.workers).for_each(|worker| self.lane(worker).door.0.ring_blindly());
    }

    /// How many of the words that nobody ever changes are changed: with them no worker can open the board again.
    pub(crate) fn header_damage(&self) -> usize {
        let header = self.header();
        let changed = [
            header.magic.load(Ordering::Relaxed) != MAGIC,
            header.version.load(Ordering::Relaxed) != LAYOUT_VERSION,
            header.slots.load(Ordering::Relaxed) != self.shape.slots,
            header.workers.load(Ordering::Relaxed) != self.shape.workers,
            header.ring_bytes.load(Ordering::Relaxed) != self.shape.ring_bytes,
            header.hands.load(Ordering::Relaxed) != self.shape.hands,
        ];
        changed.into_iter().filter(|changed| *changed).count()
    }

    /// How many workers idle now.
    pub fn idle_workers(&self) -> u32 {
        self.header().idle.count(self.shape.workers)
    }

    /// How many tasks are published and not yet claimed, about: retracted ones count until they are passed.
    pub fn queued(&self) -> u64 {
        self.published.load(Ordering::Relaxed).saturating_sub(self.queue().head())
    }

    /// Takes a published task back, exactly: false when a worker has it or had it.
    pub fn retract(&self, position: u64, task: u64) -> bool {
        self.queue().retract(position, task)
    }

    /// Arms the parent's bell for the commit of task `want`, or for any with 0.
    ///
    /// The caller then looks once more whether what it waits for is there, and calls [`Board::cancel_wait`] or
    /// [`Board::wait`]. While several threads wait, every commit rings.
    pub fn prepare_wait(&self, want: u64) -> Ticket {
        let header = self.header();
        header.parent_cpu.store(cpu_mark(), Ordering::Relaxed);
        Ticket { seen: header.parent.arm(&self.waiting, want), want }
    }

    /// Sleeps until the bell rings, the time is up or a signal arrives.
    pub fn wait(&self, ticket: Ticket, timeout: Option<Duration>) -> Woken {
        let bell = &self.header().parent;
        let slept = if self.spin_for(&ticket, timeout) {
            Slept::Rung
        } else {
            bell.sleep(ticket.seen, timeout)
        };
        bell.disarm(&self.waiting);
        match slept {
            Slept::Rung => Woken::Rung,
            Slept::TimedOut => Woken::TimedOut,
            Slept::Interrupted => Woken::Interrupted,
        }
    }

    /// Ends an armed wait whose recheck found something.
    pub fn cancel_wait(&self, ticket: Ticket) {
        let Ticket { .. } = ticket;
        self.header().parent.disarm(&self.waiting);
    }

    /// Wakes every thread of the parent that waits.
    pub fn ring_parent(&self) {
        self.header().parent.ring();
    }

    /// Spins for the one task waited for, if its worker is known to run on another CPU and no backlog says burst.
    fn spin_for(&self, ticket: &Ticket, timeout: Option<Duration>) -> bool {
        let header = self.header();
        if header.spin_nanoseconds.load(Ordering::Relaxed) == 0 || ticket.want == 0 || self.queued() > 1 {
            return false;
        }
        let Some(owner) = (0..self.shape.owners()).find(|&owner| self.current_task(owner) == ticket.want) else {
            return false;
        };
        let worker = owner / self.shape.hands;
        let mut budget = self.spin_budget(self.lane(worker).worker.cpu.load(Ordering::Relaxed));
        budget = timeout.map_or(budget, |time| budget.min(time));
        spin(budget, || header.parent.rung(ticket.seen))
    }
}

/// Looks at `done` until it holds or the budget is spent.
pub(crate) fn spin(budget: Duration, done: impl Fn() -> bool) -> bool {
    if budget.is_zero() {
        return false;
    }
    let until = monotonic_nanoseconds() + budget.as_nanos() as u64;
    loop {
        for _ in 0..32 {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if monotonic_nanoseconds() >= until {
            return false;
        }
    }
}
