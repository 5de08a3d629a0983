//! Taking back what no worker has begun: tasks, and the rest of a chunk.

use std::sync::atomic::Ordering;

use super::drain::Ended;
use super::lock;
use super::processes::ProcessPool;
use super::submit::refill;
use super::tasks::{Task, TaskId};

impl ProcessPool {
    /// Takes a task back if no worker has it yet.
    pub fn cancel(&self, id: TaskId) -> bool {
        if !self.is_mine() {
            return false;
        }
        let mut ended = Ended::default();
        let blocks = {
            let mut guard = lock(&self.state);
            let state = &mut *guard;
            let Some(task) = state.tasks.get(id) else {
                return false;
            };
            let taken_back = match task.position {
                Some(position) => self.board.retract(position, id),
                // It stays in the backlog, where its id names nothing any more: looking for it would make cancelling many quadratic.
                None => true,
            };
            if !taken_back {
                return false;
            }
            let Some(task) = state.tasks.remove(id) else {
                return false;
            };
            if task.options.timeout.is_some() {
                state.timed = state.timed.saturating_sub(1);
            }
            state.counts.cancelled += 1;
            self.unfinished.fetch_sub(1, Ordering::SeqCst);
            ended.count += 1;
            if let Some(marks) = task.cell.cancel() {
                // The canceller itself completes the future; only sleepers are told here.
                ended.waited |= marks.waited;
                if marks.observed {
                    self.observed.fetch_sub(1, Ordering::SeqCst);
                }
            }
            ended.published = refill(state);
            task.blocks
        };
        self.after_settling(ended, &blocks);
        true
    }

    /// Cancels every task that no worker has taken; returns their ids. With `spare_starting`, as many stay as workers are
    /// being started for them: the standard library's pool counts those as begun.
    pub fn cancel_all(&self, spare_starting: bool) -> Vec<TaskId> {
        if !self.is_mine() {
            return Vec::new();
        }
        let waiting: Vec<TaskId> = {
            let state = lock(&self.state);
            let starting = state
                .seats
                .iter()
                .filter(|seat| seat.tag != 0 && !seat.ready && !seat.retired)
                .count()
                * self.places.each() as usize;
            let waits = |(id, task): &(TaskId, &Task)| {
                task.position
                    .is_none_or(|position| self.board.is_waiting(position, *id))
            };
            let spared = if spare_starting { starting } else { 0 };
            let tasks = state.tasks.iter().filter(waits).skip(spared);
            tasks.map(|(id, _)| id).collect()
        };
        waiting
            .into_iter()
            .rev()
            .filter(|id| self.cancel(*id))
            .collect()
    }

    /// Whether a worker has taken this task.
    pub fn is_running(&self, id: TaskId) -> bool {
        if !self.is_mine() {
            return false;
        }
        let mut state = lock(&self.state);
        match state.tasks.get(id).map(|task| task.position) {
            Some(Some(position)) => !self.board.is_waiting(position, id),
            _ => false,
        }
    }

    /// Takes the items of a running chunk back that its worker has not begun, when another worker has nothing to do: the first of them
    /// and the end. They are then nobody's.
    pub fn split(&self, id: TaskId) -> Option<(u32, u32)> {
        if !self.is_mine() || self.board.idle_workers() == 0 || self.board.queued() > 0 {
            return None;
        }
        // Only a lane of one hand runs chunks.
        let place = (self.places.all())
            .find(|place| self.board.current_task(*place) == id)
            .filter(|_| self.places.hands() == 1 && lock(&self.state).tasks.get(id).is_some())?;
        self.board.split(self.places.lane_of(place), id)
    }
}
