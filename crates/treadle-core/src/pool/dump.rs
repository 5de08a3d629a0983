//! What every worker does, in words and with the stacks that it writes itself: its interpreter's lock may be held for ever, this one's too.
//!
//! ```text
//! this process ── signal ──► worker: writes its stacks into the end of its file ── read from here
//! ```

use std::fmt::Write;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::places::Places;
use super::processes::ProcessPool;
use super::snapshot::{Snapshot, WorkerSnapshot};

/// The signal at which a worker writes the stacks of its threads: SIGRTMIN + 5, as `treadle._worker.DUMP_SIGNAL`. The C library keeps the first
/// two real-time signals, 32 and 33, for itself, so its SIGRTMIN is 34.
const THREADS: i32 = 39;
/// The signal at which a worker with a loop writes the stacks of the loop's tasks, which are on no thread's: `treadle._worker.TASKS_SIGNAL`.
const TASKS: i32 = 40;
/// How long a worker may take to begin writing its stacks. It does so in a signal handler, which a busy machine delays by some hundredths
/// of a second; past this it is stopped or stuck in the kernel.
const PATIENCE: Duration = Duration::from_secs(1);
/// A worker that has written nothing for so long has written all.
const PAUSE: Duration = Duration::from_millis(10);
/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(1);

/// What a worker is asked for.
#[derive(Clone, Copy)]
enum Ask {
    /// The stacks of its threads, which a signal handler writes.
    Threads,
    /// The stacks of its loop's tasks, which are on no thread's: its interpreter writes them.
    Tasks,
}

impl Ask {
    fn signal(self) -> i32 {
        match self {
            Ask::Threads => THREADS,
            Ask::Tasks => TASKS,
        }
    }

    fn silence(self) -> &'static str {
        match self {
            Ask::Threads => "it did not answer within 1 s: it may be stopped",
            Ask::Tasks => {
                "its loop did not answer within 1 s: what runs there does not give it free"
            }
        }
    }
}

/// What came of it.
struct Told {
    worker: u32,
    text: String,
    answered: bool,
}

impl ProcessPool {
    /// What every worker does, with the stacks of those that have a task. It waits for the workers' answers, a second at most for each kind.
    pub fn dump(&self) -> String {
        let now = self.snapshot();
        let files = self.dump_files().unwrap_or_default();
        let ask = |ask: Ask, at: &Snapshot, of: &dyn Fn(u32) -> bool| {
            let writing = files
                .iter()
                .filter(|(worker, pid, _)| has_task(at, *worker, *pid) && of(*worker))
                .filter_map(|(worker, pid, file)| Writing::ask(ask, *worker, *pid, file))
                .collect();
            read_all(writing)
        };
        let mut stacks = ask(Ask::Threads, &now, &|_| true);
        if self.places.have_loops() {
            // Who is stopped has said nothing, and who has ended meanwhile is not asked: its number may be another's.
            let answered = |worker| {
                stacks
                    .iter()
                    .any(|told| told.worker == worker && told.answered)
            };
            let tasks = ask(Ask::Tasks, &self.snapshot(), &answered);
            stacks.extend(tasks);
        }
        let mut text = headline(&now, self.places);
        for one in &now.workers {
            let state = state(one, self.places);
            let _ = writeln!(text, "\nworker {} (pid {}): {state}", one.worker, one.pid);
            if one.running == 0 {
                continue;
            }
            let mut told = stacks
                .iter()
                .filter(|told| told.worker == one.worker)
                .map(|told| told.text.as_str())
                .peekable();
            if told.peek().is_none() {
                text.push_str("(it has just ended)\n");
            }
            told.for_each(|stack| text.push_str(stack));
        }
        text
    }
}

fn headline(now: &Snapshot, places: Places) -> String {
    let (running, workers, each) = (now.running, places.workers(), places.each());
    let queued = now.unfinished.saturating_sub(now.running);
    if !places.are_shared() {
        return format!("processes: {running} of {workers} busy, {queued} calls waiting\n");
    }
    let kind = if places.have_loops() {
        "coroutines"
    } else {
        "threads"
    };
    format!(
        "{kind} in processes: {running} of {} busy ({workers} processes, {each} in each), {queued} calls waiting\n",
        workers * each
    )
}

fn state(one: &WorkerSnapshot, places: Places) -> String {
    if one.running == 0 {
        return one.state.to_owned();
    }
    let seconds = one.running_ns as f64 / 1e9;
    let function = one.function.as_deref().unwrap_or("a function");
    if !places.are_shared() {
        return format!("busy for {seconds:.3} s in {function}");
    }
    let mut text = format!(
        "{} running, the oldest for {seconds:.3} s in {function}",
        one.running
    );
    if one.state == "overdue" {
        text += "; one did not stop when it was asked to, and the worker is replaced when the others have ended";
    }
    text
}

fn has_task(at: &Snapshot, worker: u32, pid: i32) -> bool {
    at.workers
        .iter()
        .any(|one| one.worker == worker && one.pid == pid && one.running > 0)
}

/// A worker that was asked for its stacks.
struct Writing {
    ask: Ask,
    worker: u32,
    file: std::fs::File,
    before: u64,
    size: u64,
    still_since: Instant,
}

impl Writing {
    fn ask(ask: Ask, worker: u32, pid: i32, file: &OwnedFd) -> Option<Writing> {
        let file = std::fs::File::from(file.try_clone().ok()?);
        let before = file.metadata().ok()?.len();
        // The worker has had a handler for it since before it said that it is ready.
        treadle_shm::signal_process(pid, ask.signal()).ok()?;
        Some(Writing {
            ask,
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
        let written = self.answered() && now - self.still_since > PAUSE;
        written || now >= deadline
    }

    fn answered(&self) -> bool {
        self.size > self.before
    }

    fn text(&self) -> io::Result<String> {
        if !self.answered() {
            return Ok(format!("({})\n", self.ask.silence()));
        }
        let mut bytes = vec![0; (self.size - self.before) as usize];
        self.file.read_exact_at(&mut bytes, self.before)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Waits for all of them at the same time.
fn read_all(mut writing: Vec<Writing>) -> Vec<Told> {
    let deadline = Instant::now() + PATIENCE;
    let mut done = Vec::new();
    while !writing.is_empty() {
        let mut still = Vec::new();
        for mut one in writing {
            if !one.is_over(deadline) {
                still.push(one);
                continue;
            }
            let text = one
                .text()
                .unwrap_or_else(|error| format!("(its stacks cannot be read: {error})\n"));
            done.push(Told {
                worker: one.worker,
                text,
                answered: one.answered(),
            });
        }
        writing = still;
        if !writing.is_empty() {
            std::thread::sleep(LOOK);
        }
    }
    done
}
