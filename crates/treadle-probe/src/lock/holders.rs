//! Who holds the lock, of all threads: a sampler that looks at random instants and counts the holders.
//!
//! It asks no clock of any thread and knows no calls, so that a look costs a hundredth of a wake-up. It is for a program that somebody watches,
//! and ends by itself when nobody has asked for some time.
//!
//! *Guarantees*: as the [`Sampler`](super::Sampler)'s: it never takes the lock, allocates nothing while it samples, and in a forked child, where
//! its thread does not exist, stopping does nothing.
//! *Assumes*: the words stay mapped until it is stopped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Words;
use super::background::Background;
use super::sampler::{LONGEST_GAP, PROMPT, exponential, wake_promptly};
use crate::clock::ThreadClock;

/// So many threads are told apart; holders beyond them are counted together. A pool with more threads has its first ones told.
const MOST_HOLDERS: usize = 128;

/// What was seen since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Holdings {
    /// Looks in time.
    pub looks: u64,
    /// Of these, those that found the lock held by anybody.
    pub held: u64,
    /// Looks that came too late to be random; they are in no other count.
    pub late: u64,
    /// How often each thread state held it.
    pub by_state: Vec<(usize, u64)>,
}

#[derive(Debug)]
struct Shared {
    words: Words,
    mean_gap_s: f64,
    linger: Duration,
    started: Instant,
    /// Milliseconds after the start at which somebody asked last.
    asked_ms: AtomicU64,
    stop: AtomicBool,
    over: AtomicBool,
    thread: AtomicI32,
    looks: AtomicU64,
    held: AtomicU64,
    late: AtomicU64,
    states: [AtomicUsize; MOST_HOLDERS],
    counts: [AtomicU64; MOST_HOLDERS],
}

/// A running sampler of the holders; dropping it stops it.
#[derive(Debug)]
pub struct Holders {
    shared: Arc<Shared>,
    thread: Background,
}

impl Holders {
    /// Starts looking `rate_hz` times a second in the mean; ends when nobody has asked for `linger`. `seed` draws the gaps.
    ///
    /// # Errors
    /// When the rate is not above 0 and at most 100,000, or the system refuses the thread.
    pub fn start(words: Words, rate_hz: f64, linger: Duration, seed: u64) -> io::Result<Holders> {
        if !(rate_hz > 0.0 && rate_hz <= 100_000.0) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let shared = Arc::new(Shared {
            words,
            mean_gap_s: 1.0 / rate_hz,
            linger,
            started: Instant::now(),
            asked_ms: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            over: AtomicBool::new(false),
            thread: AtomicI32::new(0),
            looks: AtomicU64::new(0),
            held: AtomicU64::new(0),
            late: AtomicU64::new(0),
            states: std::array::from_fn(|_| AtomicUsize::new(0)),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
        });
        let for_thread = Arc::clone(&shared);
        let thread = Background::start("treadle-holders", move || run(&for_thread, seed))?;
        Ok(Holders { shared, thread })
    }

    /// What was seen so far; `None` when the sampler has ended, by itself or with the process that was forked. Asking keeps it going.
    pub fn ask(&self) -> Option<Holdings> {
        let shared = &self.shared;
        if !self.thread.is_here() || shared.over.load(Ordering::Acquire) {
            return None;
        }
        shared.asked_ms.store(shared.age_ms(), Ordering::Relaxed);
        let by_state = shared
            .states
            .iter()
            .zip(&shared.counts)
            .map(|(state, count)| (state.load(Ordering::Acquire), count.load(Ordering::Relaxed)))
            .take_while(|(state, _)| *state != 0)
            .collect();
        Some(Holdings {
            looks: shared.looks.load(Ordering::Relaxed),
            held: shared.held.load(Ordering::Relaxed),
            late: shared.late.load(Ordering::Relaxed),
            by_state,
        })
    }

    /// CPU seconds of the sampling thread so far; 0 once it has ended.
    pub fn cpu_seconds(&self) -> f64 {
        match self.shared.thread.load(Ordering::Acquire) {
            0 => 0.0,
            thread => ThreadClock::of(thread).map_or(0.0, ThreadClock::seconds),
        }
    }

    /// Ends the sampling thread.
    pub fn stop(&mut self) {
        self.thread.end(&self.shared.stop);
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn age_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn forgotten(&self) -> bool {
        let idle = self
            .age_ms()
            .saturating_sub(self.asked_ms.load(Ordering::Relaxed));
        Duration::from_millis(idle) > self.linger
    }
}

/// One writer: an addition need not be one indivisible step.
fn add(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// The sampling thread.
fn run(shared: &Shared, seed: u64) {
    wake_promptly();
    shared.thread.store(
        rustix::thread::gettid().as_raw_nonzero().get(),
        Ordering::Release,
    );
    let mut random = seed;
    while !shared.stop.load(Ordering::Acquire) && !shared.forgotten() {
        let gap = shared.mean_gap_s * exponential(&mut random).min(LONGEST_GAP);
        let due = Instant::now() + Duration::from_secs_f64(gap);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() || shared.stop.load(Ordering::Acquire) {
                break;
            }
            std::thread::park_timeout(left);
        }
        look(shared, due);
    }
    // Its number may be another thread's from now on.
    shared.thread.store(0, Ordering::Release);
    shared.over.store(true, Ordering::Release);
}

fn look(shared: &Shared, due: Instant) {
    if due.elapsed() > PROMPT {
        add(&shared.late);
        return;
    }
    let holder = shared.words.holder();
    add(&shared.looks);
    let Some(holder) = holder else {
        return;
    };
    add(&shared.held);
    for (state, count) in shared.states.iter().zip(&shared.counts) {
        match state.load(Ordering::Relaxed) {
            0 => {
                add(count);
                state.store(holder, Ordering::Release);
                return;
            }
            known if known == holder => {
                add(count);
                return;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::sync::atomic::{AtomicI32, AtomicUsize};

    use super::*;

    const FOREVER: Duration = Duration::from_secs(3600);

    /// A lock that the test plays: (locked, holder).
    struct Lock(AtomicI32, AtomicUsize);

    impl Lock {
        fn words(&self) -> Words {
            Words::at((&raw const self.0) as usize, (&raw const self.1) as usize).unwrap()
        }
    }

    fn looks(holders: &Holders, more: u64) -> Holdings {
        let before = holders.ask().unwrap().looks;
        let started = Instant::now();
        loop {
            let found = holders.ask().unwrap();
            if found.looks >= before + more {
                return found;
            }
            assert!(started.elapsed().as_secs() < 60, "the sampler stands still");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn holders_are_told_apart() {
        let lock = Lock(AtomicI32::new(0), AtomicUsize::new(0));
        let mut holders = Holders::start(lock.words(), 5_000.0, FOREVER, 1).unwrap();
        let free = looks(&holders, 100);
        assert_eq!((free.held, free.by_state.len()), (0, 0));
        lock.1.store(640, Ordering::Relaxed);
        lock.0.store(1, Ordering::Relaxed);
        looks(&holders, 100);
        lock.1.store(1280, Ordering::Relaxed);
        let both = looks(&holders, 200);
        let states: Vec<usize> = both.by_state.iter().map(|(state, _)| *state).collect();
        assert_eq!(states, [640, 1280]);
        assert!(
            both.by_state[0].1 >= 99 && both.by_state[1].1 >= 199,
            "{both:?}"
        );
        assert_eq!(
            both.by_state.iter().map(|(_, count)| count).sum::<u64>(),
            both.held
        );
        assert!(both.looks >= both.held + free.looks);
        assert!(holders.cpu_seconds() > 0.0);
        holders.stop();
        assert_eq!(holders.ask(), None);
    }

    #[test]
    fn it_ends_when_nobody_asks() {
        let lock = Lock(AtomicI32::new(0), AtomicUsize::new(0));
        let holders = Holders::start(lock.words(), 5_000.0, Duration::from_millis(50), 2).unwrap();
        let started = Instant::now();
        while !holders.shared.over.load(Ordering::Acquire) {
            assert!(started.elapsed().as_secs() < 60, "it goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(holders.ask(), None);
        assert_eq!(holders.cpu_seconds(), 0.0);
    }

    #[test]
    fn more_holders_than_places_are_counted_together() {
        let lock = Lock(AtomicI32::new(1), AtomicUsize::new(0));
        let holders = Holders::start(lock.words(), 20_000.0, FOREVER, 3).unwrap();
        for state in 1..=MOST_HOLDERS + 3 {
            lock.1.store(state * 64, Ordering::Relaxed);
            looks(&holders, 3);
        }
        let found = holders.ask().unwrap();
        assert_eq!(found.by_state.len(), MOST_HOLDERS);
        assert!(found.held > found.by_state.iter().map(|(_, count)| count).sum());
    }
}
