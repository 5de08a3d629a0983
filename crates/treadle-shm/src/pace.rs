//! The pace of the queue: are tasks taken so fast that one more worker would only stand in the way?
//!
//! A task of a microsecond costs a worker that was woken for it ten times that. With as many workers awake as there are cores, another one
//! adds nothing to tasks that compute, and tasks that wait are not taken at such a pace.
//!
//! *Guarantees* nothing: a hint, from words that several processes write. Who goes by it holds back for a bounded time only.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Tasks are taken fast when so many were since the mark, and each took so many nanoseconds of the cores at most: less than a wake-up
/// across cores takes (33 us in the median; transport study, 3.3).
const FEWEST: u64 = 4;
const NANOSECONDS_A_TASK: u64 = 20_000;

/// When it was last looked how far the queue had come.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Pace {
    /// Cores that the workers may use; 0 = not known, and nobody holds back.
    cores: AtomicU32,
    at: AtomicU64,
    head: AtomicU64,
}

impl Pace {
    pub(crate) fn set_cores(&self, cores: u32) {
        self.cores.store(cores, Ordering::Relaxed);
    }

    /// Whether the workers that `count` counts, as many as there are cores at most, fill the cores.
    pub(crate) fn filled_by(&self, count: impl FnOnce(usize) -> usize) -> bool {
        let cores = self.cores.load(Ordering::Relaxed) as usize;
        cores != 0 && count(cores) >= cores
    }

    /// Looks how far the queue has come, to compare with later.
    pub(crate) fn mark(&self, head: u64, now: u64) {
        self.at.store(now, Ordering::Relaxed);
        self.head.store(head, Ordering::Relaxed);
    }

    /// Whether tasks were taken fast from the mark to this `head`.
    pub(crate) fn is_fast(&self, head: u64, now: u64) -> bool {
        let taken = head.saturating_sub(self.head.load(Ordering::Relaxed));
        let elapsed = now.saturating_sub(self.at.load(Ordering::Relaxed));
        let cores = self.cores.load(Ordering::Relaxed).into();
        taken >= FEWEST && elapsed.saturating_mul(cores) <= taken.saturating_mul(NANOSECONDS_A_TASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace {
            cores: AtomicU32::new(0),
            at: AtomicU64::new(0),
            head: AtomicU64::new(0),
        }
    }

    #[test]
    fn cores_are_filled_once_they_are_known() {
        let pace = pace();
        assert!(!pace.filled_by(|_| 64));
        pace.set_cores(2);
        assert!(!pace.filled_by(|_| 1) && pace.filled_by(|most| most) && pace.filled_by(|_| 3));
    }

    #[test]
    fn only_many_tasks_in_a_short_time_are_fast() {
        let pace = pace();
        pace.set_cores(2);
        let at = 1_000_000_000;
        pace.mark(100, at);
        assert!(!pace.is_fast(100, at) && !pace.is_fast(100 + FEWEST - 1, at));
        // Ten in 100 us on two cores are 20 us each.
        assert!(pace.is_fast(110, at + 100_000) && !pace.is_fast(110, at + 100_001));
        assert!(!pace.is_fast(50, at), "a head that went back");
        pace.set_cores(16);
        assert!(!pace.is_fast(110, at + 100_000), "160 us each");
    }
}
