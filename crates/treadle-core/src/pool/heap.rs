//! The program's heap: how much of what is freed it keeps.
//!
//! glibc's `malloc` gives the end of the heap back to the system as soon as 128 KiB of it are free, and takes larger blocks from the system
//! one by one. Every result of 64 KiB and more then stands on new pages, and a page fault costs more than the copy into it:
//! a call with 256 KiB each way took 230 us, of which 180 us were 66 faults. Once a program frees a large block, glibc raises both limits by
//! itself, up to a block of 32 MiB and 64 MiB kept (mallopt(3), "dynamic mmap threshold"). Programs that use arrays do
//! that early; the others do it here. Whoever sets the limits (`MALLOC_TRIM_THRESHOLD_`, `mallopt`) switches this off.
//!
//! A worker's heap does the same, for tasks: one that has twenty pieces of 100 KiB and frees them takes 25 us, and 640 us with 308 page faults
//! where the heap is left as it is. It is done in the zygote, and forks inherit it.

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
        drop(std::hint::black_box(block));
    });
}
