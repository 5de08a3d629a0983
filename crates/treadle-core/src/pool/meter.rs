//! The meters: how long things took and how large they were, counted in buckets of powers of four.
//!
//! *Guarantees*: counting costs a shift and two additions, and allocates nothing.
//! *Assumes*: a lock that is held anyway guards each [`Buckets`]; each [`Tally`] has one thread that counts.

use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The power of two of a time's first bound.
const TIMES_FROM: u32 = 10;
/// With fourteen bounds the last is 2^26 times the first: 69 seconds for times, 4 GiB for sizes.
const BOUNDS: usize = 14;

/// How often a number fell between two bounds. The first bound is 2^`FIRST_POWER`, each next one four times as large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Buckets<const FIRST_POWER: u32> {
    counts: [u64; BOUNDS + 1],
    sum: u64,
}

/// Times in nanoseconds. The first bound is 2^10, about a microsecond: no hand-over is faster. What takes longer than the last, 69 seconds,
/// is read off the age of the oldest task.
pub type Histogram = Buckets<TIMES_FROM>;

/// Sizes in bytes, from 64 bytes (a few numbers) to 4 GiB.
pub type Sizes = Buckets<6>;

impl<const FIRST_POWER: u32> Buckets<FIRST_POWER> {
    /// Counts one number.
    pub fn add(&mut self, number: u64) {
        self.counts[bucket_of(number, FIRST_POWER)] += 1;
        self.sum = self.sum.saturating_add(number);
    }

    /// Counts all that another has counted.
    pub fn join(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// The upper bounds of all counts but the last.
    pub fn bounds() -> [u64; BOUNDS] {
        std::array::from_fn(|index| 1u64 << (FIRST_POWER + 2 * index as u32))
    }

    /// How many numbers lay up to each bound and above the one before; the last is above all bounds.
    pub fn counts(&self) -> [u64; BOUNDS + 1] {
        self.counts
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all numbers.
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

impl Histogram {
    /// The upper bounds in seconds.
    pub fn bounds_s() -> [f64; BOUNDS] {
        Self::bounds().map(|bound| bound as f64 / 1e9)
    }

    /// The sum of all times in seconds.
    pub fn sum_s(&self) -> f64 {
        self.sum as f64 / 1e9
    }
}

fn bucket_of(number: u64, first_power: u32) -> usize {
    let digits = u64::BITS - number.saturating_sub(1).leading_zeros();
    (digits.saturating_sub(first_power).div_ceil(2) as usize).min(BOUNDS)
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

/// A [`Histogram`] in which one thread counts and which any thread may read meanwhile.
#[derive(Debug, Default)]
pub struct Tally {
    counts: [Count; BOUNDS + 1],
    sum: Count,
}

impl Tally {
    /// Counts one time.
    pub fn add(&self, nanoseconds: u64) {
        self.counts[bucket_of(nanoseconds, TIMES_FROM)].add(1);
        self.sum.add(nanoseconds);
    }

    /// What was counted up to now; a time that is being counted may be missing in the sum.
    pub fn read(&self) -> Histogram {
        Histogram {
            counts: std::array::from_fn(|bucket| self.counts[bucket].read()),
            sum: self.sum.read(),
        }
    }
}

/// The seconds that a look at the clock and an addition to a histogram cost in this process, measured once.
pub fn costs_s() -> (f64, f64) {
    const ROUNDS: u32 = 2000;
    static COSTS: OnceLock<(f64, f64)> = OnceLock::new();
    *COSTS.get_or_init(|| {
        let began = Instant::now();
        for _ in 0..ROUNDS {
            black_box(Instant::now());
        }
        let looks = began.elapsed();
        let mut histogram = Histogram::default();
        let began = Instant::now();
        for round in 0..ROUNDS {
            black_box(&mut histogram).add(black_box(u64::from(round) << 8));
        }
        let additions = began.elapsed();
        let each = |all: std::time::Duration| all.as_secs_f64() / f64::from(ROUNDS);
        (each(looks), each(additions))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around_the_bounds<const FIRST_POWER: u32>() {
        let bounds = Buckets::<FIRST_POWER>::bounds();
        assert_eq!(
            (bounds[0], bounds[13]),
            (1 << FIRST_POWER, 1 << (FIRST_POWER + 26))
        );
        let around = bounds
            .iter()
            .flat_map(|bound| [bound - 1, *bound, bound + 1]);
        for number in around.chain([0, 1, u64::MAX]) {
            let mut buckets = Buckets::<FIRST_POWER>::default();
            buckets.add(number);
            let expected = bounds.iter().position(|bound| number <= *bound);
            let found = buckets.counts().iter().position(|count| *count == 1);
            assert_eq!(found, Some(expected.unwrap_or(BOUNDS)), "{number}");
        }
    }

    #[test]
    fn a_number_is_counted_under_the_first_bound_that_is_not_below_it() {
        around_the_bounds::<10>();
        around_the_bounds::<6>();
    }

    #[test]
    fn times_are_added_up() {
        let mut histogram = Histogram::default();
        for nanoseconds in [1_000, 2_000_000, 3_000_000_000] {
            histogram.add(nanoseconds);
        }
        assert!((histogram.sum_s() - 3.002001).abs() < 1e-9);
        assert_eq!(histogram.count(), 3);
        histogram.add(u64::MAX);
        histogram.add(u64::MAX);
        assert!(
            histogram.sum_s().is_finite(),
            "the sum does not wrap around"
        );
    }

    #[test]
    fn joined_histograms_are_one_that_counted_both() {
        let (mut one, mut other, mut both) = (Sizes::default(), Sizes::default(), Sizes::default());
        for bytes in [1, 64, 65, 1 << 40] {
            one.add(bytes);
            both.add(bytes);
        }
        for bytes in [64, 4096] {
            other.add(bytes);
            both.add(bytes);
        }
        one.join(&other);
        assert_eq!(one, both);
    }

    #[test]
    fn the_costs_are_those_of_this_machine() {
        let (look, addition) = costs_s();
        assert!(look > 0.0 && addition > 0.0);
        assert_eq!(costs_s(), (look, addition), "measured once");
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
