//! The reserve when its allocator gives, when it refuses, and when it gives again.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{LARGE, Reserving, SMALL};

/// The system's allocator, that can be told to refuse.
struct Refusing(AtomicBool);

// SAFETY: the system's, or null.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.0.load(Ordering::Relaxed) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

static HEAP: Reserving<Refusing> = Reserving::over(Refusing(AtomicBool::new(false)));

fn refuse(refuse: bool) {
    HEAP.system.0.store(refuse, Ordering::Relaxed);
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

/// One test, for there is one static reserve (the blocks stay where they are).
#[test]
fn small_allocations_go_on_when_the_system_refuses() {
    // SAFETY: every pointer is used within its layout and goes back once, with it.
    unsafe {
        // From the system while that gives.
        let from_system = HEAP.alloc(layout(100));
        from_system.write_bytes(7, 100);
        assert_eq!(HEAP.room(from_system), None);

        refuse(true);
        // What is large is refused, as without a reserve.
        assert!(HEAP.alloc(layout(LARGE + 1)).is_null());
        assert!(
            HEAP.alloc(Layout::from_size_align(8, 128).expect("a layout"))
                .is_null()
        );

        // Growing what the system gave moves it, with its bytes.
        let moved = HEAP.realloc(from_system, layout(100), 300);
        assert_eq!(HEAP.room(moved), Some(SMALL));
        assert_eq!(std::slice::from_raw_parts(moved, 100), [7; 100]);
        // Within its block it stays; beyond it there is a larger one, and beyond that nothing, and the old one is whole.
        assert_eq!(HEAP.realloc(moved, layout(300), SMALL), moved);
        let moved = HEAP.realloc(moved, layout(SMALL), LARGE);
        assert_eq!(HEAP.room(moved), Some(LARGE));
        assert_eq!(HEAP.small.taken(), 0);
        assert!(HEAP.realloc(moved, layout(LARGE), LARGE + 1).is_null());
        assert_eq!(std::slice::from_raw_parts(moved, 100), [7; 100]);

        // All of it, each block once; who asks for little gets the large ones last.
        let mut blocks = HashSet::new();
        loop {
            let low = HEAP.small.taken() >= 128 || HEAP.large.taken() >= 32;
            assert_eq!(HEAP.is_low(), low);
            let block = HEAP.alloc_zeroed(layout(SMALL));
            if block.is_null() {
                break;
            }
            assert_eq!(std::slice::from_raw_parts(block, SMALL), [0; SMALL]);
            block.write_bytes(255, SMALL);
            assert!(blocks.insert(block));
        }
        assert_eq!((HEAP.small.taken(), HEAP.large.taken()), (256, 64));
        assert_eq!(blocks.len(), 256 + 63);

        // When the system gives again, what grows moves back.
        refuse(false);
        let back = HEAP.realloc(moved, layout(LARGE), 4 * LARGE);
        assert_eq!(HEAP.room(back), None);
        assert_eq!(std::slice::from_raw_parts(back, 100), [7; 100]);
        HEAP.dealloc(back, layout(4 * LARGE));
        for block in blocks {
            HEAP.dealloc(block, layout(SMALL));
        }
        assert!(!HEAP.is_low());
        refuse(true);
        let again = HEAP.alloc_zeroed(layout(LARGE));
        assert_eq!(std::slice::from_raw_parts(again, LARGE), [0; LARGE]);
        HEAP.dealloc(again, layout(LARGE));
    }
}

#[test]
fn threads_never_share_a_block() {
    static SHARED: Reserving<Refusing> = Reserving::over(Refusing(AtomicBool::new(true)));
    std::thread::scope(|scope| {
        for mark in 1..=4u8 {
            scope.spawn(move || {
                for round in 0..2000 {
                    let size = 1 + round % SMALL;
                    // SAFETY: used within its layout, given back once with it.
                    unsafe {
                        let block = SHARED.alloc(layout(size));
                        assert!(!block.is_null());
                        block.write_bytes(mark, size);
                        std::thread::yield_now();
                        assert!(
                            std::slice::from_raw_parts(block, size)
                                .iter()
                                .all(|&byte| byte == mark)
                        );
                        SHARED.dealloc(block, layout(size));
                    }
                }
            });
        }
    });
    assert_eq!((SHARED.small.taken(), SHARED.large.taken()), (0, 0));
}
