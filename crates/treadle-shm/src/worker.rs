//! The worker's end of its lane: claim, journal, commit, sleep.
//!
//! *Guarantees*: the task in hand stands in a taken slot, in the journal, or in a committed record at any instant;
//! a wake-up spent on this worker is passed on if it leaves.
//! *Assumes*: one `WorkerEnd` for each lane, in the process that the parent watches for this lane. Where a worker has several hands,
//! there may be two: one that claims and sleeps, one that commits and posts; a task goes from one to the other by a lock of that process.

use crate::board::{Board, spin};
use crate::clock::{cpu_mark, monotonic_nanoseconds};
use crate::error::RingFull;
use crate::fault::point;
use crate::layout::Lane;
use crate::park::{hold_back, nap};
use crate::ring::{RingWriter, max_record, record_size};
use crate::slots::{Claimed, SLOT_PAYLOAD};
use crate::sync::{AtomicU32, Ordering, Slept, fence};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A worker dozes on a timer before it sleeps for good after so many tasks without a sleep, or so many in a row at whose claim the parent had
/// not read the results before. A timed wait arms a timer, which made one-at-a-time use 2-3 times slower when done after every task
/// (transport study, 4): there every result is read before the next task comes.
const STREAK: u32 = 8;
/// How long a doze lasts: as long as the parent's throttle relies on it.
const DOZE: Duration = Duration::from_micros(50);
/// A worker that holds back dozes for twice as long each time, up to this.
const LONGEST_DOZE: Duration = Duration::from_micros(200);

/// Why a wait for a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// There is a task to claim (or was: a rival may be faster).
    Work,
    /// The parent asks this worker to leave.
    Stop,
    /// The time was up.
    TimedOut,
    /// A signal arrived.
    Interrupted,
    /// Another thread of this process called ([`Caller::call`]).
    Called,
}

/// Calls a worker out of its sleep, from another thread of its process.
#[derive(Clone, Debug)]
pub struct Caller {
    board: Arc<Board>,
    worker: u32,
    called: Arc<AtomicU32>,
}

impl Caller {
    /// Ends the worker's present [`WorkerEnd::wait_for_task`], or its next one.
    pub fn call(&self) {
        self.called.store(1, Ordering::SeqCst);
        self.board.wake_worker(self.worker);
    }
}

/// One hand of a worker, as any thread of its process may look at it.
#[derive(Clone, Debug)]
pub struct Place {
    board: Arc<Board>,
    owner: u32,
}

impl Place {
    /// The task that the parent wants interrupted, if it is in this hand still. Tells the parent that its call was heard: this process runs
    /// its own code, and is not stuck.
    pub fn heed(&self) -> Option<u64> {
        let words = self.board.hand(self.owner);
        let wanted = words.interrupt.load(Ordering::SeqCst);
        if wanted == 0 || wanted != words.current.load(Ordering::Acquire) {
            return None;
        }
        words.heard.store(wanted, Ordering::SeqCst);
        Some(wanted)
    }
}

/// The worker's side of one lane.
#[derive(Debug)]
pub struct WorkerEnd {
    board: Arc<Board>,
    worker: u32,
    writer: RingWriter,
    /// Tasks since the last sleep.
    streak: u32,
    /// Tasks in a row at whose claim results were unread.
    unread: u32,
    summoned: bool,
    arrived: bool,
    called: Arc<AtomicU32>,
}

impl WorkerEnd {
    /// Takes up lane `worker`.
    ///
    /// # Panics
    /// When there is no such worker.
    pub fn new(board: Arc<Board>, worker: u32) -> WorkerEnd {
        board.lane(worker).worker.cpu.store(cpu_mark(), Ordering::Relaxed);
        let writer = RingWriter::new(board.ring(worker));
        WorkerEnd { board, worker, writer, streak: 0, unread: 0, summoned: false, arrived: false, called: Arc::default() }
    }

    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    pub(crate) fn worker(&self) -> u32 {
        self.worker
    }

    pub(crate) fn lane(&self) -> &Lane {
        self.board.lane(self.worker)
    }

    /// Claims the oldest task, if there is one, and copies its payload into `buffer`.
    ///
    /// From then on the task is in hand, until [`WorkerEnd::commit`].
    pub fn claim(&mut self, buffer: &mut [u8; SLOT_PAYLOAD]) -> Option<Claimed> {
        let words = &self.board.lane(self.worker).worker;
        let claimed = self.board.queue().claim(self.worker, buffer, |task| {
            // [journal] Release, in this order: a reader that sees the same task twice around the time has a pair.
            words.started.store(monotonic_nanoseconds(), Ordering::Release);
            words.current.store(task, Ordering::Release);
        })?;
        self.lengthen_streak();
        if std::mem::take(&mut self.summoned) {
            // We were woken for one task; whoever throttled its wake-ups relies on us for the rest.
            self.board.pass_wake_on();
        }
        Some(claimed)
    }

    /// As [`WorkerEnd::claim`], for one of the worker's hands, which must be empty.
    ///
    /// # Panics
    /// When there is no such hand.
    pub fn claim_in(&mut self, hand: u32, buffer: &mut [u8; SLOT_PAYLOAD]) -> Option<Claimed> {
        let words = self.board.hand(self.owner(hand));
        let claimed = self.board.queue().claim(self.owner(hand), buffer, |task| {
            // [journal] as in `claim`
            words.started.store(monotonic_nanoseconds(), Ordering::Release);
            words.current.store(task, Ordering::Release);
        })?;
        self.lengthen_streak();
        if std::mem::take(&mut self.summoned) {
            self.board.pass_wake_on();
        }
        Some(claimed)
    }

    fn lengthen_streak(&mut self) {
        self.streak = self.streak.saturating_add(1);
        if self.streak < STREAK {
            let lane = self.lane();
            let read = lane.parent.head.load(Ordering::Relaxed) == lane.worker.tail.load(Ordering::Relaxed);
            self.unread = if read { 0 } else { self.unread.saturating_add(1) };
        }
    }

    fn owner(&self, hand: u32) -> u32 {
        let hands = self.board.shape().hands;
        assert!(hand < hands, "no hand {hand} of a worker with {hands}");
        self.worker * hands + hand
    }

    /// How many hands a worker has.
    pub fn hands(&self) -> u32 {
        self.board.shape().hands
    }

    /// The task in one of the worker's hands, 0 = none.
    pub fn current_in(&self, hand: u32) -> u64 {
        self.board.hand(self.owner(hand)).current.load(Ordering::Relaxed)
    }

    /// When the task in one of the worker's hands was claimed, by [`monotonic_nanoseconds`].
    pub fn started_in(&self, hand: u32) -> u64 {
        self.board.hand(self.owner(hand)).started.load(Ordering::Relaxed)
    }

    /// The task that the parent wants interrupted in a hand, 0 = none.
    pub fn interrupt_requested_in(&self, hand: u32) -> u64 {
        self.board.hand(self.owner(hand)).interrupt.load(Ordering::SeqCst)
    }

    /// One of the worker's hands, for any thread of its process.
    pub fn place(&self, hand: u32) -> Place {
        Place { board: Arc::clone(&self.board), owner: self.owner(hand) }
    }

    /// Wakes another worker if a task can be claimed: this one does not come to it now.
    pub fn pass_on(&self) {
        self.board.pass_wake_on();
    }

    /// Whether the parent asks this worker to leave; if so, a wake-up spent on it goes to another.
    pub fn stop_requested(&self) -> bool {
        let stop = self.lane().parent.stop.load(Ordering::Acquire) != 0;
        if stop {
            self.board.header().idle.depart(self.worker);
            if self.summoned {
                self.board.pass_wake_on();
            }
        }
        stop
    }

    /// The task in hand, 0 = none.
    pub fn current(&self) -> u64 {
        self.lane().worker.current.load(Ordering::Relaxed)
    }

    /// The task that the parent wants interrupted, 0 = none.
    pub fn interrupt_requested(&self) -> u64 {
        self.lane().parent.interrupt.load(Ordering::SeqCst)
    }

    /// What other threads of this process call this worker by.
    pub fn caller(&self) -> Caller {
        Caller { board: Arc::clone(&self.board), worker: self.worker, called: Arc::clone(&self.called) }
    }

    /// Sleeps until there is a task, the parent asks to leave, somebody calls, the time is up or a signal arrives.
    pub fn wait_for_task(&mut self, timeout: Option<Duration>) -> Waited {
        if !std::mem::replace(&mut self.arrived, true) {
            self.board.header().idle.arrive(self.worker);
        }
        if let Some(found) = self.look() {
            return found;
        }
        let board = Arc::clone(&self.board);
        let (header, lane) = (board.header(), board.lane(self.worker));
        lane.worker.cpu.store(cpu_mark(), Ordering::Relaxed);
        let deadline = timeout.and_then(|time| Instant::now().checked_add(time));
        let mut doze = self.streak >= STREAK || self.unread >= STREAK;
        self.streak = 0;
        if !doze {
            let budget = board.spin_budget(header.parent_cpu.load(Ordering::Relaxed));
            let budget = timeout.map_or(budget, |time| budget.min(time));
            spin(budget, || board.queue().has_work() || lane.parent.stop.load(Ordering::Relaxed) != 0);
        }
        let mut held = DOZE;
        loop {
            let left = deadline.map(|time| time.saturating_duration_since(Instant::now()));
            let limit = if doze { Some(left.map_or(DOZE, |left| left.min(DOZE))) } else { left };
            let leave = || lane.parent.stop.load(Ordering::SeqCst) != 0 || self.called.load(Ordering::SeqCst) != 0;
            let mut nap = nap(&header.idle, self.worker, &lane.door.0, board.queue(), leave, doze, limit);
            // Waking from a doze counts as being summoned: the parent skipped wake-ups because of it.
            self.summoned |= nap.summoned || doze;
            // Who would only stand in the way looks again soon, and is bound to: others leave the queue to somebody who dozes.
            while !leave() && self.holds_back(nap.slept, deadline) {
                self.summoned = true;
                board.mark_pace(monotonic_nanoseconds());
                nap = hold_back(&header.idle, self.worker, &lane.door.0, leave, held);
                held = (2 * held).min(LONGEST_DOZE);
                if nap.slept == Slept::TimedOut {
                    nap.slept = Slept::Rung; // by its own timer, not the caller's
                }
            }
            if let Some(found) = self.look() {
                return found;
            }
            match nap.slept {
                Slept::Interrupted => return Waited::Interrupted,
                Slept::TimedOut if left.is_some_and(|left| limit.is_some_and(|limit| limit >= left)) => {
                    return Waited::TimedOut;
                }
                Slept::TimedOut | Slept::Rung => doze = false,
            }
            // There is nothing to pass on, nor a burst any more.
            self.summoned = false;
            self.unread = 0;
        }
    }

    /// Whether this worker, awake after a nap that ended so, leaves the tasks that wait to the others. Never when its caller waits
    /// for less than the doze may last, nor after a signal.
    fn holds_back(&self, slept: Slept, deadline: Option<Instant>) -> bool {
        slept != Slept::Interrupted
            && deadline.is_none_or(|deadline| deadline > Instant::now() + LONGEST_DOZE)
            && self.board.queue().has_work()
            && self.board.is_well_served(Some(self.worker), monotonic_nanoseconds())
    }

    /// Stop before work, work before calls: who leaves passes its wake-up on.
    fn look(&mut self) -> Option<Waited> {
        if self.stop_requested() {
            self.board.pass_wake_on();
            return Some(Waited::Stop);
        }
        if self.board.queue().has_work() {
            return Some(Waited::Work);
        }
        // A wake-up spent on this worker stays with it: it looks for work again before it sleeps.
        (self.called.swap(0, Ordering::SeqCst) != 0).then_some(Waited::Called)
    }

    /// Writes the record that finishes the task in hand, commits it, clears the journal, and wakes the parent if it
    /// waits for this task, for any, or if the ring is over half full.
    ///
    /// # Errors
    /// [`RingFull`]: nothing happened; see [`WorkerEnd::wait_for_room`].
    pub fn commit(&mut self, task: u64, kind: u32, parts: &[&[u8]]) -> Result<(), RingFull> {
        self.writer.push(self.board.ring(self.worker), task, kind, parts)?;
        // The task is finished from here on. [journal]
        self.lane().worker.current.store(0, Ordering::Release);
        point("after-current-cleared");
        self.tell(task);
        Ok(())
    }

    /// As [`WorkerEnd::commit`], for the task in one of the worker's hands.
    ///
    /// # Errors
    /// As [`WorkerEnd::commit`].
    ///
    /// # Panics
    /// When there is no such hand.
    pub fn commit_from(&mut self, hand: u32, task: u64, kind: u32, parts: &[&[u8]]) -> Result<(), RingFull> {
        let owner = self.owner(hand);
        self.writer.push(self.board.ring(self.worker), task, kind, parts)?;
        // [journal] as in `commit`
        self.board.hand(owner).current.store(0, Ordering::Release);
        point("after-current-cleared");
        self.tell(task);
        Ok(())
    }

    /// Writes a record that does not finish the task in hand; it wakes the parent only if that waits for anything at all, or the ring is over half full.
    ///
    /// # Errors
    /// [`RingFull`]: nothing happened; see [`WorkerEnd::wait_for_room`].
    pub fn post(&mut self, task: u64, kind: u32, parts: &[&[u8]]) -> Result<(), RingFull> {
        self.writer.push(self.board.ring(self.worker), task, kind, parts)?;
        // Who waits for this very task has nothing to look at yet.
        self.tell(0);
        Ok(())
    }

    fn tell(&self, task: u64) {
        let urgent = self.writer.over_half(self.board.ring(self.worker));
        self.board.header().parent.committed(task, urgent);
    }

    /// Sleeps until a record of `bytes` bytes fits; false when the time was up, a signal arrived, or it never will
    /// fit. A request to stop does not end the wait: the task in hand is still to be committed.
    pub fn wait_for_room(&mut self, bytes: usize, timeout: Option<Duration>) -> bool {
        let board = Arc::clone(&self.board);
        let (ring, lane) = (board.ring(self.worker), board.lane(self.worker));
        let size = record_size(bytes);
        if bytes > self.max_record() {
            return false;
        }
        let deadline = timeout.and_then(|time| Instant::now().checked_add(time));
        loop {
            let seen = lane.door.0.seen();
            lane.worker.wants_room.store(1, Ordering::SeqCst);
            fence(Ordering::SeqCst); // [room] say so before the recheck of the head
            let fits = self.writer.room(ring, size) >= size;
            let mut slept = Slept::Rung;
            let left = deadline.map(|time| time.saturating_duration_since(Instant::now()));
            if !fits {
                // Whatever the parent waits for, it must drain this ring first.
                board.header().parent.committed(0, true);
                slept = lane.door.0.sleep(seen, left);
            }
            lane.worker.wants_room.store(0, Ordering::SeqCst);
            if fits || self.writer.room(ring, size) >= size {
                return true;
            }
            if slept != Slept::Rung {
                return false;
            }
        }
    }

    /// The longest record, in bytes, that the ring takes; longer ones go through an arena.
    pub fn max_record(&self) -> usize {
        max_record(self.board.shape().ring_bytes.into())
    }
}
