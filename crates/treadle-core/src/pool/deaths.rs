//! What a process pool does when workers end: by plan, by accident, for a task's sake, or all at once.
//!
//! *Guarantees*
//! - A worker's death costs the calls that it was running and no other (what a chunk had brought before is kept).
//! - A task that has killed [`MOST_DEATHS`] workers is failed, however many retries it has.
//! - Deaths without one finished task between them are bounded: then the pool is broken, and every task ends with the reason.

use std::sync::Arc;

use rustix::process::Signal;
use treadle_shm::RingReader;

use super::damage::damage_reason;
use super::deadlines::{Kill, Why};
use super::drain::Ended;
use super::lock;
use super::outcome::{After, Ending, Failure, Named, Outcome, Reply, Stopped, TimedOut};
use super::processes::{Life, ProcessPool, State};
use super::submit::refill;
use super::supervisor::{KILL, Order};
use super::tasks::{Held, Task, TaskId};

/// A task that has killed this many workers is failed.
const MOST_DEATHS: u32 = 3;

/// How many workers may die in a row, with no task finished in between, before the pool is broken: each worker three times, and
/// a few more for small pools.
fn most_deaths_in_a_row(workers: u32) -> u32 {
    workers.saturating_mul(MOST_DEATHS).saturating_add(8)
}

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
        let recovered = self.board.recover_all(self.places.lanes_of(worker));
        let damaged = recovered.iter().map(|hand| hand.damaged).max().unwrap_or(0);
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
            let condemned: Vec<Kill> = (state.kills.iter())
                .filter(|kill| kill.tag == tag)
                .cloned()
                .collect();
            state.kills.retain(|kill| kill.tag != tag);
            if !expected && condemned.is_empty() {
                state.counts.deaths += 1;
                state.deaths_in_a_row += 1;
            }
            if damaged > 0 {
                self.break_down_with(state, &damage_reason(damaged), &mut ended);
            }
            for stray in strays {
                self.bereave(
                    state,
                    stray.id(),
                    worker,
                    pid,
                    &ending,
                    &condemned,
                    &mut ended,
                    &mut blocks,
                );
            }
            if state.deaths_in_a_row > most_deaths_in_a_row(self.places.workers()) {
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
            seat.said_pid = 0;
            seat.ready = false;
            seat.overdue.clear();
            if !replace
                && state.life == Life::ShuttingDown
                && state.seats.iter().all(|seat| seat.tag == 0)
            {
                state.life = Life::Ended;
            }
        }
        for lane in self.places.lanes_of(worker) {
            self.board.reset_lane(lane);
            readers[lane as usize] = RingReader::new(self.board.clone(), lane);
        }
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
        condemned: &[Kill],
        ended: &mut Ended,
        blocks: &mut Vec<Held>,
    ) {
        let mine = |kill: &&Kill| kill.task == id;
        let why = condemned.iter().find(mine).map(|kill| kill.why);
        // The pool ended the worker for another task's sake.
        let other = match why {
            None => condemned.iter().find(|kill| kill.carried_out),
            Some(_) => None,
        };
        let culprit = other.map(|kill| kill.named.clone());
        let Some(task) = state.tasks.get(id) else {
            return;
        };
        // A worker that was killed for the task's time-out, or for another's, did not die of the task.
        task.deaths += u32::from(why.is_none() && other.is_none());
        let may_run_again = match other {
            Some(_) => task.options.retries > 0,
            None => task.retries_left > 0 && task.deaths < MOST_DEATHS,
        };
        let again = may_run_again && why != Some(Why::Interrupted) && state.broken.is_none();
        if again {
            task.retries_left -= u32::from(other.is_none());
            task.position = None;
            task.parts.clear();
            state.counts.retried += 1;
            state.backlog.push_back(id);
            return;
        }
        // A part that was committed before the death was read: its draft says the same again.
        let drafted = (self.places.lanes_of(worker))
            .find_map(|lane| self.board.drafted(lane, id))
            .filter(|draft| draft.part as usize == task.parts.len() && !draft.body.is_empty())
            .and_then(|draft| {
                Reply::of_draft(&draft, state.seats[worker as usize].arena.as_deref()).ok()
            });
        let Some(mut task) = state.tasks.remove(id) else {
            return;
        };
        let named = state.name(&task);
        let failure = match why {
            Some(Why::TimedOut) => Failure::TimedOut(TimedOut {
                seconds: task.seconds(),
                worker,
                pid,
                task: named,
                after: After::Replaced,
            }),
            Some(Why::Interrupted) => Failure::Interrupted(
                Stopped {
                    worker,
                    pid,
                    task: named,
                },
                After::Replaced,
            ),
            None => Failure::WorkerDied {
                worker,
                pid,
                ending: culprit.map_or_else(|| ending.clone(), Ending::KilledFor),
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
