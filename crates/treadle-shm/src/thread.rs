//! Threads that no signal reaches, and a place for threads of one process to sleep.
//!
//! *Guarantees*: a quiet thread never runs a signal handler, so that a signal interrupts the thread that can act on it; a [`Parking`] loses no
//! wake-up: who read the word before the change does not fall asleep.

use crate::board::Woken;
use crate::sync::{Futex, Slept};
use std::io;
use std::mem::MaybeUninit;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Starts a thread that blocks every signal.
///
/// # Errors
/// When the system has no room for another thread.
pub fn spawn_quiet<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    spawn_quiet_sized(name, 256 * 1024, body)
}

/// The same with a stack of so many bytes.
///
/// # Errors
/// When the system has no room for another thread.
pub fn spawn_quiet_sized<T: Send + 'static>(name: &str, stack: usize, body: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are valid for writing; sigfillset initialises `all` before it is read. The new thread inherits the mask.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let started = Builder::new().name(name.to_owned()).stack_size(stack).spawn(body);
    // SAFETY: `before` was filled by the call above.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
    }
    started
}

/// Sends a process a signal by its number, which may be a real-time signal.
///
/// # Errors
/// When there is no such process or signal, or it is another user's.
pub fn signal_process(process: i32, signal: i32) -> io::Result<()> {
    if process <= 0 {
        // These numbers mean groups of processes.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: kill takes numbers only.
    match unsafe { libc::kill(process, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A word on which threads of this process sleep until it changes. Unlike a condition variable, a signal ends the sleep.
#[derive(Debug, Default)]
pub struct Parking {
    futex: Futex,
}

impl Parking {
    /// The word now; take it before looking at what is waited for.
    pub fn seen(&self) -> u32 {
        self.futex.load()
    }

    /// Sleeps unless the word has changed since `seen`.
    pub fn sleep(&self, seen: u32, timeout: Option<Duration>) -> Woken {
        match self.futex.wait(seen, timeout) {
            Slept::Rung => Woken::Rung,
            Slept::TimedOut => Woken::TimedOut,
            Slept::Interrupted => Woken::Interrupted,
        }
    }

    /// Changes the word and wakes every sleeper.
    pub fn wake_all(&self) {
        self.futex.bump();
        self.futex.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_changed_word_lets_nobody_sleep() {
        let parking = Arc::new(Parking::default());
        let seen = parking.seen();
        let other = parking.clone();
        spawn_quiet("waker", move || other.wake_all()).unwrap().join().unwrap();
        assert_eq!(parking.sleep(seen, None), Woken::Rung);
    }
}
