//! What a process pool does when workers end: by plan, by accident, by a deadline, or all at once.
//!
//! *Guarantees*
//! - A worker's death costs the call that it was running and no other (what a chunk had brought before is kept); a worker that is killed for its task's time-out or for `interrupt`
//!   is stopped first, and killed only if it still runs that very task.
//! - A task that has killed [`MOST_DEATHS`] workers is failed, however many retries it has.
//! - Deaths without one finished task between them are bounded: then the pool is broken, and every task ends with the reason.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use treadle_shm::RingReader;

use super::damage::damage_reason;
use super::drain::Ended;
use super::outcome::{Ending, Failure, Named, Outcome, Reply, Stopped};
use super::processes::{Life, ProcessPool, State};
use super::submit::refill;
use super::supervisor::{KILL, Order, pid_of};
use super::tasks::{Held, Task, TaskId};
use super::{lock, nanoseconds};

/// A task that has killed this many workers is failed.
const MOST_DEATHS: u32 = 3;

/// How many workers may die in a row, with no task finished in between, before the pool is broken: each worker three times, and
/// a few more for small pools.
fn most_deaths_in_a_row(workers: u32) -> u32 {
    workers.saturating_mul(MOST_DEATHS).saturating_add(8)
}

/// How soon, at first, a worker is sent the signal for `interrupt` again, then twice as late each time. A signal that comes in the instant
/// before a system call is seen by the interpreter only when that call returns, if ever; a person notices no hundredth of a second.
const FIRST_REPEAT: Duration = Duration::from_millis(10);

/// How long a process may take to obey SIGSTOP before the deadline is looked at again.
const STOP_PATIENCE: Duration = Duration::from_millis(50);

impl ProcessPool {
    /// A worker's process exists.
    pub(super) fn worker_spawned(&self, worker: u32, tag: u64, pid: i32) {
        let mut state = lock(&self.state);
        let seat = &mut state.seats[worker as usize];
        if seat.tag == tag {
            seat.pid = pid;
        }
    }

    /// Nobody holds this place, and nobody will.
    pub(super) fn worker_absent(&self, worker: u32) {
        {
            let mut state = lock(&self.state);
            state.seats[worker as usize].tag = 0;
            if state.seats.iter().all(|seat| seat.tag == 0) && state.life == Life::ShuttingDown {
                state.life = Life::Ended;
            }
        }
        self.board.ring_parent();
        self.wake_collector();
    }

    /// A worker's process has ended.
    pub(super) fn worker_gone(&self, worker: u32, tag: u64, pid: i32, ending: Ending) {
        let mut readers = lock(&self.readers);
        self.drain_with(&mut readers);
        let recovered = self.board.recover(worker);
        // Not by what the journal says: a record for that task may have been read, and the task may be queued again already.
        let strays = self.find_strays(&mut readers);
        let mut ended = Ended::default();
        let mut blocks = Vec::new();
        let replace;
        {
            let mut guard = lock(&self.state);
            let state = &mut *guard;
            if state.seats[worker as usize].tag != tag {
                return;
            }
            blocks.append(&mut state.seats[worker as usize].lent);
            let expected =
                state.seats[worker as usize].retired || state.seats[worker as usize].asked_to_stop;
            let condemned = state.kills.iter().find(|kill| kill.tag == tag).copied();
            state.kills.retain(|kill| kill.tag != tag);
            if !expected && condemned.is_none() {
                state.counts.deaths += 1;
                state.deaths_in_a_row += 1;
            }
            if recovered.damaged > 0 {
                self.break_down_with(state, &damage_reason(recovered.damaged), &mut ended);
            }
            for stray in strays {
                self.bereave(
                    state,
                    stray.id(),
                    worker,
                    pid,
                    &ending,
                    condemned,
                    &mut ended,
                    &mut blocks,
                );
            }
            if state.deaths_in_a_row > most_deaths_in_a_row(self.settings.workers) {
                let reason = format!(
                    "{} workers died one after another without finishing a task; the last one (pid {pid}) {ending}\n\nhint: run the function \
                     once in this process to see what ends it, and look at the kernel's log for the out-of-memory killer",
                    state.deaths_in_a_row
                );
                self.break_down_with(state, &reason, &mut ended);
            }
            ended.published = refill(state);
            replace =
                state.broken.is_none() && (state.life == Life::Open || !state.tasks.is_empty());
            let seat = &mut state.seats[worker as usize];
            seat.tag = 0;
            seat.pid = 0;
            seat.ready = false;
            if !replace
                && state.life == Life::ShuttingDown
                && state.seats.iter().all(|seat| seat.tag == 0)
            {
                state.life = Life::Ended;
            }
        }
        self.board.reset_lane(worker);
        readers[worker as usize] = RingReader::new(self.board.clone(), worker);
        drop(readers);
        ended.wake_waiters();
        self.after_settling(ended, &blocks);
        if replace {
            self.start_worker(worker);
        }
        self.wake_collector();
        self.board.wake_all_workers();
    }

    /// One task has lost its worker: run it again or fail it.
    #[allow(clippy::too_many_arguments)]
    fn bereave(
        &self,
        state: &mut State,
        id: TaskId,
        worker: u32,
        pid: i32,
        ending: &Ending,
        condemned: Option<Kill>,
        ended: &mut Ended,
        blocks: &mut Vec<Held>,
    ) {
        let why = condemned
            .filter(|kill| kill.task == id)
            .map(|kill| kill.why);
        let Some(task) = state.tasks.get(id) else {
            return;
        };
        // A worker that was killed for the task's time-out did not die of the task.
        task.deaths += u32::from(why.is_none());
        let again = task.retries_left > 0
            && task.deaths < MOST_DEATHS
            && why != Some(Why::Interrupted)
            && state.broken.is_none();
        if again {
            task.retries_left -= 1;
            task.position = None;
            task.parts.clear();
            state.counts.retried += 1;
            state.backlog.push_back(id);
            return;
        }
        // A part that was committed before the death was read: its draft says the same again.
        let drafted = self
            .board
            .drafted(worker, id)
            .filter(|draft| draft.part as usize == task.parts.len() && !draft.body.is_empty())
            .and_then(|draft| {
                Reply::of_draft(&draft, state.seats[worker as usize].arena.as_deref()).ok()
            });
        let Some(mut task) = state.tasks.remove(id) else {
            return;
        };
        let named = state.name(&task);
        let failure = match why {
            Some(Why::TimedOut) => Failure::TimedOut {
                seconds: seconds_of(&task),
                worker,
                pid,
                task: named,
            },
            Some(Why::Interrupted) => Failure::Interrupted(Stopped {
                worker,
                pid,
                task: named,
            }),
            None => Failure::WorkerDied {
                worker,
                pid,
                ending: ending.clone(),
                deaths: task.deaths,
                task: named,
            },
        };
        state.counts.lost += 1;
        state.counts.timed_out += u64::from(why == Some(Why::TimedOut));
        blocks.append(&mut task.blocks);
        task.parts.extend(drafted);
        self.settle(state, id, task, Outcome::Failed(failure), ended);
    }

    /// Ends everything with one reason.
    pub fn break_down(&self, reason: &str) {
        if !self.is_mine() {
            return;
        }
        let mut ended = Ended::default();
        self.break_down_with(&mut lock(&self.state), reason, &mut ended);
        self.after_settling(ended, &[]);
        self.board.ring_parent();
    }

    /// The same, under the state's lock.
    pub(super) fn break_down_with(&self, state: &mut State, reason: &str, ended: &mut Ended) {
        let reason: Arc<str> = match &state.broken {
            Some(first) => first.clone(),
            None => reason.into(),
        };
        state.broken = Some(reason.clone());
        if state.life == Life::Open {
            state.life = Life::ShuttingDown;
        }
        state.backlog.clear();
        for (id, task) in state.tasks.remove_all() {
            state.counts.lost += 1;
            self.settle(
                state,
                id,
                task,
                Outcome::Failed(Failure::PoolBroken(reason.clone())),
                ended,
            );
        }
        for seat in &state.seats {
            if seat.tag != 0 {
                self.supervisor.order(Order::Signal {
                    tag: seat.tag,
                    signal: KILL,
                });
            }
        }
        ended.wake_waiters();
    }

    /// Sends every worker a signal: SIGTERM, or SIGKILL when `force`.
    pub fn signal_workers(&self, force: bool) {
        if !self.is_mine() {
            return;
        }
        let signal = if force { KILL } else { Signal::TERM };
        let tags: Vec<u64> = lock(&self.state)
            .seats
            .iter()
            .map(|seat| seat.tag)
            .filter(|tag| *tag != 0)
            .collect();
        for tag in tags {
            self.supervisor.order(Order::Signal { tag, signal });
        }
    }

    /// Kills a worker whose memory cannot be trusted.
    pub(super) fn kill_worker(&self, worker: u32) {
        let tag = lock(&self.state).seats[worker as usize].tag;
        self.supervisor.order(Order::Signal { tag, signal: KILL });
    }

    /// Stops a running task: an exception is raised in its worker now, and after `grace` its worker is killed if it still runs it.
    /// False when no worker runs it: then it waits, has ended, or is about to be run again or to end because its worker died.
    pub fn interrupt(&self, id: TaskId, grace: Duration) -> bool {
        if !self.is_mine() {
            return false;
        }
        let mut state = lock(&self.state);
        let Some(position) = state.tasks.get(id).map(|task| task.position) else {
            return false;
        };
        // In this order: a worker's journal names the task before the slot is free. A worker that has not come as far looks
        // whether it is to interrupt the task before it begins it.
        let taking = position.and_then(|position| self.board.taker(position, id));
        let running = taking.or_else(|| {
            (0..self.settings.workers).find(|worker| self.board.current_task(*worker) == id)
        });
        let Some(worker) = running else {
            return false;
        };
        let tag = state.seats[worker as usize].tag;
        self.board.set_interrupt(worker, id);
        let at = Instant::now() + grace;
        state.kills.push(Kill {
            at,
            tag,
            task: id,
            worker,
            why: Why::Interrupted,
            again: Some((Instant::now() + FIRST_REPEAT, FIRST_REPEAT)),
        });
        drop(state);
        self.supervisor.order(Order::Signal {
            tag,
            signal: Signal::INT,
        });
        self.supervisor.order(Order::Look);
        true
    }

    /// Kills the workers whose tasks are over their time. Called by the supervisor.
    pub(super) fn expire(&self, now: Instant) {
        let mut due: Vec<Kill> = Vec::new();
        {
            let mut guard = lock(&self.state);
            let state = &mut *guard;
            if state.timed > 0 {
                let now_ns = treadle_shm::monotonic_nanoseconds();
                for worker in 0..self.settings.workers {
                    let id = self.board.current_task(worker);
                    let ran = now_ns.saturating_sub(self.board.task_started_at(worker));
                    let Some(timeout) = state.tasks.get(id).and_then(|task| task.options.timeout)
                    else {
                        continue;
                    };
                    if ran >= nanoseconds(timeout)
                        && !state
                            .kills
                            .iter()
                            .any(|kill| kill.task == id && kill.why == Why::TimedOut)
                    {
                        let tag = state.seats[worker as usize].tag;
                        state.kills.push(Kill {
                            at: now,
                            tag,
                            task: id,
                            worker,
                            why: Why::TimedOut,
                            again: None,
                        });
                    }
                }
            }
            for kill in &mut state.kills {
                if kill.at <= now {
                    due.push(*kill);
                } else if let Some((at, pause)) = kill.again
                    && at <= now
                {
                    // Not while its worker has not come to it, nor when it is through with it.
                    if self.board.current_task(kill.worker) == kill.task {
                        self.supervisor.order(Order::Signal {
                            tag: kill.tag,
                            signal: Signal::INT,
                        });
                    }
                    kill.again = Some((now + pause * 2, pause * 2));
                }
            }
            let tasks = &mut state.tasks;
            state.kills.retain(|kill| {
                kill.why == Why::TimedOut || kill.at <= now || tasks.get(kill.task).is_some()
            });
            // What is not killed now is looked at again when its task still runs.
            state.kills.retain(|kill| kill.at > now);
        }
        for kill in due {
            self.carry_out(kill);
        }
    }

    fn carry_out(&self, kill: Kill) {
        let pid = {
            let state = lock(&self.state);
            let seat = &state.seats[kill.worker as usize];
            if seat.tag != kill.tag {
                return;
            }
            seat.pid
        };
        let Some(process) = pid_of(pid) else { return };
        // Not reaped before this thread reads the zygote's message, but the pid is the zygote's to reap: stop it through the kernel's
        // own check that it still is our child's child, and look at its state before anything is decided.
        if rustix::process::kill_process(process, Signal::STOP).is_err() {
            return;
        }
        let patience = Instant::now() + STOP_PATIENCE;
        while !is_stopped(pid) && Instant::now() < patience {
            std::thread::yield_now();
        }
        let still = self.board.current_task(kill.worker) == kill.task;
        if still {
            lock(&self.state).kills.push(Kill {
                at: Instant::now() + Duration::from_secs(3600),
                again: None,
                ..kill
            });
            let _ = rustix::process::kill_process(process, KILL);
        } else {
            let _ = rustix::process::kill_process(process, Signal::CONT);
        }
    }
}

impl State {
    /// What a task is called in an error.
    pub(super) fn name(&self, task: &Task) -> Named {
        Named {
            number: task.number,
            function: self.labels.name(task.label),
        }
    }
}

/// Whether the kernel says that a process is stopped, or gone.
fn is_stopped(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    // The state follows the name, which stands in parentheses and may hold anything.
    matches!(
        stat.rsplit(')')
            .next()
            .and_then(|rest| rest.trim_start().chars().next()),
        Some('T' | 't' | 'Z' | 'X')
    )
}

fn seconds_of(task: &Task) -> f64 {
    task.options.timeout.unwrap_or_default().as_secs_f64()
}

/// Why a worker is to be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    TimedOut,
    Interrupted,
}

/// An order to kill a worker for its task's sake.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kill {
    pub(super) at: Instant,
    pub(super) tag: u64,
    pub(super) task: TaskId,
    pub(super) worker: u32,
    pub(super) why: Why,
    /// When the worker is to be sent the signal again, and how long after the last time that is.
    pub(super) again: Option<(Instant, Duration)>,
}
