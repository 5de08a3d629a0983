//! A worker that writes garbage: the parent reads nonsense as `Corrupt` or as bounded records, and never panics.
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;
use treadle_shm::*;

const SHAPE: Shape = Shape {
    slots: 8,
    workers: 2,
    ring_bytes: 1024,
    hands: 1,
};
const HEADER: u64 = 4096;
const LANE_0: u64 = HEADER + 8 * 256;
const DRAFT: u64 = 15 * 1024;
const LANE_1: u64 = LANE_0 + 256 + 1024 + DRAFT;
/// Where a lane names the task that its draft is of.
const DRAFT_OF: u64 = 40;

struct Random(u64);
impl Random {
    fn new() -> Random {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        println!("seed {}", now.as_nanos() as u64 | 1);
        Random(now.as_nanos() as u64 | 1)
    }
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn board() -> (Arc<Board>, File) {
    let board = Arc::new(Board::create(SHAPE).unwrap());
    // Writing through the file is what a worker with a stray pointer does through its mapping.
    let file = File::from(board.fd().try_clone_to_owned().unwrap());
    (board, file)
}

#[test]
fn a_lane_of_random_bytes_is_corrupt_or_bounded() {
    let mut random = Random::new();
    let (board, file) = board();
    let mut readers = [0, 1].map(|lane| RingReader::new(Arc::clone(&board), lane));
    let mut corrupt = 0;
    let mut records = 0;
    let mut drafts = 0;
    let mut head = 0;
    for turn in 0..20_000 {
        // Words of all sizes: plausible small ones find the deeper checks.
        let bytes: Vec<u8> = (0..(256 + 1024) / 8)
            .flat_map(|_| (random.next() >> (random.next() % 64)).to_ne_bytes())
            .collect();
        file.write_all_at(&bytes, LANE_0).unwrap();
        if turn % 2 == 0 {
            // A plausible tail, so that the records themselves are looked at.
            let tail = head + random.next() % 129 * 8;
            file.write_all_at(&tail.to_ne_bytes(), LANE_0).unwrap();
        }
        let mut total = 0;
        let read = readers[0].read(&mut |record| {
            records += 1;
            total += record.bytes.len() + 16;
        });
        assert!(total <= 1024, "{total} bytes out of a ring of 1024");
        match read {
            Err(ShmError::Corrupt(_)) => corrupt += 1,
            Err(error) => panic!("{error}"),
            Ok(_) => {}
        }
        board.current_task(0);
        board.task_started_at(0);
        board.split(0, board.current_task(0));
        file.write_all_at(&7u64.to_ne_bytes(), LANE_0 + DRAFT_OF)
            .unwrap();
        if let Some(draft) = board.drafted(0, 7) {
            drafts += 1;
            let bytes = draft.body.len() + draft.references.len() * REFERENCE_BYTES;
            assert!(bytes <= DRAFT as usize, "{bytes} bytes out of a draft");
        }
        board.recover(0);
        board.reset_lane(0);
        assert!(readers[0].is_empty());
        let mut word = [0; 8];
        file.read_exact_at(&mut word, LANE_0).unwrap();
        head = u64::from_ne_bytes(word);
    }
    assert!(
        corrupt > 1000 && records > 1000 && drafts > 100,
        "{corrupt} corrupt, {records} records, {drafts} drafts"
    );
    // The lane serves again, and the other was never touched.
    for lane in [0, 1] {
        let mut worker = WorkerEnd::new(Arc::clone(&board), lane);
        worker.commit(5, 6, &[b"sound"]).unwrap();
        let count = readers[lane as usize].read(&mut |record| {
            assert_eq!(
                record,
                Record {
                    task: 5,
                    kind: 6,
                    bytes: b"sound"
                }
            );
        });
        assert_eq!(count.unwrap(), 1);
    }
}

#[test]
fn records_before_the_damage_are_read_once() {
    let (board, file) = board();
    let mut reader = RingReader::new(Arc::clone(&board), 1);
    let mut worker = WorkerEnd::new(Arc::clone(&board), 1);
    worker.commit(1, 0, &[b"one"]).unwrap();
    worker.commit(2, 0, &[b"two"]).unwrap();
    file.write_all_at(&u32::MAX.to_ne_bytes(), LANE_1 + 256 + 24 + 8)
        .unwrap();
    for expected in [vec![1], vec![]] {
        let mut seen = Vec::new();
        assert!(matches!(
            reader.read(&mut |record| seen.push(record.task)),
            Err(ShmError::Corrupt(_))
        ));
        assert_eq!(seen, expected);
    }
}

#[test]
fn random_slots_and_header_words_break_nothing_but_the_queue() {
    let mut random = Random::new();
    let mut reported = 0;
    for _ in 0..300 {
        let (board, file) = board();
        let mut publisher = Publisher::new(Arc::clone(&board));
        let mut worker = WorkerEnd::new(Arc::clone(&board), 1);
        let mut buffer = [0; SLOT_PAYLOAD];
        for task in 1..=6 {
            publisher.publish(task, 0, &[1, 2, 3]);
        }
        worker.claim(&mut buffer);
        let bytes: Vec<u8> = (0..8 * 256 / 8)
            .flat_map(|_| (random.next() >> (random.next() % 64)).to_ne_bytes())
            .collect();
        file.write_all_at(&bytes, HEADER).unwrap();
        // All of the header behind the sizes: head hint, bell, idle bits.
        let bytes: Vec<u8> = (0..56).flat_map(|_| random.next().to_ne_bytes()).collect();
        file.write_all_at(&bytes, 64).unwrap();
        for task in 7..20 {
            publisher.publish(task, 0, &[4]);
            board.wake_for_work();
            if let Some(claimed) = worker.claim(&mut buffer) {
                assert!(claimed.len <= SLOT_PAYLOAD);
                let _ = worker.commit(claimed.task, 0, &[&buffer[..claimed.len]]);
            }
        }
        board.queued();
        board.idle_workers();
        let ticket = board.prepare_wait(3);
        board.wait(ticket, Some(Duration::from_micros(1)));
        reported += usize::from(board.recover(0).damaged > 0);
    }
    assert_eq!(reported, 300, "the damage is reported");
}

#[test]
fn a_foreign_or_damaged_file_is_not_opened() {
    let (board, file) = board();
    let open = || Board::open(board.fd().try_clone_to_owned().unwrap());
    assert_eq!(open().unwrap().shape(), SHAPE);
    let mut start = [0; 28];
    file.read_exact_at(&mut start, 0).unwrap();
    let refuses = |at: u64, value: u32, layout: bool| {
        file.write_all_at(&value.to_ne_bytes(), at).unwrap();
        let error = open().unwrap_err();
        assert_eq!(matches!(error, ShmError::Layout { .. }), layout, "{error}");
        assert_eq!(matches!(error, ShmError::Corrupt(_)), !layout, "{error}");
        file.write_all_at(&start, 0).unwrap();
    };
    refuses(0, 1, true); // the mark
    refuses(8, 999, true); // the layout
    for (at, values) in [
        (12, [0, 3, 1 << 20]),
        (16, [0, 1024, u32::MAX]),
        (20, [0, 1000, 1 << 30]),
        (24, [0, 1 << 14, u32::MAX]),
    ] {
        values
            .into_iter()
            .for_each(|value| refuses(at, value, false));
    }
    assert!(open().is_ok());
    for shape in [
        Shape { slots: 3, ..SHAPE },
        Shape { slots: 0, ..SHAPE },
        Shape {
            workers: 0,
            ..SHAPE
        },
        Shape {
            workers: MAX_WORKERS + 1,
            ..SHAPE
        },
        Shape {
            ring_bytes: 64,
            ..SHAPE
        },
        Shape {
            ring_bytes: 5000,
            ..SHAPE
        },
        Shape { hands: 0, ..SHAPE },
        Shape {
            hands: MAX_HANDS / SHAPE.workers + 1,
            ..SHAPE
        },
        Shape {
            hands: u32::MAX,
            ..SHAPE
        },
    ] {
        assert!(
            matches!(Board::create(shape), Err(ShmError::Shape(_))),
            "{shape:?}"
        );
    }
}

#[test]
fn a_head_that_could_be_right_is_mended() {
    let (board, file) = board();
    let mut publisher = Publisher::new(Arc::clone(&board));
    let mut worker = WorkerEnd::new(Arc::clone(&board), 0);
    let mut buffer = [0; SLOT_PAYLOAD];
    for task in 1..=6 {
        publisher.publish(task, 0, &[]).unwrap();
    }
    let mut claim = || worker.claim(&mut buffer).map(|claimed| claimed.task);
    assert_eq!(claim(), Some(1));
    // The head is the first word behind the header's sizes.
    file.write_all_at(&6_u64.to_ne_bytes(), 64).unwrap();
    assert_eq!(board.damage(), 0, "six tasks were published");
    assert_eq!(claim(), None, "the head is where this test thinks it is");
    board.mend();
    assert_eq!(
        [(); 6].map(|()| claim()),
        [2, 3, 4, 5, 6, 0].map(|task| (task > 0).then_some(task))
    );
    file.write_all_at(&8_u64.to_ne_bytes(), 64).unwrap();
    assert_eq!(board.damage(), 1, "a head beyond all tasks");
}
