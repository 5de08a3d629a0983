//! The lane of a worker whose tasks run on an event loop: many hands, one ring.
//!
//! ```text
//! queue ─► watcher (a thread without the interpreter's lock): "there is work" ─► bell (eventfd) ─► loop: claims, as many as it has hands
//! ring ◄──────────────────────────────────────────────────────────────────────────────────── loop: replies, and claims the next
//! ```
//!
//! The loop claims by itself, so that tasks wait in the queue, where any process can take them, until this one comes to them. The watcher
//! sleeps only while the loop has a free hand and found nothing; while the loop is busy it costs nothing.
//!
//! *Guarantees*: while there is work and a free hand, either the loop is about to look or the watcher watches. A wake-up that this process
//! does not answer within [`PATIENCE`] goes to another.
//! *Assumes*: the methods but [`Looped::watch`] run on the loop's thread.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rustix::event::EventfdFlags;
use treadle_core::pool::worker::{Holdings, WorkerSession};
use treadle_shm::{Parking, Place, Waited};

use super::answer;
use super::call::{Functions, Work, prepare};
use super::limits::Limits;
use crate::future::lock;
use crate::pickling;

/// How long the loop may take to look after the bell, before another process is woken for the work: many turns of a loop that turns.
const PATIENCE: Duration = Duration::from_millis(1);

/// The watcher sleeps: the loop is at it, or has no free hand.
const PARKED: u32 = 0;
/// The watcher watches the queue.
const WATCHING: u32 = 1;
/// The watcher has rung the bell, and the loop has not looked yet.
const RUNG: u32 = 2;
/// The process is to leave.
const STOPPED: u32 = 3;

/// A call for the loop: hand, task, function, arguments, keywords.
pub(super) type LoopCall<'py> = (
    u32,
    u64,
    Bound<'py, PyAny>,
    Bound<'py, PyTuple>,
    Option<Bound<'py, PyDict>>,
);

/// The loop's end of its pool.
pub(super) struct Looped {
    /// Claims and sleeps: the watcher's while it watches, else the loop's.
    taking: Mutex<WorkerSession>,
    /// Writes records.
    giving: Mutex<WorkerSession>,
    holdings: Arc<Holdings>,
    places: Vec<Place>,
    free: Mutex<Vec<u32>>,
    functions: Mutex<Functions>,
    state: AtomicU32,
    parking: Parking,
    bell: OwnedFd,
}

impl Looped {
    /// Takes up a lane, and starts its watcher.
    pub(super) fn start(holdings: &Arc<Holdings>, lane: u32) -> PyResult<Arc<Looped>> {
        let taking = WorkerSession::new(holdings.clone(), lane);
        let hands = taking.hands();
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        let looped = Arc::new(Looped {
            places: (0..hands).map(|hand| taking.place(hand)).collect(),
            taking: Mutex::new(taking),
            giving: Mutex::new(WorkerSession::new(holdings.clone(), lane)),
            holdings: holdings.clone(),
            free: Mutex::new((0..hands).rev().collect()),
            functions: Mutex::default(),
            state: AtomicU32::new(PARKED),
            parking: Parking::default(),
            bell,
        });
        let watching = looped.clone();
        treadle_shm::spawn_quiet("treadle-await", move || watching.watch())
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(looped)
    }

    /// The watcher's life.
    fn watch(&self) {
        loop {
            let seen = self.parking.seen();
            match self.state.load(Ordering::SeqCst) {
                PARKED => {
                    self.parking.sleep(seen, None);
                }
                RUNG => {
                    let slept = self.parking.sleep(seen, Some(PATIENCE));
                    if slept == treadle_shm::Woken::TimedOut {
                        lock(&self.taking).pass_on();
                        // Once: whoever was woken passes it on in turn.
                        let _ = self.state.compare_exchange(
                            RUNG,
                            PARKED,
                            Ordering::SeqCst,
                            Ordering::SeqCst,
                        );
                    }
                }
                WATCHING => {
                    let waited = lock(&self.taking).wait(None);
                    let next = if waited == Waited::Stop {
                        STOPPED
                    } else {
                        RUNG
                    };
                    self.state.store(next, Ordering::SeqCst);
                    // A full counter is already a rung bell.
                    let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
                }
                _ => return,
            }
        }
    }

    /// The descriptor that is readable when the loop shall look.
    pub(super) fn descriptor(&self) -> i32 {
        self.bell.as_raw_fd()
    }

    /// Hears the bell.
    pub(super) fn hush(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut count);
    }

    /// Has no further task taken here, and the watcher leave.
    fn stop(&self) {
        if self.state.swap(STOPPED, Ordering::SeqCst) != STOPPED {
            self.parking.wake_all();
        }
    }

    /// Whether this process takes no more tasks.
    pub(super) fn has_stopped(&self) -> bool {
        self.state.load(Ordering::SeqCst) == STOPPED
    }

    pub(super) fn giving(&self) -> MutexGuard<'_, WorkerSession> {
        lock(&self.giving)
    }

    /// Claims the next call for a free hand; `None` when there is none, and then the bell rings when there is.
    pub(super) fn next<'py>(
        &self,
        py: Python<'py>,
        limits: &Limits,
    ) -> PyResult<Option<LoopCall<'py>>> {
        let mut payload = Vec::new();
        loop {
            // While the watcher watches there was nothing; it rings when there is.
            if matches!(self.state.load(Ordering::SeqCst), WATCHING | STOPPED) {
                return Ok(None);
            }
            if self.state.swap(PARKED, Ordering::SeqCst) == RUNG {
                self.parking.wake_all();
            }
            let taken = {
                let mut session = lock(&self.taking);
                if session.stop_requested() || limits.reached().is_some() {
                    session.pass_on();
                    drop(session);
                    self.stop();
                    return Ok(None);
                }
                let Some(hand) = lock(&self.free).pop() else {
                    return Ok(None);
                };
                match limits.count(|| session.take_in(hand, &mut payload)) {
                    Some(taken) => (hand, taken),
                    None => {
                        lock(&self.free).push(hand);
                        drop(session);
                        self.state.store(WATCHING, Ordering::SeqCst);
                        self.parking.wake_all();
                        return Ok(None);
                    }
                }
            };
            let (hand, mut taken) = match taken {
                (hand, Ok(taken)) => (hand, taken),
                (hand, Err((task, error))) => {
                    let error = answer::unreadable(py, &error)?;
                    self.fail(py, hand, task, error, limits)?;
                    continue;
                }
            };
            let task = taken.task;
            if taken.interrupted {
                let error = pickling::outcome(py, "interrupted_early")?.call0()?;
                self.fail(py, hand, task, PyErr::from_value(error), limits)?;
                continue;
            }
            let prepared = {
                let mut known = std::mem::take(&mut *lock(&self.functions));
                let prepared = prepare(py, &self.holdings, &mut known, &mut taken, &payload);
                *lock(&self.functions) = known;
                prepared
            };
            match prepared {
                Ok(ready) => {
                    if let Work::One(arguments, keywords) = ready.work {
                        return Ok(Some((hand, task, ready.function, arguments, keywords)));
                    }
                    let error = PyRuntimeError::new_err("a loop takes one call at a time");
                    self.fail(py, hand, task, error, limits)?;
                }
                Err(error) => {
                    let error = answer::not_rebuilt(py, &error)?;
                    self.fail(py, hand, task, error, limits)?;
                }
            }
        }
    }

    /// Ends the task in a hand with a result.
    pub(super) fn finish(
        &self,
        py: Python<'_>,
        hand: u32,
        task: u64,
        result: &Bound<'_, PyAny>,
        limits: &Limits,
    ) -> PyResult<()> {
        let packed = answer::pack(result);
        answer::reply(py, || self.giving(), hand, task, packed)?;
        self.release(hand, limits);
        Ok(())
    }

    /// Ends the task in a hand with an exception.
    pub(super) fn fail(
        &self,
        py: Python<'_>,
        hand: u32,
        task: u64,
        error: PyErr,
        limits: &Limits,
    ) -> PyResult<()> {
        answer::reply(py, || self.giving(), hand, task, Err(error))?;
        self.release(hand, limits);
        Ok(())
    }

    fn release(&self, hand: u32, limits: &Limits) {
        lock(&self.free).push(hand);
        limits.look();
    }

    /// The tasks that the parent wants interrupted, and the hands that they are in.
    pub(super) fn heed(&self) -> Vec<(u32, u64)> {
        (0u32..)
            .zip(&self.places)
            .filter_map(|(hand, place)| Some((hand, place.heed()?)))
            .collect()
    }
}
