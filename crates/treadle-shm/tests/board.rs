//! The board in one process, and with threads in the workers' place.
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use treadle_shm::*;

const SHAPE: Shape = Shape {
    slots: 8,
    workers: 2,
    ring_bytes: 4096,
    hands: 1,
};

fn board(shape: Shape) -> Arc<Board> {
    Arc::new(Board::create(shape).unwrap())
}

fn read_all(reader: &mut RingReader) -> Vec<(u64, u32, Vec<u8>)> {
    let mut records = Vec::new();
    reader
        .read(&mut |record| records.push((record.task, record.kind, record.bytes.to_vec())))
        .unwrap();
    records
}

#[test]
fn a_task_goes_round() {
    let board = board(SHAPE);
    let mut publisher = Publisher::new(Arc::clone(&board));
    let mut reader = RingReader::new(Arc::clone(&board), 1);
    let opened = Arc::new(Board::open(board.fd().try_clone_to_owned().unwrap()).unwrap());
    assert_eq!(opened.shape(), SHAPE);
    let mut worker = WorkerEnd::new(opened, 1);
    let mut buffer = [0; SLOT_PAYLOAD];
    assert_eq!(worker.claim(&mut buffer), None);
    for len in [0, 1, 7, 8, 9, SLOT_PAYLOAD - 1, SLOT_PAYLOAD] {
        let payload: Vec<u8> = (0..len).map(|index| index as u8).collect();
        let task = 100 + len as u64;
        publisher.publish(task, 7, &payload).unwrap();
        board.wake_for_work();
        assert_eq!(
            worker.claim(&mut buffer),
            Some(Claimed { task, kind: 7, len })
        );
        assert_eq!(buffer[..len], payload);
        assert_eq!(board.current_task(1), task);
        assert!(
            board.task_started_at(1) > 0 && board.task_started_at(1) <= monotonic_nanoseconds()
        );
        worker.begin_chunk(task, 2);
        assert!(worker.next_item() && worker.draft(b"one", &[]));
        assert_eq!(board.split(1, task + 1), None);
        assert_eq!(board.split(1, task), Some((1, 2)));
        assert!(!worker.next_item());
        worker
            .commit(
                task,
                9,
                &[
                    &payload[..len / 3],
                    &payload[len / 3..len / 2],
                    &payload[len / 2..],
                ],
            )
            .unwrap();
        assert_eq!((board.current_task(1), board.task_started_at(1)), (0, 0));
        assert!(!reader.is_empty());
        assert_eq!(read_all(&mut reader), [(task, 9, payload)]);
        assert!(reader.is_empty());
    }
}

#[test]
fn any_number_of_retracted_tasks_is_skipped() {
    let board = board(SHAPE);
    let mut publisher = Publisher::new(Arc::clone(&board));
    let mut worker = WorkerEnd::new(Arc::clone(&board), 0);
    let mut buffer = [0; SLOT_PAYLOAD];
    // Nobody claims meanwhile, so nobody advances the head; 16 is two rounds of the queue.
    for retracted in [1, 15, 16, 17, 100, 1000] {
        for task in 0..retracted {
            let position = publisher.publish(task + 1, 0, b"").unwrap();
            assert!(board.retract(position, task + 1));
        }
        let waiting = [5001, 5002, 5003].map(|task| publisher.publish(task, 0, b"").unwrap());
        assert!(board.retract(waiting[1], 5002));
        for task in [5001, 5003] {
            let claimed = worker.claim(&mut buffer).map(|claimed| claimed.task);
            assert_eq!(claimed, Some(task), "after {retracted} retracted tasks");
        }
        assert_eq!(worker.claim(&mut buffer), None);
    }
}

#[test]
fn the_queue_fills_and_a_retracted_slot_is_skipped() {
    let board = board(SHAPE);
    let mut publisher = Publisher::new(Arc::clone(&board));
    let mut worker = WorkerEnd::new(Arc::clone(&board), 0);
    let mut buffer = [0; SLOT_PAYLOAD];
    let positions: Vec<u64> = (1..=8)
        .map(|task| publisher.publish(task, 0, &[]).unwrap())
        .collect();
    assert!(!publisher.has_room() && publisher.publish(9, 0, &[]).is_none());
    assert!(board.retract(positions[0], 1) && !board.retract(positions[0], 1));
    assert!(
        !board.retract(positions[3], 99),
        "a different task is not taken back"
    );
    assert!(board.retract(positions[2], 3));
    assert!(
        publisher.publish(9, 0, &[]).is_some(),
        "a retracted slot is free at once"
    );
    let mut claimed = Vec::new();
    while let Some(task) = worker.claim(&mut buffer) {
        claimed.push(task.task);
        worker.commit(task.task, 0, &[]).unwrap();
    }
    assert_eq!(claimed, [2, 4, 5, 6, 7, 8, 9]);
    assert!(!board.retract(positions[4], 5), "a worker had it");
}

/// Runs tasks until the order to stop: `each` sees one before its payload is sent back.
fn work(board: Arc<Board>, number: u32, mut each: impl FnMut(&Claimed)) {
    let mut worker = WorkerEnd::new(board, number);
    let mut buffer = [0; SLOT_PAYLOAD];
    loop {
        while let Some(claimed) = worker.claim(&mut buffer) {
            each(&claimed);
            while worker
                .commit(claimed.task, 1, &[&buffer[..claimed.len]])
                .is_err()
            {
                worker.wait_for_room(claimed.len, None);
            }
        }
        if worker.wait_for_task(None) == Waited::Stop {
            return;
        }
    }
}

#[test]
fn every_task_is_done_once_by_threads_that_sleep_and_wake() {
    const TASKS: u64 = 20_000;
    let shape = Shape {
        slots: 64,
        workers: 3,
        ring_bytes: 1024,
        hands: 1,
    };
    let board = board(shape);
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for number in 0..shape.workers {
            let (board, done) = (Arc::clone(&board), &done);
            scope.spawn(move || work(board, number, |_| _ = done.fetch_add(1, Ordering::Relaxed)));
        }
        let mut publisher = Publisher::new(Arc::clone(&board));
        let mut readers: Vec<_> = (0..3)
            .map(|number| RingReader::new(Arc::clone(&board), number))
            .collect();
        let mut seen = HashSet::new();
        let mut next = 1;
        while (seen.len() as u64) < TASKS {
            while next <= TASKS && publisher.publish(next, 0, &next.to_ne_bytes()).is_some() {
                next += 1;
                board.wake_for_work();
            }
            let mut drain = || -> usize {
                let each = &mut |record: Record<'_>| {
                    assert_eq!(record.bytes, record.task.to_ne_bytes());
                    assert!(seen.insert(record.task), "task {} came twice", record.task);
                };
                readers
                    .iter_mut()
                    .map(|reader| reader.read(each).unwrap())
                    .sum()
            };
            if drain() == 0 {
                let ticket = board.prepare_wait(0);
                if drain() > 0 || (next <= TASKS && publisher.has_room()) {
                    board.cancel_wait(ticket);
                } else {
                    assert_ne!(
                        board.wait(ticket, Some(Duration::from_secs(60))),
                        Woken::TimedOut,
                        "a lost wake-up"
                    );
                }
            }
        }
        (0..3).for_each(|number| board.request_stop(number));
    });
    assert_eq!(done.load(Ordering::Relaxed), TASKS);
    assert_eq!(board.idle_workers(), 0);
}

#[test]
fn workers_beyond_the_cores_come_when_the_others_are_stuck() {
    const WORKERS: u32 = 4;
    const ROUNDS: u64 = 100;
    const MEETING: u32 = 7;
    let shape = Shape {
        slots: 1024,
        workers: WORKERS,
        ring_bytes: 1 << 16,
        hands: 1,
    };
    let board = board(shape);
    board.set_cores(1);
    let met = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for number in 0..WORKERS {
            let (board, met) = (Arc::clone(&board), &met);
            scope.spawn(move || {
                work(board, number, |claimed| {
                    if claimed.kind != MEETING {
                        return;
                    }
                    // Nobody leaves before all have come, so that each needs a worker of its own.
                    let round = met.fetch_add(1, Ordering::SeqCst) / u64::from(WORKERS) + 1;
                    while met.load(Ordering::SeqCst) < round * u64::from(WORKERS) {
                        std::thread::sleep(Duration::from_micros(20));
                    }
                })
            });
        }
        let mut publisher = Publisher::new(Arc::clone(&board));
        let mut readers: Vec<_> = (0..WORKERS)
            .map(|number| RingReader::new(Arc::clone(&board), number))
            .collect();
        let mut task = 0;
        for round in 1..=ROUNDS {
            // The short ones before let workers hold back; there is nobody but them to look after the last four.
            let kinds = std::iter::repeat_n(0, 500).chain([MEETING; WORKERS as usize]);
            let mut left = 0;
            for kind in kinds {
                task += 1;
                publisher.publish(task, kind, &[]).unwrap();
                board.wake_for_work();
                if task % 61 == 0 {
                    // As for room in its ring: nobody counts on this one to take a task.
                    board.wake_worker((task / 61) as u32 % WORKERS);
                }
                left += 1;
            }
            while left > 0 {
                let ticket = board.prepare_wait(0);
                let read: usize = readers
                    .iter_mut()
                    .map(|reader| reader.read(&mut |_: Record<'_>| {}).unwrap())
                    .sum();
                left -= read;
                if read > 0 {
                    board.cancel_wait(ticket);
                } else if board.wait(ticket, Some(Duration::from_secs(60))) == Woken::TimedOut {
                    eprintln!("round {round}: {left} tasks wait and nobody comes");
                    std::process::exit(1);
                }
            }
        }
        (0..WORKERS).for_each(|number| board.request_stop(number));
    });
    assert_eq!(
        met.load(Ordering::Relaxed),
        ROUNDS * u64::from(WORKERS),
        "every meeting took place"
    );
}

#[test]
fn a_signal_ends_a_wait() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    // SAFETY: an all-zero sigaction is a valid one (no flags: no restart, as Python installs its handlers), and the
    // handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        assert_eq!(
            libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()),
            0
        );
    }
    let board = board(SHAPE);
    let (tell, thread) = std::sync::mpsc::channel();
    let over = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            // SAFETY: pthread_self cannot fail and touches nothing.
            tell.send(unsafe { libc::pthread_self() }).unwrap();
            let ticket = board.prepare_wait(0);
            let woken = board.wait(ticket, Some(Duration::from_secs(60)));
            let waited =
                WorkerEnd::new(Arc::clone(&board), 0).wait_for_task(Some(Duration::from_secs(60)));
            over.store(1, Ordering::SeqCst);
            (woken, waited)
        });
        let thread = thread.recv().unwrap();
        while over.load(Ordering::SeqCst) == 0 {
            // SAFETY: the thread is not joined yet, so its id is good.
            unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
            std::thread::yield_now();
        }
        assert_eq!(
            waiter.join().unwrap(),
            (Woken::Interrupted, Waited::Interrupted)
        );
    });
    assert_eq!(board.idle_workers(), 0);
}

#[test]
fn waits_end_by_time_and_by_a_ring() {
    let board = board(SHAPE);
    let mut worker = WorkerEnd::new(Arc::clone(&board), 0);
    assert_eq!(worker.wait_for_task(Some(Duration::ZERO)), Waited::TimedOut);
    assert_eq!(
        board.wait(board.prepare_wait(0), Some(Duration::ZERO)),
        Woken::TimedOut
    );
    let ticket = board.prepare_wait(7);
    board.ring_parent();
    assert_eq!(board.wait(ticket, None), Woken::Rung);
    let ticket = board.prepare_wait(7);
    worker.commit(7, 0, &[]).unwrap();
    assert_eq!(board.wait(ticket, None), Woken::Rung);
    let ticket = board.prepare_wait(7);
    worker.commit(8, 0, &[]).unwrap();
    assert_eq!(
        board.wait(ticket, Some(Duration::ZERO)),
        Woken::TimedOut,
        "the wrong task does not ring"
    );
    let ticket = board.prepare_wait(7);
    while worker.commit(8, 0, &[&[1; 100]]).is_ok() {}
    assert_eq!(board.wait(ticket, None), Woken::Rung, "a filling ring does");
    assert!(!worker.wait_for_room(100, Some(Duration::ZERO)));
    assert!(
        !worker.wait_for_room(worker.max_record() + 1, None),
        "it never fits"
    );
    assert!(read_all(&mut RingReader::new(Arc::clone(&board), 0)).len() > 30);
    assert!(worker.wait_for_room(worker.max_record(), None));
    board.request_stop(0);
    assert_eq!(worker.wait_for_task(None), Waited::Stop);
}

#[test]
fn a_call_ends_the_sleep_it_meets_or_the_next_one() {
    let board = board(SHAPE);
    let mut publisher = Publisher::new(Arc::clone(&board));
    let mut worker = WorkerEnd::new(Arc::clone(&board), 0);
    let caller = worker.caller();
    caller.call();
    assert_eq!(worker.wait_for_task(None), Waited::Called);
    assert_eq!(worker.wait_for_task(Some(Duration::ZERO)), Waited::TimedOut);
    // Work comes first, and the call is not lost over it.
    caller.call();
    publisher.publish(1, 0, b"").unwrap();
    assert_eq!(worker.wait_for_task(None), Waited::Work);
    assert!(worker.claim(&mut [0; SLOT_PAYLOAD]).is_some());
    assert_eq!(worker.wait_for_task(None), Waited::Called);
    for _ in 0..2000 {
        std::thread::scope(|scope| {
            scope.spawn(|| caller.call());
            assert_eq!(worker.wait_for_task(None), Waited::Called);
        });
    }
}

#[test]
fn spinning_changes_nothing_but_time() {
    let board = board(SHAPE);
    board.set_spin(Duration::from_micros(50));
    let mut publisher = Publisher::new(Arc::clone(&board));
    let mut reader = RingReader::new(Arc::clone(&board), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut worker = WorkerEnd::new(Arc::clone(&board), 0);
            let mut buffer = [0; SLOT_PAYLOAD];
            while worker.wait_for_task(None) == Waited::Work {
                while let Some(claimed) = worker.claim(&mut buffer) {
                    worker.commit(claimed.task, 0, &[]).unwrap();
                }
            }
        });
        for task in 1..=2000 {
            publisher.publish(task, 0, &[]).unwrap();
            board.wake_for_work();
            let mut seen = 0;
            while seen == 0 {
                let ticket = board.prepare_wait(task);
                seen = read_all(&mut reader).len();
                if seen > 0 {
                    board.cancel_wait(ticket);
                } else {
                    assert_ne!(
                        board.wait(ticket, Some(Duration::from_secs(60))),
                        Woken::TimedOut
                    );
                }
            }
        }
        board.request_stop(0);
    });
}

#[test]
fn a_draft_outlives_its_worker_and_counts_once() {
    let board = board(SHAPE);
    let worker = WorkerEnd::new(Arc::clone(&board), 0);
    let reference = |byte: u8| [byte; REFERENCE_BYTES];
    worker.begin_chunk(7, 3);
    assert_eq!(board.drafted(0, 7), Some(Draft::default()));
    assert!(worker.draft(b"first", &[]));
    assert!(worker.draft(b"second", &[reference(1), reference(2)]));
    assert_eq!(worker.draft_references(), 2);
    let draft = board.drafted(0, 7).unwrap();
    assert_eq!(draft, worker.read_draft());
    assert_eq!(
        (draft.part, draft.body.as_slice()),
        (0, b"firstsecond".as_slice())
    );
    assert_eq!(draft.references, [reference(1), reference(2)]);
    worker.next_part();
    assert_eq!(
        board.drafted(0, 7),
        Some(Draft {
            part: 1,
            ..Draft::default()
        })
    );
    assert_eq!(
        board.drafted(0, 8),
        None,
        "the draft of another task was taken"
    );
    worker.begin_chunk(8, 1);
    assert_eq!(
        board.drafted(0, 7),
        None,
        "the draft of an earlier chunk was taken"
    );
    assert_eq!(board.drafted(0, 8), Some(Draft::default()));
    board.recover(0);
    board.reset_lane(0);
    assert_eq!(board.drafted(0, 8), None);
}

#[test]
fn a_draft_takes_what_fits_and_refuses_the_rest_whole() {
    let board = board(SHAPE);
    let worker = WorkerEnd::new(Arc::clone(&board), 1);
    worker.begin_chunk(1, 1);
    assert!(!worker.draft(&vec![1; 1 << 20], &[]));
    assert!(!worker.draft(b"", &vec![[0; REFERENCE_BYTES]; 1000]));
    assert_eq!(board.drafted(1, 1), Some(Draft::default()));
    let mut taken = 0;
    while worker.draft(&[taken as u8; 50], &[[taken as u8; REFERENCE_BYTES]]) {
        taken += 1;
    }
    let draft = board.drafted(1, 1).unwrap();
    assert_eq!(taken, 15 * 1024 / (50 + REFERENCE_BYTES));
    assert_eq!(
        (draft.body.len(), draft.references.len()),
        (taken * 50, taken)
    );
    for (place, reference) in draft.references.iter().enumerate() {
        assert_eq!(reference, &[place as u8; REFERENCE_BYTES]);
        assert_eq!(draft.body[place * 50], place as u8);
    }
}
