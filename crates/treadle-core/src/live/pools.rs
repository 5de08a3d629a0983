//! A pool of processes as a picture, and its workers' stacks, both without the interpreter's lock.

use std::fmt::Write;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::desk::Source;
use super::picture::{Histogram, Pool, Stacks, Worker};
use crate::pool::meter;
use crate::pool::processes::ProcessPool;
use crate::pool::snapshot::{Snapshot, WorkerSnapshot};

/// The signal at which a worker writes its stacks: SIGRTMIN + 5, as `treadle._worker.DUMP_SIGNAL`. The C library keeps the first two real-time
/// signals, 32 and 33, for itself, so its SIGRTMIN is 34.
const DUMP_SIGNAL: i32 = 39;
/// How long a worker may take to begin writing its stacks. It does so in a signal handler, which a busy machine delays by some hundredths
/// of a second; past this it is stopped or stuck in the kernel.
const STACK_PATIENCE: Duration = Duration::from_secs(1);
/// A worker that has written nothing for so long has written all.
const STACK_PAUSE: Duration = Duration::from_millis(10);
/// How often the files are looked at.
const STACK_LOOK: Duration = Duration::from_millis(1);

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
        pool.turnaround = Some(Histogram::from(&found.turnaround));
        pool.broken = found.broken.as_deref().map(first_line);
        pool.closing = found.closing;
        pool.workers = found.workers.iter().map(worker).collect();
        true
    }

    fn stacks(&self) -> Option<Stacks> {
        Some(Stacks {
            pool: 0,
            text: dump(self),
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

/// What every worker does, with the stacks of those that have a task.
fn dump(pool: &ProcessPool) -> String {
    let now = pool.snapshot();
    let files = pool.dump_files().unwrap_or_default();
    let busy: Vec<Writing> = files
        .into_iter()
        .filter(|(worker, ..)| is_busy(&now, *worker))
        .filter_map(|(worker, pid, file)| Writing::ask(worker, pid, file))
        .collect();
    let stacks = read_all(busy);
    let mut text = format!(
        "{} of {} workers busy, {} calls waiting\n",
        now.running,
        now.workers.len(),
        now.unfinished.saturating_sub(now.running)
    );
    for one in &now.workers {
        let _ = write!(
            text,
            "\nworker {} (pid {}): {}",
            one.worker, one.pid, one.state
        );
        if one.state != "busy" {
            text.push('\n');
            continue;
        }
        let seconds = one.running_ns as f64 / 1e9;
        let function = one.function.as_deref().unwrap_or("a function");
        let _ = writeln!(text, " for {seconds:.3} s in {function}");
        let found = stacks.iter().find(|(worker, _)| *worker == one.worker);
        text.push_str(found.map_or("(it has just ended)\n", |(_, stack)| stack));
    }
    text
}

fn is_busy(now: &Snapshot, worker: u32) -> bool {
    now.workers
        .iter()
        .any(|one| one.worker == worker && one.state == "busy")
}

/// A worker that was asked for its stacks.
struct Writing {
    worker: u32,
    file: std::fs::File,
    before: u64,
    size: u64,
    still_since: Instant,
}

impl Writing {
    fn ask(worker: u32, pid: i32, file: OwnedFd) -> Option<Writing> {
        let file = std::fs::File::from(file);
        let before = file.metadata().ok()?.len();
        // The worker has had a handler for it since before it said that it is ready.
        treadle_shm::signal_process(pid, DUMP_SIGNAL).ok()?;
        Some(Writing {
            worker,
            file,
            before,
            size: before,
            still_since: Instant::now(),
        })
    }

    /// Whether it has written all, or will not.
    fn is_over(&mut self, deadline: Instant) -> bool {
        let now = Instant::now();
        let size = self.file.metadata().map_or(self.size, |found| found.len());
        if size != self.size {
            self.size = size;
            self.still_since = now;
        }
        let written = self.size > self.before && now - self.still_since > STACK_PAUSE;
        written || now >= deadline
    }

    fn text(&self) -> io::Result<String> {
        if self.size <= self.before {
            return Ok(format!(
                "(it did not answer within {} s: it may be stopped)\n",
                STACK_PATIENCE.as_secs()
            ));
        }
        let mut bytes = vec![0; (self.size - self.before) as usize];
        self.file.read_exact_at(&mut bytes, self.before)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Waits for all of them at the same time.
fn read_all(mut writing: Vec<Writing>) -> Vec<(u32, String)> {
    let deadline = Instant::now() + STACK_PATIENCE;
    let mut done = Vec::new();
    while !writing.is_empty() {
        let mut still = Vec::new();
        for mut one in writing {
            if one.is_over(deadline) {
                let text = one
                    .text()
                    .unwrap_or_else(|error| format!("(its stacks cannot be read: {error})\n"));
                done.push((one.worker, text));
            } else {
                still.push(one);
            }
        }
        writing = still;
        if !writing.is_empty() {
            std::thread::sleep(STACK_LOOK);
        }
    }
    done
}
