//! What the parent does after a worker's death: finds its tasks, frees what it held, repeats the wake-ups it swallowed.
//!
//! *Guarantees*: right whatever instruction the worker died at; may be called again.
//! *Assumes*: the death was observed (a pidfd), and the worker's ring was drained after it.

use crate::board::Board;
use crate::sync::{Ordering, fence};

/// What a dead worker left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Tasks in slots it had claimed and not yet freed; without the one named in `current`.
    pub claimed: Vec<u64>,
    /// The task it had in hand. If a record that finishes this very task was drained, the worker died between the
    /// commit and the clearing of its journal, and the task is finished: the caller knows.
    pub current: Option<u64>,
    /// Slots whose state cannot come from this protocol; not 0 = the worker wrote garbage, and tasks in those slots are
    /// unknown. The board should be given up.
    pub damaged: usize,
}

impl Board {
    /// Recovers the lane of a worker that died. Its ring must have been drained before.
    ///
    /// Frees its slots, clears its idle bit and journal, and rings every bell once, for it may have taken a wake-up
    /// with it. The lane can be used again after [`Board::reset_lane`].
    pub fn recover(&self, worker: u32) -> Recovered {
        let lane = self.lane(worker);
        let reclaimed = self.queue().reclaim(worker, self.published.load(Ordering::Acquire));
        let current = match lane.worker.current.swap(0, Ordering::AcqRel) {
            0 => None,
            task => Some(task),
        };
        lane.worker.started.store(0, Ordering::Relaxed);
        self.forget(worker);
        fence(Ordering::SeqCst);
        self.ring_parent();
        self.wake_all_workers();
        let claimed = reclaimed.claimed.into_iter().filter(|task| Some(*task) != current).collect();
        Recovered { claimed, current, damaged: reclaimed.damaged }
    }

    /// Makes the lane fresh for a replacement: the ring is empty, no stop is asked for, no task is in hand.
    ///
    /// Call it before the replacement opens the board, and after [`Board::recover`].
    pub fn reset_lane(&self, worker: u32) {
        let lane = self.lane(worker);
        self.forget(worker);
        let head = self.read_heads[worker as usize].load(Ordering::Relaxed);
        lane.worker.current.store(0, Ordering::Relaxed);
        lane.worker.started.store(0, Ordering::Relaxed);
        lane.worker.progress.store(0, Ordering::Relaxed);
        lane.parent.stop.store(0, Ordering::Relaxed);
        lane.parent.interrupt.store(0, Ordering::Relaxed);
        lane.parent.head.store(head, Ordering::Release);
        lane.worker.tail.store(head, Ordering::Release);
    }

    /// Clears what a dead worker armed.
    fn forget(&self, worker: u32) {
        let lane = self.lane(worker);
        self.header().idle.disarm(worker);
        lane.door.0.forget_sleepers();
        lane.worker.wants_room.store(0, Ordering::SeqCst);
        lane.worker.cpu.store(0, Ordering::Relaxed);
    }
}
