//! Arbitrary bytes in a lane and its ring: read as `Corrupt` or as bounded records, and the lane serves again after a reset.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use treadle_shm::{Board, RingReader, Shape, ShmError, WorkerEnd};

const SHAPE: Shape = Shape {
    slots: 2,
    workers: 1,
    ring_bytes: 256,
    hands: 1,
};
/// Where the lane begins, and its words before the ring.
const LANE: u64 = 4096 + 2 * 256;
const LANE_BYTES: usize = 256;
/// The most rounds of one input.
const ROUNDS: usize = 8;

/// Each round takes a steering byte, then up to a lane and ring of bytes.
pub(crate) fn run(mut bytes: &[u8]) {
    let board = Arc::new(Board::create(SHAPE).expect("a board of two pages"));
    let file = File::from(board.fd().try_clone_to_owned().expect("a descriptor"));
    let mut reader = RingReader::new(Arc::clone(&board), 0);
    let write = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at).expect("inside the file");
    let mut head = 0_u64;
    for _ in 0..ROUNDS {
        let Some((steer, rest)) = bytes.split_first() else {
            break;
        };
        let (garbage, rest) = rest.split_at(rest.len().min(LANE_BYTES + SHAPE.ring_bytes as usize));
        bytes = rest;
        if steer & 1 == 0 {
            write(LANE, garbage);
        } else {
            // A plausible tail, so that the records themselves are looked at.
            let ring = &garbage[..garbage.len().min(SHAPE.ring_bytes as usize)];
            write(LANE + LANE_BYTES as u64, ring);
            write(LANE, &(head + u64::from(steer >> 1) * 8).to_ne_bytes());
        }
        let mut total = 0;
        let read = reader.read(&mut |record| total += record.bytes.len() + 16);
        board.split(0, board.current_task(0));
        board.drafted(0, board.current_task(0));
        assert!(
            total <= SHAPE.ring_bytes as usize,
            "{total} bytes out of a ring of 256"
        );
        assert!(matches!(read, Ok(_) | Err(ShmError::Corrupt(_))));
        board.in_hand(0);
        board.split(0, board.current_task(0));
        board.drafted(0, board.current_task(0));
        board.recover(0);
        board.reset_lane(0);
        assert!(reader.is_empty());
        let mut worker = WorkerEnd::new(Arc::clone(&board), 0);
        worker
            .commit(5, 6, &[b"so", b"und"])
            .expect("an empty ring");
        let mut seen = Vec::new();
        let read =
            reader.read(&mut |record| seen.push((record.task, record.kind, record.bytes.to_vec())));
        assert_eq!(read.ok(), Some(1));
        assert_eq!(seen, [(5, 6, b"sound".to_vec())]);
        let mut word = [0; 8];
        file.read_exact_at(&mut word, LANE)
            .expect("inside the file");
        head = u64::from_ne_bytes(word);
    }
}
