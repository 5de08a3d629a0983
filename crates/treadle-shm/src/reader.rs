//! The parent's end of one worker's result ring.

use crate::board::Board;
use crate::error::ShmError;
use crate::ring::{self, Record};
use crate::sync::{Ordering, fence};
use std::sync::Arc;

/// What a reader's scratch memory may keep between records.
const KEPT_SCRATCH: usize = 64 * 1024;

/// Reads what one worker committed; one for each lane, in the parent.
#[derive(Debug)]
pub struct RingReader {
    board: Arc<Board>,
    worker: u32,
    scratch: Vec<u8>,
}

impl RingReader {
    /// The reader of `worker`'s ring; it stays good when the lane is reset.
    ///
    /// # Panics
    /// When there is no such worker.
    pub fn new(board: Arc<Board>, worker: u32) -> RingReader {
        board.lane(worker);
        RingReader { board, worker, scratch: Vec::new() }
    }

    /// Hands every committed record to `each`, in order, frees its room, and wakes a worker that waited for room.
    ///
    /// Returns the number of records. The bytes are a private copy.
    ///
    /// # Errors
    /// `Corrupt` when the ring holds what no worker following the protocol writes: replace that worker. Records before
    /// the damage were handed out.
    pub fn read(&mut self, each: &mut dyn FnMut(Record<'_>)) -> Result<usize, ShmError> {
        let place = &self.board.read_heads[self.worker as usize];
        let ring = self.board.ring(self.worker);
        let count = ring::read(ring, place, &mut self.scratch, each);
        if matches!(count, Ok(0)) {
            return count;
        }
        self.scratch.shrink_to(KEPT_SCRATCH);
        let lane = self.board.lane(self.worker);
        fence(Ordering::SeqCst); // [room] move the head before looking whether the worker wants room
        if lane.worker.wants_room.load(Ordering::SeqCst) != 0 {
            lane.door.0.ring();
        }
        count
    }

    /// Whether nothing is committed that was not read.
    pub fn is_empty(&self) -> bool {
        let head = self.board.read_heads[self.worker as usize].load(Ordering::Relaxed);
        head == self.board.ring(self.worker).tail.load(Ordering::Acquire)
    }
}
