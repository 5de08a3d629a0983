//! A program over an arena and its peer: references of all numbers, overwritten headers, releases and frees in any order.
//!
//! Blocks that live never overlap, and their bytes stay while nothing was overwritten; a reference is mapped inside its file or refused.

use std::fs::File;
use std::os::unix::fs::FileExt;

use treadle_shm::{Arena, Block, BlockRef, Mapped, PeerArena};

const LIMIT: u64 = 4 << 20;
/// The most operations of one input.
const STEPS: usize = 64;

fn number<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

fn range(reference: BlockRef) -> std::ops::Range<u64> {
    let start = reference.extent_offset + reference.offset;
    start..start + reference.len.max(1)
}

/// Interprets the input as a program of one-byte operations and their operands.
pub(crate) fn run(mut bytes: &[u8]) {
    let mut arena = Arena::create(LIMIT).expect("an empty file");
    let peer = PeerArena::open(arena.fd().try_clone_to_owned().expect("a descriptor"))
        .expect("a sealed file");
    let file = File::from(arena.fd().try_clone_to_owned().expect("a descriptor"));
    let mut blocks: Vec<(Block, u8)> = Vec::new();
    let mut mapped: Vec<Mapped> = Vec::new();
    let mut damaged = false;
    for step in 0..STEPS {
        let Some([operation]) = number::<1>(&mut bytes) else {
            break;
        };
        let chosen = usize::from(operation >> 3);
        match operation & 7 {
            0 | 1 => {
                let Some(length) = number::<3>(&mut bytes) else {
                    break;
                };
                let length =
                    u32::from_le_bytes([length[0], length[1], length[2] & 0x1f, 0]) as usize;
                let Ok(mut block) = arena.allocate(length) else {
                    continue;
                };
                let new = range(block.reference());
                for (other, _) in &blocks {
                    let other = range(other.reference());
                    assert!(
                        damaged || new.end <= other.start || other.end <= new.start,
                        "two blocks share memory"
                    );
                }
                let mark = step as u8;
                block.write_at(0, &vec![mark; length.min(64)]);
                blocks.push((block, mark));
            }
            2 if !blocks.is_empty() => {
                let (block, mark) = blocks.swap_remove(chosen % blocks.len());
                match peer.map(block.reference()) {
                    Ok(view) => {
                        let copy = view.copy_to_vec().expect("memory for a copy");
                        assert!(
                            damaged || copy.iter().take(64).all(|byte| *byte == mark),
                            "another block's bytes"
                        );
                        mapped.push(view);
                        // Mapped once: kept as long as the owner's side is.
                    }
                    Err(error) => assert!(damaged, "{error}"),
                }
                arena.is_live(block.reference(), block.serial());
            }
            3 if !blocks.is_empty() => {
                let (block, _) = blocks.swap_remove(chosen % blocks.len());
                arena.free_serial(block.reference(), block.serial());
                assert!(!arena.is_live(block.reference(), block.serial()));
            }
            4 => {
                let Some(numbers) = number::<8>(&mut bytes) else {
                    break;
                };
                // Small and huge numbers, aligned or not.
                let short =
                    |at: usize| u64::from(u16::from_le_bytes([numbers[at], numbers[at + 1]]));
                let wide = |value: u64| value.rotate_left(u32::from(operation >> 3) * 2);
                let reference = BlockRef {
                    extent_offset: wide(short(0)),
                    extent_len: wide(short(2)),
                    offset: short(4) * if chosen % 2 == 0 { 64 } else { 1 },
                    len: short(6),
                };
                if let Ok(view) = peer.view(reference) {
                    view.copy_to_vec().expect("memory for a copy");
                }
                arena.free(BlockRef {
                    extent_len: 0,
                    ..reference
                });
                damaged = true;
            }
            5 => {
                let (Some(place), Some(value)) = (number::<2>(&mut bytes), number::<8>(&mut bytes))
                else {
                    break;
                };
                // Headers stand at multiples of 64.
                let place = u64::from(u16::from_le_bytes(place)) * 8;
                let _ = file.metadata().map(|file_is| {
                    if place + 8 <= file_is.len() {
                        file.write_all_at(&value, place).expect("inside the file");
                    }
                });
                damaged = true;
            }
            6 if !mapped.is_empty() => drop(mapped.swap_remove(chosen % mapped.len())),
            6 => arena.trim(0),
            _ => {
                arena.collect();
                assert!(arena.reserved_bytes() <= LIMIT);
                assert!(damaged || arena.outstanding_blocks() >= blocks.len());
            }
        }
    }
}
