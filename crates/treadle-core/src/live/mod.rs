//! What a running program tells of its pools to `treadle top` and `treadle dump`.
//!
//! ```text
//! the program                                                          the watcher
//! pools ──looked at──► desk (a thread asleep at a socket) ◄─ request ── asking ◄─ discovery (/proc/net/unix)
//! interpreter ──when its lock is free──┘            └──── reply: a picture as JSON ────►
//! ```
//!
//! The socket is a Unix socket in the abstract namespace, named after the user and the process: it is no file, so nothing stays behind
//! however the program ends, and the kernel says who is at its other end.
//!
//! *Guarantees*
//! - Nothing runs while nobody asks.
//! - Pools of the engine are told without the interpreter's lock, so that a program whose lock is held for ever still answers.
//! - Only processes of the same user, and root, are answered; whoever asks believes only a socket of their own user (root: of any).
//! - What comes over the socket is taken for garbage until it is decoded: bounded in length, in numbers and in letters.
//!
//! *Assumes* Linux: the abstract namespace, `SO_PEERCRED` and `/proc`.

pub mod asking;
pub mod desk;
mod errand;
pub mod picture;
mod pools;
pub mod protocol;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; a panic elsewhere while the lock was held does not spread.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
