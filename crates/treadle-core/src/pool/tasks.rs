//! The table of a pool's unfinished tasks.
//!
//! A task's id is its place in the table and that place's generation, so that an id which a damaged worker makes up names no task, or
//! at worst another unfinished task of the same pool; never memory.

use std::collections::TryReserveError;
use std::sync::Arc;
use std::time::Duration;

use treadle_shm::BlockRef;

use super::cell::Cell;
use super::outcome::{Bytes, Outcome, Reply};

/// A task's id; never 0, which means "none" in shared memory.
pub type TaskId = u64;

/// What may be asked of one task beyond running it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TaskOptions {
    /// How long it may run, from its start.
    pub timeout: Option<Duration>,
    /// How often it is run again after it raised, timed out, or lost its worker.
    pub retries: u32,
}

/// A block of the parent's arena that a task holds, and which allocation of that place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Where it stands.
    pub block: BlockRef,
    /// The allocation's serial.
    pub serial: u64,
}

/// One unfinished task.
#[derive(Debug)]
pub struct Task {
    /// What its future sees.
    pub cell: Arc<Cell<Outcome>>,
    /// What the payload's body is.
    pub kind: u32,
    /// When it was submitted, in nanoseconds of the monotonic clock.
    pub submitted_ns: u64,
    /// The payload, as it stands in the slot.
    pub payload: Bytes,
    /// The arena blocks that the payload refers to and that belong to this task alone.
    pub blocks: Vec<Held>,
    /// Where in the queue it was published; `None` while it waits in the backlog.
    pub position: Option<u64>,
    /// Time-out and retries.
    pub options: TaskOptions,
    /// How many times it may still be run again.
    pub retries_left: u32,
    /// How many workers died of it.
    pub deaths: u32,
    /// Which submission to its pool it is, counted from 1.
    pub number: u64,
    /// What its function is called: a place in the pool's table of names.
    pub label: u32,
    /// What a chunk has brought so far.
    pub parts: Vec<Reply>,
}

impl Task {
    /// Its time-out in seconds; 0 without one.
    pub fn seconds(&self) -> f64 {
        self.options.timeout.unwrap_or_default().as_secs_f64()
    }
}

#[derive(Debug, Default)]
struct Place {
    generation: u32,
    task: Option<Task>,
}

/// The table.
#[derive(Debug, Default)]
pub struct Tasks {
    places: Vec<Place>,
    free: Vec<u32>,
    count: usize,
}

fn id_of(index: u32, generation: u32) -> TaskId {
    u64::from(generation) << 32 | u64::from(index + 1)
}

impl Tasks {
    /// How many tasks are unfinished.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether no task is unfinished.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Makes room for one more task, now and when it leaves.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn make_room(&mut self) -> Result<(), TryReserveError> {
        if self.free.is_empty() {
            self.places.try_reserve(1)?;
            self.free.try_reserve(self.places.len() + 1)?;
        }
        Ok(())
    }

    /// Enters a task and returns its id.
    pub fn insert(&mut self, task: Task) -> TaskId {
        self.count += 1;
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.task = Some(task);
            return id_of(index, place.generation);
        }
        let index = self.places.len() as u32;
        self.places.push(Place {
            generation: 0,
            task: Some(task),
        });
        id_of(index, 0)
    }

    fn place(&mut self, id: TaskId) -> Option<&mut Place> {
        let index = (id as u32).checked_sub(1)?;
        self.places
            .get_mut(index as usize)
            .filter(|place| place.generation == (id >> 32) as u32)
    }

    /// Whether this id names an unfinished task.
    pub fn contains(&self, id: TaskId) -> bool {
        let place = (id as u32)
            .checked_sub(1)
            .and_then(|index| self.places.get(index as usize));
        place.is_some_and(|place| place.generation == (id >> 32) as u32 && place.task.is_some())
    }

    /// The task of this id.
    pub fn get(&mut self, id: TaskId) -> Option<&mut Task> {
        self.place(id)?.task.as_mut()
    }

    /// Takes the task of this id out; its id names nothing from now on.
    pub fn remove(&mut self, id: TaskId) -> Option<Task> {
        let place = self.place(id)?;
        let task = place.task.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(id as u32 - 1);
        self.count -= 1;
        Some(task)
    }

    /// Takes every task out.
    pub fn remove_all(&mut self) -> Vec<(TaskId, Task)> {
        let ids: Vec<TaskId> = (0u32..)
            .zip(&self.places)
            .filter(|(_, place)| place.task.is_some())
            .map(|(index, place)| id_of(index, place.generation))
            .collect();
        ids.into_iter()
            .filter_map(|id| self.remove(id).map(|task| (id, task)))
            .collect()
    }

    /// The ids and tasks, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        (0u32..).zip(&self.places).filter_map(|(index, place)| {
            Some((id_of(index, place.generation), place.task.as_ref()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Task {
        Task {
            cell: Arc::default(),
            kind: 0,
            submitted_ns: 0,
            payload: Bytes::copy_of(b""),
            blocks: Vec::new(),
            position: None,
            options: TaskOptions::default(),
            retries_left: 0,
            deaths: 0,
            number: 1,
            label: 0,
            parts: Vec::new(),
        }
    }

    #[test]
    fn an_id_is_never_zero_and_never_used_twice() {
        let mut tasks = Tasks::default();
        let first = tasks.insert(task());
        assert_ne!(first, 0);
        assert!(tasks.remove(first).is_some());
        let second = tasks.insert(task());
        assert_ne!(first, second);
        assert!(tasks.get(first).is_none());
        assert!(tasks.contains(second) && !tasks.contains(first) && !tasks.contains(0));
        assert!(tasks.remove(first).is_none());
        assert_eq!(tasks.len(), 1);
        assert!(tasks.get(0).is_none());
        assert!(tasks.get(u64::MAX).is_none());
    }
}
