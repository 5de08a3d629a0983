//! Reading this process's own memory where it may not be mapped.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Reads a page at a time: an address is unmapped by whole pages.
const PAGE: usize = 4096;

/// Shows `see` the 64-bit words from `address` on with their addresses, up to `bytes` or the first page that is not mapped.
///
/// The kernel copies them, so that an unmapped page is an error and not a crash. The copy is kept on the stack, a page at a
/// time: a larger one might lie in the memory that is read, and everything in it would be seen twice.
pub(super) fn words(address: usize, bytes: usize, mut see: impl FnMut(usize, u64)) {
    let Ok(file) = File::open("/proc/self/mem") else {
        return;
    };
    let mut at = address.next_multiple_of(size_of::<u64>());
    let end = at.saturating_add(bytes);
    let mut page = [0u8; PAGE];
    while at < end {
        let next = (at / PAGE + 1) * PAGE;
        let part = &mut page[..next.min(end) - at];
        if file.read_exact_at(part, at as u64).is_err() {
            break;
        }
        for (index, word) in part.as_chunks::<8>().0.iter().enumerate() {
            see(at + index * size_of::<u64>(), u64::from_ne_bytes(*word));
        }
        at = next;
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn mapped_words_are_read_and_unmapped_ones_end_it() {
        let values: Vec<u64> = (0..1500).map(|number| number * 7).collect();
        let base = values.as_ptr() as usize;
        let mut seen = Vec::new();
        words(base, 1500 * 8, |at, word| {
            seen.push(((at - base) / 8, word))
        });
        assert_eq!(seen.len(), 1500);
        assert!(seen.iter().all(|(index, word)| *word == *index as u64 * 7));
        words(0, 4096, |at, _| panic!("{at} is mapped"));
    }
}
