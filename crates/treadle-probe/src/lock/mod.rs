//! The interpreter lock of CPython, read without taking it: who holds it at this instant?
//!
//! ```text
//! table      where CPython 3.13 and later say themselves that the lock's words are
//! search     where they are in any version: set an unusual switch interval, and look for it
//! sampler    a thread that looks at random instants while a function runs
//! holders    one that counts who of all threads holds it, while somebody watches the program
//! background the thread of either
//! ```
//!
//! *Guarantees*: only aligned loads of two words; nothing is dereferenced that was read from them. No word counts before
//! [`Proof`] has shown it to tell the truth in this process.
//! *Assumes*: the caller is attached to an interpreter while it locates the words, and stops reading them before that interpreter ends.

mod background;
mod holders;
mod memory;
mod sampler;
mod search;
mod table;

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

pub use holders::{Holders, Holdings};
pub use sampler::{Sampler, Tally, Target};

/// The two words of a lock: is it taken, and by which thread state (last).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    locked: NonNull<AtomicI32>,
    holder: NonNull<AtomicUsize>,
}

// SAFETY: both are addresses of words that are only ever loaded atomically; `locate` demands that they stay mapped.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Whether this thread state holds the lock now.
    pub fn held_by(self, thread_state: usize) -> bool {
        // SAFETY: who located the words promised that they stay mapped while they are read.
        let (locked, holder) = unsafe { (self.locked.as_ref(), self.holder.as_ref()) };
        locked.load(Ordering::Relaxed) == 1 && holder.load(Ordering::Relaxed) == thread_state
    }

    /// The thread state that holds the lock now, if any does.
    pub fn holder(self) -> Option<usize> {
        // SAFETY: as in `held_by`.
        let (locked, holder) = unsafe { (self.locked.as_ref(), self.holder.as_ref()) };
        let held = locked.load(Ordering::Relaxed) == 1;
        let state = holder.load(Ordering::Relaxed);
        (held && state != 0).then_some(state)
    }

    /// From the addresses of the two words; `None` where they cannot be such words.
    fn at(locked: usize, holder: usize) -> Option<Self> {
        let aligned = locked.is_multiple_of(align_of::<AtomicI32>())
            && holder.is_multiple_of(align_of::<usize>());
        let words = Self {
            locked: NonNull::new(locked as *mut AtomicI32)?,
            holder: NonNull::new(holder as *mut AtomicUsize)?,
        };
        aligned.then_some(words)
    }
}

/// What identifies the caller's interpreter, as addresses.
#[derive(Debug, Clone, Copy)]
pub struct Interpreter {
    /// Of the interpreter that the calling thread is attached to.
    pub current: usize,
    /// Of the main interpreter, whose lock others may share.
    pub main: usize,
    /// Of the calling thread's state.
    pub thread_state: usize,
    /// Version of Python, such as (3, 13).
    pub version: (u8, u8),
}

/// How the words were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Python's own table of offsets.
    Table,
    /// The search for an unusual switch interval.
    Search,
}

impl Source {
    /// In a word, as it is reported.
    pub fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Search => "search",
        }
    }
}

/// Why the words cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// A free-threaded build that runs without the lock.
    NoLock,
    /// Another system than Linux.
    System,
    /// Neither table nor search found them.
    NotFound,
    /// They do not show the lock as held while it is held.
    HeldNotSeen,
    /// They show the lock as held after it was released.
    ReleaseNotSeen,
    /// They do not show another thread's holding.
    OtherNotSeen,
    /// The CPU clock of a thread stands still while the thread runs.
    ClockStands,
    /// No sampling thread could be started.
    NoThread,
}

impl Absent {
    /// Why, in words that follow "not measured: ".
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoLock => "this build of Python has no interpreter lock",
            Self::System => "the interpreter lock can be watched on Linux only",
            Self::NotFound => {
                "the interpreter lock was not found in the memory of this build of Python"
            }
            Self::HeldNotSeen => {
                "the self-test failed: the interpreter lock was held and did not look so"
            }
            Self::ReleaseNotSeen => {
                "the self-test failed: the interpreter lock was released and did not look so"
            }
            Self::OtherNotSeen => {
                "the self-test failed: another thread held the interpreter lock and it did not look so"
            }
            Self::ClockStands => {
                "the self-test failed: the CPU clocks of threads are too coarse on this system"
            }
            Self::NoThread => "the system refused the sampling thread",
        }
    }
}

/// Finds the words of the lock that the calling thread holds, unproved.
///
/// `set_interval` sets the switch interval in microseconds, `None` the one from before; it answers whether that worked. It is
/// called only where there is no table.
///
/// # Safety
///
/// The calling thread is attached to `interpreter.current` and holds its lock until this returns; the addresses are those that
/// Python gave; what is returned is not used once that interpreter has ended.
pub unsafe fn locate(
    interpreter: Interpreter,
    set_interval: &mut dyn FnMut(Option<u32>) -> bool,
) -> Result<(Words, Source), Absent> {
    if !cfg!(target_os = "linux") {
        return Err(Absent::System);
    }
    let runtime = runtime();
    if let Some(runtime) = runtime {
        // SAFETY: the address is that of `_PyRuntime`, and the caller promises the interpreter's.
        match unsafe { table::words(runtime, interpreter) } {
            Some(Ok(words)) if words.held_by(interpreter.thread_state) => {
                return Ok((words, Source::Table));
            }
            Some(Err(absent)) => return Err(absent),
            _ => {}
        }
    }
    let regions: Vec<usize> = [
        runtime,
        Some(interpreter.current),
        (interpreter.main != interpreter.current).then_some(interpreter.main),
    ]
    .into_iter()
    .flatten()
    .collect();
    search::words(&regions, interpreter.thread_state, set_interval)
        .map(|words| (words, Source::Search))
        .ok_or(Absent::NotFound)
}

/// The address of Python's runtime structure, if this process has one that is visible.
fn runtime() -> Option<usize> {
    // SAFETY: looks a name up among the loaded objects, and changes nothing.
    let found: *mut c_void = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_PyRuntime".as_ptr()) };
    (!found.is_null()).then_some(found as usize)
}

/// What the self-test saw; every start of a sampler makes it anew.
#[derive(Debug, Clone, Copy)]
pub struct Proof {
    /// While the caller held the lock: it looked held by the caller.
    pub held: bool,
    /// After the caller had released it: it looked held by the caller still.
    pub held_after_release: bool,
    /// While another thread held it: it looked held by that thread, and not by the caller.
    pub other: bool,
    /// Nanoseconds by which the caller's CPU clock moved in a spin of some microseconds.
    pub clock_moved: Option<u64>,
}

impl Proof {
    /// Nothing, or the first thing that is wrong.
    pub fn judge(self) -> Result<(), Absent> {
        if !self.held {
            return Err(Absent::HeldNotSeen);
        }
        if self.held_after_release {
            return Err(Absent::ReleaseNotSeen);
        }
        if !self.other {
            return Err(Absent::OtherNotSeen);
        }
        if self.clock_moved.is_none_or(|moved| moved == 0) {
            return Err(Absent::ClockStands);
        }
        Ok(())
    }
}

/// By how many nanoseconds a thread's CPU clock moves while that thread, the caller, spins for at most 20 microseconds.
pub fn clock_moves(clock: crate::clock::ThreadClock) -> Option<u64> {
    let before = clock.nanoseconds()?;
    let started = std::time::Instant::now();
    loop {
        let moved = clock.nanoseconds()?.saturating_sub(before);
        if moved > 0 || started.elapsed().as_micros() > 20 {
            return Some(moved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_of_the_self_test_is_told_apart() {
        let right = Proof {
            held: true,
            held_after_release: false,
            other: true,
            clock_moved: Some(700),
        };
        assert_eq!(right.judge(), Ok(()));
        let judged = |wrong: Proof| wrong.judge().unwrap_err();
        let held = false;
        assert_eq!(judged(Proof { held, ..right }), Absent::HeldNotSeen);
        let held_after_release = true;
        assert_eq!(
            judged(Proof {
                held_after_release,
                ..right
            }),
            Absent::ReleaseNotSeen
        );
        let other = false;
        assert_eq!(judged(Proof { other, ..right }), Absent::OtherNotSeen);
        for clock_moved in [None, Some(0)] {
            assert_eq!(
                judged(Proof {
                    clock_moved,
                    ..right
                }),
                Absent::ClockStands
            );
        }
    }

    #[test]
    fn held_needs_both_words() {
        let (locked, holder) = (AtomicI32::new(1), AtomicUsize::new(640));
        let words = Words::at((&raw const locked) as usize, (&raw const holder) as usize).unwrap();
        assert!(words.held_by(640));
        assert!(!words.held_by(641));
        locked.store(0, Ordering::Relaxed);
        assert!(!words.held_by(640));
        assert_eq!(Words::at(0, 8), None);
        assert_eq!(Words::at(8, 9), None);
    }
}
