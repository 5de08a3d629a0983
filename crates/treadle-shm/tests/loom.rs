//! The protocol under every interleaving (bounded): `RUSTFLAGS="--cfg loom" cargo test -p treadle-shm --release --test loom`.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use loom::sync::{Arc, Mutex};
use loom::thread;
use std::panic::{AssertUnwindSafe, catch_unwind};
use treadle_shm::fault::die_at;
use treadle_shm::park::{Doorbell, IdleSet, ParentBell, nap, wake_one};
use treadle_shm::recover::Remains;
use treadle_shm::ring::{RingView, RingWriter, read};
use treadle_shm::slots::{Claimed, Queue, SLOT_PAYLOAD, Slot};
use treadle_shm::span::Span;
use treadle_shm::sync::{AtomicU32, AtomicU64, Ordering};

/// A board over ordinary memory: two slots, two workers, a ring of 64 bytes.
struct Small {
    slots: Vec<Slot>,
    head: AtomicU64,
    published: AtomicU64,
    idle: IdleSet,
    doors: [Doorbell; 2],
    current: [AtomicU64; 2],
    wants_room: [AtomicU32; 2],
    stop: AtomicU32,
    parent: ParentBell,
    waiting: Mutex<u32>,
    words: Vec<AtomicU64>,
    ring_tail: AtomicU64,
    ring_head: AtomicU64,
    place: AtomicU64,
}

impl Small {
    fn new() -> Arc<Small> {
        Arc::new(Small {
            slots: (0..2).map(Slot::new).collect(),
            head: AtomicU64::new(0),
            published: AtomicU64::new(0),
            idle: IdleSet::new(),
            doors: [Doorbell::new(), Doorbell::new()],
            current: [AtomicU64::new(0), AtomicU64::new(0)],
            wants_room: [AtomicU32::new(0), AtomicU32::new(0)],
            stop: AtomicU32::new(0),
            parent: ParentBell::new(),
            waiting: Mutex::new(0),
            words: (0..8).map(|_| AtomicU64::new(0)).collect(),
            ring_tail: AtomicU64::new(0),
            ring_head: AtomicU64::new(0),
            place: AtomicU64::new(0),
        })
    }

    fn queue(&self) -> Queue<'_> {
        Queue::new(&self.slots, &self.head)
    }

    fn ring(&self) -> RingView<'_> {
        RingView {
            words: &self.words,
            tail: &self.ring_tail,
            head: &self.ring_head,
        }
    }

    fn publish(&self, task: u64) -> bool {
        let position = self.published.load(Ordering::Relaxed);
        let published = self
            .queue()
            .publish(position, task, 5, &(task * 3).to_ne_bytes());
        if published {
            self.published.store(position + 1, Ordering::Release);
        }
        published
    }

    fn claim(&self, worker: u32) -> Option<Claimed> {
        let mut buffer = [0; SLOT_PAYLOAD];
        let current = &self.current[worker as usize];
        let claimed = self.queue().claim(worker, &mut buffer, |task| {
            current.store(task, Ordering::Release)
        })?;
        assert_eq!(
            buffer[..8],
            (claimed.task * 3).to_ne_bytes(),
            "a torn payload"
        );
        assert_eq!((claimed.kind, claimed.len), (5, 8));
        Some(claimed)
    }

    /// Sleeps until it has a task, as a worker's main does.
    fn claim_or_sleep(&self, worker: u32) -> Option<Claimed> {
        loop {
            if let Some(claimed) = self.claim(worker) {
                return Some(claimed);
            }
            if self.stop.load(Ordering::SeqCst) != 0 {
                return None;
            }
            nap(
                &self.idle,
                worker,
                &self.doors[worker as usize],
                self.queue(),
                || self.stop.load(Ordering::SeqCst) != 0,
                false,
                None,
            );
        }
    }

    fn wake(&self) {
        wake_one(
            &self.idle,
            2,
            |worker| &self.doors[worker as usize],
            || false,
        );
    }

    fn drain(&self) -> Vec<u64> {
        let mut tasks = Vec::new();
        let mut scratch = Vec::new();
        read(self.ring(), &self.place, &mut scratch, &mut |record| {
            assert_eq!(record.bytes, record.task.to_ne_bytes(), "a torn record");
            assert_eq!(record.kind, 6);
            tasks.push(record.task);
        })
        .unwrap();
        tasks
    }

    fn commit(&self, writer: &mut RingWriter, worker: u32, task: u64) {
        let bytes = task.to_ne_bytes();
        writer
            .push(self.ring(), task, 6, &[&bytes[..3], &bytes[3..]])
            .unwrap();
        self.current[worker as usize].store(0, Ordering::Release);
        self.parent.committed(task, false);
    }

    fn recover(&self, worker: u32) -> Vec<u64> {
        let recovered = Remains {
            owner: worker,
            worker,
            queue: self.queue(),
            idle: &self.idle,
            door: &self.doors[worker as usize],
            current: &self.current[worker as usize],
            wants_room: &self.wants_room[worker as usize],
        }
        .clear(|| self.published.load(Ordering::Acquire));
        assert_eq!(recovered.damaged, 0);
        self.parent.ring();
        self.doors.iter().for_each(Doorbell::ring);
        recovered
            .claimed
            .into_iter()
            .chain(recovered.current)
            .collect()
    }

    fn stop_all(&self) {
        self.stop.store(1, Ordering::SeqCst);
        self.doors.iter().for_each(Doorbell::ring);
    }
}

/// Explores with at most `preemptions` forced switches.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}

/// Runs `body`, which stops for ever when it meets `point`; false when it did.
fn mortal(point: &'static str, body: impl FnOnce()) -> bool {
    die_at(Some(point));
    let survived = catch_unwind(AssertUnwindSafe(body)).is_ok();
    die_at(None);
    survived
}

#[test]
fn a_task_is_claimed_once_or_retracted() {
    explore(3, || {
        let board = Small::new();
        assert!(board.publish(1) && board.publish(2) && !board.publish(3));
        let claimers: Vec<_> = (0..2)
            .map(|worker| {
                let board = Arc::clone(&board);
                thread::spawn(move || board.claim(worker).map(|claimed| claimed.task))
            })
            .collect();
        // On a thread of its own: loom switches away from a model's first thread too seldom.
        let retractor = {
            let board = Arc::clone(&board);
            thread::spawn(move || board.queue().retract(0, 1))
        };
        let mut had: Vec<u64> = Vec::new();
        had.extend(
            claimers
                .into_iter()
                .filter_map(|thread| thread.join().unwrap()),
        );
        had.extend(retractor.join().unwrap().then_some(1));
        had.extend(std::iter::from_fn(|| board.claim(0)).map(|claimed| claimed.task));
        had.sort_unstable();
        assert_eq!(had, [1, 2]);
    });
}

#[test]
fn a_slot_is_not_filled_again_before_it_was_copied_out() {
    explore(3, || {
        let board = Small::new();
        assert!(board.publish(1) && board.publish(2));
        let publisher = {
            let board = Arc::clone(&board);
            thread::spawn(move || {
                let third = board.publish(3);
                if third {
                    let current = board.current[0].load(Ordering::Relaxed);
                    assert_ne!(
                        current, 0,
                        "a slot was freed before the journal was written"
                    );
                }
                third
            })
        };
        let first = board.claim(0).map(|claimed| claimed.task);
        let second = board.claim(0).map(|claimed| claimed.task);
        assert_eq!((first, second), (Some(1), Some(2)));
        let third = publisher.join().unwrap();
        assert_eq!(
            board.claim(0).map(|claimed| claimed.task),
            third.then_some(3)
        );
    });
}

#[test]
fn an_item_of_a_chunk_is_run_by_its_worker_or_taken_away() {
    explore(3, || {
        let span = Arc::new(Span::new());
        let current = Arc::new(AtomicU64::new(0));
        let worker = {
            let (span, current) = (Arc::clone(&span), Arc::clone(&current));
            thread::spawn(move || {
                // Two chunks, one after the other: tasks 1 and 2, of two items each.
                [1, 2].map(|task| {
                    current.store(task, Ordering::Release);
                    span.begin(2);
                    let mut taken = 0;
                    while span.take() {
                        taken += 1;
                    }
                    current.store(0, Ordering::Release);
                    taken
                })
            })
        };
        let split = span.split(|| current.load(Ordering::Acquire) == 1);
        let taken = worker.join().unwrap();
        let away = split.map_or(0, |(from, end)| end - from);
        assert_eq!(taken[0] + away, 2, "{taken:?} {split:?}");
        assert_eq!(
            taken[1], 2,
            "the wrong chunk was shortened: {taken:?} {split:?}"
        );
    });
}

#[test]
fn records_are_whole_and_in_order() {
    explore(3, || {
        let board = Small::new();
        let writer = {
            let board = Arc::clone(&board);
            thread::spawn(move || {
                let mut writer = RingWriter::new(board.ring());
                let mut pushed = Vec::new();
                for task in 1_u64..=4 {
                    let bytes = task.to_ne_bytes();
                    if writer
                        .push(board.ring(), task, 6, &[&bytes[..5], &bytes[5..]])
                        .is_ok()
                    {
                        pushed.push(task);
                    }
                }
                pushed
            })
        };
        let mut seen = board.drain();
        seen.extend(board.drain());
        let pushed = writer.join().unwrap();
        seen.extend(board.drain());
        assert_eq!(seen, pushed);
    });
}

#[test]
fn a_commit_wakes_the_parent() {
    for want in [0, 1] {
        explore(3, move || {
            let board = Small::new();
            let worker = {
                let board = Arc::clone(&board);
                thread::spawn(move || board.commit(&mut RingWriter::new(board.ring()), 0, 1))
            };
            let mut seen = board.drain();
            while seen.is_empty() {
                let bell = board.parent.arm(&board.waiting, want);
                seen = board.drain();
                if seen.is_empty() {
                    board.parent.sleep(bell, None); // a lost wake-up is a deadlock, which loom reports
                }
                board.parent.disarm(&board.waiting);
                if seen.is_empty() {
                    seen = board.drain();
                }
            }
            worker.join().unwrap();
        });
    }
}

#[test]
fn commits_wake_every_waiter() {
    explore(2, || {
        let board = Small::new();
        let finished = Arc::new(Mutex::new(Vec::new()));
        let waiters: Vec<_> = [1, 2]
            .into_iter()
            .map(|want| {
                let (board, finished) = (Arc::clone(&board), Arc::clone(&finished));
                thread::spawn(move || {
                    let done = || {
                        let mut finished = finished.lock().unwrap();
                        let drained = board.drain();
                        if drained.iter().any(|task| *task != want) {
                            board.parent.ring(); // the other waits for what we have drained
                        }
                        finished.extend(drained);
                        finished.contains(&want)
                    };
                    while !done() {
                        let bell = board.parent.arm(&board.waiting, want);
                        if !done() {
                            board.parent.sleep(bell, None);
                        }
                        board.parent.disarm(&board.waiting);
                    }
                })
            })
            .collect();
        let mut writer = RingWriter::new(board.ring());
        // The second commit comes only when the first has woken its waiter.
        for (waiter, task) in waiters.into_iter().zip([1, 2]) {
            board.commit(&mut writer, 0, task);
            waiter.join().unwrap();
        }
    });
}

#[test]
fn a_publish_wakes_an_idle_worker() {
    explore(3, || {
        let board = Small::new();
        let worker = {
            let board = Arc::clone(&board);
            thread::spawn(move || board.claim_or_sleep(0).map(|claimed| claimed.task))
        };
        assert!(board.publish(1));
        board.wake();
        assert_eq!(worker.join().unwrap(), Some(1));
    });
}

#[test]
fn two_publishes_wake_two_idle_workers() {
    explore(2, || {
        let board = Small::new();
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let board = Arc::clone(&board);
                thread::spawn(move || board.claim_or_sleep(worker).map(|claimed| claimed.task))
            })
            .collect();
        for task in [1, 2] {
            assert!(board.publish(task));
            board.wake();
        }
        let mut had: Vec<_> = workers
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        had.sort_unstable();
        assert_eq!(had, [Some(1), Some(2)]);
    });
}

#[test]
fn a_publish_left_to_a_dozing_worker_is_found() {
    explore(3, || {
        let board = Small::new();
        let worker = {
            let board = Arc::clone(&board);
            thread::spawn(move || {
                // As `WorkerEnd::wait_for_task` does after a burst: a doze, a look, then a sleep for good.
                let doze = Some(std::time::Duration::from_micros(50));
                nap(
                    &board.idle,
                    0,
                    &board.doors[0],
                    board.queue(),
                    || board.stop.load(Ordering::SeqCst) != 0,
                    true,
                    doze,
                );
                board.claim_or_sleep(0).map(|claimed| claimed.task)
            })
        };
        assert!(board.publish(1));
        // The parent woke somebody a moment ago, so a dozing worker is enough for it.
        wake_one(
            &board.idle,
            2,
            |worker| &board.doors[worker as usize],
            || true,
        );
        assert_eq!(worker.join().unwrap(), Some(1));
    });
}

/// One worker stops at `point` for ever and is recovered some time later; the other must get what is left, and the
/// task be had by one of them or be reported.
fn worker_dies_at(point: &'static str) {
    explore(2, move || {
        let board = Small::new();
        // Whoever has the task says so and sends everybody home.
        let work = |worker: u32| {
            let board = Arc::clone(&board);
            move || match board.claim_or_sleep(worker) {
                Some(_) => {
                    board.current[worker as usize].store(0, Ordering::Release);
                    board.stop_all();
                    1
                }
                None => 0,
            }
        };
        let dying = {
            let (board, work) = (Arc::clone(&board), work(0));
            thread::spawn(move || {
                let mut had = 0;
                if !mortal(point, || had = work()) {
                    // The same thread goes on as the parent's watcher, which acts some time after the death.
                    let lost = board.recover(0);
                    if lost.is_empty() {
                        return 0;
                    }
                    assert_eq!(lost, [1]);
                    board.stop_all();
                    return 1;
                }
                had
            })
        };
        let living = thread::spawn(work(1));
        assert!(board.publish(1));
        board.wake();
        assert_eq!(dying.join().unwrap() + living.join().unwrap(), 1);
    });
}

#[test]
fn a_worker_dies_armed() {
    worker_dies_at("after-idle-armed");
}

#[test]
fn a_worker_dies_going_to_sleep() {
    worker_dies_at("in-wait");
}

#[test]
fn a_worker_dies_with_the_claim_made() {
    worker_dies_at("after-claim-cas");
}

#[test]
fn a_worker_dies_with_the_journal_written() {
    worker_dies_at("after-current");
}

#[test]
fn a_worker_dies_with_the_slot_freed() {
    worker_dies_at("after-slot-free");
}

#[test]
fn a_worker_dies_before_it_rings_and_the_parent_still_wakes() {
    for point in [
        "before-record",
        "mid-record",
        "before-tail",
        "after-tail",
        "parent-disarmed",
        "before-wake",
    ] {
        explore(2, move || {
            let board = Small::new();
            board.current[0].store(1, Ordering::Release);
            let worker = {
                let board = Arc::clone(&board);
                thread::spawn(move || {
                    mortal(point, || {
                        board.commit(&mut RingWriter::new(board.ring()), 0, 1)
                    });
                })
            };
            let watcher = {
                let board = Arc::clone(&board);
                thread::spawn(move || {
                    worker.join().unwrap();
                    // What the pool does on a death: note it, then ring.
                    board.stop.store(1, Ordering::SeqCst);
                    board.parent.ring();
                })
            };
            let mut seen = board.drain();
            // The parent waits for the task only; the death must end its wait, whatever the worker did before.
            let bell = board.parent.arm(&board.waiting, 1);
            seen.extend(board.drain());
            if seen.is_empty() && board.stop.load(Ordering::SeqCst) == 0 {
                board.parent.sleep(bell, None);
            }
            board.parent.disarm(&board.waiting);
            watcher.join().unwrap();
            seen.extend(board.drain());
            let lost = board.recover(0);
            match point {
                "before-record" | "mid-record" | "before-tail" => {
                    assert_eq!((seen, lost), (vec![], vec![1]))
                }
                "after-tail" => assert_eq!((seen, lost), (vec![1], vec![1])),
                _ => assert_eq!((seen, lost), (vec![1], vec![])),
            }
        });
    }
}
