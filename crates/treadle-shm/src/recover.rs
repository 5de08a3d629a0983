//! What the parent does after a worker's death: finds its tasks, frees what it held, repeats the wake-ups it swallowed.
//!
//! *Guarantees*: right whatever instruction the worker died at; may be called again.
//! *Assumes*: the death was observed (a pidfd), and the worker's ring was drained after it.

#![allow(unreachable_pub)] // the loom tests, an outside crate, reach these

#[cfg(not(loom))]
use crate::board::Board;
use crate::park::{Doorbell, IdleSet};
use crate::slots::Queue;
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// What a dead worker left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Tasks in slots it had claimed and not yet freed; without the one named in `current`.
    pub claimed: Vec<u64>,
    /// The task it had in hand. If a record that finishes this very task was drained, the worker died between the
    /// commit and the clearing of its journal, and the task is finished: the caller knows.
    pub current: Option<u64>,
    /// Slots and header words whose state cannot come from this protocol; not 0 = the worker wrote garbage, and tasks in
    /// those slots are unknown. The board should be given up.
    pub damaged: usize,
}

/// What a dead worker may have left in shared memory.
#[derive(Debug)]
pub struct Remains<'a> {
    /// The number of the dead worker's hand: what its slots name.
    pub owner: u32,
    /// The dead worker's number.
    pub worker: u32,
    /// The queue, for its taken slots.
    pub queue: Queue<'a>,
    /// For its idle bit.
    pub idle: &'a IdleSet,
    /// For its count as a sleeper.
    pub door: &'a Doorbell,
    /// Its journal.
    pub current: &'a AtomicU64,
    /// Its wish for room.
    pub wants_room: &'a AtomicU32,
}

impl Remains<'_> {
    /// Finds the worker's tasks and clears what it armed. Ring every bell afterwards.
    pub fn clear(self, published: impl Fn() -> u64) -> Recovered {
        let reclaimed = self.queue.reclaim(self.owner, published);
        let current = match self.current.swap(0, Ordering::AcqRel) {
            0 => None,
            task => Some(task),
        };
        self.idle.disarm(self.worker);
        self.door.forget_sleepers();
        self.wants_room.store(0, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let claimed = reclaimed.claimed.into_iter().filter(|task| Some(*task) != current).collect();
        Recovered { claimed, current, damaged: reclaimed.damaged }
    }
}

#[cfg(not(loom))]
impl Board {
    /// Recovers the lane of a worker that died. Its ring must have been drained before.
    ///
    /// Frees its slots, clears its idle bit and journal, and rings every bell once, for it may have taken a wake-up
    /// with it. The lane can be used again after [`Board::reset_lane`]. Of a worker with several hands it is the first hand's
    /// task that is told; see [`Board::recover_all`].
    pub fn recover(&self, worker: u32) -> Recovered {
        let mut all = self.recover_all([worker]);
        all.pop().unwrap_or_default()
    }

    /// The same for all lanes of a process that died, and for each of their hands: what each hand held, lane by lane.
    pub fn recover_all(&self, workers: impl IntoIterator<Item = u32>) -> Vec<Recovered> {
        let mut found = Vec::new();
        for worker in workers {
            let lane = self.lane(worker);
            // Backwards, so that the first hand of the last lane is the last.
            for owner in (worker * self.shape().hands..(worker + 1) * self.shape().hands).rev() {
                let hand = self.hand(owner);
                let mut recovered = Remains {
                    owner,
                    worker,
                    queue: self.queue(),
                    idle: &self.header().idle,
                    door: &lane.door.0,
                    current: hand.current,
                    wants_room: &lane.worker.wants_room,
                }
                .clear(|| self.published.load(Ordering::Acquire));
                recovered.damaged += self.header_damage();
                hand.started.store(0, Ordering::Relaxed);
                found.push(recovered);
            }
            lane.worker.cpu.store(0, Ordering::Relaxed);
            self.header().idle.depart(worker);
        }
        self.ring_parent();
        self.wake_all_workers();
        found
    }

    /// Makes the lane fresh for a replacement: the ring is empty, no stop is asked for, no task is in hand.
    ///
    /// Call it before the replacement opens the board, and after [`Board::recover`].
    pub fn reset_lane(&self, worker: u32) {
        let lane = self.lane(worker);
        self.header().idle.disarm(worker);
        lane.door.0.forget_sleepers();
        lane.worker.wants_room.store(0, Ordering::SeqCst);
        let head = self.read_heads[worker as usize].load(Ordering::Relaxed);
        for owner in worker * self.shape().hands..(worker + 1) * self.shape().hands {
            let hand = self.hand(owner);
            for word in [hand.current, hand.started, hand.heard, hand.interrupt] {
                word.store(0, Ordering::Relaxed);
            }
        }
        lane.worker.span.clear();
        lane.worker.draft_of.store(0, Ordering::Relaxed);
        lane.worker.drafted.store(0, Ordering::Relaxed);
        lane.parent.stop.store(0, Ordering::Relaxed);
        lane.parent.head.store(head, Ordering::Release);
        lane.worker.tail.store(head, Ordering::Release);
    }
}
