//! The thread that works for a process pool when no thread of the program waits for it.
//!
//! It runs while there is something that only it can do: announce the ends of observed futures (callbacks, `as_completed`, asyncio), move
//! the backlog into freed slots, finish a shutdown that nobody waits for, hand on what workers logged, and empty the rings of workers whose
//! results nobody reads (a full ring stops its worker). With no task left for a second it sleeps on a condition variable and costs nothing. It takes the interpreter's lock only inside the announcement.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::lock;
use super::processes::{Life, ProcessPool};
use super::submit::refill;

/// With more observed tasks than this, the collector takes their ends in batches: being woken for each would cost more than the tasks.
const MANY_OBSERVED: usize = 64;
/// How long it leaves the bell alone then: about ten wake-ups' worth, and less than a person or a network notices.
const BATCH_NAP: Duration = Duration::from_micros(100);
/// How long the collector sleeps between two looks at a backlog: two workers on tasks of a microsecond take about as long to empty half
/// of the slots; longer tasks let it sleep longer.
const SHORTEST_NAP: Duration = Duration::from_millis(1);
const LONGEST_NAP: Duration = Duration::from_millis(20);

/// How long the collector goes on with its naps after the last task, so that a program which runs one task after another does not pay for
/// waking it each time.
const LINGER: Duration = Duration::from_secs(1);

/// How often waiting threads are sent to look for signals while tasks are unfinished. A signal that comes in the instant before a sleep does
/// not end the sleep; this bounds how long Ctrl-C goes unseen then, and costs a waiting thread two wakes a second.
const NUDGE: Duration = Duration::from_millis(500);

impl ProcessPool {
    /// Gets the collector to look; starts it when it does not run and is needed.
    pub(super) fn wake_collector(&self) {
        if !self.is_mine() {
            return;
        }
        let start = {
            let mut state = lock(&self.state);
            !std::mem::replace(&mut state.collector_running, true)
        };
        if start {
            if let Some(pool) = self.myself() {
                let spawned = treadle_shm::spawn_quiet("treadle-collect", move || pool.collect());
                if spawned.is_err() {
                    lock(&self.state).collector_running = false;
                }
            }
            return;
        }
        *lock(&self.collector_asked) = true;
        self.collector_bell.notify_one();
        if self.collector_in_wait.load(Ordering::SeqCst) {
            self.board.ring_parent();
        }
    }

    /// Hands over what has ended and what workers logged; false when there was nothing.
    fn hand_over(&self) -> bool {
        let handing_over = lock(&self.handing_over);
        let endings = std::mem::take(&mut *lock(&self.endings));
        if endings.is_empty() && lock(&self.notes).is_empty() {
            return false;
        }
        self.handed_by.store(
            rustix::thread::gettid().as_raw_nonzero().get(),
            Ordering::SeqCst,
        );
        (self.announce)(&endings);
        self.handed_by.store(0, Ordering::SeqCst);
        drop(handing_over);
        true
    }

    /// Whether all ends and notes have been handed over; gets the collector to do it if not. True in the thread that is at it.
    pub fn has_handed_over(&self) -> bool {
        if !self.is_mine()
            || self.handed_by.load(Ordering::SeqCst)
                == rustix::thread::gettid().as_raw_nonzero().get()
        {
            return true;
        }
        let left = match self.handing_over.try_lock() {
            Ok(_nobody) => !lock(&self.endings).is_empty() || !lock(&self.notes).is_empty(),
            Err(_) => return false,
        };
        if left {
            self.wake_collector();
        }
        !left
    }

    fn collect(self: Arc<Self>) {
        let mut nap = SHORTEST_NAP;
        let mut last_busy = Instant::now();
        let mut last_nudge = last_busy;
        loop {
            if last_nudge.elapsed() >= NUDGE && self.unfinished.load(Ordering::SeqCst) > 0 {
                last_nudge = Instant::now();
                self.nudges.fetch_add(1, Ordering::SeqCst);
                self.board.ring_parent();
            }
            self.collector_sleeps.store(false, Ordering::SeqCst);
            let drained = self.drain();
            if self.hand_over() {
                if self.observed.load(Ordering::SeqCst) > MANY_OBSERVED {
                    std::thread::sleep(BATCH_NAP);
                }
                continue;
            }
            let (backlog, over, shutting_down, broken) = {
                let mut state = lock(&self.state);
                if refill(&mut state) {
                    drop(state);
                    self.board.wake_for_work();
                    state = lock(&self.state);
                }
                (
                    state.backlog.len(),
                    state.life == Life::Ended,
                    state.life == Life::ShuttingDown,
                    state.broken.is_some(),
                )
            };
            let observed = self.observed.load(Ordering::SeqCst);
            if over && observed == 0 {
                lock(&self.state).collector_running = false;
                // Something may have come between the look and the mark.
                if lock(&self.endings).is_empty() {
                    return;
                }
                if std::mem::replace(&mut lock(&self.state).collector_running, true) {
                    return;
                }
                continue;
            }
            if observed > 0 || (shutting_down && !broken) {
                self.collector_in_wait.store(true, Ordering::SeqCst);
                self.sleep(0, Some(Instant::now() + LONGEST_NAP * 50), || {
                    !lock(&self.endings).is_empty()
                        || std::mem::take(&mut *lock(&self.collector_asked))
                });
                self.collector_in_wait.store(false, Ordering::SeqCst);
                continue;
            }
            nap = if drained > 256 {
                SHORTEST_NAP
            } else {
                (nap * 2).min(LONGEST_NAP)
            };
            let now = Instant::now();
            let mut rest = backlog == 0 && self.unfinished.load(Ordering::SeqCst) == 0;
            if !rest {
                last_busy = now;
            } else if now < last_busy + LINGER {
                rest = false;
            } else {
                // Said before the last look: who submits after it sees that it has to wake this thread.
                self.collector_sleeps.store(true, Ordering::SeqCst);
                rest = self.unfinished.load(Ordering::SeqCst) == 0;
            }
            let mut asked = lock(&self.collector_asked);
            if !rest {
                asked = self
                    .collector_bell
                    .wait_timeout(asked, nap)
                    .map(|(guard, _)| guard)
                    .unwrap_or_else(|error| error.into_inner().0);
            } else {
                while !*asked {
                    asked = self
                        .collector_bell
                        .wait(asked)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
            *asked = false;
        }
    }
}
