//! The extension module's allocator: the system's, with a small reserve for when that has nothing left; [`freed`]: what the system's does with
//! memory that is freed.
//!
//! Where a program runs out of memory, Python raises `MemoryError` and goes on; Rust ends the program at the first allocation that is refused,
//! and with it everything that the program had not yet written down. What is large or grows with the work is asked for fallibly where it is made
//! (payloads, segments, queues); what is small (a task's cell, an error's box, a thread's list of what it has seen) comes from the reserve then,
//! so that the call at hand ends with an error. `is_low` tells those who begin something new to refuse it.
//!
//! Its functions are not inlined: a look at the reserve at every place that frees something would make the module a tenth larger.
//!
//! The reserve is part of the module's zeroed data: its address space is there from the start, its pages only once they are used.

pub mod freed;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a small block.
pub const SMALL: usize = 1 << 10;
/// Bytes of a large block. What is larger fails as without a reserve.
pub const LARGE: usize = 16 << 10;

const ALIGN: usize = 64;
/// Blocks to a word of bits.
const BITS: usize = 64;

#[repr(C, align(64))]
struct Block<const SIZE: usize>(UnsafeCell<[u8; SIZE]>);

/// `64 * WORDS` blocks of one size.
struct Blocks<const SIZE: usize, const WORDS: usize> {
    blocks: [[Block<SIZE>; BITS]; WORDS],
    /// A bit for each block: it is in use.
    taken: [AtomicU64; WORDS],
}

// SAFETY: a block's bytes belong to whoever set its bit in `taken`, until they clear it; nothing else is shared without an atomic.
unsafe impl<const SIZE: usize, const WORDS: usize> Sync for Blocks<SIZE, WORDS> {}

impl<const SIZE: usize, const WORDS: usize> Blocks<SIZE, WORDS> {
    const fn new() -> Self {
        Self {
            blocks: [const { [const { Block(UnsafeCell::new([0; SIZE])) }; BITS] }; WORDS],
            taken: [const { AtomicU64::new(0) }; WORDS],
        }
    }

    /// Blocks in use.
    fn taken(&self) -> usize {
        let ones = |word: &AtomicU64| word.load(Ordering::Relaxed).count_ones() as usize;
        self.taken.iter().map(ones).sum()
    }

    fn is_low(&self) -> bool {
        self.taken() >= BITS * WORDS / 2
    }

    /// A block for this layout, or null.
    fn take(&self, layout: Layout) -> *mut u8 {
        if layout.size() > SIZE || layout.align() > ALIGN {
            return ptr::null_mut();
        }
        for (word, blocks) in self.taken.iter().zip(&self.blocks) {
            let mut seen = word.load(Ordering::Relaxed);
            while seen != u64::MAX {
                let free = seen.trailing_ones();
                // Acquire: what the block's last user did with it comes before what the next one does.
                match word.compare_exchange_weak(
                    seen,
                    seen | 1 << free,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => return blocks[free as usize].0.get().cast(),
                    Err(now) => seen = now,
                }
            }
        }
        ptr::null_mut()
    }

    /// Whether this is one of the blocks.
    fn owns(&self, pointer: *mut u8) -> bool {
        let offset = (pointer as usize).wrapping_sub(self.blocks.as_ptr() as usize);
        offset < size_of_val(&self.blocks)
    }

    /// Takes a block back, if this is one.
    fn give_back(&self, pointer: *mut u8) -> bool {
        let owned = self.owns(pointer);
        if owned {
            let index = (pointer as usize - self.blocks.as_ptr() as usize) / SIZE;
            self.taken[index / BITS].fetch_and(!(1 << (index % BITS)), Ordering::Release);
        }
        owned
    }
}

/// An allocator that asks `A`, and takes small allocations from its own reserve when `A` refuses them.
pub struct Reserving<A = System> {
    system: A,
    small: Blocks<SMALL, 4>,
    large: Blocks<LARGE, 1>,
}

impl Reserving {
    /// The system's allocator with a full reserve.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it stands in a static")]
    pub const fn new() -> Reserving {
        Reserving::over(System)
    }
}

impl<A> Reserving<A> {
    /// The allocator `system` with a full reserve.
    pub const fn over(system: A) -> Reserving<A> {
        Reserving {
            system,
            small: Blocks::new(),
            large: Blocks::new(),
        }
    }

    /// Whether half of the reserve is in use: who would begin something new shall refuse to.
    pub fn is_low(&self) -> bool {
        self.small.is_low() || self.large.is_low()
    }

    /// A block of the reserve, or null.
    fn take(&self, layout: Layout) -> *mut u8 {
        let small = self.small.take(layout);
        if small.is_null() {
            self.large.take(layout)
        } else {
            small
        }
    }

    /// How much a block of the reserve holds; `None` for what is none.
    fn room(&self, pointer: *mut u8) -> Option<usize> {
        if self.small.owns(pointer) {
            Some(SMALL)
        } else {
            self.large.owns(pointer).then_some(LARGE)
        }
    }
}

// SAFETY: every pointer comes from `A`, whose contract is this one, or is a block that nobody else has, large and aligned enough; and goes back to where
// it came from, which its address tells. Nothing here panics or allocates.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Reserving<A> {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the one that `A` asks for.
        let pointer = unsafe { self.system.alloc(layout) };
        if pointer.is_null() {
            self.take(layout)
        } else {
            pointer
        }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let pointer = unsafe { self.system.alloc_zeroed(layout) };
        if !pointer.is_null() {
            return pointer;
        }
        let block = self.take(layout);
        if !block.is_null() {
            // SAFETY: the block is ours, and at least as long as the layout says.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    #[inline(never)]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !self.small.give_back(pointer) && !self.large.give_back(pointer) {
            // SAFETY: not a block of the reserve, so it came from `A` with this layout.
            unsafe { self.system.dealloc(pointer, layout) }
        }
    }

    #[inline(never)]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let room = self.room(pointer);
        if room.is_some_and(|room| size <= room) {
            return pointer;
        }
        if room.is_none() {
            // SAFETY: it came from `A` with this layout; the size is the caller's promise.
            let moved = unsafe { self.system.realloc(pointer, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the caller promises that the size is not zero and does not overflow with this alignment, which is valid.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !moved.is_null() {
            // SAFETY: both are at least as long as the smaller of the two sizes, and one of them is new; the old one goes back once, with its layout.
            unsafe {
                ptr::copy_nonoverlapping(pointer, moved, layout.size().min(size));
                self.dealloc(pointer, layout);
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests;
