//! The meters: how long things took, counted in buckets of powers of four.
//!
//! *Guarantees*: counting costs a shift and two additions, and allocates nothing.
//! *Assumes*: a lock that is held anyway guards each [`Histogram`]; each [`Tally`] has one thread that counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// The first bound is 2^10 ns, about a microsecond: no hand-over is faster. Each next one is four times as large.
const FIRST_POWER: u32 = 10;
/// With fourteen bounds the last is 2^36 ns, 69 seconds: what takes longer is read off the age of the oldest task.
const BOUNDS: usize = 14;

/// How often a time fell between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Histogram {
    counts: [u64; BOUNDS + 1],
    sum_ns: u64,
}

impl Histogram {
    /// Counts one time.
    pub fn add(&mut self, nanoseconds: u64) {
        self.counts[bucket_of(nanoseconds)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(nanoseconds);
    }

    /// Counts all that another has counted.
    pub fn join(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// The upper bounds of all counts but the last, in seconds.
    pub fn bounds_s() -> [f64; BOUNDS] {
        std::array::from_fn(|index| (1u64 << (FIRST_POWER + 2 * index as u32)) as f64 / 1e9)
    }

    /// How many times lay up to each bound and above the one before; the last is above all bounds.
    pub fn counts(&self) -> [u64; BOUNDS + 1] {
        self.counts
    }

    /// The sum of all times in seconds.
    pub fn sum_s(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }
}

fn bucket_of(nanoseconds: u64) -> usize {
    let digits = u64::BITS - nanoseconds.saturating_sub(1).leading_zeros();
    (digits.saturating_sub(FIRST_POWER).div_ceil(2) as usize).min(BOUNDS)
}

/// A number that one thread raises and any thread may read meanwhile: no lock, and no instruction that locks the memory.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Raises it; a call from a second thread at the same time may be lost.
    pub fn add(&self, more: u64) {
        let now = self.0.load(Ordering::Relaxed).saturating_add(more);
        self.0.store(now, Ordering::Relaxed);
    }

    /// What it has come to.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram in which one thread counts and which any thread may read meanwhile.
#[derive(Debug, Default)]
pub struct Tally {
    counts: [Count; BOUNDS + 1],
    sum_ns: Count,
}

impl Tally {
    /// Counts one time.
    pub fn add(&self, nanoseconds: u64) {
        self.counts[bucket_of(nanoseconds)].add(1);
        self.sum_ns.add(nanoseconds);
    }

    /// What was counted up to now; a time that is being counted may be missing in the sum.
    pub fn read(&self) -> Histogram {
        Histogram {
            counts: std::array::from_fn(|bucket| self.counts[bucket].read()),
            sum_ns: self.sum_ns.read(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_under_the_first_bound_that_is_not_below_it() {
        let bounds = Histogram::bounds_s().map(|bound| (bound * 1e9).round() as u64);
        assert_eq!((bounds[0], bounds[13]), (1 << 10, 1 << 36));
        let around = bounds
            .iter()
            .flat_map(|bound| [bound - 1, *bound, bound + 1]);
        for nanoseconds in around.chain([0, 1, u64::MAX]) {
            let mut histogram = Histogram::default();
            histogram.add(nanoseconds);
            let expected = bounds.iter().position(|bound| nanoseconds <= *bound);
            let found = histogram.counts().iter().position(|count| *count == 1);
            assert_eq!(found, Some(expected.unwrap_or(BOUNDS)), "{nanoseconds} ns");
        }
    }

    #[test]
    fn times_are_added_up() {
        let mut histogram = Histogram::default();
        for nanoseconds in [1_000, 2_000_000, 3_000_000_000] {
            histogram.add(nanoseconds);
        }
        assert!((histogram.sum_s() - 3.002001).abs() < 1e-9);
        assert_eq!(histogram.counts().iter().sum::<u64>(), 3);
        histogram.add(u64::MAX);
        histogram.add(u64::MAX);
        assert!(
            histogram.sum_s().is_finite(),
            "the sum does not wrap around"
        );
    }

    #[test]
    fn tallies_of_several_threads_join_into_one_histogram() {
        let mut expected = Histogram::default();
        let mut joined = Histogram::default();
        for thread in 0..3 {
            let tally = Tally::default();
            for step in 0..40 {
                let nanoseconds = 1 << step;
                expected.add(nanoseconds + thread);
                tally.add(nanoseconds + thread);
            }
            joined.join(&tally.read());
        }
        assert_eq!(joined, expected);
        assert_eq!(joined.counts().iter().sum::<u64>(), 120);
    }

    #[test]
    fn a_tally_is_read_while_its_thread_counts() {
        let tally = Tally::default();
        std::thread::scope(|scope| {
            let counting = scope.spawn(|| (0..100_000).for_each(|_| tally.add(2_000)));
            let mut last = 0;
            while !counting.is_finished() {
                let now = tally.read().counts().iter().sum::<u64>();
                assert!(last <= now, "{last} were counted, then {now}");
                last = now;
            }
        });
        assert_eq!(tally.read().counts().iter().sum::<u64>(), 100_000);
        assert!((tally.read().sum_s() - 0.2).abs() < 1e-9);
    }
}
