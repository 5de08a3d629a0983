//! Finding the lock's words by what they say: an unusual switch interval, the caller's thread state, and 1 for "locked".
//!
//! From 3.10 to 3.15 a lock is the structure {interval, last holder, locked, …}; its place varies by version, build and options.
//!
//! *Guarantees*: found means: exactly one place showed the triple, and showed it again with another interval.
//! *Assumes*: the caller holds the lock all the while, so that the words stand still.

use std::collections::BTreeSet;

use super::{Words, memory};

/// How much is searched from each address: the lock was within 8 KiB in every version tried; structures are some 300 KiB.
const REGION: usize = 256 * 1024;
/// Two unusual switch intervals in microseconds, close to Python's own 5,000, so that a thread which waits for the lock
/// meanwhile waits no longer than ever.
const UNUSUAL: [u32; 2] = [4_973, 4_871];

/// The words found in one of the regions that begin at these addresses.
pub(super) fn words(
    regions: &[usize],
    thread_state: usize,
    set_interval: &mut dyn FnMut(Option<u32>) -> bool,
) -> Option<Words> {
    let mut left: Option<BTreeSet<usize>> = None;
    for interval in UNUSUAL {
        let found = if set_interval(Some(interval)) {
            places(regions, u64::from(interval), thread_state)
        } else {
            BTreeSet::new()
        };
        left = Some(match left {
            None => found,
            Some(before) => before.intersection(&found).copied().collect(),
        });
    }
    let restored = set_interval(None);
    let left = left?;
    let place = *left.first().filter(|_| restored && left.len() == 1)?;
    Words::at(place + 16, place + 8)
}

/// Addresses where the triple stands.
fn places(regions: &[usize], interval: u64, thread_state: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    for region in regions {
        let mut before = [0u64; 2];
        memory::words(*region, REGION, |at, word| {
            // `locked` is a 32-bit word; what follows it within the 64 bits is padding.
            if before == [interval, thread_state as u64] && first_half(word) == 1 {
                found.insert(at - 2 * size_of::<u64>());
            }
            before = [before[1], word];
        });
    }
    found
}

/// The 32-bit word at the lower address.
fn first_half(word: u64) -> u32 {
    let [first, second, third, fourth, ..] = word.to_ne_bytes();
    u32::from_ne_bytes([first, second, third, fourth])
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_endian = "little"))]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn search(place: usize, decoy: bool) -> (Option<Words>, usize, Vec<Option<u32>>) {
        let memory: Vec<AtomicU64> = (0..200).map(|_| AtomicU64::new(0)).collect();
        let state = 0x7f00_1234_0040;
        let mut asked = Vec::new();
        let mut set = |interval: Option<u32>| {
            asked.push(interval);
            memory[place].store(u64::from(interval.unwrap_or(5_000)), Ordering::Relaxed);
            true
        };
        memory[place + 1].store(state, Ordering::Relaxed);
        memory[place + 2].store(1 | 0xdead << 32, Ordering::Relaxed);
        if decoy {
            // Looks right at first, and does not follow.
            memory[150].store(u64::from(UNUSUAL[0]), Ordering::Relaxed);
            memory[151].store(state, Ordering::Relaxed);
            memory[152].store(1, Ordering::Relaxed);
        }
        let base = memory.as_ptr() as usize;
        let found = words(&[base], state as usize, &mut set);
        (found, base, asked)
    }

    #[test]
    fn the_triple_is_found_and_a_decoy_is_not() {
        for decoy in [false, true] {
            let (found, base, asked) = search(43, decoy);
            assert_eq!(found, Words::at(base + 45 * 8, base + 44 * 8));
            assert_eq!(asked, [Some(UNUSUAL[0]), Some(UNUSUAL[1]), None]);
        }
    }

    #[test]
    fn nothing_is_found_where_setting_fails_or_the_lock_is_not_ours() {
        let memory = [u64::from(UNUSUAL[0]), 77, 1];
        let base = memory.as_ptr() as usize;
        assert_eq!(words(&[base], 77, &mut |_| false), None);
        assert_eq!(words(&[base], 78, &mut |_| true), None);
    }
}
