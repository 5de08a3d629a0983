//! Waiting for a task: the waiting thread drains the rings itself, and sleeps when there is nothing to drain.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use treadle_shm::Woken;

use super::cell::{Cell, Phase};
use super::nanoseconds;
use super::outcome::Outcome;
use super::processes::{ProcessPool, SubmitError, Waited};
use super::tasks::TaskId;

/// Whoever has waited this long without a ring looks whether the shared memory is sound. Such damage is rare and its victim stands
/// still anyway; a look costs some ten microseconds.
const INSPECTION: Duration = Duration::from_millis(900);

impl ProcessPool {
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
    pub(super) fn wait_until(&self, holds: impl Fn() -> bool) -> Result<(), SubmitError> {
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
                let now = treadle_shm::monotonic_nanoseconds();
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
    pub(super) fn has_records(&self) -> bool {
        match self.readers.try_lock() {
            Ok(readers) => readers.iter().any(|reader| !reader.is_empty()),
            Err(_) => {
                std::thread::yield_now();
                true
            }
        }
    }
}
