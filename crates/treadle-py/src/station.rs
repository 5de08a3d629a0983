//! A station: what one thread of a pool has in hand and what it has done.
//!
//! ```text
//! thread: begin ─► job, since ─► end ─► counts      (its own words: no lock, and no instruction that locks the memory)
//!             └─ a timeout, or a job inside a job ─► stack (a lock)
//! anybody: crew ─► every station ─► running, counts
//! ```
//!
//! *Guarantees*: what a thread had counted when it ended a future is seen by whoever has seen that end. A job stands in exactly one place while it runs.
//! *Assumes*: only the station's thread calls `begin`, `again` and `end`; a future that is looked for is alive, so that its address is its own.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use pyo3::prelude::*;
use treadle_core::pool::functions::{MOST_FUNCTIONS, OTHERS};
use treadle_core::pool::meter::{Count, Histogram, Tally};

use crate::future::{FutureBase, lock};
use crate::processes::histogram;
use crate::task_meters::{Named, TimesTold};

/// Nothing in the first place.
const NOTHING: usize = 0;

/// A job that has a deadline, or that another job waits for in the same thread.
struct Stacked {
    future: Py<FutureBase>,
    since_ns: u64,
    /// The time that it may take in seconds, and the function, to name it when it takes longer.
    timeout: Option<(f64, Py<PyAny>)>,
    overdue: bool,
}

/// A job whose time was over.
pub(crate) struct Struck {
    pub(crate) thread: u64,
    pub(crate) limit_s: f64,
    pub(crate) function: Py<PyAny>,
    pub(crate) future: Py<FutureBase>,
}

/// Where a job was entered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    First,
    Stack,
}

/// From submission to start, and from there to the end, of one function's jobs in one thread.
#[derive(Default)]
struct Times {
    wait: Tally,
    duration: Tally,
}

/// The same of several threads.
#[derive(Clone, Copy, Default)]
struct TimesOfAll {
    wait: Histogram,
    duration: Histogram,
}

/// One place for each function that has its own, and a last one for all others.
const PLACES: usize = MOST_FUNCTIONS + 1;

/// One thread's place in a pool.
pub(crate) struct Station {
    /// The thread's number in Python.
    pub(crate) thread: u64,
    /// The address of the future whose job is in hand: compared, never followed.
    job: AtomicUsize,
    since_ns: AtomicU64,
    stack: Mutex<Vec<Stacked>>,
    done: Count,
    retried: Count,
    /// The functions that this thread knows, by key, in the pool's places; and the one that it ran last.
    known: [AtomicU64; MOST_FUNCTIONS],
    last: AtomicU64,
    last_place: AtomicUsize,
    times: [OnceLock<Box<Times>>; PLACES],
}

impl Station {
    pub(crate) fn new(thread: u64) -> Station {
        Station {
            thread,
            job: AtomicUsize::new(NOTHING),
            since_ns: AtomicU64::new(0),
            stack: Mutex::default(),
            done: Count::default(),
            retried: Count::default(),
            known: std::array::from_fn(|_| AtomicU64::new(0)),
            last: AtomicU64::new(0),
            last_place: AtomicUsize::new(0),
            times: std::array::from_fn(|_| OnceLock::new()),
        }
    }

    /// Where the times of this function are counted; `None` when this thread has not learnt it.
    pub(crate) fn times_of(&self, key: u64) -> Option<usize> {
        if self.last.load(Ordering::Relaxed) == key {
            return Some(self.last_place.load(Ordering::Relaxed));
        }
        let mut known = self.known.iter();
        let place = known.position(|known| known.load(Ordering::Relaxed) == key)?;
        self.remember(key, place);
        Some(place)
    }

    /// The place of a function in its pool; called by this thread, as the others.
    pub(crate) fn learn(&self, key: u64, place: usize) {
        if let Some(known) = self.known.get(place) {
            known.store(key, Ordering::Relaxed);
        }
        self.remember(key, place);
    }

    fn remember(&self, key: u64, place: usize) {
        self.last.store(key, Ordering::Relaxed);
        self.last_place.store(place, Ordering::Relaxed);
    }

    /// Enters a job that begins now.
    pub(crate) fn begin(
        &self,
        future: &Bound<'_, FutureBase>,
        timeout: Option<(f64, &Py<PyAny>)>,
        now_ns: u64,
    ) -> Place {
        if timeout.is_none() && self.job.load(Ordering::Relaxed) == NOTHING {
            self.since_ns.store(now_ns, Ordering::Relaxed);
            self.job.store(future.as_ptr() as usize, Ordering::Release);
            return Place::First;
        }
        let py = future.py();
        lock(&self.stack).push(Stacked {
            future: future.clone().unbind(),
            since_ns: now_ns,
            timeout: timeout.map(|(seconds, function)| (seconds, function.clone_ref(py))),
            overdue: false,
        });
        Place::Stack
    }

    /// The job in hand is tried again from now on; false when its time was over meanwhile.
    pub(crate) fn again(&self, place: Place, now_ns: u64) -> bool {
        self.retried.add(1);
        match place {
            Place::First => self.since_ns.store(now_ns, Ordering::Relaxed),
            Place::Stack => match lock(&self.stack).last_mut() {
                Some(job) if !job.overdue => job.since_ns = now_ns,
                _ => return false,
            },
        }
        true
    }

    /// Takes the job in hand out, and counts it, with its function's place, its wait and its duration if they are counted; true when its time
    /// was over.
    pub(crate) fn end(&self, place: Place, times: Option<(usize, u64, u64)>) -> bool {
        let stacked = match place {
            Place::First => {
                self.job.store(NOTHING, Ordering::Release);
                None
            }
            // The last one: a job that waits for a job of its own pool runs that one inside.
            Place::Stack => lock(&self.stack).pop(),
        };
        if let Some((function, wait_ns, duration_ns)) = times
            && let Some(times) = self.times.get(function)
        {
            let times = times.get_or_init(Box::default);
            times.wait.add(wait_ns);
            times.duration.add(duration_ns);
        }
        self.done.add(1);
        stacked.is_some_and(|job| job.overdue)
    }

    fn has(&self, future: &Bound<'_, FutureBase>) -> bool {
        self.job.load(Ordering::Acquire) == future.as_ptr() as usize
            || lock(&self.stack).iter().any(|job| job.future.is(future))
    }
}

/// What the threads of a pool have done together.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) done: u64,
    pub(crate) retried: u64,
}

impl Totals {
    fn add(&mut self, station: &Station) {
        self.done += station.done.read();
        self.retried += station.retried.read();
    }
}

/// The times of all functions, by place.
struct TimesByPlace([TimesOfAll; PLACES]);

impl Default for TimesByPlace {
    fn default() -> Self {
        TimesByPlace([TimesOfAll::default(); PLACES])
    }
}

impl TimesByPlace {
    fn add(&mut self, station: &Station) {
        for (all, own) in self.0.iter_mut().zip(&station.times) {
            if let Some(own) = own.get() {
                all.wait.join(&own.wait.read());
                all.duration.join(&own.duration.read());
            }
        }
    }
}

#[derive(Default)]
struct Places {
    stations: Vec<Arc<Station>>,
    /// What threads that have left had done.
    left: Totals,
    times_left: TimesByPlace,
    /// The functions that have places of their own.
    functions: Vec<Named>,
}

/// Every station of a pool.
#[derive(Default)]
pub(crate) struct Crew(Mutex<Places>);

impl Crew {
    pub(crate) fn enter(&self, station: &Arc<Station>) {
        lock(&self.0).stations.push(Arc::clone(station));
    }

    pub(crate) fn leave(&self, station: &Arc<Station>) {
        let mut places = lock(&self.0);
        places.stations.retain(|other| !Arc::ptr_eq(other, station));
        places.left.add(station);
        places.times_left.add(station);
    }

    /// The place of a function; `None` when it has none yet and there is one for it.
    pub(crate) fn function(&self, key: u64) -> Option<usize> {
        let places = lock(&self.0);
        let known = places.functions.iter().position(|named| named.key == key);
        known.or((places.functions.len() == MOST_FUNCTIONS).then_some(MOST_FUNCTIONS))
    }

    /// Gives a function a place; the last one, of all others, when there are no more.
    pub(crate) fn enter_function(&self, named: Named) -> usize {
        let functions = &mut lock(&self.0).functions;
        // Another thread may have entered it meanwhile.
        if let Some(place) = functions.iter().position(|known| known.key == named.key) {
            return place;
        }
        if functions.len() < MOST_FUNCTIONS {
            functions.push(named);
            return functions.len() - 1;
        }
        MOST_FUNCTIONS
    }

    /// The times of every function that has ended jobs.
    pub(crate) fn functions(&self) -> Vec<TimesTold> {
        let places = lock(&self.0);
        let mut times = TimesByPlace(places.times_left.0);
        for station in &places.stations {
            times.add(station);
        }
        let names = places.functions.iter().map(|named| &*named.name);
        let own = names.zip(times.0);
        own.chain([(OTHERS, times.0[MOST_FUNCTIONS])])
            .filter(|(_, times)| times.wait.count() > 0)
            .map(|(name, times)| {
                (
                    name.to_owned(),
                    histogram(&times.wait),
                    histogram(&times.duration),
                )
            })
            .collect()
    }

    pub(crate) fn totals(&self) -> Totals {
        let places = lock(&self.0);
        let mut totals = Totals {
            done: places.left.done,
            retried: places.left.retried,
        };
        for station in &places.stations {
            totals.add(station);
        }
        totals
    }

    /// `(thread, since in nanoseconds, overdue)` of every job that runs now, a thread's outer jobs before its inner ones.
    pub(crate) fn running(&self) -> Vec<(u64, u64, bool)> {
        let mut running = Vec::new();
        for station in &lock(&self.0).stations {
            let stack = lock(&station.stack);
            let from = running.len();
            if station.job.load(Ordering::Acquire) != NOTHING {
                let since_ns = station.since_ns.load(Ordering::Relaxed);
                running.push((station.thread, since_ns, false));
            }
            running.extend(
                stack
                    .iter()
                    .map(|job| (station.thread, job.since_ns, job.overdue)),
            );
            running[from..].sort_by_key(|(_, since_ns, _)| *since_ns);
        }
        running
    }

    /// The thread that runs this future's job.
    pub(crate) fn thread_of(&self, future: &Bound<'_, FutureBase>) -> Option<u64> {
        let places = lock(&self.0);
        let station = places.stations.iter().find(|station| station.has(future));
        station.map(|station| station.thread)
    }

    /// Marks the jobs that are over their time, and gives them; and the nanoseconds to the next deadline.
    pub(crate) fn strike(&self, py: Python<'_>, now_ns: u64) -> (Vec<Struck>, Option<u64>) {
        let mut struck = Vec::new();
        let mut next: Option<u64> = None;
        for station in &lock(&self.0).stations {
            for job in lock(&station.stack).iter_mut().filter(|job| !job.overdue) {
                let Some((limit_s, function)) = &job.timeout else {
                    continue;
                };
                let limit_ns = (limit_s * 1e9) as u64; // what is longer than 584 years ends there
                let ran_ns = now_ns.saturating_sub(job.since_ns);
                if ran_ns >= limit_ns {
                    job.overdue = true;
                    struck.push(Struck {
                        thread: station.thread,
                        limit_s: *limit_s,
                        function: function.clone_ref(py),
                        future: job.future.clone_ref(py),
                    });
                } else {
                    let left = limit_ns - ran_ns;
                    next = Some(next.map_or(left, |next| next.min(left)));
                }
            }
        }
        (struck, next)
    }
}
