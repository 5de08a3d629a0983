//! Time and place: the monotonic clock in nanoseconds, and the CPU a thread runs on.

/// `CLOCK_MONOTONIC` in nanoseconds, the clock of [`Board::task_started_at`](crate::Board::task_started_at).
pub fn monotonic_nanoseconds() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The CPU of the calling thread plus 1, so that 0 says "never published".
pub(crate) fn cpu_mark() -> u32 {
    // SAFETY: sched_getcpu takes no argument and only returns a number (or -1, which becomes 0).
    unsafe { libc::sched_getcpu() }.wrapping_add(1).max(0) as u32
}

/// The size of a page of memory, in bytes.
pub fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}
