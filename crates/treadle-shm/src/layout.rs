//! Where things lie in a board's file: header, slots, lanes, rings; and the checks of a shape.
//!
//! ```text
//! 0        Header (one page)
//! 4096     Slot × slots                                  256 bytes each
//! …        (Lane, ring words, draft, more hands) × workers 256 + ring_bytes + 15 KiB + 32 (hands - 1) each
//! ```
//!
//! A lane's first hand stands among its words, on the cache line of its ring's tail, so that a worker of one task at a time touches
//! no other line.

use crate::error::ShmError;
use crate::pace::Pace;
use crate::park::{Doorbell, IdleSet, ParentBell};
use crate::slots::Slot;
use crate::span::Span;
use crate::sync::{AtomicU32, AtomicU64};
use std::mem::{align_of, size_of};

/// The most workers one board can have.
pub const MAX_WORKERS: u32 = 1024;
/// The most hands of all workers of one board together: a slot's state names its owner in 13 bits.
pub const MAX_HANDS: u32 = (1 << 13) - 1;
/// "treadle" and a zero byte.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"treadle\0");
/// Raised by every change of anything in this file, in `slots` or in `ring`.
pub(crate) const LAYOUT_VERSION: u32 = 4;
/// The header's room; a page, so that what follows is page-aligned.
pub(crate) const HEADER_BYTES: u64 = 4096;
/// Bytes of each lane's draft: what fits is committed as one record that stands in the ring.
pub(crate) const DRAFT_BYTES: u64 = 15 * 1024;
const MAX_SLOTS: u32 = 1 << 20; // 256 MiB of slots: more is surely a mistake
const MIN_RING: u32 = 256;
const MAX_RING: u32 = 1 << 30; // record lengths are 32 bits

/// The sizes of a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Task slots: a power of two, 2 to 2^20.
    pub slots: u32,
    /// Lanes, one a worker: 1 to [`MAX_WORKERS`].
    pub workers: u32,
    /// Bytes of each result ring: a power of two, 256 to 2^30.
    pub ring_bytes: u32,
    /// Tasks that one worker may have in hand: at least 1, and at most [`MAX_HANDS`] for all workers together.
    pub hands: u32,
}

impl Shape {
    pub(crate) fn check(&self) -> Result<(), ShmError> {
        let wrong = |text: String| Err(ShmError::Shape(text));
        if !self.slots.is_power_of_two() || !(2..=MAX_SLOTS).contains(&self.slots) {
            return wrong(format!("slots must be a power of two from 2 to {MAX_SLOTS}, not {}", self.slots));
        }
        if !(1..=MAX_WORKERS).contains(&self.workers) {
            return wrong(format!("workers must be 1 to {MAX_WORKERS}, not {}", self.workers));
        }
        if !self.ring_bytes.is_power_of_two() || !(MIN_RING..=MAX_RING).contains(&self.ring_bytes) {
            return wrong(format!(
                "ring_bytes must be a power of two from {MIN_RING} to {MAX_RING}, not {}",
                self.ring_bytes
            ));
        }
        if self.hands == 0 || u64::from(self.hands) * u64::from(self.workers) > MAX_HANDS.into() {
            return wrong(format!(
                "hands must be at least 1 and at most {MAX_HANDS} for all workers together, not {} for each of {}",
                self.hands, self.workers
            ));
        }
        Ok(())
    }

    /// How many tasks may be in hand at the same time.
    pub fn owners(&self) -> u32 {
        self.workers * self.hands
    }

    /// The file's size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.lane_offset(self.workers)
    }

    pub(crate) fn lane_offset(&self, worker: u32) -> u64 {
        let more = u64::from(self.hands.saturating_sub(1)) * size_of::<Hand>() as u64;
        let lane = size_of::<Lane>() as u64 + u64::from(self.ring_bytes) + DRAFT_BYTES + more.next_multiple_of(64);
        HEADER_BYTES + u64::from(self.slots) * size_of::<Slot>() as u64 + u64::from(worker) * lane
    }

    pub(crate) fn ring_offset(&self, worker: u32) -> u64 {
        self.lane_offset(worker) + size_of::<Lane>() as u64
    }

    pub(crate) fn draft_offset(&self, worker: u32) -> u64 {
        self.ring_offset(worker) + u64::from(self.ring_bytes)
    }

    /// Where the hands of a worker beyond its first begin.
    pub(crate) fn hands_offset(&self, worker: u32) -> u64 {
        self.draft_offset(worker) + DRAFT_BYTES
    }
}

/// What lies at the start of the file. Written by the parent unless said otherwise.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Header {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU32,
    pub(crate) slots: AtomicU32,
    pub(crate) workers: AtomicU32,
    pub(crate) ring_bytes: AtomicU32,
    pub(crate) hands: AtomicU32,
    /// How long a side may spin before it sleeps, in nanoseconds; 0 = never.
    pub(crate) spin_nanoseconds: AtomicU32,
    /// The CPU (plus 1) of the parent's thread that last waited or woke somebody.
    pub(crate) parent_cpu: AtomicU32,
    /// The queue's head hint; advanced by whoever passes it.
    pub(crate) queue_head: Line<AtomicU64>,
    /// Armed by the parent, disarmed by the worker that rings, by compare-and-swap.
    pub(crate) parent: ParentBell,
    /// Each bit set by its worker, cleared by it or by whoever will ring it.
    pub(crate) idle: IdleSet,
    /// Marked by whoever wakes a worker, and by workers that hold back.
    pub(crate) pace: Pace,
}

/// A worker's lane: its words, then (after this struct) its ring.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Lane {
    pub(crate) worker: WorkerWords,
    pub(crate) parent: ParentWords,
    /// Rung by the parent, and by a worker that passes a wake-up on.
    pub(crate) door: Line<Doorbell>,
    _spare: Line<AtomicU64>,
}

/// Written by the worker only (and cleared by the parent after its death).
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct WorkerWords {
    /// The ring's tail; its store is the commit point.
    pub(crate) tail: AtomicU64,
    /// The task in hand, 0 = none.
    pub(crate) current: AtomicU64,
    /// When it was claimed, in nanoseconds of the monotonic clock.
    pub(crate) started: AtomicU64,
    /// Which items of the chunk in hand have not been begun; shortened by the parent too.
    pub(crate) span: Span,
    /// How much of the draft is whole, and which part it is.
    pub(crate) drafted: AtomicU64,
    /// The task that the draft is of.
    pub(crate) draft_of: AtomicU64,
    /// The worker's CPU plus 1.
    pub(crate) cpu: AtomicU32,
    /// Not 0 while the worker waits for room in its ring.
    pub(crate) wants_room: AtomicU32,
    /// The task for whose interruption the worker was last called and heard it.
    pub(crate) heard: AtomicU64,
}

/// What a worker of several tasks at a time has in one of its hands beyond the first; the words mean what those of the lane mean.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Hand {
    pub(crate) current: AtomicU64,
    pub(crate) started: AtomicU64,
    pub(crate) heard: AtomicU64,
    pub(crate) interrupt: AtomicU64,
}

/// The words of one hand, wherever they lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandWords<'a> {
    pub(crate) current: &'a AtomicU64,
    pub(crate) started: &'a AtomicU64,
    pub(crate) heard: &'a AtomicU64,
    pub(crate) interrupt: &'a AtomicU64,
}

/// Written by the parent only.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct ParentWords {
    /// The ring's head as the worker may see it.
    pub(crate) head: AtomicU64,
    /// Not 0 once the worker shall leave.
    pub(crate) stop: AtomicU32,
    /// The task that shall be interrupted, 0 = none.
    pub(crate) interrupt: AtomicU64,
}

/// A cache line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Line<T>(pub(crate) T);

const _: () = assert!(size_of::<Header>() as u64 <= HEADER_BYTES);
const _: () = assert!(size_of::<Lane>() == 256 && align_of::<Lane>() == 64);
const _: () = assert!(size_of::<Hand>() == 32);
const _: () = assert!(size_of::<Slot>() == 256 && align_of::<Slot>() == 64);
