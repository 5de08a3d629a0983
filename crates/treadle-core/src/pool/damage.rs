//! Shared memory that a process wrote over: found while somebody waits, and never waited on for ever.
//!
//! *Guarantees*: a task whose slot, journal or record was overwritten is found and ended; a queue that cannot move any more breaks the pool
//! with the reason. A sound task is never taken for a lost one.
//! *Assumes*: `readers` is held from the search to the verdict, so that nobody else takes records out meanwhile.

use std::collections::HashSet;

use treadle_shm::RingReader;

use super::drain::Ended;
use super::lock;
use super::outcome::{Failure, Outcome};
use super::processes::ProcessPool;
use super::tasks::TaskId;

/// A published task that was nowhere when it was looked for, and the position that it was published at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stray {
    id: TaskId,
    position: u64,
}

impl ProcessPool {
    /// Finds published tasks that are neither in their slot, nor in a worker's hands, nor in a record.
    ///
    /// The order is what makes it right: a claimer journals a task before it frees the slot, and commits the record before it clears the
    /// journal. What is in no slot is therefore in a journal, or its record is there by the time the journals have been read.
    pub(super) fn find_strays(&self, readers: &mut [RingReader]) -> Vec<Stray> {
        let mut strays: Vec<Stray> = lock(&self.state)
            .tasks
            .iter()
            .filter_map(|(id, task)| Some((id, task.position?)))
            .filter(|(id, position)| !self.board.holds(*position, *id))
            .map(|(id, position)| Stray { id, position })
            .collect();
        if strays.is_empty() {
            return strays;
        }
        let in_hand: HashSet<TaskId> = self
            .places
            .all()
            .map(|place| self.board.current_task(place))
            .collect();
        strays.retain(|stray| !in_hand.contains(&stray.id));
        if !strays.is_empty() {
            self.drain_with(readers);
            let mut state = lock(&self.state);
            strays.retain(|stray| {
                let task = state.tasks.get(stray.id);
                task.is_some_and(|task| task.position == Some(stray.position))
            });
        }
        strays
    }

    /// Looks whether the pool's memory is sound, and ends what it finds lost.
    pub(super) fn inspect(&self) {
        let damage = self.board.damage();
        if damage > 0 {
            self.break_down(&damage_reason(damage));
            return;
        }
        // A head hint or a count of sleepers that was overwritten with a number that could be right.
        self.board.mend();
        // Asked again: a worker's order to leave may have been overwritten too.
        self.finish_shutdown_if_due();
        let mut readers = lock(&self.readers);
        let strays = self.find_strays(&mut readers);
        if strays.is_empty() {
            return;
        }
        let mut ended = Ended::default();
        let mut blocks = Vec::new();
        {
            let mut state = lock(&self.state);
            for stray in strays {
                if let Some(mut task) = state.tasks.remove(stray.id) {
                    state.counts.lost += 1;
                    blocks.append(&mut task.blocks);
                    let failure = Failure::Unreadable(
                        "a worker wrote over the pool's shared memory, and the task was lost with it",
                    );
                    self.settle(
                        &mut state,
                        stray.id,
                        task,
                        Outcome::Failed(failure),
                        &mut ended,
                    );
                }
            }
        }
        drop(readers);
        ended.wake_waiters();
        self.after_settling(ended, &blocks);
    }
}

/// Why a pool whose queue was overwritten can run nothing any more.
pub(super) fn damage_reason(words: usize) -> String {
    format!(
        "a worker process wrote over the pool's shared memory ({words} damaged places in its queue)\n\nhint: native code in the functions \
         that ran here writes outside its own memory; run them with PYTHONMALLOC=debug, or under a sanitizer or valgrind"
    )
}

impl Stray {
    pub(super) fn id(self) -> TaskId {
        self.id
    }
}
