//! Arbitrary bytes as a payload's head, a packet, a reference, and a record with or without an arena.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use treadle_core::pool::outcome::Reply;
use treadle_core::pool::wire::{self, Packet};
use treadle_shm::{Arena, BlockRef, PeerArena};

/// An arena with blocks of several sizes, its file, and the peer that reads them; made once.
fn arena() -> &'static (PeerArena, File, Vec<BlockRef>) {
    static ARENA: OnceLock<(PeerArena, File, Vec<BlockRef>)> = OnceLock::new();
    ARENA.get_or_init(|| {
        let mut owner = Arena::create(8 << 20).expect("an empty file");
        let blocks = [0, 1, 2, 35, 100, 5000, 70_000]
            .map(|length: usize| {
                let mut block = owner.allocate(length).expect("room");
                let bytes: Vec<u8> = (0..length).map(|at| (at % 3) as u8).collect();
                block.write_at(0, &bytes);
                block.reference()
            })
            .to_vec();
        let peer = PeerArena::open(owner.fd().try_clone_to_owned().expect("a descriptor"))
            .expect("a sealed file");
        (
            peer,
            File::from(owner.fd().try_clone_to_owned().expect("a descriptor")),
            blocks,
        )
    })
}

/// Byte 0 steers; 0xB0 and the following byte in the rest become the reference of a real block, which random bytes never hit.
pub(crate) fn run(bytes: &[u8]) {
    let Some((steer, rest)) = bytes.split_first() else {
        return;
    };
    let (peer, file, blocks) = arena();
    let mut input = Vec::with_capacity(rest.len());
    let mut place = 0;
    while let Some(byte) = rest.get(place) {
        match (byte, rest.get(place + 1)) {
            (0xB0, Some(which)) => {
                let mut reference = blocks[usize::from(*which) % blocks.len()];
                if which & 0x80 != 0 {
                    reference.len = reference.len.wrapping_add(u64::from(*which & 3));
                }
                input.extend_from_slice(&reference.to_bytes());
                place += 2;
            }
            _ => {
                input.push(*byte);
                place += 1;
            }
        }
    }
    let _ = wire::read_reference(&input);
    assert!(wire::read_ready(&input) >= 0);
    if let Ok((times, rest)) = wire::Times::read(&input) {
        assert_eq!(times.to_bytes(), input[..input.len() - rest.len()]);
    }
    if let Ok((_, _, packet)) = wire::read_function(&input) {
        assert!(packet.len() + 36 == input.len());
    }
    if let Ok(packet) = Packet::read(&input) {
        assert_eq!(
            2 + packet.buffers().len() * 33 + packet.body.len(),
            input.len()
        );
        let mut again = Vec::new();
        let buffers: Vec<_> = packet.buffers().map(wire::BufferRef::to_bytes).collect();
        wire::write_buffers(&mut again, &buffers);
        assert_eq!(again.len() + packet.body.len(), input.len());
    }
    let kind = u32::from(*steer) & 0x1f | if steer & 0x80 != 0 { wire::IN_ARENA } else { 0 };
    let arena = (steer & 0x40 == 0).then_some(peer);
    drop(Reply::read(kind, &input, arena));
    // The reply has released its blocks, which the next input shall read again: byte 8 of the 64 before a block says so.
    for block in blocks {
        file.write_all_at(&[0; 4], block.extent_offset + block.offset - 56)
            .expect("inside the file");
    }
}
