//! The quiet sampler: a thread that looks at random instants who holds the lock and whether the measured thread runs.
//!
//! ```text
//!                   runs            is ready to     sleeps
//! holds the lock    held_running    held_ready      held_blocked
//! does not          free_running    free_ready      free_blocked
//! ```
//!
//! Whether it runs is asked of the measured thread's CPU clock, read twice: it moves between the reads or it does not. A clock
//! that stands still may be that of a thread which waits for a processor: for the one that the sampler has just taken from
//! it, or after it was woken. So then the kernel is asked for its state. The gaps between instants are exponentially distributed: a
//! function with a rhythm of its own, or Python's switch interval of 5 ms, cannot fall into step with them.
//!
//! *Guarantees*: the sampler never takes the lock, allocates nothing while it samples and touches nothing of the measured thread
//! but one counter in memory; instants outside of calls are not counted. Stopping waits for a few milliseconds at most; in a
//! forked child, where the thread does not exist, it does nothing.
//! *Assumes*: `begin` and `end` are called by the measured thread, in turns.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Words;
use super::background::Background;
use crate::clock::ThreadClock;

/// A look that comes later than this is counted as late and not used: a thread that has to wait for a processor gets it when
/// another one sleeps or calls the kernel, so such an instant is not a random one. Waking took 20 to 60 µs on the machine where
/// this was chosen, busy or not; one look in thirty was later than this when both of its cores were taken.
pub(super) const PROMPT: Duration = Duration::from_micros(150);
/// A look that took longer than this was torn: the sampler lost its processor between its readings, perhaps to the measured
/// thread as that woke up, and they are not of one instant. Ten times what the readings take.
const TORN: Duration = Duration::from_micros(20);
/// How long the lock is watched without a gap after each instant, to count how often it is given up: 1 % of the time at 1 kHz,
/// and a few hundred times as long as taking and releasing it.
const WATCH: Duration = Duration::from_micros(10);
/// A watch that took longer than this was interrupted by the scheduler, and what it saw is not counted.
const WATCH_BROKEN: Duration = Duration::from_micros(40);
/// Reads of the lock between two looks at the time, which cost as much as ten reads.
const READS: u32 = 16;
/// A gap is at most so many means: an exponential gap is longer once in 22,000.
pub(super) const LONGEST_GAP: f64 = 10.0;

/// The thread to be measured and the lock that it takes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Proved words of the lock.
    pub words: Words,
    /// The measured thread's state in the interpreter.
    pub thread_state: usize,
    /// Its CPU clock.
    pub clock: ThreadClock,
    /// Its number in the kernel.
    pub thread: i32,
}

/// What was counted within calls since the start, and what it cost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tally {
    /// Instants at which the thread held the lock and ran.
    pub held_running: u64,
    /// Instants at which it held the lock and had no processor to run on.
    pub held_ready: u64,
    /// Instants at which it held the lock and slept.
    pub held_blocked: u64,
    /// Instants at which it ran without the lock.
    pub free_running: u64,
    /// Instants at which it had no processor to run on, without the lock.
    pub free_ready: u64,
    /// Instants at which it slept without the lock.
    pub free_blocked: u64,
    /// Looks within calls that came too late to be random, or were torn; they are in none of the others.
    pub late: u64,
    /// Nanoseconds in which the lock was watched without a gap, while the thread ran or slept.
    pub watched_ns: u64,
    /// How often it was given up during these.
    pub watched_releases: u64,
    /// How often an instant found the lock held and the next one of the same call did not.
    pub lasting_releases: u64,
}

impl Tally {
    /// All instants within calls.
    pub fn samples(&self) -> u64 {
        self.held_running
            + self.held_ready
            + self.held_blocked
            + self.free_running
            + self.free_ready
            + self.free_blocked
    }

    /// What was counted after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        self.with(earlier, u64::saturating_sub)
    }

    /// Both together.
    pub fn plus(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    fn with(&self, other: &Self, what: fn(u64, u64) -> u64) -> Self {
        Self {
            held_running: what(self.held_running, other.held_running),
            held_ready: what(self.held_ready, other.held_ready),
            held_blocked: what(self.held_blocked, other.held_blocked),
            free_running: what(self.free_running, other.free_running),
            free_ready: what(self.free_ready, other.free_ready),
            free_blocked: what(self.free_blocked, other.free_blocked),
            late: what(self.late, other.late),
            watched_ns: what(self.watched_ns, other.watched_ns),
            watched_releases: what(self.watched_releases, other.watched_releases),
            lasting_releases: what(self.lasting_releases, other.lasting_releases),
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    held_running: AtomicU64,
    held_ready: AtomicU64,
    held_blocked: AtomicU64,
    free_running: AtomicU64,
    free_ready: AtomicU64,
    free_blocked: AtomicU64,
    late: AtomicU64,
    watched_ns: AtomicU64,
    watched_releases: AtomicU64,
    lasting_releases: AtomicU64,
}

/// One writer: an addition need not be one indivisible step.
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
}

#[derive(Debug)]
struct Shared {
    target: Target,
    mean_gap_s: f64,
    /// Odd within a call; grows by one at each begin and each end.
    call: AtomicU64,
    stop: AtomicBool,
    /// The sampling thread's number in the kernel; 0 until it runs.
    sampler: AtomicI32,
    counters: Counters,
}

/// A running sampler; dropping it stops it.
#[derive(Debug)]
pub struct Sampler {
    shared: Arc<Shared>,
    thread: Background,
    started: Instant,
    clock: ThreadClock,
}

impl Sampler {
    /// Starts sampling `target` at `rate_hz` instants a second in the mean; `seed` draws the gaps.
    pub fn start(target: Target, rate_hz: f64, seed: u64) -> io::Result<Self> {
        if !(rate_hz > 0.0 && rate_hz <= 100_000.0) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let shared = Arc::new(Shared {
            target,
            mean_gap_s: 1.0 / rate_hz,
            call: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            sampler: AtomicI32::new(0),
            counters: Counters::default(),
        });
        let for_thread = Arc::clone(&shared);
        let thread = Background::start("treadle-sampler", move || run(&for_thread, seed))?;
        let mut sampler = Self {
            shared,
            thread,
            started: Instant::now(),
            clock: target.clock,
        };
        let number = loop {
            match sampler.shared.sampler.load(Ordering::Acquire) {
                0 => std::thread::yield_now(),
                number => break number,
            }
        };
        sampler.clock = ThreadClock::of(number).ok_or(io::ErrorKind::Unsupported)?;
        Ok(sampler)
    }

    /// The measured thread enters a call.
    pub fn begin(&self) {
        let call = &self.shared.call;
        call.store(call.load(Ordering::Relaxed) | 1, Ordering::Release);
    }

    /// The measured thread leaves the call.
    pub fn end(&self) {
        let call = &self.shared.call;
        call.store((call.load(Ordering::Relaxed) | 1) + 1, Ordering::Release);
    }

    /// What was counted so far.
    pub fn tally(&self) -> Tally {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally {
            held_running: read(&counters.held_running),
            held_ready: read(&counters.held_ready),
            held_blocked: read(&counters.held_blocked),
            free_running: read(&counters.free_running),
            free_ready: read(&counters.free_ready),
            free_blocked: read(&counters.free_blocked),
            late: read(&counters.late),
            watched_ns: read(&counters.watched_ns),
            watched_releases: read(&counters.watched_releases),
            lasting_releases: read(&counters.lasting_releases),
        }
    }

    /// CPU seconds of the sampling thread so far.
    pub fn cpu_seconds(&self) -> f64 {
        self.clock.seconds()
    }

    /// Seconds since the start.
    pub fn elapsed_seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Ends the sampling thread; the tally stays.
    pub fn stop(&mut self) {
        self.thread.end(&self.shared.stop);
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the measured thread does at an instant.
#[derive(Debug, Clone, Copy)]
enum Doing {
    Running,
    Ready,
    Sleeping,
}

/// What the sampler found at an instant.
#[derive(Debug, Clone, Copy)]
struct Instance {
    call: u64,
    held: bool,
}

/// The sampling thread.
fn run(shared: &Shared, seed: u64) {
    wake_promptly();
    let state = State::of(shared.target.thread);
    shared.sampler.store(
        rustix::thread::gettid().as_raw_nonzero().get(),
        Ordering::Release,
    );
    let mut random = seed;
    let mut before: Option<Instance> = None;
    loop {
        let gap = shared.mean_gap_s * exponential(&mut random).min(LONGEST_GAP);
        let due = Instant::now() + Duration::from_secs_f64(gap);
        loop {
            if shared.stop.load(Ordering::Acquire) {
                return;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::park_timeout(left);
        }
        before = look(shared, state.as_ref(), before, due);
    }
}

/// Looks once; `None` outside of a call, and when it is too late.
fn look(
    shared: &Shared,
    state: Option<&State>,
    before: Option<Instance>,
    due: Instant,
) -> Option<Instance> {
    let target = &shared.target;
    let call = shared.call.load(Ordering::Acquire);
    if call.is_multiple_of(2) {
        return None;
    }
    if due.elapsed() > PROMPT {
        add(&shared.counters.late, 1);
        return None;
    }
    let began = Instant::now();
    let first = target.clock.nanoseconds();
    let held = target.words.held_by(target.thread_state);
    let second = target.clock.nanoseconds();
    if began.elapsed() > TORN {
        add(&shared.counters.late, 1);
        return None;
    }
    let doing = if second > first {
        Doing::Running
    } else if state.is_some_and(State::runnable) {
        Doing::Ready
    } else {
        Doing::Sleeping
    };
    if shared.call.load(Ordering::Acquire) != call {
        return None;
    }
    let counters = &shared.counters;
    add(
        match (held, doing) {
            (true, Doing::Running) => &counters.held_running,
            (true, Doing::Ready) => &counters.held_ready,
            (true, Doing::Sleeping) => &counters.held_blocked,
            (false, Doing::Running) => &counters.free_running,
            (false, Doing::Ready) => &counters.free_ready,
            (false, Doing::Sleeping) => &counters.free_blocked,
        },
        1,
    );
    if before.is_some_and(|before| before.call == call && before.held) && !held {
        add(&counters.lasting_releases, 1);
    }
    // A thread without a processor, perhaps because this one took it, gives nothing up.
    if !matches!(doing, Doing::Ready) {
        watch(shared, call);
    }
    Some(Instance { call, held })
}

/// Watches the lock for a moment without a gap.
fn watch(shared: &Shared, call: u64) {
    let target = &shared.target;
    let began = Instant::now();
    let mut held = target.words.held_by(target.thread_state);
    let mut releases = 0;
    let took = loop {
        for _ in 0..READS {
            let now = target.words.held_by(target.thread_state);
            releases += u64::from(held && !now);
            held = now;
            std::hint::spin_loop();
        }
        let took = began.elapsed();
        if took >= WATCH {
            break took;
        }
    };
    if took < WATCH_BROKEN && shared.call.load(Ordering::Acquire) == call {
        add(&shared.counters.watched_ns, took.as_nanos() as u64);
        add(&shared.counters.watched_releases, releases);
    }
}

/// The kernel's account of a thread, kept open.
struct State(OwnedFd);

impl State {
    fn of(thread: i32) -> Option<Self> {
        use rustix::fs::{Mode, OFlags};
        let path = format!("/proc/self/task/{thread}/stat");
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .ok()
            .map(Self)
    }

    /// Whether the thread waits for a processor or has one.
    fn runnable(&self) -> bool {
        let mut text = [0u8; 64];
        let Ok(read) = rustix::io::pread(&self.0, &mut text[..], 0) else {
            return false;
        };
        // "12 (name) R …": the name has at most 15 bytes and may hold parentheses.
        let text = &text[..read];
        text.iter()
            .rposition(|byte| *byte == b')')
            .and_then(|end| text.get(end + 2))
            == Some(&b'R')
    }
}

/// The next gap in means, from SplitMix64 (Steele, Lea and Flood, 2014).
pub(super) fn exponential(random: &mut u64) -> f64 {
    *random = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut word = *random;
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^= word >> 31;
    // 53 bits, in (0, 1].
    -(((word >> 11) + 1) as f64 / (1u64 << 53) as f64).ln()
}

/// Asks the kernel to wake this thread at the instant it wants, even while the processors are busy.
///
/// Both requests need no privilege; where the kernel refuses them, more looks come late.
#[cfg(target_os = "linux")]
pub(super) fn wake_promptly() {
    /// `struct sched_attr` in its first version.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    // From Linux 6.12 on this is the length of a slice for ordinary threads too: who asks for short ones is let in sooner.
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: 0,
        nice: 0,
        priority: 0,
        runtime: 100_000,
        deadline: 0,
        period: 0,
    };
    // SAFETY: both calls concern the calling thread only; the structure is as the kernel defines it and is read only.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1u64, 0u64, 0u64, 0u64);
        libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0);
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn wake_promptly() {}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const STATE: usize = 4242;

    /// A lock that the test plays: (locked, holder).
    struct Lock(AtomicI32, AtomicUsize);

    impl Lock {
        fn target(&self) -> Target {
            Target {
                words: Words::at((&raw const self.0) as usize, (&raw const self.1) as usize)
                    .unwrap(),
                thread_state: STATE,
                clock: ThreadClock::own().unwrap(),
                thread: rustix::thread::gettid().as_raw_nonzero().get(),
            }
        }
    }

    fn spin(until: impl Fn() -> bool) {
        let started = Instant::now();
        while !until() {
            assert!(started.elapsed().as_secs() < 60, "the sampler stands still");
            std::hint::spin_loop();
        }
    }

    fn sleep(until: impl Fn() -> bool) {
        let started = Instant::now();
        while !until() {
            assert!(started.elapsed().as_secs() < 60, "the sampler stands still");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn the_four_states_are_told_apart() {
        let lock = Lock(AtomicI32::new(1), AtomicUsize::new(STATE));
        let mut sampler = Sampler::start(lock.target(), 5_000.0, 1).unwrap();
        let parts: [(i32, bool); 4] = [(1, true), (1, false), (0, true), (0, false)];
        let mut counted = [[0; 4]; 4];
        for (index, (locked, running)) in parts.into_iter().enumerate() {
            lock.0.store(locked, Ordering::Relaxed);
            let before = sampler.tally();
            sampler.begin();
            let enough = || sampler.tally().since(&before).samples() >= 200;
            if running {
                spin(enough)
            } else {
                sleep(enough)
            }
            sampler.end();
            let tally = sampler.tally().since(&before);
            counted[index] = [
                tally.held_running + tally.held_ready,
                tally.held_blocked,
                tally.free_running + tally.free_ready,
                tally.free_blocked,
            ];
        }
        sampler.stop();
        for (index, row) in counted.iter().enumerate() {
            let right = row[index] as f64 / row.iter().sum::<u64>() as f64;
            // Between its naps the thread runs, and on a loaded machine stands ready, for a few percent of the instants.
            assert!(right > 0.9, "state {index}: {counted:?}");
        }
    }

    #[test]
    fn nothing_is_counted_outside_of_calls_or_after_the_end() {
        let lock = Lock(AtomicI32::new(1), AtomicUsize::new(STATE));
        let mut sampler = Sampler::start(lock.target(), 20_000.0, 2).unwrap();
        sleep(|| sampler.cpu_seconds() > 0.002);
        assert_eq!(sampler.tally(), Tally::default());
        sampler.begin();
        spin(|| sampler.tally().samples() > 20);
        sampler.end();
        sampler.stop();
        let stopped = sampler.tally();
        sampler.begin();
        assert_eq!(sampler.tally(), stopped);
        assert_eq!(stopped.lasting_releases, 0);
    }

    #[test]
    fn giving_the_lock_up_is_counted_while_it_is_watched() {
        let lock = Lock(AtomicI32::new(1), AtomicUsize::new(STATE));
        let mut sampler = Sampler::start(lock.target(), 2_000.0, 3).unwrap();
        let began = crate::clock::thread_cpu();
        let mut releases = 0u64;
        sampler.begin();
        while sampler.tally().watched_releases < 300 {
            // About one release in 4 microseconds.
            for locked in [0, 1] {
                lock.0.store(locked, Ordering::Relaxed);
                let until = Instant::now() + Duration::from_micros(2);
                spin(|| Instant::now() >= until);
            }
            releases += 1;
        }
        let seconds = crate::clock::thread_cpu() - began;
        sampler.end();
        sampler.stop();
        let tally = sampler.tally();
        let rate = tally.watched_releases as f64 / (tally.watched_ns as f64 * 1e-9);
        let truth = releases as f64 / seconds;
        // This thread may lose its processor during a watch, and the reads of an unoptimised build are slow.
        assert!(
            rate < 1.5 * truth && rate > 0.4 * truth,
            "{rate} against {truth}"
        );
    }

    #[test]
    fn gaps_are_exponential() {
        let mut random = 7;
        let gaps: Vec<f64> = (0..40_000).map(|_| exponential(&mut random)).collect();
        let mean = gaps.iter().sum::<f64>() / 40_000.0;
        let beyond = gaps.iter().filter(|gap| **gap > 2.0).count() as f64 / 40_000.0;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert!((beyond - (-2.0f64).exp()).abs() < 0.01, "{beyond}");
        assert!(gaps.iter().all(|gap| gap.is_finite() && *gap >= 0.0));
    }

    #[test]
    fn rates_without_sense_are_refused() {
        let lock = Lock(AtomicI32::new(1), AtomicUsize::new(STATE));
        for rate in [0.0, -1.0, f64::NAN, 1e9] {
            assert!(Sampler::start(lock.target(), rate, 1).is_err());
        }
    }
}
