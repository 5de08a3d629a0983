//! How durations are spread: a histogram whose buckets grow by the same factor.

use serde::{Deserialize, Serialize};

/// Ten buckets to a factor of ten: a bucket is 26 % wide, about what a duration varies by from run to run anyway.
const PER_DECADE: i32 = 10;
/// Shorter durations are below the clocks.
const LEAST_S: f64 = 1e-9;

/// One bucket that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its lower end in seconds, included.
    pub from_s: f64,
    /// Its upper end in seconds, excluded.
    pub to_s: f64,
    /// How many durations fell into it.
    pub count: u64,
}

/// The buckets that are not empty, in order. Their ends are the same for all histograms, so that two can be added or compared.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram(pub Vec<Bucket>);

impl Histogram {
    /// The histogram of durations in seconds.
    pub fn of(seconds: &[f64]) -> Self {
        let mut counts = std::collections::BTreeMap::<i32, u64>::new();
        for duration in seconds.iter().filter(|duration| duration.is_finite()) {
            *counts.entry(bucket(*duration)).or_default() += 1;
        }
        Self(
            counts
                .into_iter()
                .map(|(index, count)| Bucket {
                    from_s: end(index),
                    to_s: end(index + 1),
                    count,
                })
                .collect(),
        )
    }
}

/// The lower end of a bucket.
fn end(index: i32) -> f64 {
    10f64.powf(f64::from(index) / f64::from(PER_DECADE))
}

/// The bucket that a duration falls into.
fn bucket(seconds: f64) -> i32 {
    let index = (seconds.max(LEAST_S).log10() * f64::from(PER_DECADE)).floor() as i32;
    // The logarithm may miss the end of a bucket by its last digit.
    if seconds >= end(index + 1) {
        index + 1
    } else if seconds < end(index) && seconds > LEAST_S {
        index - 1
    } else {
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_in_the_bucket_that_names_it() {
        let durations: Vec<f64> = (0..2000).map(|step| 1e-7 * 1.01f64.powi(step)).collect();
        let histogram = Histogram::of(&durations);
        let counted: u64 = histogram.0.iter().map(|bucket| bucket.count).sum();
        assert_eq!(counted, 2000);
        for duration in [1e-6, 0.001, 0.0010000001, 0.5, 3.0] {
            let one = Histogram::of(&[duration]).0[0];
            assert!(one.from_s <= duration && duration < one.to_s, "{one:?}");
            assert!((one.to_s / one.from_s - 1.2589).abs() < 1e-3);
        }
        assert_eq!(Histogram::of(&[0.0, f64::NAN]).0.len(), 1);
        assert!(Histogram::of(&[]).0.is_empty());
    }
}
