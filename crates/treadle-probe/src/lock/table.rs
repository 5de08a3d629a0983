//! Where CPython 3.13 and later say themselves that the lock's words are: the table of offsets at the start of `_PyRuntime`.
//!
//! The table is an array of 64-bit numbers after an eight-byte cookie. Its slots differ between minor versions, so each has its
//! line below, counted from CPython's `pycore_debug_offsets.h` of that version.
//!
//! *Guarantees*: a table with another cookie, of another version than the running one, or of a version without a line is not used.

use super::{Absent, Interpreter, Words};

/// What the table begins with.
const COOKIE: [u8; 8] = *b"xdebugpy";
/// Slots that every version has: the version as a number, and whether the build is free-threaded.
const VERSION: usize = 1;
const FREE_THREADED: usize = 2;
/// Offsets in an interpreter beyond this are no offsets: its structure takes some 300 KiB.
const LARGEST: u64 = 16 << 20;

/// The slots of a minor version that tell of the lock, counted in 64-bit numbers from the start of the table.
struct Slots {
    minor: u8,
    /// Offset of the pointer to the lock in use, within the interpreter.
    lock_pointer: usize,
    /// Offset of the interpreter's own lock, within it.
    lock: usize,
    /// Offset of `enabled` within the lock, in free-threaded builds.
    enabled: usize,
    /// Offsets of `locked` and `last_holder` of the own lock, within the interpreter.
    locked: usize,
    holder: usize,
}

impl Slots {
    /// The five stand one after the other in every version so far.
    const fn from(minor: u8, lock_pointer: usize) -> Self {
        Self {
            minor,
            lock_pointer,
            lock: lock_pointer + 1,
            enabled: lock_pointer + 2,
            locked: lock_pointer + 3,
            holder: lock_pointer + 4,
        }
    }
}

/// 3.14 put the main thread's state before what stood here in 3.13.
const SLOTS: [Slots; 3] = [
    Slots::from(13, 14),
    Slots::from(14, 15),
    Slots::from(15, 15),
];

/// The words that the table tells; `None` where there is no table that is known.
///
/// # Safety
///
/// `runtime` is the address of `_PyRuntime`; `interpreter.current` that of a living interpreter.
pub(super) unsafe fn words(
    runtime: usize,
    interpreter: Interpreter,
) -> Option<Result<Words, Absent>> {
    let (major, minor) = interpreter.version;
    let slots = SLOTS.iter().find(|one| (3, one.minor) == (major, minor))?;
    let table = runtime as *const u64;
    // SAFETY: `_PyRuntime` takes kilobytes in every version, and the slots end within the first 200 bytes.
    let slot = |index: usize| unsafe { table.add(index).read() };
    if slot(0).to_ne_bytes() != COOKIE
        || slot(VERSION) >> 16 != u64::from(major) << 8 | u64::from(minor)
    {
        return None;
    }
    let offset = |index: usize| {
        let value = slot(index);
        (value < LARGEST).then_some(value as usize)
    };
    let own = offset(slots.lock)?;
    // SAFETY: the offset is Python's own, within the interpreter that the caller vouches for.
    let lock = unsafe { *((interpreter.current + offset(slots.lock_pointer)?) as *const usize) };
    if lock == 0 {
        return None;
    }
    if slot(FREE_THREADED) == 1 {
        // SAFETY: a lock in use, and the offset of a 32-bit word in it.
        let enabled = unsafe { *((lock + offset(slots.enabled)?) as *const i32) };
        if enabled == 0 {
            return Some(Err(Absent::NoLock));
        }
    }
    let within = |index: usize| offset(index)?.checked_sub(own).filter(|place| *place < 256);
    Words::at(lock + within(slots.locked)?, lock + within(slots.holder)?).map(Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION_3_14: u64 = 3 << 24 | 14 << 16 | 0xf0;

    /// A table of 3.14 and an interpreter whose lock lies outside it, as with a lock that is shared.
    fn told(change: impl FnOnce(&mut [u64; 20], &mut [u64; 4])) -> Option<Result<Words, Absent>> {
        let mut table = [0u64; 20];
        table[0] = u64::from_ne_bytes(COOKIE);
        table[VERSION] = VERSION_3_14;
        table[15..20].copy_from_slice(&[8, 64, 0, 64 + 16, 64 + 8]);
        let mut lock = [0u64, 4242, 1, 0];
        change(&mut table, &mut lock);
        let interpreter = [0u64, lock.as_ptr() as u64];
        let at = Interpreter {
            current: interpreter.as_ptr() as usize,
            main: 0,
            thread_state: 4242,
            version: (3, 14),
        };
        // SAFETY: both are arrays of the shape that is described.
        let found = unsafe { words(table.as_ptr() as usize, at) };
        if let Some(Ok(words)) = found {
            assert!(words.held_by(4242) && !words.held_by(4243));
        }
        found
    }

    #[test]
    fn the_lock_in_use_is_followed_through_its_pointer() {
        assert!(matches!(told(|_, _| ()), Some(Ok(_))));
    }

    #[test]
    fn a_table_that_is_not_known_is_not_used() {
        assert_eq!(told(|table, _| table[0] += 1), None);
        assert_eq!(told(|table, _| table[VERSION] = 3 << 24 | 13 << 16), None);
        assert_eq!(told(|table, _| table[18] = u64::MAX), None);
        assert_eq!(told(|table, _| table[18] = 63), None);
    }

    #[test]
    fn a_free_threaded_build_has_a_lock_only_when_it_is_enabled() {
        let free = |enabled: u64| {
            told(|table, lock| {
                table[FREE_THREADED] = 1;
                table[17] = 24;
                lock[3] = enabled;
            })
        };
        assert_eq!(free(0), Some(Err(Absent::NoLock)));
        assert!(matches!(free(1), Some(Ok(_))));
    }
}
