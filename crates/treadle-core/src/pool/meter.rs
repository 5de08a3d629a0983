//! The meters: how long things took, counted in buckets of powers of four.
//!
//! *Guarantees*: counting costs a shift and two additions, and allocates nothing.
//! *Assumes*: a lock that is held anyway guards each meter.

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
        let digits = u64::BITS - nanoseconds.saturating_sub(1).leading_zeros();
        let bucket = (digits.saturating_sub(FIRST_POWER).div_ceil(2) as usize).min(BOUNDS);
        self.counts[bucket] += 1;
        self.sum_ns = self.sum_ns.saturating_add(nanoseconds);
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
}
