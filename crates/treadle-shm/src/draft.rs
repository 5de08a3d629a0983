//! The draft: what a chunk has brought so far, kept in the lane, where it outlives the worker.
//!
//! ```text
//! body bytes ──►            ◄── references, 33 bytes each, the first at the end
//! ```
//!
//! One word says how much is whole, and of which part of which task's record it is the draft.
//!
//! *Guarantees*: a worker killed at any instruction leaves whole values only; a draft whose part was committed before the kill is
//! known by its number, so that nothing counts twice.
//! *Assumes*: the parent reads it after the worker's death; a worker has one chunk at a time.

use std::ptr::NonNull;

use crate::board::Board;
use crate::fault::point;
use crate::layout::{DRAFT_BYTES, Lane};
use crate::sync::Ordering;
use crate::worker::WorkerEnd;

/// Bytes of one reference in a draft: a block's, and one that says how it may be used.
pub const REFERENCE_BYTES: usize = 33;

/// A draft, copied out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// How many parts of the task's record were committed before.
    pub part: u32,
    /// The values.
    pub body: Vec<u8>,
    /// The references that go with them, in order.
    pub references: Vec<[u8; REFERENCE_BYTES]>,
}

/// `part (24 bits) | references (16) | body bytes (24)`
fn pack(part: u32, references: usize, body: usize) -> u64 {
    u64::from(part) << 40 | (references as u64) << 24 | body as u64
}

fn unpack(word: u64) -> (u32, usize, usize) {
    ((word >> 40) as u32, (word >> 24) as usize & 0xffff, word as usize & 0xff_ffff)
}

/// The words and bytes of one lane's draft.
struct View<'a> {
    lane: &'a Lane,
    start: NonNull<u8>,
}

impl View<'_> {
    fn read(&self) -> Option<Draft> {
        let (part, count, length) = unpack(self.lane.worker.drafted.load(Ordering::Acquire));
        if length + count * REFERENCE_BYTES > DRAFT_BYTES as usize {
            return None;
        }
        let mut body = vec![0; length];
        // SAFETY: the first `length` bytes lie inside the draft (just checked), which lies inside the mapping that `start` was
        // taken from; the target is our own. Its writer is this thread, or dead.
        unsafe { std::ptr::copy_nonoverlapping(self.start.as_ptr(), body.as_mut_ptr(), length) };
        let references = (0..count).map(|place| self.reference(place)).collect();
        Some(Draft { part, body, references })
    }

    fn reference_at(&self, place: usize) -> NonNull<u8> {
        let offset = DRAFT_BYTES as usize - (place + 1) * REFERENCE_BYTES;
        // SAFETY: callers have checked that this many references lie inside the draft.
        unsafe { self.start.add(offset) }
    }

    fn reference(&self, place: usize) -> [u8; REFERENCE_BYTES] {
        let mut bytes = [0; REFERENCE_BYTES];
        // SAFETY: as for the body.
        unsafe {
            std::ptr::copy_nonoverlapping(self.reference_at(place).as_ptr(), bytes.as_mut_ptr(), REFERENCE_BYTES);
        }
        bytes
    }
}

impl Board {
    fn draft(&self, worker: u32) -> View<'_> {
        View { lane: self.lane(worker), start: self.draft_start(worker) }
    }

    /// What a dead worker had finished of `task` and not committed.
    pub fn drafted(&self, worker: u32, task: u64) -> Option<Draft> {
        let view = self.draft(worker);
        if view.lane.worker.draft_of.load(Ordering::Acquire) != task {
            return None;
        }
        view.read()
    }

    /// Takes the items of the chunk `task` away that its worker has not begun: the first and the end.
    pub fn split(&self, worker: u32, task: u64) -> Option<(u32, u32)> {
        let words = &self.lane(worker).worker;
        words.span.split(|| words.current.load(Ordering::Acquire) == task)
    }
}

impl WorkerEnd {
    /// Starts a chunk of so many items: all may be taken, the draft is empty.
    ///
    /// # Panics
    /// With more than [`MOST_ITEMS`](crate::MOST_ITEMS).
    pub fn begin_chunk(&self, task: u64, items: u32) {
        let words = &self.lane().worker;
        // Nobody may take the last chunk's draft for this one's.
        words.draft_of.store(0, Ordering::Release);
        words.drafted.store(0, Ordering::Release);
        words.draft_of.store(task, Ordering::Release);
        words.span.begin(items);
    }

    /// Takes the chunk's next item; false when it has none, or none any more.
    pub fn next_item(&self) -> bool {
        self.lane().worker.span.take()
    }

    /// Leaves the items that were not taken.
    pub fn end_items(&self) {
        self.lane().worker.span.finish();
    }

    /// How many references the draft holds.
    pub fn draft_references(&self) -> usize {
        unpack(self.lane().worker.drafted.load(Ordering::Relaxed)).1
    }

    /// Appends a value and its references to the draft; false when they do not fit.
    pub fn draft(&self, value: &[u8], references: &[[u8; REFERENCE_BYTES]]) -> bool {
        let view = self.board().draft(self.worker());
        let word = &view.lane.worker.drafted;
        let (part, count, length) = unpack(word.load(Ordering::Relaxed));
        let (new_count, new_length) = (count + references.len(), length + value.len());
        if new_length + new_count * REFERENCE_BYTES > DRAFT_BYTES as usize {
            return false;
        }
        // SAFETY: the target lies behind what the draft holds and inside it (just checked); the source is ordinary memory. This lane
        // has one writer.
        unsafe {
            std::ptr::copy_nonoverlapping(value.as_ptr(), view.start.add(length).as_ptr(), value.len());
        }
        for (place, reference) in (count..).zip(references) {
            // SAFETY: as above.
            unsafe {
                std::ptr::copy_nonoverlapping(reference.as_ptr(), view.reference_at(place).as_ptr(), REFERENCE_BYTES);
            }
        }
        point("before-drafted");
        word.store(pack(part, new_count, new_length), Ordering::Release);
        point("after-drafted");
        true
    }

    /// The draft so far.
    pub fn read_draft(&self) -> Draft {
        // This side's own numbers are sound, or somebody wrote over the lane: then nothing of it is.
        self.board().draft(self.worker()).read().unwrap_or_default()
    }

    /// Empties the draft, as its part was committed.
    pub fn next_part(&self) {
        let word = &self.lane().worker.drafted;
        let (part, ..) = unpack(word.load(Ordering::Relaxed));
        word.store(pack(part + 1, 0, 0), Ordering::Release);
    }
}
