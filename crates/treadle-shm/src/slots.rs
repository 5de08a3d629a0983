//! The task queue: fixed slots that one parent publishes and any worker claims by one compare-and-swap.
//!
//! A slot's state word packs `position | owner | tag`. Slot `i` of `n` serves the positions `i, i+n, i+2n, …`:
//! `FREE(p)` awaits the publishing of position `p`; `READY(p)` holds a task; `TAKEN(p, w)` is being copied out by
//! worker `w`; then it is `FREE(p+n)`. A retracted task goes from `READY(p)` to `FREE(p+n)` at once.
//!
//! *Guarantees*: a published task is claimed by at most one worker or retracted, never both; a claimer killed at any
//! instruction leaves its slot `TAKEN` with its number, or its task in the journal.
//! *Assumes*: one publisher at a time; worker numbers are not shared; a dead worker's slots are reclaimed after its
//! death. The head is a hint that is never above the first unclaimed position: whoever passes it may advance it.
#![allow(unreachable_pub)] // the loom tests, an outside crate, reach these

use crate::fault::point;
use crate::sync::{AtomicU64, Ordering};

/// Words of payload that fit into a slot; two are enough for loom.
const PAYLOAD_WORDS: usize = if cfg!(loom) { 2 } else { 26 };
/// Bytes of payload that fit into one task slot (a slot is 256 bytes).
pub const SLOT_PAYLOAD: usize = PAYLOAD_WORDS * 8;

const TAG_BITS: u32 = 2;
const OWNER_BITS: u32 = 13; // MAX_HANDS is 2^13 - 1
const POSITION_SHIFT: u32 = TAG_BITS + OWNER_BITS; // 49 bits of position: 1.8 years at 10 million tasks a second
const FREE: u64 = 0;
const READY: u64 = 1;
const TAKEN: u64 = 2;

fn free(position: u64) -> u64 {
    (position << POSITION_SHIFT) | FREE
}
fn ready(position: u64) -> u64 {
    (position << POSITION_SHIFT) | READY
}
fn taken(position: u64, owner: u32) -> u64 {
    (position << POSITION_SHIFT) | (u64::from(owner) << TAG_BITS) | TAKEN
}
fn position_of(state: u64) -> u64 {
    state >> POSITION_SHIFT
}
fn owner_of(state: u64) -> u32 {
    ((state >> TAG_BITS) & ((1 << OWNER_BITS) - 1)) as u32
}
fn tag_of(state: u64) -> u64 {
    state & ((1 << TAG_BITS) - 1)
}

/// One task slot; only atomics, so that any bytes another process writes are mere values.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Slot {
    state: AtomicU64,
    task: AtomicU64,
    /// Payload length in the low half, kind in the high half.
    measure: AtomicU64,
    payload: [AtomicU64; PAYLOAD_WORDS],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot>() == 256);

impl Slot {
    /// A slot over ordinary memory, free for position `index`.
    #[cfg(loom)]
    pub fn new(index: u64) -> Slot {
        Slot {
            state: AtomicU64::new(free(index)),
            task: AtomicU64::new(0),
            measure: AtomicU64::new(0),
            payload: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// A task that was claimed; its payload lies in the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The task's id.
    pub task: u64,
    /// What the payload is, as the publisher said.
    pub kind: u32,
    /// Payload bytes in the buffer.
    pub len: usize,
}

/// What [`Queue::reclaim`] found.
#[derive(Debug, Default)]
pub struct Reclaimed {
    /// Tasks in slots that the dead worker had taken.
    pub claimed: Vec<u64>,
    /// Slots whose state no process following the protocol can have written.
    pub damaged: usize,
}

/// The queue's code over the slots and the head, wherever they lie.
#[derive(Clone, Copy, Debug)]
pub struct Queue<'a> {
    slots: &'a [Slot],
    head: &'a AtomicU64,
}

impl<'a> Queue<'a> {
    /// A queue over `slots`, whose number must be a power of two.
    pub fn new(slots: &'a [Slot], head: &'a AtomicU64) -> Queue<'a> {
        debug_assert!(slots.len().is_power_of_two());
        Queue { slots, head }
    }

    /// Makes every slot free for its first position (the parent, before any worker exists).
    #[cfg(not(loom))]
    pub fn format(&self) {
        for (index, slot) in self.slots.iter().enumerate() {
            slot.state.store(free(index as u64), Ordering::Relaxed);
        }
        self.head.store(0, Ordering::Release);
    }

    fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    fn slot(&self, position: u64) -> &'a Slot {
        &self.slots[(position & (self.capacity() - 1)) as usize]
    }

    /// Whether `position` can be published now.
    pub fn has_room(&self, position: u64) -> bool {
        // [slot-freed] Acquire: the owner's reads of the old payload are over.
        self.slot(position).state.load(Ordering::Acquire) == free(position)
    }

    /// Publishes a task at `position`; false when the slot still serves the previous round.
    pub fn publish(&self, position: u64, task: u64, kind: u32, payload: &[u8]) -> bool {
        assert!(payload.len() <= SLOT_PAYLOAD, "a slot holds {SLOT_PAYLOAD} bytes, not {}", payload.len());
        if !self.has_room(position) {
            return false;
        }
        let slot = self.slot(position);
        slot.task.store(task, Ordering::Relaxed);
        slot.measure.store(payload.len() as u64 | (u64::from(kind) << 32), Ordering::Relaxed);
        let mut words = slot.payload.iter();
        let mut chunks = payload.chunks_exact(8);
        for (bytes, word) in chunks.by_ref().zip(words.by_ref()) {
            word.store(word_from(bytes), Ordering::Relaxed);
        }
        if let (false, Some(word)) = (chunks.remainder().is_empty(), words.next()) {
            word.store(word_from(chunks.remainder()), Ordering::Relaxed);
        }
        // [slot-ready] Release: whoever claims it sees the task and its payload.
        slot.state.store(ready(position), Ordering::Release);
        true
    }

    /// Takes a published task back; false when a worker has it (or had it).
    pub fn retract(&self, position: u64, task: u64) -> bool {
        let slot = self.slot(position);
        slot.task.load(Ordering::Relaxed) == task
            && slot
                .state
                .compare_exchange(
                    ready(position),
                    free(position + self.capacity()),
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// Whether this task waits at this position.
    #[cfg(not(loom))]
    pub fn is_ready(&self, position: u64, task: u64) -> bool {
        let slot = self.slot(position);
        slot.state.load(Ordering::Acquire) == ready(position) && slot.task.load(Ordering::Relaxed) == task
    }

    /// Whether this task is in its slot still: it waits there, or its claimer has not yet copied it out.
    #[cfg(not(loom))]
    pub fn holds(&self, position: u64, task: u64) -> bool {
        let slot = self.slot(position);
        // [slot-freed] Acquire: the claimer wrote its journal before it freed the slot.
        let state = slot.state.load(Ordering::Acquire);
        position_of(state) == position
            && matches!(tag_of(state), READY | TAKEN)
            && slot.task.load(Ordering::Relaxed) == task
    }

    /// Who claimed this task and has not copied it out yet.
    #[cfg(not(loom))]
    pub fn taker(&self, position: u64, task: u64) -> Option<u32> {
        let slot = self.slot(position);
        let state = slot.state.load(Ordering::Acquire);
        let taken = position_of(state) == position && tag_of(state) == TAKEN;
        (taken && slot.task.load(Ordering::Relaxed) == task).then(|| owner_of(state))
    }

    /// Whether this owner is copying a task out of some slot at this instant.
    #[cfg(not(loom))]
    pub fn is_taking(&self, owner: u32) -> bool {
        self.slots.iter().any(|slot| {
            let state = slot.state.load(Ordering::Acquire);
            tag_of(state) == TAKEN && owner_of(state) == owner
        })
    }

    /// Whether a state that was loaded from slot `index` is one that the protocol can have written there. `before` is what
    /// `published` said before it was loaded: every position below has been published since.
    fn is_sound(&self, index: usize, state: u64, before: u64, published: &impl Fn() -> u64) -> bool {
        let position = position_of(state);
        let in_time = match tag_of(state) {
            FREE => (before..=published() + self.capacity()).contains(&position),
            READY | TAKEN => (before.saturating_sub(self.capacity())..=published()).contains(&position),
            _ => false,
        };
        in_time && position & (self.capacity() - 1) == index as u64
    }

    /// Slots, and 1 for the head, that no process following the protocol can have written. A worker that overwrote them
    /// and lives on leaves a queue that may never move again.
    #[cfg(not(loom))]
    pub fn damage(&self, published: impl Fn() -> u64) -> usize {
        let before = published();
        let slots = self.slots.iter().enumerate().filter(|(index, slot)| {
            !self.is_sound(*index, slot.state.load(Ordering::Acquire), before, &published)
        });
        let damaged = slots.count();
        let head = self.head.load(Ordering::Acquire);
        // A worker may have claimed the position that the publisher is about to count.
        damaged + usize::from(head > published() + 1)
    }

    /// Sets the head back to where nothing can have been missed, if a task waits.
    #[cfg(not(loom))]
    pub fn rewind(&self, published: u64) {
        let waits = |slot: &Slot| tag_of(slot.state.load(Ordering::Acquire)) == READY;
        if self.slots.iter().any(waits) {
            self.head.store(published.saturating_sub(self.capacity()), Ordering::Relaxed);
        }
    }

    /// The first position that somebody could claim, if there is one.
    ///
    /// The head may be far behind, for a retracted task is passed by nobody until somebody claims. The steps are bounded,
    /// for a damaged segment could otherwise lead us in circles.
    fn first_ready(&self, from: u64) -> Option<u64> {
        let round = self.capacity();
        let mut position = from;
        for _ in 0..4 * round {
            // [slot-ready] Acquire
            let state = self.slot(position).state.load(Ordering::Acquire);
            if state == ready(position) {
                return Some(position);
            }
            let passed = position_of(state) > position
                || (position_of(state) == position && tag_of(state) == TAKEN);
            if !passed {
                return None; // FREE(position): not yet published
            }
            // This slot served the position one round before its state's, so all before that one were published as well,
            // each after its slot was free of the round before: nothing older than two rounds can wait.
            position = position.saturating_add(1).max((position_of(state) + 1).saturating_sub(2 * round));
        }
        None
    }

    /// Whether a task can be claimed now.
    pub fn has_work(&self) -> bool {
        self.first_ready(self.head.load(Ordering::Relaxed)).is_some()
    }

    /// How far the head hint has come.
    #[cfg(not(loom))]
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// Claims the oldest task, lets `journal` write its id where the parent finds it, copies the payload out and
    /// frees the slot, in this order.
    pub fn claim(
        &self,
        owner: u32,
        buffer: &mut [u8; SLOT_PAYLOAD],
        journal: impl FnOnce(u64),
    ) -> Option<Claimed> {
        let mut from = self.head.load(Ordering::Relaxed);
        let (position, slot) = loop {
            let position = self.first_ready(from)?;
            let slot = self.slot(position);
            // [slot-ready] Acquire: the task and its payload are visible. Names the owner in the same step.
            let claim = slot.state.compare_exchange(
                ready(position),
                taken(position, owner),
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            if claim.is_ok() {
                break (position, slot);
            }
            from = position; // a rival or the publisher was faster: look again from here
        };
        point("after-claim-cas");
        self.head.fetch_max(position + 1, Ordering::Relaxed);
        let task = slot.task.load(Ordering::Relaxed);
        journal(task);
        point("after-current");
        let measure = slot.measure.load(Ordering::Relaxed);
        let len = ((measure & 0xffff_ffff) as usize).min(SLOT_PAYLOAD);
        for (bytes, word) in buffer[..len.next_multiple_of(8)].chunks_exact_mut(8).zip(&slot.payload) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        // [slot-freed] Release: our reads come before the next publisher's writes, and so does the journal.
        slot.state.store(free(position + self.capacity()), Ordering::Release);
        point("after-slot-free");
        Some(Claimed { task, kind: (measure >> 32) as u32, len })
    }

    /// Frees every slot that the dead worker `owner` had taken and sets the head hint back to where nothing can
    /// have been missed; `published` tells the publisher's next position, which may move meanwhile.
    pub fn reclaim(&self, owner: u32, published: impl Fn() -> u64) -> Reclaimed {
        let mut found = Reclaimed::default();
        let before = published();
        let oldest = before.saturating_sub(self.capacity());
        for (index, slot) in self.slots.iter().enumerate() {
            let state = slot.state.load(Ordering::Acquire);
            let position = position_of(state);
            if !self.is_sound(index, state, before, &published) {
                found.damaged += 1;
            } else if tag_of(state) == TAKEN && owner_of(state) == owner {
                found.claimed.push(slot.task.load(Ordering::Relaxed));
                let next = free(position + self.capacity());
                let _ = slot.state.compare_exchange(state, next, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
        self.head.store(oldest, Ordering::Relaxed);
        found
    }
}

/// Up to eight bytes as one word, missing ones zero.
fn word_from(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_ne_bytes(word)
}
