//! Pools of workers: dispatch, deadlines, retries, supervision.
//!
//! ```text
//! submit ─► tasks (table) ─► backlog ─► board: slots ──claim──► worker ──► board: its ring ─► drain ─► cell ─► future
//!                                            ▲                     │
//!                                            └── supervisor ◄─ died┘
//! ```
//!
//! A process pool ([`processes`]) speaks to its workers only through a [`treadle_shm::Board`] and arenas; the thread that waits for a result
//! drains the rings itself. [`threads`] is the queue of the in-process pools. Neither knows Python: payloads are bytes there and jobs of
//! any type here.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

mod cancel;
pub mod cell;
mod collector;
mod damage;
mod deadlines;
mod deaths;
mod drain;
mod dump;
mod ending;
pub mod functions;
mod labels;
pub mod meter;
pub mod outcome;
pub mod places;
pub mod processes;
pub mod snapshot;
mod starting;
mod submit;
mod supervisor;
pub mod tasks;
pub mod threads;
pub mod transfer;
mod wait;
pub mod wire;
pub mod worker;
pub mod zygote;
pub mod zygote_end;

/// How many forks of a program lie between the first process and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Called in a forked child, before anything else runs there: the pools of its parent are not its own.
///
/// A count, and not the process id, because it is asked for at every drain and costs no system call.
pub fn note_fork() {
    FORKS.fetch_add(1, Ordering::SeqCst);
}

/// How many forks lie between the first process and this one: a pool made at another count is a picture of its parent's.
pub fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Locks; a panic elsewhere while the lock was held does not spread (the data are changed in steps that leave them whole).
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
