//! What a worker process may do before it leaves by plan: so many tasks, so much growth.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::future::lock;
use crate::process::trim_heap;

/// The memory of a worker is looked at no more often than this: reading it costs microseconds.
const MEMORY_LOOK: Duration = Duration::from_millis(10);

/// The limits of one process, for all its threads.
pub(super) struct Limits {
    most_tasks: Option<u64>,
    most_growth: Option<u64>,
    so_far: Mutex<SoFar>,
}

struct SoFar {
    begun: u64,
    baseline: u64,
    looked: Instant,
    reached: Option<&'static str>,
}

impl Limits {
    pub(super) fn new(most_tasks: Option<u64>, most_growth: Option<u64>) -> Limits {
        Limits {
            most_tasks,
            most_growth,
            so_far: Mutex::new(SoFar {
                begun: 0,
                baseline: 0,
                looked: Instant::now(),
                reached: None,
            }),
        }
    }

    fn exist(&self) -> bool {
        self.most_tasks.is_some() || self.most_growth.is_some()
    }

    /// Growth counts from here.
    pub(super) fn begin(&self) {
        if self.most_growth.is_some() {
            lock(&self.so_far).baseline = resident_bytes().unwrap_or(0);
        }
    }

    /// Takes a task by `take`, unless a limit was reached; the count is exact, whichever threads take.
    pub(super) fn count<T>(&self, take: impl FnOnce() -> Option<T>) -> Option<T> {
        if !self.exist() {
            return take();
        }
        let mut so_far = lock(&self.so_far);
        if so_far.reached.is_some() {
            return None;
        }
        let taken = take()?;
        so_far.begun += 1;
        if self.most_tasks.is_some_and(|most| so_far.begun >= most) {
            so_far.reached = Some("max_tasks_per_child");
        }
        Some(taken)
    }

    /// Looks, after a task, how much memory this process has.
    pub(super) fn look(&self) {
        let Some(most) = self.most_growth else {
            return;
        };
        let mut so_far = lock(&self.so_far);
        if so_far.reached.is_some() || so_far.looked.elapsed() < MEMORY_LOOK {
            return;
        }
        so_far.looked = Instant::now();
        let baseline = so_far.baseline;
        let too_large =
            || resident_bytes().is_some_and(|bytes| bytes.saturating_sub(baseline) > most);
        if too_large() {
            // What tasks have freed and the heap keeps for the next is no growth.
            trim_heap();
            if too_large() {
                so_far.reached = Some("max_memory_per_child");
            }
        }
    }

    /// The limit that was reached, by its name.
    pub(super) fn reached(&self) -> Option<&'static str> {
        if self.exist() {
            lock(&self.so_far).reached
        } else {
            None
        }
    }
}

/// This process's resident bytes.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * treadle_shm::page_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_tasks_are_taken_than_a_process_may_run() {
        let limits = Limits::new(Some(2), None);
        assert_eq!(limits.count(|| None::<u32>), None);
        assert_eq!(limits.count(|| Some(1)), Some(1));
        assert_eq!(limits.reached(), None);
        assert_eq!(limits.count(|| Some(2)), Some(2));
        assert_eq!(limits.reached(), Some("max_tasks_per_child"));
        assert_eq!(limits.count(|| Some(3)), None);
        let none = Limits::new(None, None);
        assert!((0..9).all(|turn| none.count(|| Some(turn)) == Some(turn)));
        assert_eq!(none.reached(), None);
    }
}
