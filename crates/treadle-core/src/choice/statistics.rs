//! Statistics: quantiles, medians and bootstrap intervals of paired ratios, from a seeded generator.
//!
//! *Guarantees*: the same seed and data give the same interval on every machine.

/// SplitMix64 (Steele, Lea and Flood, 2014): small, seedable, good enough for resampling and shuffling.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator whose sequence is told by `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// An index below `bound`, by multiplication (Lemire, 2019); its bias is below 2^-32 for our bounds.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last + 1));
        }
    }
}

/// Mean of the values; `None` for none.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The standard deviation of a sample; 0 for fewer than two values.
pub fn deviation(values: &[f64]) -> f64 {
    let Some(middle) = mean(values).filter(|_| values.len() > 1) else {
        return 0.0;
    };
    let squares: f64 = values.iter().map(|value| (value - middle).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

/// The quantile `share` (0 to 1) with linear interpolation between order statistics (type 7); `None` for no values.
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = values
        .iter()
        .copied()
        .filter(|value| !value.is_nan())
        .collect();
    sorted.sort_by(f64::total_cmp);
    quantile_of_sorted(&sorted, share)
}

fn quantile_of_sorted(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = share.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (position.floor() as usize, position.ceil() as usize);
    Some(sorted[low] + (sorted[high] - sorted[low]) * (position - low as f64))
}

/// The median; `None` for no values.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// An estimate with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Mean of the values.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Applies an increasing function to all three numbers.
    pub fn map(self, function: impl Fn(f64) -> f64) -> Self {
        Self {
            estimate: function(self.estimate),
            low: function(self.low),
            high: function(self.high),
        }
    }
}

/// Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom (standard tables).
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// The low end of the 95 % interval of a mean (Student); `None` for fewer than two values.
pub fn mean_low(values: &[f64]) -> Option<f64> {
    let count = values.len();
    let middle = mean(values).filter(|_| count > 1)?;
    let error = deviation(values) / (count as f64).sqrt();
    Some(middle - STUDENT.get(count - 2).copied().unwrap_or(1.96) * error)
}

/// Resamples a bootstrap draws: the ends of a 95 % interval then rest on 25 of 1,000 values each, and 1,000 draws of
/// at most some tens of blocks cost well under a millisecond.
const RESAMPLES: usize = 1_000;

/// The 95 % bootstrap interval of a mean, widened for small samples; `None` for fewer than two values.
///
/// The percentile interval is too narrow for few values by about `sqrt((n - 1) / n) * 1.96 / t(n - 1)`; it is stretched
/// around the mean by the inverse of that (Hesterberg 2015, "What teachers should know about the bootstrap", section 4).
pub fn bootstrap_mean(values: &[f64], random: &mut Random) -> Option<Interval> {
    let count = values.len();
    let estimate = mean(values)?;
    if count < 2 {
        return None;
    }
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| (0..count).map(|_| values[random.below(count)]).sum::<f64>() / count as f64)
        .collect();
    means.sort_by(f64::total_cmp);
    let (low, high) = (
        quantile_of_sorted(&means, 0.025)?,
        quantile_of_sorted(&means, 0.975)?,
    );
    let student = STUDENT.get(count - 2).copied().unwrap_or(1.96);
    let stretch = student / 1.96 * (count as f64 / (count - 1) as f64).sqrt();
    Some(Interval {
        estimate,
        low: estimate - (estimate - low).max(0.0) * stretch,
        high: estimate + (high - estimate).max(0.0) * stretch,
    })
}

/// The 95 % interval of the ratio `numerators[i] / denominators[i]` of paired blocks, by their logarithms.
///
/// Pairs with a value that is not positive are left out; `None` for fewer than two pairs.
pub fn paired_ratio(
    numerators: &[f64],
    denominators: &[f64],
    random: &mut Random,
) -> Option<Interval> {
    let logarithms: Vec<f64> = numerators
        .iter()
        .zip(denominators)
        .filter(|(numerator, denominator)| **numerator > 0.0 && **denominator > 0.0)
        .map(|(numerator, denominator)| (numerator / denominator).ln())
        .collect();
    bootstrap_mean(&logarithms, random).map(|interval| interval.map(f64::exp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_matches_the_published_sequence() {
        // First outputs for seed 1234567 from the reference implementation.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.bits(), 6_457_827_717_110_365_317);
        assert_eq!(random.bits(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn quantiles_interpolate() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(median(&values), Some(2.5));
        assert_eq!(quantile(&values, 0.0), Some(1.0));
        assert_eq!(quantile(&values, 1.0), Some(4.0));
        assert_eq!(quantile(&values, 0.25), Some(1.75));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn constant_ratios_have_an_interval_without_width() {
        let interval =
            paired_ratio(&[2.0, 4.0, 6.0], &[1.0, 2.0, 3.0], &mut Random::new(1)).unwrap();
        for end in [interval.estimate, interval.low, interval.high] {
            assert!((end - 2.0).abs() < 1e-12);
        }
    }

    #[test]
    fn too_little_data_gives_no_interval() {
        assert_eq!(paired_ratio(&[1.0], &[1.0], &mut Random::new(1)), None);
        assert_eq!(
            paired_ratio(&[0.0, 1.0], &[1.0, 1.0], &mut Random::new(1)),
            None
        );
    }

    #[test]
    fn the_interval_covers_the_truth_about_as_often_as_it_says() {
        // Mean of four values uniform in -1..1 has truth 0; 95 % nominal, small samples: accept 90 to 99.5 %.
        let mut random = Random::new(7);
        let trials = 1_000;
        let covered = (0..trials)
            .filter(|_| {
                let values: Vec<f64> = (0..4)
                    .map(|_| random.bits() as f64 / u64::MAX as f64 * 2.0 - 1.0)
                    .collect();
                let interval = bootstrap_mean(&values, &mut random).unwrap();
                interval.low <= 0.0 && 0.0 <= interval.high
            })
            .count();
        assert!((900..=995).contains(&covered), "{covered} of {trials}");
    }

    #[test]
    fn shuffling_keeps_every_value() {
        let mut values: Vec<usize> = (0..20).collect();
        Random::new(3).shuffle(&mut values);
        assert_ne!(values, (0..20).collect::<Vec<_>>());
        values.sort_unstable();
        assert_eq!(values, (0..20).collect::<Vec<_>>());
    }
}
