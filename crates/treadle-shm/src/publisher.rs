//! The parent's end of the task queue.

use crate::board::Board;
use crate::sync::Ordering;
use std::sync::Arc;

/// Publishes tasks; one for each board, in the parent.
#[derive(Debug)]
pub struct Publisher {
    board: Arc<Board>,
    next: u64,
}

impl Publisher {
    /// Takes up the queue where it stands. A second live publisher for the same board would find the queue full or
    /// spoil its order; the caller keeps one.
    pub fn new(board: Arc<Board>) -> Publisher {
        let next = board.published.load(Ordering::Acquire);
        Publisher { board, next }
    }

    /// Publishes a task and returns its position, which [`Board::retract`] takes; `None` when the queue is full.
    ///
    /// Wakes nobody: [`Board::wake_for_work`] does, once for any number of tasks.
    ///
    /// # Panics
    /// When the payload is longer than [`SLOT_PAYLOAD`](crate::SLOT_PAYLOAD) bytes.
    pub fn publish(&mut self, task: u64, kind: u32, payload: &[u8]) -> Option<u64> {
        let position = self.next;
        if !self.board.queue().publish(position, task, kind, payload) {
            return None;
        }
        self.next += 1;
        self.board.published.store(self.next, Ordering::Release);
        Some(position)
    }

    /// Whether a task can be published now.
    pub fn has_room(&self) -> bool {
        self.board.queue().has_room(self.next)
    }
}
