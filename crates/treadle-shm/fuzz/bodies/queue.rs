//! A program of queue operations, with words of the header and the slots overwritten in between.
//!
//! While nothing was overwritten each task is claimed, retracted or recovered exactly once. After it, nothing panics, loops or reads outside
//! its bounds, and the damage is told.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use treadle_shm::{Board, Publisher, RingReader, SLOT_PAYLOAD, Shape, WorkerEnd};

const SHAPE: Shape = Shape {
    slots: 4,
    workers: 2,
    ring_bytes: 256,
    hands: 1,
};
/// Behind the header's sizes, which nobody reads after the opening: the head, the bell, the idle bits; then the slots.
const DAMAGED_FROM: u64 = 64;
const DAMAGED_TO: u64 = 4096 + 4 * 256;
/// The most operations of one input.
const STEPS: usize = 256;

fn number<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

/// Interprets the input as a program of one-byte operations and their operands.
pub(crate) fn run(mut bytes: &[u8]) {
    let board = Arc::new(Board::create(SHAPE).expect("a small board"));
    let file = File::from(board.fd().try_clone_to_owned().expect("a descriptor"));
    let mut publisher = Publisher::new(Arc::clone(&board));
    let mut workers = [0, 1].map(|lane| WorkerEnd::new(Arc::clone(&board), lane));
    let mut readers = [0, 1].map(|lane| RingReader::new(Arc::clone(&board), lane));
    let mut waiting: BTreeSet<(u64, u64)> = BTreeSet::new();
    let mut buffer = [0; SLOT_PAYLOAD];
    let mut next = 1_u64;
    let mut damaged = false;
    for _ in 0..STEPS {
        let Some([operation]) = number::<1>(&mut bytes) else {
            break;
        };
        let lane = usize::from(operation >> 7);
        match operation & 7 {
            0 | 1 => {
                let payload = [operation; SLOT_PAYLOAD];
                let length = usize::from(operation >> 3) * 6;
                if let Some(position) =
                    publisher.publish(next, u32::from(operation), &payload[..length])
                {
                    assert!(
                        damaged || board.is_waiting(position, next) && board.holds(position, next)
                    );
                    waiting.insert((position, next));
                    next += 1;
                }
                board.wake_for_work();
            }
            2 => match workers[lane].claim(&mut buffer) {
                Some(claimed) if damaged => assert!(claimed.len <= SLOT_PAYLOAD),
                Some(claimed) => {
                    let (position, task) = waiting.pop_first().expect("a claimed task was waiting");
                    assert_eq!(claimed.task, task, "tasks are claimed in order");
                    assert!(!board.holds(position, task));
                    assert_eq!(board.current_task(lane as u32), task);
                    assert!(
                        buffer[..claimed.len]
                            .iter()
                            .all(|byte| u32::from(*byte) == claimed.kind)
                    );
                    let _ =
                        workers[lane].commit(task, claimed.kind, &[&buffer[..8.min(claimed.len)]]);
                }
                None => assert!(damaged || waiting.is_empty()),
            },
            3 => {
                let Some((position, task)) = waiting.pop_last() else {
                    continue;
                };
                assert!(board.retract(position, task) || damaged);
                assert!(damaged || !board.holds(position, task));
            }
            4 => {
                let (Some(place), Some(value)) = (number::<2>(&mut bytes), number::<8>(&mut bytes))
                else {
                    break;
                };
                let words = (DAMAGED_TO - DAMAGED_FROM) / 8;
                let place = DAMAGED_FROM + u64::from(u16::from_le_bytes(place)) % words * 8;
                file.write_all_at(&value, place).expect("inside the file");
                damaged = true;
            }
            5 => {
                let recovered = board.recover(lane as u32);
                assert!(damaged || (recovered.damaged == 0 && recovered.claimed.is_empty()));
                let _ = readers[lane].read(&mut |_| {});
                board.reset_lane(lane as u32);
                workers[lane] = WorkerEnd::new(Arc::clone(&board), lane as u32);
            }
            6 => {
                assert!(damaged || board.damage() == 0);
                board.queued();
                board.idle_workers();
                board.wake_all_workers();
                let ticket = board.prepare_wait(u64::from(operation >> 3));
                if lane == 0 {
                    board.cancel_wait(ticket);
                } else {
                    board.wait(ticket, Some(Duration::ZERO));
                }
            }
            _ => {
                let _ = readers[lane].read(&mut |record| assert!(record.bytes.len() <= 256));
                workers[lane].wait_for_task(Some(Duration::ZERO));
            }
        }
    }
}
