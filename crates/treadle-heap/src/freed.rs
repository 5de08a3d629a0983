//! The program's heap: how much of what is freed it keeps, and where a worker's own blocks stand.
//!
//! glibc's `malloc` gives the end of the heap back to the system as soon as 128 KiB of it are free, and takes larger blocks from the system
//! one by one. Every result of 64 KiB and more then stands on new pages, and a page fault costs more than the copy into it:
//! a call with 256 KiB each way took 230 us, of which 180 us were 66 faults. Once a program frees a large block, glibc raises both limits by
//! itself, up to a block of 32 MiB and 64 MiB kept (mallopt(3), "dynamic mmap threshold"). Programs that use arrays do
//! that early; the others do it here. Whoever sets one of the limits by the environment, or the one on what is kept by `mallopt`, switches this off.
//!
//! What is over 64 MiB makes glibc give all of it back, so a program that drops 256 results of 256 KiB at once paid as before: 320 us a call, 40 where
//! more is kept. A program with a pool of processes keeps more where there is much.
//!
//! A worker's heap does the same, for tasks: one that has twenty pieces of 100 KiB and frees them takes 25 us, and 640 us with 308 page faults
//! where the heap is left as it is. It is done in the zygote, and forks inherit it.
//!
//! What the main module's imports left free stands in holes all over the heap, in lists that run through them. A fork that fills one writes to the
//! hole and to its neighbours in the list, and each of these pages is then its own: forty for the first few blocks. So the
//! zygote sets the holes aside, and what a worker asks for stands together, behind all that is shared.

use std::env;
use std::fs;
use std::hint::black_box;
use std::mem;
use std::sync::Once;

/// The largest block that glibc learns from, but for its own header and the rounding to pages.
const LARGEST_LEARNT: usize = (32 << 20) - (8 << 10);
/// What it keeps then.
const KEPT: usize = 64 << 20;
/// What is never kept of freed memory, whatever the machine has.
const MOST_KEPT: usize = 256 << 20;
/// glibc takes a block of so much from the system by itself until it has learnt.
const ONCE_APART: usize = 1 << 20;
/// What sets its limits: variables, and names in `GLIBC_TUNABLES` (mallopt(3), and "Memory Allocation Tunables" in glibc's manual).
const LIMITS: [(&str, &str); 4] = [
    ("MALLOC_TRIM_THRESHOLD_", "glibc.malloc.trim_threshold"),
    ("MALLOC_MMAP_THRESHOLD_", "glibc.malloc.mmap_threshold"),
    ("MALLOC_MMAP_MAX_", "glibc.malloc.mmap_max"),
    ("MALLOC_TOP_PAD_", "glibc.malloc.top_pad"),
];
/// A block that it has taken so stands behind two words of its page.
const PAGE: usize = 4096;
const WORDS_BEFORE: usize = 2 * size_of::<usize>();

/// Makes the heap keep freed memory at its end: `most` bytes, at least 64 MiB and no more than 256. Touches no page; once a process. Where there is
/// no room for a block of 32 MiB (`ulimit -v`), or the environment sets the limits, all stays as it is.
pub fn keep(most: usize) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if is_set_by_environment() {
            return;
        }
        drop(reserved(LARGEST_LEARNT));
        if most > KEPT && !stands_apart(&reserved(ONCE_APART)) {
            set_limit(most.min(MOST_KEPT));
        }
    });
}

/// Whether whoever started this process has said what its heap keeps.
fn is_set_by_environment() -> bool {
    let tunables = env::var_os("GLIBC_TUNABLES").unwrap_or_default();
    let tunables = tunables.to_string_lossy();
    LIMITS
        .iter()
        .any(|(variable, tunable)| env::var_os(variable).is_some() || tunables.contains(tunable))
}

/// A block of so many bytes, or an empty one.
fn reserved(size: usize) -> Vec<u8> {
    let mut block = Vec::new();
    let _ = block.try_reserve_exact(size);
    black_box(block)
}

/// Whether a block is not part of the heap, or may not be.
fn stands_apart(block: &Vec<u8>) -> bool {
    block.capacity() == 0 || block.as_ptr() as usize % PAGE == WORDS_BEFORE
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set_limit(bytes: usize) {
    if let Ok(bytes) = libc::c_int::try_from(bytes) {
        // SAFETY: sets a number that `free` compares with.
        unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, bytes) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set_limit(_bytes: usize) {}

/// Gives memory that is allocated and not in use back to the system, where the C library can.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes a number and touches only what the allocator holds.
    unsafe {
        libc::malloc_trim(0);
    }
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
        let block = reserved(size);
        if block.capacity() == 0 {
            break;
        }
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
