//! Where the tasks of a pool run: in the workers' processes, on lanes of the board, in the lanes' hands.
//!
//! ```text
//! plan                        lanes of each worker     hands of each lane
//! processes=p                 1                        1
//! processes=p, threads=t      t, one for each thread   1
//! processes=p, coroutines=c   1, the loop's            c
//! ```
//!
//! A *place* is where one task runs: a hand of a lane, by its number on the board. The lanes of worker `w` of `p` are `w, w + p, w + 2p, …`:
//! who publishes wakes the lowest idle lane, so that work goes to an idle process before it goes to a second thread of a busy one.

use treadle_shm::{MAX_HANDS, MAX_WORKERS};

/// Bytes of a lane's result ring where its worker has few others.
const RING_BYTES: u32 = 128 * 1024;
/// Bytes of the rings of workers with many lanes: a draft and its record fit twice, and a thread costs 47 KiB of shared memory.
const SMALL_RING_BYTES: u32 = 32 * 1024;

/// How many tasks the workers of a pool run, and on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    workers: u32,
    lanes: u32,
    hands: u32,
    shared: bool,
    loops: bool,
}

impl Places {
    /// Workers that run one task at a time.
    pub fn single(workers: u32) -> Places {
        Places {
            workers,
            lanes: 1,
            hands: 1,
            shared: false,
            loops: false,
        }
    }

    /// Workers that run `threads` threads each.
    pub fn threads(workers: u32, threads: u32) -> Places {
        Places {
            lanes: threads,
            shared: true,
            ..Places::single(workers)
        }
    }

    /// Workers that run a loop each, with at most `coroutines` tasks at a time.
    pub fn coroutines(workers: u32, coroutines: u32) -> Places {
        Places {
            hands: coroutines,
            shared: true,
            loops: true,
            ..Places::single(workers)
        }
    }

    /// The most threads, or coroutines, that each of so many workers may have.
    pub fn most(workers: u32) -> (u32, u32) {
        let workers = workers.max(1);
        (MAX_WORKERS / workers, MAX_HANDS / workers)
    }

    /// How many workers there are.
    pub fn workers(self) -> u32 {
        self.workers
    }

    /// How many lanes the board has.
    pub(super) fn lane_count(self) -> u32 {
        self.workers * self.lanes
    }

    /// How many hands each lane has.
    pub(super) fn hands(self) -> u32 {
        self.hands
    }

    /// Bytes of each lane's ring.
    pub(super) fn ring_bytes(self) -> u32 {
        if self.lanes >= 4 {
            SMALL_RING_BYTES
        } else {
            RING_BYTES
        }
    }

    /// All places.
    pub(super) fn all(self) -> std::ops::Range<u32> {
        0..self.lane_count() * self.hands
    }

    /// Whether what ends a worker may cost more than one task: then a task is stopped by itself, and its worker goes on.
    pub(super) fn are_shared(self) -> bool {
        self.shared
    }

    /// Whether each worker runs its tasks on a loop.
    pub(super) fn have_loops(self) -> bool {
        self.loops
    }

    /// How many tasks a worker may have in hand.
    pub(super) fn each(self) -> u32 {
        self.lanes * self.hands
    }

    /// The worker of a lane.
    pub(super) fn worker_of_lane(self, lane: u32) -> u32 {
        lane % self.workers
    }

    /// The lane of a place.
    pub(super) fn lane_of(self, place: u32) -> u32 {
        place / self.hands
    }

    /// The worker of a place.
    pub(super) fn worker_of(self, place: u32) -> u32 {
        self.worker_of_lane(self.lane_of(place))
    }

    /// The lanes of a worker.
    pub fn lanes_of(self, worker: u32) -> impl Iterator<Item = u32> + Clone {
        (0..self.lanes).map(move |turn| turn * self.workers + worker)
    }

    /// The places of a worker.
    pub(super) fn of(self, worker: u32) -> impl Iterator<Item = u32> + Clone {
        self.lanes_of(worker)
            .flat_map(move |lane| lane * self.hands..(lane + 1) * self.hands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_belongs_to_one_worker_and_says_which() {
        for places in [
            Places::single(3),
            Places::threads(3, 4),
            Places::coroutines(3, 5),
        ] {
            let mut seen = vec![0; places.all().len()];
            for worker in 0..places.workers() {
                assert_eq!(places.of(worker).count() as u32, places.each());
                for place in places.of(worker) {
                    seen[place as usize] += 1;
                    assert_eq!(places.worker_of(place), worker);
                    assert!(
                        places
                            .lanes_of(worker)
                            .any(|lane| lane == places.lane_of(place))
                    );
                }
            }
            assert!(seen.iter().all(|count| *count == 1), "{places:?}");
        }
    }

    #[test]
    fn the_first_threads_of_all_workers_come_before_any_second_one() {
        let places = Places::threads(3, 2);
        let workers: Vec<u32> = (0..6).map(|lane| places.worker_of_lane(lane)).collect();
        assert_eq!(workers, [0, 1, 2, 0, 1, 2]);
    }
}
