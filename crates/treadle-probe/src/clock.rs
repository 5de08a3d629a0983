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
}
