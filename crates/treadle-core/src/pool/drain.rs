//! Out of the rings: records become outcomes, outcomes settle tasks.

use std::sync::atomic::Ordering;
use std::time::Duration;

use treadle_shm::{PeerArena, RingReader};

use super::cell::Marks;
use super::deadlines::Why;
use super::lock;
use super::outcome::{After, Bytes, Failure, Outcome, Reply, Stopped, TimedOut};
use super::processes::{Note, ProcessPool, State};
use super::submit::refill;
use super::tasks::{Held, Task, TaskId};
use super::wire::{self, Times, WireError};

enum Record {
    Outcome(Outcome, Option<Times>),
    Event(u32, Bytes),
}

/// What a record of a task says, and its times if it has them; what cannot be read fails the task.
fn outcome(kind: u32, mut bytes: &[u8], arena: Option<&PeerArena>) -> (Outcome, Option<Times>) {
    let mut times = None;
    let mut read = || -> Result<Reply, WireError> {
        if wire::ends_task(kind) {
            let (found, rest) = Times::read(bytes)?;
            (times, bytes) = (Some(found), rest);
        }
        Reply::read(kind, bytes, arena)
    };
    match read() {
        Ok(reply) => (Outcome::Reply(reply), times),
        Err(error) => (Outcome::Failed(Failure::Unreadable(error.0)), times),
    }
}

/// Whom to tell, once no lock is held.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) count: usize,
    /// When the replies were drained, in nanoseconds of the monotonic clock.
    pub(super) now_ns: u64,
    pub(super) waited: bool,
    pub(super) ready: bool,
    pub(super) notes: bool,
    /// Tasks went from the backlog into the queue, where a worker may sleep.
    pub(super) published: bool,
    pub(super) observed: Vec<TaskId>,
}

impl Ended {
    pub(super) fn mark(&mut self, id: TaskId, marks: Marks) {
        self.waited |= marks.waited;
        if marks.observed {
            self.observed.push(id);
        }
    }

    pub(super) fn wake_waiters(&mut self) {
        self.waited = true;
    }
}

impl ProcessPool {
    /// Takes every record out of the rings; returns how many tasks it settled. Another thread that drains already is not waited for.
    pub fn drain(&self) -> usize {
        if !self.is_mine() {
            return 0;
        }
        match self.readers.try_lock() {
            Ok(mut readers) => self.drain_with(&mut readers),
            Err(_) => 0,
        }
    }

    pub(super) fn drain_with(&self, readers: &mut [RingReader]) -> usize {
        let mut records: Vec<(u32, TaskId, Record)> = Vec::new();
        let mut corrupt = Vec::new();
        for (lane, reader) in (0u32..).zip(readers.iter_mut()) {
            if reader.is_empty() {
                continue;
            }
            let worker = self.places.worker_of_lane(lane);
            let mut arena = None;
            let read = reader.read(&mut |record| {
                let kind = record.kind & wire::BODY;
                let parsed = if kind >= wire::READY {
                    Record::Event(kind, Bytes::copy_of(record.bytes))
                } else {
                    if arena.is_none() {
                        arena = lock(&self.state).seats[worker as usize].arena.clone();
                    }
                    let (outcome, times) = outcome(record.kind, record.bytes, arena.as_deref());
                    Record::Outcome(outcome, times)
                };
                records.push((worker, record.task, parsed));
            });
            if read.is_err() {
                corrupt.push(worker);
            }
        }
        for worker in corrupt {
            self.kill_worker(worker);
        }
        let mut liars = Vec::new();
        if records.is_empty() {
            return 0;
        }
        let mut ended = Ended {
            now_ns: treadle_shm::monotonic_nanoseconds(),
            ..Ended::default()
        };
        let mut settled = 0;
        {
            let mut guard = lock(&self.state);
            let state = &mut *guard;
            for (worker, task, record) in records {
                match record {
                    Record::Event(kind, body) => {
                        self.note_event(state, worker, task, kind, body, &mut ended)
                    }
                    Record::Outcome(..)
                        if state.broken.is_none() && state.tasks.get(task).is_none() =>
                    {
                        // Nobody waits for it any more, or it is no task of ours: then this worker's memory, or its slot, was
                        // overwritten, and its death shows what is missing.
                        if !state.seats[worker as usize].overdue.contains(&task) {
                            liars.push(worker);
                        }
                    }
                    Record::Outcome(outcome, times) => {
                        let answer = (outcome, times);
                        settled +=
                            usize::from(self.accept(state, worker, task, answer, &mut ended));
                    }
                }
            }
            ended.published = refill(state);
        }
        for worker in liars {
            self.kill_worker(worker);
        }
        self.after_settling(ended, &[]);
        settled
    }

    /// A worker's reply to a task, or a part of it. Returns whether the task is settled by it.
    pub(super) fn accept(
        &self,
        state: &mut State,
        worker: u32,
        id: TaskId,
        (outcome, times): (Outcome, Option<Times>),
        ended: &mut Ended,
    ) -> bool {
        state.deaths_in_a_row = 0;
        if self.settings.metered
            && let Outcome::Reply(reply) = &outcome
        {
            let out_of_band = reply.buffers.iter().map(|buffer| buffer.mapped.len()).sum();
            state.results.add(reply.body().len(), out_of_band, None);
        }
        let mut outcome = match outcome {
            Outcome::Reply(reply) if reply.kind == wire::VALUES_PART => {
                if let Some(task) = state.tasks.get(id) {
                    task.parts.push(reply);
                }
                return false;
            }
            outcome => outcome,
        };
        let seat = &mut state.seats[worker as usize];
        seat.tasks_done += 1;
        let raised = matches!(&outcome, Outcome::Reply(reply) if reply.kind == wire::RAISED);
        let shared = self.places.are_shared();
        let asked = |why: Why| {
            let mut kills = state.kills.iter();
            kills.any(|kill| kill.task == id && kill.why == why)
        };
        let interrupted = asked(Why::Interrupted);
        // In a worker of one task the kill is what ends it, and a record that came before counts.
        let stopped_in_time = shared
            && !interrupted
            && matches!(&outcome, Outcome::Reply(reply) if wire::is_raised(reply.kind))
            && asked(Why::TimedOut);
        if shared {
            self.forget_requests(state, id);
        }
        let Some(task) = state.tasks.get(id) else {
            return false;
        };
        if (raised || stopped_in_time)
            && !interrupted
            && task.retries_left > 0
            && !task.cell.settled()
        {
            task.retries_left -= 1;
            task.position = None;
            task.parts.clear();
            state.counts.retried += 1;
            state.backlog.push_back(id);
            return false;
        }
        let Some(task) = state.tasks.remove(id) else {
            return false;
        };
        if stopped_in_time {
            // Whatever it raised, it did so because it was told to stop.
            let failure = Failure::TimedOut(TimedOut {
                seconds: task.seconds(),
                worker,
                pid: state.seats[worker as usize].shown_pid(),
                task: state.name(&task),
                after: After::Stopped,
            });
            state.counts.lost += 1;
            state.counts.timed_out += 1;
            self.release_blocks(state, worker, &task);
            self.settle(state, id, task, Outcome::Failed(failure), ended);
            return true;
        }
        if interrupted && let Outcome::Reply(reply) = &mut outcome {
            reply.stopped = Some(Box::new(Stopped {
                worker,
                pid: state.seats[worker as usize].shown_pid(),
                task: state.name(&task),
            }));
        }
        state.counts.answered += 1;
        if let Some(times) = times
            && self.settings.metered
        {
            let meters = match state.meters.of(task.label.into()) {
                Some(meters) => meters,
                None => {
                    let name = state.labels.name(task.label);
                    state.meters.enter(task.label.into(), name)
                }
            };
            meters.add(task.submitted_ns, times, ended.now_ns);
        }
        self.release_blocks(state, worker, &task);
        self.settle(state, id, task, outcome, ended);
        true
    }

    /// What becomes of the blocks of a task that a worker is through with.
    fn release_blocks(&self, state: &mut State, worker: u32, task: &Task) {
        if task.options.retries > 0 {
            // The worker copied what it needed: blocks of a task that may run again are never released by a worker.
            self.give_back(&task.blocks);
        } else if !task.blocks.is_empty() {
            self.lend(&mut state.seats[worker as usize].lent, &task.blocks);
        }
    }

    /// Remembers blocks that a worker releases itself when the last view of them is gone, in case it dies before.
    pub(super) fn lend(&self, lent: &mut Vec<Held>, blocks: &[Held]) {
        if lent.len() >= 64 {
            let arena = lock(&self.arena);
            lent.retain(|held| arena.is_live(held.block, held.serial));
        }
        lent.extend_from_slice(blocks);
    }

    /// Stores a removed task's outcome and remembers whom to tell.
    pub(super) fn settle(
        &self,
        state: &mut State,
        id: TaskId,
        task: Task,
        outcome: Outcome,
        ended: &mut Ended,
    ) {
        if task.options.timeout.is_some() {
            state.timed = state.timed.saturating_sub(1);
            if state.timed == 0 {
                state.shortest_timeout = Duration::MAX;
            }
        }
        let outcome = if task.parts.is_empty() {
            outcome
        } else {
            Outcome::Parts(task.parts, Box::new(outcome))
        };
        self.unfinished.fetch_sub(1, Ordering::SeqCst);
        ended.count += 1;
        if let Some(marks) = task.cell.finish(outcome) {
            ended.mark(id, marks);
        }
    }

    /// What follows when tasks have ended, once no lock is held.
    pub(super) fn after_settling(&self, ended: Ended, freed: &[Held]) {
        self.give_back(freed);
        if !ended.observed.is_empty() {
            self.observed
                .fetch_sub(ended.observed.len(), Ordering::SeqCst);
            lock(&self.endings).extend_from_slice(&ended.observed);
            self.wake_collector();
        }
        if ended.published {
            self.board.wake_for_work();
        }
        if ended.notes {
            self.wake_collector();
        }
        if ended.waited || ended.ready {
            self.board.ring_parent();
        }
        if ended.count > 0 && self.unfinished.load(Ordering::SeqCst) == 0 {
            self.finish_shutdown_if_due();
        }
    }

    pub(super) fn note_event(
        &self,
        state: &mut State,
        worker: u32,
        task: TaskId,
        kind: u32,
        body: Bytes,
        ended: &mut Ended,
    ) {
        match kind {
            wire::READY => {
                let seat = &mut state.seats[worker as usize];
                seat.ready = true;
                seat.said_pid = wire::read_ready(body.as_slice());
                ended.ready = true;
            }
            wire::RETIRED => state.seats[worker as usize].retired = true,
            wire::INITIALIZER_FAILED => {
                let text = String::from_utf8_lossy(body.as_slice()).into_owned();
                self.break_down_with(state, &text, ended);
            }
            wire::NOTE => {
                let task = state.tasks.get(task).map_or(0, |task| task.number);
                lock(&self.notes).push(Note { worker, task, body });
                ended.notes = true;
            }
            _ => {}
        }
    }
}
