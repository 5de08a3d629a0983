//! A worker that takes tasks of arbitrary kinds and bytes: each is taken whole or refused with its id.

use std::sync::Arc;

use treadle_core::pool::worker::{Holdings, WorkerSession};
use treadle_shm::{Arena, Board, Publisher, SLOT_PAYLOAD, Shape};

/// The most tasks of one input.
const TASKS: usize = 8;

/// Each task: its kind (two bytes), a length, then its payload. 0xB0 and the following byte become the reference of a real block.
pub(crate) fn run(mut bytes: &[u8]) {
    let shape = Shape {
        slots: 8,
        workers: 1,
        ring_bytes: 4096,
        hands: 1,
    };
    let board = Arc::new(Board::create(shape).expect("a small board"));
    let copy = |descriptor: std::os::fd::BorrowedFd<'_>| {
        descriptor.try_clone_to_owned().expect("a descriptor")
    };
    let mut parent = Arena::create(1 << 20).expect("an empty file");
    let blocks = [0_usize, 3, 40, 300].map(|length| {
        let mut block = parent.allocate(length).expect("room");
        let content: Vec<u8> = bytes
            .iter()
            .copied()
            .chain([1])
            .cycle()
            .take(length)
            .collect();
        block.write_at(0, &content);
        block.reference()
    });
    let mine = Arena::empty_file().expect("an empty file");
    let holdings =
        Holdings::open(copy(board.fd()), copy(parent.fd()), mine, 1 << 20).expect("sound files");
    let mut session = WorkerSession::new(holdings, 0);
    let mut publisher = Publisher::new(Arc::clone(&board));
    for id in 1..=TASKS as u64 {
        let Some(([low, high, length], rest)) = bytes.split_first_chunk::<3>() else {
            break;
        };
        let (content, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        bytes = rest;
        let mut payload = Vec::new();
        let mut content = content.iter().copied();
        while let Some(byte) = content.next() {
            match (byte, content.len() > 0) {
                (0xB0, true) => {
                    let which = usize::from(content.next().unwrap_or_default());
                    payload.extend_from_slice(&blocks[which % blocks.len()].to_bytes());
                }
                _ => payload.push(byte),
            }
        }
        payload.truncate(SLOT_PAYLOAD);
        let kind = u32::from(u16::from_le_bytes([*low, *high]));
        publisher.publish(id, kind, &payload).expect("a free slot");
        let mut payload = Vec::new();
        match session.take(&mut payload).expect("a task") {
            Ok(taken) => {
                assert_eq!(taken.task, id);
                taken.body_of(&payload);
                if let Some((_, block)) = taken.function {
                    let _ = session.holdings().read_block(block);
                }
                for (mapped, _) in &taken.buffers {
                    mapped.copy_to_vec().expect("memory for a copy");
                }
            }
            Err((task, _)) => assert_eq!(task, id),
        }
        session
            .reply(id, kind & 7, b"done", &[])
            .expect("room in the ring");
    }
}
