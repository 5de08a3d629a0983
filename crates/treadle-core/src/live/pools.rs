//! A pool of processes as a picture, without the interpreter's lock.

use super::desk::Source;
use super::picture::{Histogram, Pool, Stacks, Worker};
use crate::pool::meter;
use crate::pool::processes::ProcessPool;
use crate::pool::snapshot::WorkerSnapshot;

impl From<&meter::Histogram> for Histogram {
    fn from(found: &meter::Histogram) -> Histogram {
        Histogram {
            bounds_s: meter::Histogram::bounds_s().to_vec(),
            counts: found.counts().to_vec(),
            sum_s: found.sum_s(),
        }
    }
}

impl Source for ProcessPool {
    fn look(&self, pool: &mut Pool) -> bool {
        if !self.is_mine() {
            return false;
        }
        let found = self.snapshot();
        if found.ended {
            return false;
        }
        pool.submitted = found.counts.submitted;
        pool.completed = found.counts.answered;
        pool.cancelled = found.counts.cancelled;
        pool.lost = found.counts.lost;
        pool.retried = found.counts.retried;
        pool.timed_out = found.counts.timed_out;
        pool.deaths = found.counts.deaths;
        pool.running = found.running as u64;
        pool.queued = found.unfinished.saturating_sub(found.running) as u64;
        pool.oldest_s = found.oldest_ns.map(|age| age as f64 / 1e9);
        pool.payload_bytes = found.payload_bytes;
        pool.wait = Some(Histogram::from(&found.times.wait));
        pool.duration = Some(Histogram::from(&found.times.duration));
        pool.turnaround = Some(Histogram::from(&found.times.turnaround));
        pool.broken = found.broken.as_deref().map(first_line);
        pool.closing = found.closing;
        pool.workers = found.workers.iter().map(worker).collect();
        true
    }

    fn stacks(&self) -> Option<Stacks> {
        Some(Stacks {
            pool: 0,
            text: self.dump(),
        })
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn worker(found: &WorkerSnapshot) -> Worker {
    let process = u32::try_from(found.pid).unwrap_or(0);
    let used = (process != 0)
        .then(|| treadle_probe::process::usage_of(process))
        .flatten();
    Worker {
        worker: u64::from(found.worker),
        ident: u64::from(process),
        state: found.state.to_owned(),
        function: found.function.as_deref().map(str::to_owned),
        running_s: found.running_ns as f64 / 1e9,
        tasks: Some(found.tasks),
        restarts: found.restarts,
        cpu_s: used.map(|used| used.cpu_s),
        memory_bytes: used.map(|used| used.memory_bytes),
    }
}
