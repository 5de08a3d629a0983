//! The state of one task as its future sees it.
//!
//! One word holds the phase and two marks. Who may change what:
//!
//! | from | to | by |
//! |---|---|---|
//! | pending | running | the worker that takes it (in-process strategies only; a process pool derives it from the slot) |
//! | pending | cancelled | whoever took the task back from the queue |
//! | pending, running | finished | the one that stored the outcome, exactly once |
//!
//! *Guarantees*: the outcome is readable once the phase is finished, and never changes after; a thread that set
//! [`Cell::mark_waited`] before it looked at the phase is told by the finisher's return value.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const PHASE: u32 = 0b111;
const WAITED: u32 = 1 << 3;
const OBSERVED: u32 = 1 << 4;

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// Not taken by any worker.
    Pending = 0,
    /// Taken by a worker.
    Running = 1,
    /// Taken back before it began.
    Cancelled = 2,
    /// Its outcome is stored.
    Finished = 3,
}

/// What a finisher learns of the marks that were set before it finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// A thread sleeps until the task is finished.
    pub waited: bool,
    /// Somebody looks at the future through the standard library's fields; its completion must be announced there.
    pub observed: bool,
}

/// The state of one task.
#[derive(Debug)]
pub struct Cell<O> {
    word: AtomicU32,
    outcome: OnceLock<O>,
}

impl<O> Default for Cell<O> {
    fn default() -> Self {
        Cell {
            word: AtomicU32::new(Phase::Pending as u32),
            outcome: OnceLock::new(),
        }
    }
}

fn phase_of(word: u32) -> Phase {
    match word & PHASE {
        0 => Phase::Pending,
        1 => Phase::Running,
        2 => Phase::Cancelled,
        _ => Phase::Finished,
    }
}

fn marks_of(word: u32) -> Marks {
    Marks {
        waited: word & WAITED != 0,
        observed: word & OBSERVED != 0,
    }
}

impl<O> Cell<O> {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        phase_of(self.word.load(Ordering::Acquire))
    }

    /// Whether nothing will change any more: finished or cancelled.
    pub fn settled(&self) -> bool {
        matches!(self.phase(), Phase::Finished | Phase::Cancelled)
    }

    /// The outcome, once finished.
    pub fn outcome(&self) -> Option<&O> {
        if self.phase() == Phase::Finished {
            self.outcome.get()
        } else {
            None
        }
    }

    fn change(&self, to: Phase, allowed: impl Fn(Phase) -> bool) -> Option<Marks> {
        self.word
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
                allowed(phase_of(word)).then_some((word & !PHASE) | to as u32)
            })
            .ok()
            .map(marks_of)
    }

    /// Takes a pending task for running; false when it was taken or cancelled before.
    pub fn start(&self) -> bool {
        self.change(Phase::Running, |phase| phase == Phase::Pending)
            .is_some()
    }

    /// Puts a running task back, because it is to be tried again.
    pub fn restart(&self) {
        self.change(Phase::Pending, |phase| phase == Phase::Running);
    }

    /// Cancels a pending task; `None` when it had begun or ended.
    pub fn cancel(&self) -> Option<Marks> {
        self.change(Phase::Cancelled, |phase| phase == Phase::Pending)
    }

    /// Stores the outcome and finishes; `None` when the task had ended before, and the outcome is dropped.
    pub fn finish(&self, outcome: O) -> Option<Marks> {
        if self.settled() || self.outcome.set(outcome).is_err() {
            return None;
        }
        self.end()
    }

    /// Finishes a task whose outcome its owner keeps elsewhere; `None` when it had ended before.
    pub fn end(&self) -> Option<Marks> {
        self.change(Phase::Finished, |phase| {
            !matches!(phase, Phase::Finished | Phase::Cancelled)
        })
    }

    /// Says that a thread is about to sleep until the end; returns the phase after the mark was set.
    pub fn mark_waited(&self) -> Phase {
        phase_of(self.word.fetch_or(WAITED, Ordering::SeqCst))
    }

    /// Says that the standard library's fields are in use; returns the phase at that moment, or `None` when somebody had said so
    /// before: then the end is, or was, announced on that account.
    pub fn mark_observed(&self) -> Option<Phase> {
        let word = self.word.fetch_or(OBSERVED, Ordering::SeqCst);
        (word & OBSERVED == 0).then(|| phase_of(word))
    }

    /// Whether the standard library's fields are in use.
    pub fn observed(&self) -> bool {
        self.word.load(Ordering::Acquire) & OBSERVED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_ends_once() {
        let cell = Cell::default();
        assert!(cell.start());
        assert!(cell.cancel().is_none(), "a running task was cancelled");
        cell.mark_waited();
        assert_eq!(
            cell.finish(1),
            Some(Marks {
                waited: true,
                observed: false
            })
        );
        assert_eq!(cell.finish(2), None);
        assert_eq!(cell.outcome(), Some(&1));
    }

    #[test]
    fn a_task_without_an_outcome_of_its_own_ends_once() {
        let cell: Cell<()> = Cell::default();
        assert!(cell.start());
        cell.mark_waited();
        let marks = Marks {
            waited: true,
            observed: false,
        };
        assert_eq!(cell.end(), Some(marks));
        assert_eq!(cell.end(), None);
        assert_eq!(cell.phase(), Phase::Finished);
        assert!(cell.cancel().is_none());
    }

    #[test]
    fn a_cancelled_task_never_starts_and_never_finishes() {
        let cell: Cell<i32> = Cell::default();
        assert!(cell.cancel().is_some());
        assert!(!cell.start());
        assert_eq!(cell.finish(1), None);
        assert_eq!(cell.outcome(), None);
    }
}
