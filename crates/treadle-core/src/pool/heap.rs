//! The program's heap: how much of what is freed it keeps, and where a worker's own blocks stand.
//!
//! glibc's `malloc` gives the end of the heap back to the system as soon as 128 KiB of it are free, and takes larger blocks from the system
//! one by one. Every result of 64 KiB and more then stands on new pages, and a page fault costs more than the copy into it:
//! a call with 256 KiB each way took 230 us, of which 180 us were 66 faults. Once a program frees a large block, glibc raises both limits by
//! itself, up to a block of 32 MiB and 64 MiB kept (mallopt(3), "dynamic mmap threshold"). Programs that use arrays do
//! that early; the others do it here. Whoever sets the limits (`MALLOC_TRIM_THRESHOLD_`, `mallopt`) switches this off.
//!
//! A worker's heap does the same, for tasks: one that has twenty pieces of 100 KiB and frees them takes 25 us, and 640 us with 308 page faults
//! where the heap is left as it is. It is done in the zygote, and forks inherit it.
//!
//! What the main module's imports left free stands in holes all over the heap, in lists that run through them. A fork that fills one writes to the
//! hole and to its neighbours in the list, and each of these pages is then its own: forty for the first few blocks. So the
//! zygote sets the holes aside, and what a worker asks for stands together, behind all that is shared.

use std::fs;
use std::hint::black_box;
use std::mem;
use std::sync::Once;

/// The largest block that glibc learns from, but for its own header and the rounding to pages.
const LARGEST_LEARNT: usize = (32 << 20) - (8 << 10);

/// Makes the heap keep up to 64 MiB of freed memory at its end. Touches no page; once a process. Where there is no room for the block
/// (`ulimit -v`), all stays as it is.
pub fn keep_freed_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut block = Vec::<u8>::new();
        let _ = block.try_reserve_exact(LARGEST_LEARNT);
        drop(black_box(block));
    });
}

/// What the smallest block of glibc holds, and the step from one size to the next.
const SMALLEST_FILLER: usize = 24;
const STEP: usize = 16;
/// Larger holes are whole pages for the most part, which a fork may as well write to as others.
const LARGEST_FILLER: usize = SMALLEST_FILLER + 512 * STEP;
/// At most so much is set aside: what a program freed in larger pieces is as good a place as the end of the heap.
const MOST_ASIDE: usize = 8 << 20;

/// Allocates, for good, what is free before the end of the heap; returns how many bytes that was.
///
/// For a process with one thread that is about to fork others of its kind, after what is whole pages was given back to the system.
pub fn set_holes_aside() -> usize {
    let Some(end) = end_of_heap() else {
        return 0;
    };
    let mut aside = 0;
    let mut size = LARGEST_FILLER;
    while size >= SMALLEST_FILLER && aside < MOST_ASIDE {
        let mut block = Vec::<u8>::new();
        if block.try_reserve_exact(size).is_err() {
            break;
        }
        let block = black_box(block);
        if (block.as_ptr() as usize) < end {
            mem::forget(block);
            aside += size;
        } else {
            size -= STEP;
        }
    }
    aside
}

/// The address behind the heap that `malloc` grows; none where it has no such heap.
fn end_of_heap() -> Option<usize> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let heap = maps.lines().find(|line| line.ends_with("[heap]"))?;
    let (_, end) = heap.split_whitespace().next()?.split_once('-')?;
    usize::from_str_radix(end, 16).ok()
}
