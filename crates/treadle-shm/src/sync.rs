//! The atomics, mutex and futex that the protocol is written on: std and the kernel, or loom's models of them.
//!
//! *Guarantees*: outside loom every type here has the size and bits of the plain integer, so that it may lie in a
//! mapped segment; a [`Futex`] is process-shared.
#![allow(unreachable_pub)] // the loom tests, an outside crate, reach these
#![cfg_attr(loom, allow(clippy::new_without_default, clippy::unwrap_used))] // models, not products

#[cfg(loom)]
pub use loom::sync::{
    Condvar, Mutex,
    atomic::{AtomicU32, AtomicU64, Ordering, fence},
};
#[cfg(not(loom))]
pub use std::sync::{
    Mutex,
    atomic::{AtomicU32, AtomicU64, Ordering, fence},
};
use std::time::Duration;

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slept {
    /// The word had changed, or somebody woke us.
    Rung,
    /// The time was up.
    TimedOut,
    /// A signal arrived.
    Interrupted,
}

/// A word on which threads of any process that maps it can sleep.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(Default))]
#[repr(C)]
pub struct Futex {
    word: AtomicU32,
    #[cfg(loom)]
    lock: Mutex<()>,
    #[cfg(loom)]
    sleepers: Condvar,
}

impl Futex {
    /// A futex with the value 0, for tests over ordinary memory.
    #[cfg(loom)]
    pub fn new() -> Futex {
        Futex {
            word: AtomicU32::new(0),
            #[cfg(loom)]
            lock: Mutex::new(()),
            #[cfg(loom)]
            sleepers: Condvar::new(),
        }
    }

    /// The present value.
    pub fn load(&self) -> u32 {
        self.word.load(Ordering::SeqCst)
    }

    /// Changes the value, so that nobody who saw the old one falls asleep.
    pub fn bump(&self) {
        self.word.fetch_add(1, Ordering::SeqCst);
    }

    /// Sleeps while the word equals `seen`.
    #[cfg(not(loom))]
    pub fn wait(&self, seen: u32, timeout: Option<Duration>) -> Slept {
        use rustix::io::Errno;
        use rustix::thread::futex;
        // A time too long for the kernel is no time limit.
        let limit = timeout.and_then(|time| {
            Some(futex::Timespec {
                tv_sec: time.as_secs().try_into().ok()?,
                tv_nsec: time.subsec_nanos().into(),
            })
        });
        match futex::wait(&self.word, futex::Flags::empty(), seen, limit.as_ref()) {
            Err(Errno::TIMEDOUT) => Slept::TimedOut,
            Err(Errno::INTR) => Slept::Interrupted,
            Ok(()) | Err(_) => Slept::Rung,
        }
    }

    /// Wakes everybody who sleeps on the word.
    #[cfg(not(loom))]
    pub fn wake_all(&self) {
        // The only failure is an unmapped word, and `&self` says that it is mapped.
        let _ = rustix::thread::futex::wake(&self.word, rustix::thread::futex::Flags::empty(), i32::MAX as u32);
    }

    /// Sleeps while the word equals `seen`; the model has no clock, so a timed sleep is over after others could run.
    #[cfg(loom)]
    pub fn wait(&self, seen: u32, timeout: Option<Duration>) -> Slept {
        if timeout.is_some() {
            loom::thread::yield_now();
            return if self.load() == seen { Slept::TimedOut } else { Slept::Rung };
        }
        let held = self.lock.lock().unwrap();
        if self.word.load(Ordering::SeqCst) == seen {
            drop(self.sleepers.wait(held).unwrap());
        }
        Slept::Rung
    }

    /// Wakes everybody who sleeps on the word.
    #[cfg(loom)]
    pub fn wake_all(&self) {
        let _held = self.lock.lock().unwrap();
        self.sleepers.notify_all();
    }
}
