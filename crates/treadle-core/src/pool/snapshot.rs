//! What a pool looks like at an instant.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::lock;
use super::meter::Histogram;
use super::processes::{Life, Note, ProcessPool};
use super::transfer::Transfer;
use super::wire::Times;

/// What has happened in a pool since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks submitted.
    pub submitted: u64,
    /// Tasks that a worker answered, with a result or an exception.
    pub answered: u64,
    /// Tasks cancelled before they began.
    pub cancelled: u64,
    /// Tasks that ended without a reply.
    pub lost: u64,
    /// Tasks that were run again.
    pub retried: u64,
    /// Of those that ended without a reply, those over their time.
    pub timed_out: u64,
    /// Workers that died unasked.
    pub deaths: u64,
}

/// How long answered tasks took: each of them is once in each histogram. Of a task that ran more than once, `wait` holds the earlier runs,
/// and `duration` is the last one's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meters {
    /// From submission until a worker took it.
    pub wait: Histogram,
    /// From then until its record was written: arguments rebuilt, run, result packed.
    pub duration: Histogram,
    /// From submission until the reply was read here.
    pub turnaround: Histogram,
}

impl Meters {
    pub(super) fn add(&mut self, submitted_ns: u64, times: Times, now_ns: u64) {
        self.wait.add(times.started_ns.saturating_sub(submitted_ns));
        self.duration
            .add(times.ended_ns.saturating_sub(times.started_ns));
        self.turnaround.add(now_ns.saturating_sub(submitted_ns));
    }

    fn join(&mut self, other: &Self) {
        self.wait.join(&other.wait);
        self.duration.join(&other.duration);
        self.turnaround.join(&other.turnaround);
    }
}

/// One worker in a [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSnapshot {
    /// Its number in the pool.
    pub worker: u32,
    /// Its process; 0 while it is being started.
    pub pid: i32,
    /// starting, idle, busy, overdue (it has a task that did not stop when it was asked to) or absent.
    pub state: &'static str,
    /// Tasks that it has finished.
    pub tasks: u64,
    /// How often its place was filled again.
    pub restarts: u64,
    /// Tasks that it has in hand.
    pub running: u32,
    /// Nanoseconds since the oldest of these began; 0 when it has none.
    pub running_ns: u64,
    /// What the function of the oldest task in hand is called.
    pub function: Option<Arc<str>>,
}

/// A pool at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Unfinished tasks.
    pub unfinished: usize,
    /// Of these, taken by a worker.
    pub running: usize,
    /// What has happened.
    pub counts: Counts,
    /// The workers.
    pub workers: Vec<WorkerSnapshot>,
    /// Bytes of payloads in the parent's arena.
    pub payload_bytes: u64,
    /// Nanoseconds since the oldest task that no worker has was submitted; `None` when there is none.
    pub oldest_ns: Option<u64>,
    /// The times of answered tasks.
    pub times: Meters,
    /// Why it can run nothing any more.
    pub broken: Option<Arc<str>>,
    /// Whether it takes no more tasks.
    pub closing: bool,
    /// Whether every worker has left for good.
    pub ended: bool,
    /// The same for each function that has answered tasks.
    pub functions: Vec<(Arc<str>, Meters)>,
    /// What went to the workers.
    pub arguments: Transfer,
    /// What came back.
    pub results: Transfer,
}

impl ProcessPool {
    /// The pool at this instant.
    pub fn snapshot(&self) -> Snapshot {
        self.drain();
        let payload_bytes = lock(&self.arena).outstanding_bytes();
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let now = treadle_shm::monotonic_nanoseconds();
        let mut held: HashSet<u64> = HashSet::new();
        let mut abandoned = 0;
        let workers: Vec<WorkerSnapshot> = (0u32..)
            .zip(&state.seats)
            .map(|(worker, seat)| {
                let mut running = 0;
                let mut running_ns = 0;
                let mut oldest = None;
                for place in self.places.of(worker) {
                    let Some((task, started)) = self.board.in_hand(place) else {
                        continue;
                    };
                    held.insert(task);
                    running += 1;
                    let since_ns = now.saturating_sub(started);
                    if oldest.is_none() || since_ns > running_ns {
                        (oldest, running_ns) = (Some(task), since_ns);
                    }
                    // Nobody waits for it: it is no task of the pool's any more.
                    abandoned += usize::from(!state.tasks.contains(task));
                }
                let what = match (seat.tag, seat.ready, running) {
                    (0, _, _) => "absent",
                    (_, false, _) => "starting",
                    (_, true, 0) => "idle",
                    _ if !seat.overdue.is_empty() => "overdue",
                    _ => "busy",
                };
                WorkerSnapshot {
                    worker,
                    pid: seat.shown_pid(),
                    state: what,
                    tasks: seat.tasks_done,
                    restarts: seat.starts.saturating_sub(1),
                    running,
                    running_ns,
                    function: oldest
                        .and_then(|task| state.tasks.get(task))
                        .map(|task| state.labels.name(task.label)),
                }
            })
            .collect();
        // Only a task older than the oldest so far is looked for among the workers' own: this holds the lock of the pool.
        let mut earliest_ns: Option<u64> = None;
        for (id, task) in state.tasks.iter() {
            if earliest_ns.is_none_or(|earliest| task.submitted_ns < earliest)
                && !held.contains(&id)
            {
                earliest_ns = Some(task.submitted_ns);
            }
        }
        let oldest_ns = earliest_ns.map(|earliest| now.saturating_sub(earliest));
        let mut times = Meters::default();
        let mut functions = Vec::new();
        for (name, meters) in state.meters.iter() {
            times.join(meters);
            if meters.turnaround.count() > 0 {
                functions.push((Arc::from(name), *meters));
            }
        }
        let mut results = state.results;
        results.time = *lock(&self.rebuilding);
        Snapshot {
            unfinished: state.tasks.len(),
            running: (workers.iter())
                .map(|worker| worker.running as usize)
                .sum::<usize>()
                .saturating_sub(abandoned),
            counts: state.counts,
            workers,
            payload_bytes,
            oldest_ns,
            broken: state.broken.clone(),
            closing: state.life != Life::Open,
            ended: state.life == Life::Ended,
            times,
            functions,
            arguments: state.arguments,
            results,
        }
    }

    /// Each present worker's number, pid and the file its stacks are dumped to.
    ///
    /// # Errors
    /// When a descriptor cannot be copied.
    pub(super) fn dump_files(&self) -> io::Result<Vec<(u32, i32, OwnedFd)>> {
        let state = lock(&self.state);
        (0u32..)
            .zip(&state.seats)
            .filter(|(_, seat)| seat.ready && seat.pid != 0)
            .filter_map(|(worker, seat)| {
                seat.dump
                    .as_ref()
                    .map(|dump| Ok((worker, seat.pid, dump.try_clone()?)))
            })
            .collect()
    }

    /// Takes what workers logged or warned.
    pub fn take_notes(&self) -> Vec<Note> {
        std::mem::take(&mut *lock(&self.notes))
    }
}
