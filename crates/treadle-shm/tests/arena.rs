//! The arena: blocks go to the other side and come back, exhaustion is an error, and nothing hostile is believed.
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::process::Command;
use treadle_shm::*;

const MIB: u64 = 1 << 20;

fn pair(limit: u64) -> (Arena, PeerArena) {
    let arena = Arena::create(limit).unwrap();
    let peer = PeerArena::open(arena.fd().try_clone_to_owned().unwrap()).unwrap();
    (arena, peer)
}

#[test]
fn bytes_go_across_and_the_block_comes_back() {
    let (mut arena, peer) = pair(64 * MIB);
    for len in [0, 1, 63, 64, 65, 4096, 100_000, 3 << 20] {
        let bytes: Vec<u8> = (0..len).map(|index| (index * 7) as u8).collect();
        let mut block = arena.allocate(len).unwrap();
        block.write_at(0, &bytes[..len / 2]);
        block.write_at(len / 2, &bytes[len / 2..]);
        assert_eq!(block.as_ptr().align_offset(64), 0);
        let reference = BlockRef::from_bytes(block.reference().to_bytes());
        assert_eq!(reference, block.reference());
        let mapped = peer.map(reference).unwrap();
        assert_eq!(
            (mapped.len(), mapped.copy_to_vec().unwrap()),
            (len, bytes.clone())
        );
        let mut tail = vec![0; len - len / 3];
        mapped.read_at(len / 3, &mut tail);
        assert_eq!(tail, bytes[len / 3..]);
        assert_eq!(arena.collect(), 0, "still held");
        assert_eq!(arena.outstanding_bytes(), len as u64);
        drop(mapped);
        assert!(peer.map(reference).is_err(), "released already");
        assert_eq!(arena.collect(), 1);
        assert_eq!(arena.outstanding_bytes(), 0);
        let again = arena.allocate(len).unwrap();
        assert_eq!(again.reference(), reference, "warm memory is used again");
        arena.free(again.reference());
        arena.free(again.reference());
        assert_eq!(arena.outstanding_blocks(), 0, "freeing twice is harmless");
    }
}

#[test]
fn a_large_copy_lies_as_its_source_does_and_arrives_whole() {
    let (mut arena, peer) = pair(64 * MIB);
    let large = 5 << 20;
    let source: Vec<u8> = (0..large + 4096)
        .map(|index| (index * 7 + index / 251) as u8)
        .collect();
    for phase in [0, 1, 8, 16, 40, 63, 64, 80, 4000] {
        let bytes = &source[phase..phase + large];
        let mut block = arena.allocate_copy(bytes).unwrap();
        block.write_at(0, bytes);
        assert_eq!(block.as_ptr() as usize % 64, bytes.as_ptr() as usize % 64);
        assert_ne!(
            block.as_ptr() as usize % 4096,
            bytes.as_ptr() as usize % 4096
        );
        let mapped = peer
            .map(BlockRef::from_bytes(block.reference().to_bytes()))
            .unwrap();
        assert_eq!(mapped.len(), large);
        assert!(mapped.copy_to_vec().unwrap() == bytes, "phase {phase}");
        drop(mapped);
        assert_eq!(arena.collect(), 1);
    }
    let small = arena.allocate_copy(&source[3..1003]).unwrap();
    assert_eq!(small.as_ptr().align_offset(64), 0);
}

#[test]
fn a_lead_that_nobody_wrote_is_refused() {
    use std::os::unix::fs::FileExt;
    let (mut arena, peer) = pair(64 * MIB);
    let reference = arena.allocate(1000).unwrap().reference();
    let file = std::fs::File::from(arena.fd().try_clone_to_owned().unwrap());
    // Behind the length and the mark of release.
    let at = reference.extent_offset + reference.offset - 64 + 12;
    for lead in [128_u32, 1 << 20, u32::MAX] {
        file.write_all_at(&lead.to_ne_bytes(), at).unwrap();
        assert!(
            matches!(peer.map(reference), Err(ShmError::Corrupt(_))),
            "{lead}"
        );
    }
    file.write_all_at(&64_u32.to_ne_bytes(), at).unwrap();
    assert_eq!(
        peer.map(reference).unwrap().copy_to_vec().unwrap().len(),
        1000
    );
}

#[test]
fn a_view_releases_nothing_and_a_mapped_block_outlives_its_arena() {
    let (mut arena, peer) = pair(MIB);
    let mut block = arena.allocate(5).unwrap();
    block.write_at(0, b"bytes");
    drop((
        peer.view(block.reference()).unwrap(),
        peer.view(block.reference()).unwrap(),
    ));
    assert_eq!(arena.collect(), 0);
    let mapped = peer.map(block.reference()).unwrap();
    drop((arena, peer, block));
    assert_eq!(mapped.copy_to_vec().unwrap(), b"bytes");
}

#[test]
fn blocks_never_overlap() {
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64
        | 1;
    println!("seed {seed}");
    let mut random = seed;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let (mut arena, peer) = pair(96 * MIB);
    let mut held: Vec<(u8, Mapped)> = Vec::new();
    let mut full = 0;
    for turn in 0..4000_u64 {
        let magnitude = next(21);
        let len = next(1 << magnitude) as usize;
        match arena.allocate(len) {
            Ok(mut block) => {
                let mark = turn as u8;
                block.write_at(0, &vec![mark; len]);
                held.push((mark, peer.map(block.reference()).unwrap()));
            }
            Err(ShmError::Full { .. }) => full += 1,
            Err(error) => panic!("{error}"),
        }
        while held.len() > 200 || (!held.is_empty() && next(3) == 0) {
            let (mark, mapped) = held.swap_remove(next(held.len() as u64) as usize);
            assert!(
                mapped
                    .copy_to_vec()
                    .unwrap()
                    .iter()
                    .all(|byte| *byte == mark),
                "a block was overwritten"
            );
        }
        if next(50) == 0 {
            arena.trim(next(8) * MIB);
        }
        assert!(
            arena.reserved_bytes() <= 96 * MIB && arena.populated_bytes() <= arena.reserved_bytes()
        );
    }
    held.clear();
    arena.trim(0);
    assert_eq!(
        (arena.outstanding_bytes(), arena.populated_bytes()),
        (0, 0),
        "{full} refused"
    );
}

#[test]
fn the_limit_is_an_error_and_idle_extents_make_room_for_other_sizes() {
    let (mut arena, _peer) = pair(8 * MIB);
    let mut blocks = Vec::new();
    let error = loop {
        match arena.allocate(300_000) {
            Ok(block) => blocks.push(block.reference()),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, ShmError::Full { wanted: 300_000, limit, .. } if limit == 8 * MIB),
        "{error}"
    );
    assert!(blocks.len() > 20, "{} blocks", blocks.len());
    blocks.drain(..).for_each(|block| arena.free(block));
    let big = arena.allocate(7 << 20).unwrap();
    arena.free(big.reference());
    assert!(matches!(
        arena.allocate(9 << 20),
        Err(ShmError::Full { .. })
    ));
    assert!(matches!(
        arena.allocate(usize::MAX - 8),
        Err(ShmError::Full { .. })
    ));
}

#[test]
fn trimmed_memory_is_given_back_and_usable_again() {
    let (mut arena, peer) = pair(64 * MIB);
    let keeper = arena.allocate(100).unwrap();
    let block = arena.allocate(900_000).unwrap().reference();
    let before = blocks_of(&arena);
    arena.free(block);
    arena.trim(0);
    assert!(
        blocks_of(&arena) + 800_000 / 512 <= before,
        "{before} blocks before, {} after",
        blocks_of(&arena)
    );
    let mut again = arena.allocate(900_000).unwrap();
    assert_eq!(again.reference(), block);
    again.write_at(899_999, b"x");
    assert_eq!(
        peer.map(block).unwrap().copy_to_vec().unwrap()[899_999],
        b'x'
    );
    assert!(arena.populated_bytes() >= 900_000);
    arena.free(keeper.reference());
}

/// What the file really holds, in units of 512 bytes.
fn blocks_of(arena: &Arena) -> u64 {
    use std::os::linux::fs::MetadataExt;
    std::fs::File::from(arena.fd().try_clone_to_owned().unwrap())
        .metadata()
        .unwrap()
        .st_blocks()
}

#[test]
fn hostile_references_are_refused() {
    let (mut arena, peer) = pair(64 * MIB);
    let block = arena.allocate(1000).unwrap();
    let good = block.reference();
    let wrong = [
        BlockRef {
            extent_offset: u64::MAX,
            ..good
        },
        BlockRef {
            extent_offset: 1,
            ..good
        },
        BlockRef {
            extent_offset: 1 << 40,
            ..good
        },
        BlockRef {
            extent_len: u64::MAX,
            ..good
        },
        BlockRef {
            extent_len: 2 * good.extent_len,
            ..good
        },
        BlockRef {
            extent_len: 0,
            ..good
        },
        BlockRef { offset: 0, ..good },
        BlockRef { offset: 8, ..good },
        BlockRef {
            offset: u64::MAX - 63,
            ..good
        },
        BlockRef { len: 999, ..good },
        BlockRef {
            len: u64::MAX,
            ..good
        },
        BlockRef {
            len: good.extent_len,
            ..good
        },
    ];
    for reference in wrong {
        assert!(
            matches!(peer.map(reference), Err(ShmError::Corrupt(_))),
            "{reference:?}"
        );
        arena.free(reference);
    }
    assert_eq!(arena.outstanding_blocks(), 1);
    assert!(peer.map(good).is_ok());
    let mut random = 88_172_645_463_325_252_u64; // xorshift64's published seed
    for _ in 0..10_000 {
        let mut bytes = good.to_bytes();
        for _ in 0..4 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            bytes[(random >> 8) as usize % 32] ^= random as u8;
        }
        let reference = BlockRef::from_bytes(bytes);
        if let Ok(mapped) = peer.map(reference) {
            mapped.copy_to_vec().unwrap();
        }
        arena.free(reference);
    }
}

#[test]
fn a_file_that_could_shrink_is_refused() {
    let path = std::env::temp_dir().join(format!("treadle-shm-plain-{}", std::process::id()));
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        PeerArena::open(file.try_clone().unwrap().into()),
        Err(ShmError::Corrupt(_))
    ));
    assert!(matches!(
        Arena::adopt(file.try_clone().unwrap().into(), MIB),
        Err(ShmError::Corrupt(_))
    ));
    assert!(matches!(
        Board::open(file.into()),
        Err(ShmError::Corrupt(_))
    ));
}

/// Runs one test of this binary again, with a resource limit set by the shell.
fn run_limited(limit: &str, test: &str) {
    let command = format!("{limit} && exec \"$0\" --exact {test} --nocapture --test-threads=1");
    let status = Command::new("sh")
        .args(["-c", &command])
        .arg(std::env::current_exe().unwrap())
        .env("TREADLE_LIMITED", "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} under {limit}: {status}");
}

#[test]
fn exhausted_address_space_is_an_error() {
    run_limited("ulimit -v 600000", "limited_address_space");
}

#[test]
fn limited_address_space() {
    if std::env::var_os("TREADLE_LIMITED").is_none() {
        return;
    }
    let (mut arena, peer) = pair(1 << 40);
    let small = arena.allocate(1000).unwrap();
    let error = arena.allocate(900 << 20).unwrap_err();
    assert!(
        matches!(error, ShmError::Map { .. } | ShmError::Grow { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("hint:"), "{error}");
    arena.free(small.reference());
    assert!(arena.allocate(1000).is_ok(), "the arena serves on");
    let huge = Shape {
        slots: 2,
        workers: 1,
        ring_bytes: 1 << 30,
    };
    assert!(matches!(Board::create(huge), Err(ShmError::Map { .. })));
    check_address_space(1 << 20).unwrap();
    assert!(matches!(
        check_address_space(1 << 30),
        Err(ShmError::Map { .. })
    ));
    use_what_there_is(&mut arena, &peer);
}

/// Little room: extents get shorter, and of a long one only the pages of a block are mapped.
fn use_what_there_is(arena: &mut Arena, peer: &PeerArena) {
    let blocks: Vec<Block> = (0..60).map(|_| arena.allocate(1 << 20).unwrap()).collect();
    let in_long_extent = blocks[59].reference();
    assert!(in_long_extent.extent_len > 9 << 20, "{in_long_extent:?}");
    let spare = {
        let (mut spare, _) = pair(1 << 40);
        spare.allocate(8 << 20).unwrap();
        spare
    };
    let (mut hog, _) = pair(1 << 40);
    let mut blocks = 0;
    while hog.allocate(1 << 20).is_ok() {
        blocks += 1;
    }
    assert!(blocks > 10, "only {blocks} blocks of a megabyte");
    assert!(
        pair(1 << 40).0.allocate(4 << 20).is_err(),
        "there was room for more, in shorter extents"
    );
    drop(spare);
    let mapped = peer.map(in_long_extent).unwrap();
    assert_eq!(mapped.len(), 1 << 20);
    drop(mapped);
    assert!(
        arena.collect() >= 1,
        "the block is released through the part as well"
    );
}

#[test]
fn a_limited_file_size_is_an_error() {
    // The shell ignores the signal for the process it becomes, as Python does.
    run_limited("trap '' XFSZ && ulimit -f 4096", "limited_file_size");
}

#[test]
fn limited_file_size() {
    if std::env::var_os("TREADLE_LIMITED").is_none() {
        return;
    }
    let (mut arena, _peer) = pair(1 << 40);
    assert!(arena.allocate(1000).is_ok());
    let error = arena.allocate(8 << 20).unwrap_err();
    assert!(matches!(error, ShmError::Grow { .. }), "{error:?}");
    assert!(arena.allocate(1000).is_ok(), "the arena serves on");
}

#[test]
fn a_forked_child_releases_nothing() {
    let (mut arena, peer) = pair(MIB);
    let block = arena.allocate(100).unwrap();
    let mapped = peer.map(block.reference()).unwrap();
    // SAFETY: the child only drops a value whose mapping others still hold, which takes no lock, and leaves at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(mapped);
        // SAFETY: ends the child without running anything of the test harness.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child and writes to our own integer.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!((status, arena.collect()), (0, 0));
    drop(mapped);
    assert_eq!(arena.collect(), 1);
}
