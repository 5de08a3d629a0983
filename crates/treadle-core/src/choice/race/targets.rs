//! The targets: does a candidate certainly meet what is required, certainly not, or is that open?

use super::super::sequential::{self, Bounds};
use super::super::target::Quantity;
use super::Race;
use super::rounds::Sample;

impl Race {
    /// Whether a candidate meets all targets: certainly (`Some(true)`), certainly not, or open.
    pub(super) fn meets_targets(&self, candidate: usize, level: f64) -> Option<bool> {
        let verdicts: Vec<Option<bool>> = (0..self.rules.targets.len())
            .map(|place| self.meets(candidate, place, level))
            .collect();
        if verdicts.contains(&Some(false)) {
            Some(false)
        } else {
            verdicts.iter().all(Option::is_some).then_some(true)
        }
    }

    /// Whether a candidate meets one target. Errors and memory only grow, so that "met so far" is all that can be said of them; it
    /// is said from the first block on.
    fn meets(&self, candidate: usize, place: usize, level: f64) -> Option<bool> {
        let target = &self.rules.targets[place];
        let samples = self.samples(candidate);
        if samples.is_empty() {
            return None;
        }
        let bounds = |value: &dyn Fn(&Sample) -> Option<f64>| -> Option<Bounds> {
            let logarithms: Option<Vec<f64>> = samples
                .iter()
                .map(|sample| Some(value(sample)?.max(1e-12).ln()))
                .collect();
            let tasks = samples.iter().map(|sample| sample.count).min().unwrap_or(1);
            let assumed = sequential::assumed_spread(self.rules.variation, tasks, tasks);
            sequential::mean_bounds(&logarithms?, assumed, level)
        };
        let bound = target.bound.max(1e-12).ln();
        match target.quantity {
            Quantity::Throughput => {
                let basis = self.basis();
                let start_s = self.start_per_task_s(candidate);
                let found = bounds(&|sample| Some(1.0 / (basis.seconds(sample) + start_s)))?;
                if found.low >= bound {
                    Some(true)
                } else {
                    (found.high < bound).then_some(false)
                }
            }
            Quantity::Cores => {
                // What was not measured is not met.
                if samples.iter().any(|sample| sample.load.cpu_s.is_none()) {
                    return Some(false);
                }
                let found = bounds(&|sample| Some(sample.load.cpu_s? / sample.load.wall_s))?;
                if found.high <= bound {
                    Some(true)
                } else {
                    (found.low > bound).then_some(false)
                }
            }
            Quantity::Latency(share) => {
                let blocks: Vec<(u64, u64)> =
                    samples.iter().map(|sample| sample.over[place]).collect();
                self.share_met(&blocks, 1.0 - share, level)
            }
            Quantity::Memory => {
                let peak = samples
                    .iter()
                    .map(|sample| sample.peak_memory_bytes)
                    .collect::<Option<Vec<f64>>>();
                Some(peak.is_some_and(|peak| peak.iter().all(|bytes| *bytes <= target.bound)))
            }
            Quantity::Errors => {
                let errors: u64 = samples.iter().map(|sample| sample.errors).sum();
                Some(errors as f64 <= target.bound)
            }
            Quantity::ErrorShare => {
                let blocks: Vec<(u64, u64)> = samples
                    .iter()
                    .map(|sample| (sample.errors, sample.count))
                    .collect();
                let none = blocks.iter().all(|block| block.0 == 0);
                if none && target.bound <= 0.0 {
                    return Some(true);
                }
                self.share_met(&blocks, target.bound, level)
            }
        }
    }

    fn share_met(&self, blocks: &[(u64, u64)], bound: f64, level: f64) -> Option<bool> {
        let (hits, count) = blocks.iter().fold((0u64, 0u64), |sum, block| {
            (sum.0 + block.0, sum.1 + block.1)
        });
        let alike = sequential::clustering(blocks);
        sequential::share_above(hits as f64 / alike, count as f64 / alike, bound, level)
            .map(|above| !above)
    }
}
