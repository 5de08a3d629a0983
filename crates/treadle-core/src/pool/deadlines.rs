//! Tasks that are to stop: over their time, or interrupted.
//!
//! ```text
//!                     a worker of one task                       a worker of several
//! interrupt           exception ─ grace ─► kill                  exception ─ grace ─┐
//! over its time       kill                                       exception ─ grace ─┴► did the process hear it?
//!                                                                    yes: nobody waits for the task any more; the process takes no
//!                                                                         other, and is killed when it runs nothing else
//!                                                                    no:  it runs nothing at all: kill
//! ```
//!
//! *Guarantees*
//! - A worker is stopped first, and killed only if it still runs that very task.
//! - A worker of several tasks that runs its other tasks is never killed while it does: nobody's call is lost or run twice because a
//!   neighbour does not stop.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::drain::Ended;
use super::outcome::{After, Failure, Named, Outcome, Stopped, TimedOut};
use super::processes::{ProcessPool, State};
use super::supervisor::{KILL, Order, pid_of};
use super::tasks::TaskId;
use super::{lock, nanoseconds};

/// How soon, at first, a worker is sent the signal for `interrupt` again, then twice as late each time. A signal that comes in the instant
/// before a system call is seen by the interpreter only when that call returns, if ever; a person notices no hundredth of a second.
const FIRST_REPEAT: Duration = Duration::from_millis(10);

/// How long a process may take to obey SIGSTOP before the deadline is looked at again.
const STOP_PATIENCE: Duration = Duration::from_millis(50);

/// How long a task over its time may take to obey the exception, where its worker has others: as long as `interrupt` gives by default.
const TIMEOUT_GRACE: Duration = Duration::from_secs(1);

/// How long a process with several tasks may take to hear that one is to stop, before it is taken for stuck (a call in C that keeps the
/// interpreter's lock) and is killed with all that it runs. A sound one hears within milliseconds; a machine under heavy load must not look stuck.
const HEARING_PATIENCE: Duration = Duration::from_secs(3);

/// How often a worker with a task that did not stop is looked at, whether it runs anything else. A look costs less than a microsecond.
pub(super) const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Why a task is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    TimedOut,
    Interrupted,
}

/// An order to end a worker for its task's sake.
#[derive(Debug, Clone)]
pub(super) struct Kill {
    pub(super) at: Instant,
    /// When the task was asked to stop.
    pub(super) asked_at: Instant,
    pub(super) tag: u64,
    pub(super) task: TaskId,
    /// Where it runs.
    pub(super) place: u32,
    pub(super) why: Why,
    /// When the worker is to be sent the signal again, and how long after the last time that is.
    pub(super) again: Option<(Instant, Duration)>,
    /// The worker was killed for it.
    pub(super) carried_out: bool,
    pub(super) named: Named,
}

/// As good as never: the order is kept until the worker's death has been seen.
const KEPT: Duration = Duration::from_secs(3600);

impl State {
    fn name_of(&mut self, id: TaskId) -> Option<Named> {
        let (number, label) = self.tasks.get(id).map(|task| (task.number, task.label))?;
        Some(Named {
            number,
            function: self.labels.name(label),
        })
    }
}

impl ProcessPool {
    /// Forgets what was asked of a task whose run has ended. It may run again, in the same place.
    pub(super) fn forget_requests(&self, state: &mut State, id: TaskId) {
        let mut places = Vec::new();
        state.kills.retain(|kill| {
            let over = kill.task == id && !kill.carried_out;
            if over {
                places.push(kill.place);
            }
            !over
        });
        for place in places {
            if !state.kills.iter().any(|kill| kill.place == place) {
                self.board.set_interrupt(place, 0);
            }
        }
    }

    /// Stops a running task: an exception is raised in its worker now, and after `grace` its worker is killed if it still runs it (a worker
    /// that has other tasks: when these have ended). False when no worker runs it: then it waits, has ended, or is about to be run again or
    /// to end because its worker died.
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
            let mut places = self.places.all();
            places.find(|place| self.board.current_task(*place) == id)
        });
        let Some(place) = running else {
            return false;
        };
        self.ask_to_stop(&mut state, id, place, Why::Interrupted, grace);
        drop(state);
        self.supervisor.order(Order::Look);
        true
    }

    /// Raises an exception in a running task, and notes when its worker is to be ended if that does not help.
    fn ask_to_stop(&self, state: &mut State, id: TaskId, place: u32, why: Why, grace: Duration) {
        let Some(named) = state.name_of(id) else {
            return;
        };
        let tag = state.seats[self.places.worker_of(place) as usize].tag;
        self.board.set_interrupt(place, id);
        let now = Instant::now();
        state.kills.push(Kill {
            at: now + grace,
            asked_at: now,
            tag,
            task: id,
            place,
            why,
            again: Some((now + FIRST_REPEAT, FIRST_REPEAT)),
            carried_out: false,
            named,
        });
        self.supervisor.order(Order::Signal {
            tag,
            signal: Signal::INT,
        });
    }

    /// Ends what is over its time. Called by the supervisor.
    pub(super) fn expire(&self, now: Instant) {
        let mut due: Vec<Kill> = Vec::new();
        {
            let mut guard = lock(&self.state);
            let state = &mut *guard;
            if state.timed > 0 {
                self.find_overdue(state, now);
            }
            for kill in &mut state.kills {
                if kill.at <= now {
                    due.push(kill.clone());
                } else if let Some((at, pause)) = kill.again
                    && at <= now
                {
                    // Not while its worker has not come to it, nor when it is through with it.
                    if self.board.current_task(kill.place) == kill.task {
                        self.supervisor.order(Order::Signal {
                            tag: kill.tag,
                            signal: Signal::INT,
                        });
                    }
                    kill.again = Some((now + pause * 2, pause * 2));
                }
            }
            let tasks = &state.tasks;
            state.kills.retain(|kill| {
                kill.why == Why::TimedOut || kill.at <= now || tasks.contains(kill.task)
            });
            // What is not killed now is looked at again when its task still runs.
            state.kills.retain(|kill| kill.at > now);
        }
        for kill in due {
            self.carry_out(kill);
        }
        if self.places.are_shared() {
            self.end_drained();
        }
    }

    fn find_overdue(&self, state: &mut State, now: Instant) {
        let now_ns = treadle_shm::monotonic_nanoseconds();
        for place in self.places.all() {
            let id = self.board.current_task(place);
            let Some(timeout) = state.tasks.get(id).and_then(|task| task.options.timeout) else {
                continue;
            };
            let ran = now_ns.saturating_sub(self.board.task_started_at(place));
            let known = |kill: &Kill| kill.task == id && kill.why == Why::TimedOut;
            if ran < nanoseconds(timeout) || state.kills.iter().any(known) {
                continue;
            }
            if self.places.are_shared() {
                self.ask_to_stop(state, id, place, Why::TimedOut, TIMEOUT_GRACE);
            } else if let Some(named) = state.name_of(id) {
                state.kills.push(Kill {
                    at: now,
                    asked_at: now,
                    tag: state.seats[self.places.worker_of(place) as usize].tag,
                    task: id,
                    place,
                    why: Why::TimedOut,
                    again: None,
                    carried_out: false,
                    named,
                });
            }
        }
    }

    /// A task has not stopped in time.
    fn carry_out(&self, kill: Kill) {
        let worker = self.places.worker_of(kill.place);
        let pid = {
            let state = lock(&self.state);
            let seat = &state.seats[worker as usize];
            if seat.tag != kill.tag {
                return;
            }
            seat.pid
        };
        let later = |at| {
            lock(&self.state).kills.push(Kill { at, ..kill.clone() });
        };
        let still = || self.board.current_task(kill.place) == kill.task;
        if self.places.are_shared() {
            if !still() {
                return;
            }
            if self.board.heard(kill.place) == kill.task {
                self.abandon(worker, kill);
                return;
            }
            let patience = kill.asked_at + HEARING_PATIENCE;
            if Instant::now() < patience {
                later(patience);
                return;
            }
        }
        if pid == 0 {
            // The zygote has not said yet which process it is.
            if still() {
                later(Instant::now() + DRAIN_LOOK);
            }
            return;
        }
        kill_if(pid, still, || {
            lock(&self.state).kills.push(Kill {
                at: Instant::now() + KEPT,
                again: None,
                carried_out: true,
                ..kill.clone()
            });
        });
    }

    /// Waits no longer for a task whose worker lives and runs others: that worker takes no more, and the task is ended with it. A task that
    /// may be run again is not run twice at a time: it waits for that.
    fn abandon(&self, worker: u32, kill: Kill) {
        let id = kill.task;
        let mut ended = Ended::default();
        {
            let mut guard = lock(&self.state);
            let state = &mut *guard;
            if state.seats[worker as usize].tag != kill.tag {
                return;
            }
            let Some(again) = state.tasks.get(id).map(|task| task.retries_left > 0) else {
                return;
            };
            let seat = &mut state.seats[worker as usize];
            let pid = seat.shown_pid();
            seat.overdue.push(id);
            seat.asked_to_stop = true;
            state.kills.push(Kill {
                at: Instant::now() + KEPT,
                again: None,
                ..kill.clone()
            });
            if !(again && kill.why == Why::TimedOut)
                && let Some(mut task) = state.tasks.remove(id)
            {
                let named = kill.named.clone();
                let failure = match kill.why {
                    Why::TimedOut => Failure::TimedOut(TimedOut {
                        seconds: task.seconds(),
                        worker,
                        pid,
                        task: named,
                        after: After::RunsOn,
                    }),
                    Why::Interrupted => Failure::Interrupted(
                        Stopped {
                            worker,
                            pid,
                            task: named,
                        },
                        After::RunsOn,
                    ),
                };
                state.counts.lost += 1;
                state.counts.timed_out += u64::from(kill.why == Why::TimedOut);
                // It may still look at them.
                let blocks = std::mem::take(&mut task.blocks);
                state.seats[worker as usize].lent.extend(blocks);
                self.settle(state, id, task, Outcome::Failed(failure), &mut ended);
            }
        }
        self.request_stop(worker);
        ended.wake_waiters();
        self.after_settling(ended, &[]);
        self.wake_collector();
    }

    /// Kills the workers that run nothing but tasks that did not stop.
    fn end_drained(&self) {
        let drained: Vec<(u32, i32, u64, Vec<TaskId>)> = (0u32..)
            .zip(&lock(&self.state).seats)
            .filter(|(_, seat)| seat.tag != 0 && !seat.overdue.is_empty())
            .map(|(worker, seat)| (worker, seat.pid, seat.tag, seat.overdue.clone()))
            .collect();
        for (worker, pid, tag, overdue) in drained {
            let runs_nothing_else = || {
                self.places.of(worker).all(|place| {
                    let task = self.board.current_task(place);
                    task == 0 || overdue.contains(&task)
                })
            };
            if !runs_nothing_else() {
                continue;
            }
            // Stopped, it cannot take a task that was in nobody's hand at the look.
            let idle = || {
                runs_nothing_else()
                    && !self
                        .places
                        .of(worker)
                        .any(|place| self.board.is_taking(place))
            };
            kill_if(pid, idle, || {
                for kill in &mut lock(&self.state).kills {
                    kill.carried_out |= kill.tag == tag && overdue.contains(&kill.task);
                }
            });
        }
    }
}

/// Stops a process, and kills it if the condition holds then; else it goes on. `before` is called before the kill.
fn kill_if(pid: i32, condition: impl Fn() -> bool, before: impl FnOnce()) {
    let Some(process): Option<Pid> = pid_of(pid) else {
        return;
    };
    // Not reaped before this thread reads the zygote's message, but the pid is the zygote's to reap: stop it through the kernel's
    // own check that it still is our child's child, and look at its state before anything is decided.
    if rustix::process::kill_process(process, Signal::STOP).is_err() {
        return;
    }
    let patience = Instant::now() + STOP_PATIENCE;
    while !is_stopped(pid) && Instant::now() < patience {
        std::thread::yield_now();
    }
    if condition() {
        before();
        let _ = rustix::process::kill_process(process, KILL);
    } else {
        let _ = rustix::process::kill_process(process, Signal::CONT);
    }
}

/// Whether the kernel says that a process is stopped with all its threads, or gone: each thread stops by itself.
fn is_stopped(pid: i32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads
        .flatten()
        .all(|thread| is_thread_stopped(&thread.path().join("stat")))
}

fn is_thread_stopped(stat: &std::path::Path) -> bool {
    let Ok(stat) = std::fs::read_to_string(stat) else {
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
