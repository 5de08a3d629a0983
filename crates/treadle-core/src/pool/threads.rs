//! The queue of the pools that live in this process: threads and loops.
//!
//! A worker takes one job at a time, never a batch of its own, so that a job which blocks traps no other behind it. At most one worker is
//! being woken at any moment; a woken worker that finds more work wakes the next. So a burst of submissions costs one wake, and the other
//! workers follow only if the work is still there.
//!
//! *Guarantees*: a job is handed out once, in the order of submission; after [`Queue::close`], [`Queue::take`] returns what is left, then `None`.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::lock;

#[derive(Debug)]
struct Inside<J> {
    jobs: VecDeque<J>,
    /// Jobs that were ever put in.
    entered: u64,
    /// Workers that found no job and have not taken one since.
    idle: usize,
    /// Of these, those that wait at the bell: only they can be woken.
    sleeping: usize,
    /// A sleeper was rung for and has not looked yet.
    waking: bool,
    closed: bool,
}

/// A queue of jobs.
#[derive(Debug)]
pub struct Queue<J> {
    inside: Mutex<Inside<J>>,
    bell: Condvar,
}

/// What [`Queue::take_now`] found.
#[derive(Debug)]
pub enum Found<J> {
    /// A job.
    Job(J),
    /// None now; the caller counts as idle already and must call [`Queue::sleep`].
    Empty,
    /// None ever again.
    Closed,
}

/// Why a job could not be put, with the job.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused<J> {
    /// The queue is closed.
    Closed(J),
    /// There is no memory for one more.
    NoMemory(J),
}

impl<J> Default for Queue<J> {
    fn default() -> Self {
        Queue {
            inside: Mutex::new(Inside {
                jobs: VecDeque::new(),
                entered: 0,
                idle: 0,
                sleeping: 0,
                waking: false,
                closed: false,
            }),
            bell: Condvar::new(),
        }
    }
}

impl<J> Queue<J> {
    /// Puts a job at the end. `Ok` says how many idle workers there are for it: those for which no earlier job waits.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn put(&self, job: J) -> Result<usize, Refused<J>> {
        let mut inside = lock(&self.inside);
        if inside.closed {
            return Err(Refused::Closed(job));
        }
        if inside.jobs.try_reserve(1).is_err() {
            return Err(Refused::NoMemory(job));
        }
        let idle = inside.idle.saturating_sub(inside.jobs.len());
        inside.jobs.push_back(job);
        inside.entered += 1;
        if inside.sleeping > 0 && !inside.waking {
            inside.waking = true;
            drop(inside);
            self.bell.notify_one();
        }
        Ok(idle)
    }

    /// Takes a job without sleeping. A worker that finds none is idle from that moment: whoever puts a job next sees it.
    pub fn take_now(&self) -> Found<J> {
        let mut inside = lock(&self.inside);
        match inside.jobs.pop_front() {
            Some(job) => Found::Job(job),
            None if inside.closed => Found::Closed,
            None => {
                inside.idle += 1;
                Found::Empty
            }
        }
    }

    /// Sleeps until there may be a job, after [`Queue::take_now`] found none; false when the time is over.
    pub fn sleep(&self, timeout: Option<Duration>) -> bool {
        let mut inside = lock(&self.inside);
        let mut woken = true;
        while inside.jobs.is_empty() && !inside.closed && woken {
            inside.sleeping += 1;
            inside = match timeout {
                Some(timeout) => {
                    let (guard, outcome) = self
                        .bell
                        .wait_timeout(inside, timeout)
                        .unwrap_or_else(PoisonError::into_inner);
                    woken = !outcome.timed_out();
                    guard
                }
                None => self
                    .bell
                    .wait(inside)
                    .unwrap_or_else(PoisonError::into_inner),
            };
            inside.sleeping -= 1;
            // The job may be another's already: whoever puts the next one must ring again.
            inside.waking = false;
        }
        inside.idle -= 1;
        if inside.jobs.len() > 1 && inside.sleeping > 0 && !inside.waking {
            inside.waking = true;
            drop(inside);
            self.bell.notify_one();
        }
        woken
    }

    /// Takes no more jobs; every sleeper wakes.
    pub fn close(&self) {
        lock(&self.inside).closed = true;
        self.bell.notify_all();
    }

    /// Takes out every job that waits.
    pub fn take_all(&self) -> Vec<J> {
        lock(&self.inside).jobs.drain(..).collect()
    }

    /// Takes out the first job that fits.
    pub fn take_where(&self, fits: impl Fn(&J) -> bool) -> Option<J> {
        let mut inside = lock(&self.inside);
        let place = inside.jobs.iter().position(fits)?;
        inside.jobs.remove(place)
    }

    /// Looks at the job that has waited longest.
    pub fn with_first<R>(&self, look: impl FnOnce(&J) -> R) -> Option<R> {
        lock(&self.inside).jobs.front().map(look)
    }

    /// Whether it takes no more jobs.
    pub fn is_closed(&self) -> bool {
        lock(&self.inside).closed
    }

    /// How many jobs were ever put in.
    pub fn entered(&self) -> u64 {
        lock(&self.inside).entered
    }

    /// How many jobs wait.
    pub fn len(&self) -> usize {
        lock(&self.inside).jobs.len()
    }

    /// Whether no job waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn every_job_is_handed_out_once() {
        let queue: Arc<Queue<usize>> = Arc::default();
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let queue = queue.clone();
                std::thread::spawn(move || {
                    let mut taken = Vec::new();
                    loop {
                        match queue.take_now() {
                            Found::Job(job) => taken.push(job),
                            Found::Empty => drop(queue.sleep(None)),
                            Found::Closed => return taken,
                        }
                    }
                })
            })
            .collect();
        for job in 0..10_000 {
            queue.put(job).unwrap();
        }
        queue.close();
        assert_eq!(queue.put(0), Err(Refused::Closed(0)));
        assert_eq!(queue.entered(), 10_000);
        let mut all: Vec<usize> = takers
            .into_iter()
            .flat_map(|taker| taker.join().unwrap())
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..10_000).collect::<Vec<_>>());
    }

    /// A ring that reaches nobody, because the idle worker has not gone to sleep yet, and a job that another worker takes meanwhile, must not
    /// keep later jobs from ringing.
    #[test]
    fn an_idle_worker_counts_for_one_job() {
        let queue: Queue<u32> = Queue::default();
        assert_eq!(queue.put(0), Ok(0));
        assert!(matches!(queue.take_now(), Found::Job(0)));
        assert!(matches!(queue.take_now(), Found::Empty));
        assert_eq!(queue.put(1), Ok(1));
        assert_eq!(
            queue.put(2),
            Ok(0),
            "the idle worker has a job to take already"
        );
    }

    #[test]
    fn a_ring_that_reaches_nobody_is_forgotten() {
        let queue: Arc<Queue<u32>> = Arc::default();
        assert!(matches!(queue.take_now(), Found::Empty));
        queue.put(1).unwrap();
        assert!(matches!(queue.take_now(), Found::Job(1)));
        let other = queue.clone();
        let sleeper = std::thread::spawn(move || {
            other.sleep(None);
            matches!(other.take_now(), Found::Job(2))
        });
        while lock(&queue.inside).sleeping == 0 {
            std::thread::yield_now();
        }
        queue.put(2).unwrap();
        assert!(sleeper.join().unwrap(), "the sleeper did not get the job");
    }
}
