//! Clocks, in seconds: monotonic time, the CPU time of this process and of the calling thread.

use rustix::time::{ClockId, Timespec, clock_gettime};

fn seconds(time: Timespec) -> f64 {
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Monotonic time in seconds from an arbitrary start.
pub fn monotonic() -> f64 {
    seconds(clock_gettime(ClockId::Monotonic))
}

/// CPU seconds that this process has used, all its threads together, the ended ones included.
pub fn process_cpu() -> f64 {
    seconds(clock_gettime(ClockId::ProcessCPUTime))
}

/// CPU seconds that the calling thread has used.
pub fn thread_cpu() -> f64 {
    seconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// The CPU clock of one thread of this process, readable from its other threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadClock(i32);

impl ThreadClock {
    /// The clock of the calling thread; `None` where the kernel has no such clocks.
    pub fn own() -> Option<Self> {
        Self::of(rustix::thread::gettid().as_raw_nonzero().get())
    }

    /// The clock of a thread by its number in the kernel.
    #[cfg(target_os = "linux")]
    pub fn of(thread: i32) -> Option<Self> {
        // How Linux numbers the clocks of tasks: the complement of the number, then "of a thread" (4) and "scheduler's" (2).
        let clock = Self((!thread << 3) | 4 | 2);
        clock.nanoseconds().map(|_| clock)
    }

    /// The clock of a thread by its number in the kernel.
    #[cfg(not(target_os = "linux"))]
    pub fn of(_thread: i32) -> Option<Self> {
        None
    }

    /// Nanoseconds that the thread has been on a processor, up to now even while it runs; `None` once it has ended.
    pub fn nanoseconds(self) -> Option<u64> {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` is valid for writing; a clock that does not exist is refused by the kernel.
        let refused = unsafe { libc::clock_gettime(self.0, &raw mut time) } != 0;
        (!refused).then_some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    /// The same in seconds; 0 once it has ended.
    pub fn seconds(self) -> f64 {
        self.nanoseconds().unwrap_or(0) as f64 * 1e-9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_moves_every_clock_forward() {
        let (wall, process, thread) = (monotonic(), process_cpu(), thread_cpu());
        let mut sum = 0u64;
        while thread_cpu() - thread < 0.002 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(monotonic() > wall);
        assert!(process_cpu() - process >= 0.002);
    }

    #[test]
    fn another_threads_clock_moves_while_it_works_and_stands_while_it_sleeps() {
        let Some(own) = ThreadClock::own() else {
            return;
        };
        let (before, thread) = (own.seconds(), thread_cpu());
        while thread_cpu() - thread < 0.001 {
            std::hint::spin_loop();
        }
        // Read by another thread, while this one waits for it.
        let (first, second) = std::thread::scope(|scope| {
            scope
                .spawn(|| (own.seconds(), own.seconds()))
                .join()
                .unwrap()
        });
        assert!(first - before >= 0.001);
        assert!((second - first) < 0.001);
        assert_eq!(ThreadClock::of(i32::MAX / 16), None);
    }
}
