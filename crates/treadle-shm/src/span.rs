//! The span of a chunk: which of its items its worker has still to begin, in one word.
//!
//! ```text
//! round (24 bits) | end (20) | next (20)
//! ```
//!
//! The worker takes item after item by raising `next`; the parent takes the rest away by lowering `end`.
//!
//! *Guarantees*: every item goes to exactly one side, as both change the one word by compare-and-swap. A split that looked at one
//! chunk never touches the next: that has another round.
//! *Assumes*: between a look and its compare-and-swap fewer than 2^24 chunks pass.

#![allow(unreachable_pub)] // the loom tests, an outside crate, reach these

use crate::sync::{AtomicU64, Ordering};

/// The most items of one span.
pub const MOST_ITEMS: u32 = (1 << BITS) - 1;

const BITS: u32 = 20;
const MASK: u64 = (1 << BITS) - 1;
const ROUND: u64 = 1 << (2 * BITS);

/// The word. Nothing is left of a span of 0.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(Default))]
#[repr(transparent)]
pub struct Span(AtomicU64);

fn parts(word: u64) -> (u64, u64) {
    (word & MASK, (word >> BITS) & MASK)
}

fn with(word: u64, next: u64, end: u64) -> u64 {
    word & !(ROUND - 1) | end << BITS | next
}

impl Span {
    /// A span of nothing, over ordinary memory.
    #[cfg(loom)]
    pub fn new() -> Span {
        Span(AtomicU64::new(0))
    }

    /// Worker: starts the next span.
    ///
    /// # Panics
    /// With more than [`MOST_ITEMS`].
    pub fn begin(&self, items: u32) {
        assert!(items <= MOST_ITEMS, "{items} items in one chunk; {MOST_ITEMS} is the most");
        let word = self.0.load(Ordering::Relaxed);
        self.0.store(with(word.wrapping_add(ROUND), 0, items.into()), Ordering::Release); // [span]
    }

    /// Worker: takes the next item; false when none is left.
    pub fn take(&self) -> bool {
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                let (next, end) = parts(word);
                (next < end).then(|| with(word, next + 1, end))
            })
            .is_ok()
    }

    /// Worker: gives up what is left.
    pub fn finish(&self) {
        // A failure cannot be: the change always applies.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
            let (next, _) = parts(word);
            Some(with(word, next, next))
        });
    }

    /// Parent: takes what is left, if `holds` still says after the look that it is the right chunk. Returns the first item and the end.
    pub fn split(&self, holds: impl Fn() -> bool) -> Option<(u32, u32)> {
        loop {
            let word = self.0.load(Ordering::Acquire); // [span]
            let (next, end) = parts(word);
            if next >= end || !holds() {
                return None;
            }
            let shorter = with(word, next, next);
            if self.0.compare_exchange(word, shorter, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some((next as u32, end as u32));
            }
        }
    }

    /// Parent, after the worker's death: nothing is left.
    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn items_go_to_one_side_each() {
        let span = Span::default();
        assert!(!span.take());
        span.begin(4);
        assert!(span.take());
        assert_eq!(span.split(|| false), None);
        assert_eq!(span.split(|| true), Some((1, 4)));
        assert!(!span.take());
        assert_eq!(span.split(|| true), None);
        span.begin(MOST_ITEMS);
        assert!(span.take());
        span.finish();
        assert!(!span.take());
        assert_eq!(span.split(|| true), None);
    }

    #[test]
    fn a_split_of_one_chunk_never_shortens_the_next() {
        let span = Span::default();
        span.begin(4);
        // While the parent looks, the worker ends this chunk and begins one of the same length.
        let looks = std::cell::Cell::new(0);
        let split = span.split(|| {
            looks.set(looks.get() + 1);
            if looks.get() == 1 {
                span.finish();
                span.begin(4);
                return true;
            }
            false
        });
        assert_eq!(split, None);
        assert_eq!((0..9).filter(|_| span.take()).count(), 4);
    }
}
