//! Asking the programs: a thread for each, so that one that does not answer keeps no other waiting.
//!
//! *Guarantees*: a program is asked by one thread at a time, no more often than the interval; the threads end when the sampler is dropped or
//! the program has ended, at the latest one answer later.

use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use treadle_core::live::asking::{self, Answer, Found, Trouble};
use treadle_core::live::protocol::Ask;
use treadle_probe::clock::monotonic;

/// What was heard of a program, and when.
pub(crate) struct Heard {
    pub(crate) found: Found,
    pub(crate) at_s: f64,
    pub(crate) answer: Result<Answer, Trouble>,
}

/// The asking threads.
pub(crate) struct Sampler {
    interval: Duration,
    sender: Sender<Heard>,
    receiver: Receiver<Heard>,
    asked: Arc<Mutex<HashSet<Found>>>,
    /// Dropped with the sampler: the threads hold the other ends.
    alive: Arc<()>,
}

impl Sampler {
    pub(crate) fn new(interval: Duration) -> Sampler {
        let (sender, receiver) = channel();
        Sampler {
            interval,
            sender,
            receiver,
            asked: Arc::default(),
            alive: Arc::new(()),
        }
    }

    /// Has a program asked from now on, until it ends.
    ///
    /// # Errors
    /// When there is no room for a thread.
    pub(crate) fn watch(&self, found: &Found) -> io::Result<()> {
        if !self.lock().insert(found.clone()) {
            return Ok(());
        }
        let (found, sender, interval) = (found.clone(), self.sender.clone(), self.interval);
        let (asked, alive) = (self.asked.clone(), Arc::downgrade(&self.alive));
        let body = move || {
            while alive.strong_count() > 0 {
                let answer = asking::ask(&found, Ask::Pools);
                let over = answer == Err(Trouble::Ended);
                let heard = Heard {
                    found: found.clone(),
                    at_s: monotonic(),
                    answer,
                };
                if sender.send(heard).is_err() || over {
                    break;
                }
                std::thread::sleep(interval);
            }
            asked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&found);
        };
        std::thread::Builder::new()
            .name("ask".to_owned())
            .spawn(body)
            .map(drop)
    }

    /// What was heard since the last call; waits for something no longer than this.
    pub(crate) fn heard(&self, patience: Duration) -> Vec<Heard> {
        let first = self.receiver.recv_timeout(patience).ok();
        first.into_iter().chain(self.receiver.try_iter()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<Found>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The programs that this user may watch, or the one with this number.
///
/// # Errors
/// What is so, and what to do, when the one that was asked for cannot be watched.
pub(crate) fn choose(pid: Option<u32>) -> Result<Vec<Found>, (String, String)> {
    let found = asking::discover().map_err(|error| {
        (
            format!("the list of sockets cannot be read: {error}"),
            "/proc/net/unix is needed to find programs".to_owned(),
        )
    })?;
    let Some(pid) = pid else {
        return Ok(found
            .into_iter()
            .filter(|program| asking::may_watch(program.uid))
            .collect());
    };
    let mine = |program: &&Found| asking::may_watch(program.uid);
    let named = |program: &&Found| program.pid == pid;
    // In a container that shares the network, a program has another number than here.
    let seen = |program: &&Found| asking::process_of(program) == Some(pid);
    let chosen = found
        .iter()
        .filter(mine)
        .find(|program| named(program) && seen(program));
    let chosen = chosen
        .or_else(|| found.iter().filter(mine).find(named))
        .or_else(|| found.iter().filter(mine).find(seen));
    match chosen {
        Some(program) => Ok(vec![program.clone()]),
        None => Err(asking::explain(pid, &found)),
    }
}
