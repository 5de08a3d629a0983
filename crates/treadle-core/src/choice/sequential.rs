//! Sequential tests: how wide an interval must be so that looking after many rounds does not make a wrong verdict likelier.
//!
//! *Rule*. A race may be wrong with probability `ERROR` in all that it calls certain. That is divided evenly over its claims (one
//! for each candidate against the true best, one for each target of each candidate), so it holds for all of them together
//! (Bonferroni). Each claim's part is divided over the looks: a tenth over the first two, in which spread cannot be
//! estimated yet and a known one is assumed, then `0.9 / (k (k + 1))` for look `k`, which sums to 0.9. A look is taken after 1, 2,
//! 3, 4, 5, 7, 9, 12, 16, … counted rounds, each 1.4 times the one before, so that few looks share the error.
//!
//! *Guarantees*: under normal errors the probability that any interval of any look misses its truth is at most `ERROR`.
//! *Assumes*: logarithms of paired ratios are close to normal, rounds independent (simulated in `tests/race.rs`, with outliers).

use super::statistics::{deviation, mean};

/// Probability that a race calls something certain that is not so.
pub const ERROR: f64 = 0.05;
/// The part of a claim's error for each of the looks after one and two rounds.
const EARLY_SHARE: f64 = 0.05;
/// Looks whose spread is assumed rather than estimated: two values have an estimate of it, but Student's factor for it (some 200) is
/// of no use.
pub const EARLY_LOOKS: usize = 2;
/// Ratio of the rounds of one look to those of the next.
const LOOK_GROWTH: f64 = 1.4;
/// Spread (standard deviation of the logarithm of a paired ratio) assumed of the machine in the first looks: one and a half times
/// what blocks of 0.1 s showed on two virtual cores that others filled (0.30 for threads, 0.39 for processes, against serial, pure
/// Python).
const MACHINE_SPREAD: f64 = 0.60;
/// Least spread that is believed: layout and environment of a process move its speed by up to some percent and are drawn once a
/// race (Mytkowicz et al. 2009), so blocks that agree better do not make the truth better known.
const LEAST_SPREAD: f64 = 0.005;

/// The rounds of the look after one at `rounds`.
pub fn next_look(rounds: usize) -> usize {
    ((rounds as f64 * LOOK_GROWTH).floor() as usize).max(rounds + 1)
}

/// The error probability of one claim at look `look` (from 1), two-sided.
pub fn level(look: usize, claims: usize) -> f64 {
    let share = if look <= EARLY_LOOKS {
        EARLY_SHARE
    } else {
        let place = (look - EARLY_LOOKS) as f64;
        (1.0 - EARLY_SHARE * EARLY_LOOKS as f64) / (place * (place + 1.0))
    };
    ERROR * share / claims.max(1) as f64
}

/// Ends of an interval, on the scale of the values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Where the mean of these normal values lies, but for an error probability of `level`; `None` where nothing can be said.
///
/// With fewer than three values their spread is taken to be `assumed` (a standard deviation) or more.
pub fn mean_bounds(values: &[f64], assumed: f64, level: f64) -> Option<Bounds> {
    let count = values.len();
    let middle = mean(values)?;
    let (spread, freedom) = if count <= EARLY_LOOKS {
        // Normal, since the spread is known: Student's with a thousand degrees of freedom.
        (assumed, 1_000)
    } else {
        (deviation(values), count - 1)
    };
    let half = student(freedom, level) * spread.max(LEAST_SPREAD) / (count as f64).sqrt();
    Some(Bounds {
        low: middle - half,
        high: middle + half,
    })
}

/// The spread assumed of the logarithm of the ratio of two blocks of `one` and `other` tasks whose durations vary by `variation`
/// (standard deviation over mean).
pub fn assumed_spread(variation: f64, one: u64, other: u64) -> f64 {
    let tasks = 1.0 / one.max(1) as f64 + 1.0 / other.max(1) as f64;
    (MACHINE_SPREAD.powi(2) + variation.powi(2) * tasks).sqrt()
}

/// Whether a true share is above or below `bound`, after `hits` of `count` independent draws; `None` where that is open at `level`.
///
/// Chernoff's bound, which holds for every count: a share `p` gives `hits/count` or more (less) with probability
/// `exp(-count * KL(hits/count, p))` at most.
pub fn share_above(hits: f64, count: f64, bound: f64, level: f64) -> Option<bool> {
    if count <= 0.0 {
        return None;
    }
    let seen = hits / count;
    let term = |part: f64, of: f64| {
        if part <= 0.0 {
            0.0
        } else if of <= 0.0 {
            f64::INFINITY
        } else {
            part * (part / of).ln()
        }
    };
    let divergence = term(seen, bound) + term(1.0 - seen, 1.0 - bound);
    (count * divergence > (2.0 / level).ln()).then_some(seen > bound)
}

/// How many times the variance between blocks exceeds that of independent draws, at least 1: `(hits, count)` of each block.
pub fn clustering(blocks: &[(u64, u64)]) -> f64 {
    let (hits, count) = blocks.iter().fold((0u64, 0u64), |sum, block| {
        (sum.0 + block.0, sum.1 + block.1)
    });
    if hits == 0 || hits == count || blocks.len() < 2 {
        return 1.0;
    }
    let share = hits as f64 / count as f64;
    let chi: f64 = blocks
        .iter()
        .filter(|block| block.1 > 0)
        .map(|(hits, count)| {
            let expected = share * *count as f64;
            (*hits as f64 - expected).powi(2) / (expected * (1.0 - share))
        })
        .sum();
    (chi / (blocks.len() - 1) as f64).max(1.0)
}

/// The two-sided point of Student's t: `|t|` exceeds it with probability `level`.
pub fn student(freedom: usize, level: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while student_tail(freedom, high) > level && high < 1e12 {
        low = high;
        high *= 2.0;
    }
    // Fifty halvings narrow the bracket to the precision of the arithmetic.
    for _ in 0..50 {
        let middle = 0.5 * (low + high);
        if student_tail(freedom, middle) > level {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Probability that `|t|` exceeds `value`, by the finite series for whole degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4).
fn student_tail(freedom: usize, value: f64) -> f64 {
    let freedom = freedom.max(1);
    let angle = (value / (freedom as f64).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let even = freedom.is_multiple_of(2);
    let (mut term, mut sum) = if even { (1.0, 1.0) } else { (cosine, cosine) };
    let terms = if even { freedom / 2 } else { (freedom - 1) / 2 };
    for step in 1..terms {
        let step = step as f64;
        let factor = if even {
            (2.0 * step - 1.0) / (2.0 * step)
        } else {
            2.0 * step / (2.0 * step + 1.0)
        };
        term *= factor * cosine * cosine;
        sum += term;
    }
    let inside = if even {
        sine * sum
    } else if freedom == 1 {
        2.0 * angle / std::f64::consts::PI
    } else {
        2.0 / std::f64::consts::PI * (angle + sine * sum)
    };
    (1.0 - inside).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn students_points_are_those_of_the_tables() {
        for (freedom, level, point) in [
            (1, 0.05, 12.706),
            (2, 0.05, 4.303),
            (3, 0.01, 5.841),
            (7, 0.001, 5.408),
            (10, 0.05, 2.228),
            (29, 0.01, 2.756),
            (1_000, 0.05, 1.962),
        ] {
            let found = student(freedom, level);
            assert!((found - point).abs() < 2e-3, "{freedom} {level}: {found}");
        }
    }

    #[test]
    fn all_looks_together_spend_the_error_and_no_more() {
        let spent: f64 = (1..=100_000).map(|look| level(look, 1)).sum();
        assert!(spent <= ERROR && spent > 0.99 * ERROR, "{spent}");
        let divided: f64 = (0..4).map(|_| level(3, 4)).sum();
        assert!((divided - level(3, 1)).abs() < 1e-15);
    }

    #[test]
    fn looks_become_rarer() {
        let mut rounds = 1;
        let looks: Vec<usize> = std::iter::repeat_with(|| {
            let this = rounds;
            rounds = next_look(rounds);
            this
        })
        .take(9)
        .collect();
        assert_eq!(looks, [1, 2, 3, 4, 5, 7, 9, 12, 16]);
    }

    #[test]
    fn a_share_is_told_from_a_bound_when_there_are_enough_draws() {
        // None of 200 over a bound of 1 %: that happens in 13 % of all samples of exactly 1 %.
        assert_eq!(share_above(0.0, 200.0, 0.01, 0.01), None);
        assert_eq!(share_above(0.0, 600.0, 0.01, 0.01), Some(false));
        assert_eq!(share_above(30.0, 600.0, 0.01, 0.01), Some(true));
        assert_eq!(share_above(6.0, 600.0, 0.01, 0.01), None);
        assert_eq!(share_above(1.0, 10.0, 0.0, 0.01), Some(true));
        assert_eq!(share_above(0.0, 0.0, 0.5, 0.01), None);
    }

    #[test]
    fn draws_that_come_in_clusters_count_less() {
        assert_eq!(clustering(&[(0, 100), (0, 100)]), 1.0);
        assert!(clustering(&[(10, 100), (10, 100), (9, 100)]) < 1.5);
        assert!(clustering(&[(30, 100), (0, 100), (0, 100)]) > 20.0);
    }
}
