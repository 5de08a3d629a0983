//! Sleeping and waking: doorbells, the set of idle workers, and the two handshakes that lose no wake-up.
//!
//! *Guarantees*: whoever arms a bell, rechecks, and then sleeps is woken by everything published after the recheck
//! (each side stores, fences `SeqCst`, then loads the other's word, so at least one sees the other). A wake-up
//! taken by a process that dies is repeated by `recover`, which rings every bell.
//! *Assumes*: callers recheck after arming; a worker that leaves with work still queued passes its wake-up on.
#![allow(unreachable_pub)] // the loom tests, an outside crate, reach these
#![cfg_attr(loom, allow(clippy::new_without_default, clippy::unwrap_used))] // models, not products

use crate::fault::point;
use crate::slots::Queue;
use crate::sync::{AtomicU32, AtomicU64, Futex, Mutex, Ordering, Slept, fence};
use std::sync::PoisonError;
use std::time::Duration;

/// Words of an idle set: 64 workers each.
pub const IDLE_WORDS: usize = if cfg!(loom) { 1 } else { 16 };

/// A futex with a count of sleepers, so that ringing is a system call only when somebody sleeps.
#[derive(Debug)]
#[repr(C)]
pub struct Doorbell {
    futex: Futex,
    sleepers: AtomicU32,
}

impl Doorbell {
    /// A bell over ordinary memory.
    #[cfg(loom)]
    pub fn new() -> Doorbell {
        Doorbell { futex: Futex::new(), sleepers: AtomicU32::new(0) }
    }

    /// The bell's value; take it before arming anything.
    pub fn seen(&self) -> u32 {
        self.futex.load()
    }

    /// Rings: nobody who saw the old value sleeps on.
    pub fn ring(&self) {
        self.futex.bump();
        fence(Ordering::SeqCst); // [ring-sleep] bump before looking for sleepers
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            point("before-wake");
            self.futex.wake_all();
        }
    }

    /// Rings without trusting the count of sleepers, which may have been overwritten.
    #[cfg(not(loom))]
    pub fn ring_blindly(&self) {
        self.futex.bump();
        self.futex.wake_all();
    }

    /// Sleeps unless the bell has rung since `seen`.
    pub fn sleep(&self, seen: u32, timeout: Option<Duration>) -> Slept {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst); // [ring-sleep] count ourselves before the kernel compares the word
        point("in-wait");
        let slept = self.futex.wait(seen, timeout);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        slept
    }

    /// Forgets sleepers that died.
    pub fn forget_sleepers(&self) {
        self.sleepers.store(0, Ordering::SeqCst);
    }
}

/// Nobody of the parent waits.
const NOBODY: u64 = 0;
/// The parent waits for any commit.
const ANY: u64 = u64::MAX;

/// The parent's bell and what it waits for.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct ParentBell {
    door: Doorbell,
    want: AtomicU64,
}

impl ParentBell {
    /// A bell over ordinary memory.
    #[cfg(loom)]
    pub fn new() -> ParentBell {
        ParentBell { door: Doorbell::new(), want: AtomicU64::new(NOBODY) }
    }

    /// Arms the bell for one more waiter; returns the value to sleep on. `want` 0 = any commit.
    ///
    /// `waiting` counts the waiters in the parent's private memory.
    pub fn arm(&self, waiting: &Mutex<u32>, want: u64) -> u32 {
        let mut count = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = self.door.seen();
        *count += 1;
        let wanted = if *count > 1 || want == 0 { ANY } else { want };
        self.want.store(wanted, Ordering::SeqCst);
        fence(Ordering::SeqCst); // [commit-wait] arm before the caller's recheck of the rings
        seen
    }

    /// One waiter less.
    pub fn disarm(&self, waiting: &Mutex<u32>) {
        let mut count = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.want.store(NOBODY, Ordering::SeqCst);
        }
    }

    /// Sleeps unless the bell has rung since `seen`; does not disarm.
    pub fn sleep(&self, seen: u32, timeout: Option<Duration>) -> Slept {
        self.door.sleep(seen, timeout)
    }

    /// Whether the bell has rung since `seen`.
    pub fn rung(&self, seen: u32) -> bool {
        self.door.seen() != seen
    }

    /// Wakes every waiter.
    pub fn ring(&self) {
        self.door.ring();
    }

    /// After a commit of `task`: rings if the parent waits for it, for any, or, when `urgent`, for anything.
    pub fn committed(&self, task: u64, urgent: bool) {
        fence(Ordering::SeqCst); // [commit-wait] commit before looking at what is wanted
        let mut want = self.want.load(Ordering::SeqCst);
        while want != NOBODY && (want == ANY || want == task || urgent) {
            // Whoever disarms must ring, so that one commit out of a burst pays for the wake-up.
            match self.want.compare_exchange(want, NOBODY, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => {
                    point("parent-disarmed");
                    self.door.ring();
                    return;
                }
                Err(now) => want = now,
            }
        }
    }
}

/// Which workers there are, which of them are idle, and which of these doze on a timer: a bit each, so that a dead one is not counted.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct IdleSet {
    idle: [AtomicU64; IDLE_WORDS],
    dozing: [AtomicU64; IDLE_WORDS],
    #[cfg(not(loom))]
    present: [AtomicU64; IDLE_WORDS],
}

impl IdleSet {
    /// A set over ordinary memory.
    #[cfg(loom)]
    pub fn new() -> IdleSet {
        IdleSet {
            idle: std::array::from_fn(|_| AtomicU64::new(0)),
            dozing: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    fn arm(&self, worker: u32, doze: bool) {
        let (word, bit) = ((worker / 64) as usize, 1 << (worker % 64));
        if doze {
            self.dozing[word].fetch_or(bit, Ordering::SeqCst);
        }
        self.idle[word].fetch_or(bit, Ordering::SeqCst);
    }

    /// Takes the worker out of the set; true when somebody had taken it out to wake it.
    pub fn disarm(&self, worker: u32) -> bool {
        let (word, bit) = ((worker / 64) as usize, 1 << (worker % 64));
        if self.dozing[word].load(Ordering::Relaxed) & bit != 0 {
            self.dozing[word].fetch_and(!bit, Ordering::SeqCst);
        }
        self.idle[word].fetch_and(!bit, Ordering::SeqCst) & bit == 0
    }

    /// Says that a worker has come.
    #[cfg(not(loom))]
    pub fn arrive(&self, worker: u32) {
        self.present[(worker / 64) as usize].fetch_or(1 << (worker % 64), Ordering::Relaxed);
    }

    /// Says that a worker is gone.
    #[cfg(not(loom))]
    pub fn depart(&self, worker: u32) {
        self.present[(worker / 64) as usize].fetch_and(!(1 << (worker % 64)), Ordering::Relaxed);
    }

    /// Those of the first `workers` that have come and are not idle.
    #[cfg(not(loom))]
    pub fn awake(&self, workers: u32) -> impl Iterator<Item = u32> {
        let words = workers.div_ceil(64) as usize;
        (0..words).flat_map(move |word| {
            let mut bits = self.present[word].load(Ordering::Relaxed) & !self.idle[word].load(Ordering::Relaxed);
            std::iter::from_fn(move || {
                let next = bits.checked_ilog2()?;
                bits &= !(1 << next);
                Some(word as u32 * 64 + next)
            })
            .filter(move |worker| *worker < workers)
        })
    }

    /// How many of the first `workers` are idle.
    #[cfg(not(loom))]
    pub fn count(&self, workers: u32) -> u32 {
        let words = (workers as usize).div_ceil(64);
        self.idle[..words].iter().map(|word| word.load(Ordering::SeqCst).count_ones()).sum()
    }

    /// Whether one of the first `workers` is idle.
    pub fn any_idle(&self, workers: u32) -> bool {
        let words = (workers as usize).div_ceil(64);
        self.idle[..words].iter().any(|word| word.load(Ordering::SeqCst) != 0)
    }

    /// Whether one of the first `workers` dozes and so will look for work by itself very soon.
    pub fn any_dozing(&self, workers: u32) -> bool {
        let words = (workers as usize).div_ceil(64);
        self.dozing[..words].iter().any(|word| word.load(Ordering::SeqCst) != 0)
    }

    /// Takes one idle worker out, the lowest, so that a light load keeps few workers warm. The taker must ring it.
    pub fn take_one(&self, workers: u32) -> Option<u32> {
        let words = (workers as usize).div_ceil(64);
        for (index, word) in self.idle[..words].iter().enumerate() {
            let mut bits = word.load(Ordering::SeqCst);
            while bits != 0 {
                let lowest = bits & bits.wrapping_neg();
                let worker = index as u32 * 64 + lowest.trailing_zeros();
                bits = word.fetch_and(!lowest, Ordering::SeqCst);
                if bits & lowest != 0 && worker < workers {
                    return Some(worker);
                }
                bits &= !lowest;
            }
        }
        None
    }
}

/// How a nap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nap {
    /// How the sleep ended; `Rung` also when there was no need to sleep.
    pub slept: Slept,
    /// Somebody spent a wake-up on this worker: it must pass it on if it leaves work behind.
    pub summoned: bool,
}

/// The worker's half of the publish handshake: arms the idle bit, rechecks, sleeps at most once.
///
/// `leave` is asked after arming, whether there is another reason than work not to sleep; who makes it true rings afterwards.
pub fn nap(
    idle: &IdleSet,
    worker: u32,
    door: &Doorbell,
    queue: Queue<'_>,
    leave: impl FnOnce() -> bool,
    doze: bool,
    timeout: Option<Duration>,
) -> Nap {
    rest(idle, worker, door, || leave() || queue.has_work(), doze, timeout)
}

/// Dozes once beside work that others are doing: as a [`nap`], but the work is no reason to stay awake. The time is: nobody else is bound to
/// look after that work.
#[cfg(not(loom))]
pub fn hold_back(
    idle: &IdleSet,
    worker: u32,
    door: &Doorbell,
    leave: impl FnOnce() -> bool,
    time: Duration,
) -> Nap {
    rest(idle, worker, door, leave, true, Some(time))
}

fn rest(
    idle: &IdleSet,
    worker: u32,
    door: &Doorbell,
    stay: impl FnOnce() -> bool,
    doze: bool,
    timeout: Option<Duration>,
) -> Nap {
    let seen = door.seen();
    idle.arm(worker, doze);
    fence(Ordering::SeqCst); // [publish-idle] arm before the recheck of the queue
    point("after-idle-armed");
    let slept = if stay() {
        Slept::Rung
    } else {
        door.sleep(seen, timeout)
    };
    let summoned = idle.disarm(worker);
    fence(Ordering::SeqCst); // [publish-doze] leave the set before the recheck: who leaves now looked
    Nap { slept, summoned }
}

/// The publisher's half: after publishing, takes out one idle worker and rings it. Returns whether one was woken.
///
/// `spare` is asked only when somebody dozes, and says whether that is enough for now.
pub fn wake_one<'a>(
    idle: &IdleSet,
    workers: u32,
    door: impl FnOnce(u32) -> &'a Doorbell,
    spare: impl FnOnce() -> bool,
) -> bool {
    fence(Ordering::SeqCst); // [publish-idle] [publish-doze] publish before looking who idles or dozes
    if !idle.any_idle(workers) || (idle.any_dozing(workers) && spare()) {
        return false;
    }
    match idle.take_one(workers) {
        Some(worker) => {
            point("idle-bit-taken");
            door(worker).ring();
            true
        }
        None => false,
    }
}
