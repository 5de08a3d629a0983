//! What one task costs in shared memory, in one process and without a sleep: `cargo run --release --example round`.
//!
//! Medians of 15 repetitions of 200 000 rounds, in nanoseconds a task, 16 bytes of payload and of result.

#[cfg(all(target_os = "linux", not(loom)))]
fn main() {
    use std::hint::black_box;
    use std::io::Write;
    use std::sync::Arc;
    use std::time::Instant;
    use treadle_shm::*;

    const ROUNDS: u64 = 200_000;
    let measure = |name: &str, body: &mut dyn FnMut()| {
        let mut times: Vec<f64> = (0..15)
            .map(|_| {
                let start = Instant::now();
                body();
                start.elapsed().as_nanos() as f64 / ROUNDS as f64
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let line = format!("{name:44} {:8.1} ns\n", times[times.len() / 2]);
        let _ = std::io::stdout().write_all(line.as_bytes());
    };
    let shape = Shape {
        slots: 1024,
        workers: 1,
        ring_bytes: 1 << 16,
        hands: 1,
    };
    let Ok(board) = Board::create(shape).map(Arc::new) else {
        return;
    };
    let mut publisher = Publisher::new(Arc::clone(&board));
    let mut worker = WorkerEnd::new(Arc::clone(&board), 0);
    let mut reader = RingReader::new(Arc::clone(&board), 0);
    let mut buffer = [0; SLOT_PAYLOAD];
    let mut sum = 0;

    measure("clock read", &mut || {
        (0..ROUNDS).for_each(|_| {
            black_box(monotonic_nanoseconds());
        })
    });
    measure("publish, claim", &mut || {
        for task in 1..=ROUNDS {
            publisher.publish(task, 1, &[7; 16]);
            black_box(worker.claim(&mut buffer));
        }
    });
    measure("commit, read one by one", &mut || {
        for task in 1..=ROUNDS {
            let _ = worker.commit(task, 1, &[&buffer[..16]]);
            let _ = reader.read(&mut |record| sum += record.task);
        }
    });
    measure("publish, wake, claim, commit, read", &mut || {
        for task in 1..=ROUNDS {
            publisher.publish(task, 1, &[7; 16]);
            board.wake_for_work();
            let claimed = worker.claim(&mut buffer);
            let _ = worker.commit(
                claimed.map_or(0, |claimed| claimed.task),
                1,
                &[&buffer[..16]],
            );
            let _ = reader.read(&mut |record| sum += record.task);
        }
    });
    measure("the same in batches of 64", &mut || {
        for first in (1..=ROUNDS).step_by(64) {
            for task in first..first + 64 {
                publisher.publish(task, 1, &[7; 16]);
            }
            board.wake_for_work();
            while let Some(claimed) = worker.claim(&mut buffer) {
                let _ = worker.commit(claimed.task, 1, &[&buffer[..16]]);
            }
            let _ = reader.read(&mut |record| sum += record.task);
        }
    });
    black_box(sum);

    let Ok(mut arena) = Arena::create(1 << 30) else {
        return;
    };
    let Ok(peer) = arena.fd().try_clone_to_owned().map(PeerArena::open) else {
        return;
    };
    let Ok(peer) = peer else { return };
    measure("arena: allocate 64 KiB, map, release (warm)", &mut || {
        for _ in 0..ROUNDS {
            if let Ok(block) = arena.allocate(65_536) {
                drop(black_box(peer.map(block.reference())));
            }
        }
    });
}

#[cfg(not(all(target_os = "linux", not(loom))))]
fn main() {}
