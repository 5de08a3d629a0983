//! The rounds: which of them are compared, by what rate, and what they say of a candidate.
//!
//! Rounds in which others disturbed a block are set aside while they are few; when they are the larger part, all count, by fair rates.
//!
//! Blocks hold different inputs, and different numbers of them: a plain loop meets the one that takes a hundred times as long in one block of
//! ten, two threads in one of five. Where the profile knows what each input takes, a block has a second rate, by effort: its tasks
//! counted for what they take, the mean task as one. It is compared where it scatters less than the first over the control's blocks, so that
//! durations that are the machine's or the network's, and not the inputs', do not count twice.

use super::super::disturbance::Load;
use super::super::sequential;
use super::super::statistics::{Interval, Random, bootstrap_mean, deviation, mean, median};
use super::{FEWEST_ROUNDS, LEAST_ROUNDS, Race};

/// Disturbed rounds that are set aside in any case; from then on the undisturbed ones must not be fewer than they.
pub(super) const REPEATED: usize = 2;

/// A counted block.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) count: u64,
    pub(super) errors: u64,
    pub(super) load: Load,
    /// By the number of its tasks, and by what the profile says that they take.
    pub(super) by_count: Pace,
    pub(super) by_effort: Option<Pace>,
    pub(super) disturbed: bool,
    pub(super) peak_memory_bytes: Option<f64>,
    /// For each target: tasks over a latency bound, and tasks looked at.
    pub(super) over: Vec<(u64, u64)>,
}

/// Seconds that a block took for a mean task while the pool was full, and that it would have needed without others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) each_s: f64,
    pub(super) needed_s: f64,
}

impl Pace {
    /// Tasks per second.
    pub(super) fn steady(&self) -> f64 {
        1.0 / self.each_s
    }
}

/// The rounds that are compared, and by which of their rates.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Basis {
    pub(super) rounds: Vec<usize>,
    pub(super) fair: bool,
    pub(super) by_effort: bool,
}

impl Basis {
    /// What a block did.
    pub(super) fn pace(&self, sample: &Sample) -> Pace {
        sample
            .by_effort
            .filter(|_| self.by_effort)
            .unwrap_or(sample.by_count)
    }

    /// Seconds of a mean task that a block is compared by.
    pub(super) fn seconds(&self, sample: &Sample) -> f64 {
        let pace = self.pace(sample);
        if self.fair {
            pace.needed_s
        } else {
            pace.each_s
        }
    }
}

impl Race {
    /// Steady tasks per second of a candidate: geometric mean of its blocks, with its interval when there are two or more.
    pub fn steady(&self, candidate: usize) -> Option<(f64, Option<Interval>)> {
        let basis = self.basis();
        let logarithms: Vec<f64> = self
            .samples(candidate)
            .into_iter()
            .map(|sample| basis.pace(sample).steady().ln())
            .collect();
        let middle = mean(&logarithms)?.exp();
        let interval = self.interval(&logarithms, candidate, candidate);
        Some((middle, interval.map(|one| one.map(f64::exp))))
    }

    /// What candidates are compared by: tasks per second with start-up charged to each. In a contended race it is the control's fair
    /// rate times the ratio to the control.
    pub fn charged(&self, candidate: usize) -> Option<f64> {
        let basis = self.basis();
        let control = self
            .runners
            .iter()
            .position(|runner| runner.entry.control)
            .filter(|control| basis.fair && self.blocks(*control) > 0);
        let rates = |of: usize| -> Vec<f64> {
            let start_s = self.start_per_task_s(of);
            self.samples(of)
                .into_iter()
                .map(|sample| -(basis.seconds(sample) + start_s).ln())
                .collect()
        };
        match control {
            Some(control) if control != candidate => {
                let ratio = mean(&self.log_ratios(candidate, control))?;
                Some((mean(&rates(control))? + ratio).exp())
            }
            _ => mean(&rates(candidate)).map(f64::exp),
        }
    }

    /// Seconds to charge to each task of a finite batch: the start of the pool and its end, as it came, and the first calls of its workers, as its
    /// warm-up shows them: what that block took longer than its tasks do, and longer than any counted block did. Each worker makes a client, opens
    /// a connection, fills a cache; the workers of a race have done so once, those of the batch will do it within it. The seconds that were asked for
    /// are not charged: in them a pool also learns how long tasks are, and sends them one by one until it does.
    pub(super) fn start_per_task_s(&self, candidate: usize) -> f64 {
        let runner = &self.runners[candidate];
        let start_s = runner.entry.start_per_task_s;
        let samples = self.samples(candidate);
        let (Some((count, late_s)), Some(batch)) = (runner.first, self.rules.batch) else {
            return start_s;
        };
        if samples.len() < FEWEST_ROUNDS {
            return start_s;
        }
        let logarithms: Vec<f64> = samples
            .iter()
            .map(|sample| sample.by_count.each_s.ln())
            .collect();
        let each_s = mean(&logarithms).map_or(0.0, f64::exp);
        let beyond = |count: u64, wall_s: f64| wall_s - count as f64 * each_s;
        let usual_s = samples
            .iter()
            .map(|sample| beyond(sample.count, sample.load.wall_s))
            .fold(0.0, f64::max);
        start_s + (beyond(count, late_s) - usual_s).max(0.0) / batch.max(1) as f64
    }

    /// The paired throughput ratio of one candidate to another, start-up charged, with its 95 % interval.
    pub fn ratio(&self, candidate: usize, other: usize) -> Option<Interval> {
        let logarithms = self.log_ratios(candidate, other);
        self.interval(&logarithms, candidate, other)
            .map(|interval| interval.map(f64::exp))
    }

    /// The 95 % interval of a mean of logarithms: bootstrapped, or by the assumed spread while there are too few to see theirs.
    fn interval(&self, logarithms: &[f64], one: usize, other: usize) -> Option<Interval> {
        if logarithms.len() < 2 || logarithms.len() > sequential::EARLY_LOOKS {
            return bootstrap_mean(logarithms, &mut self.summary_random());
        }
        let bounds = sequential::mean_bounds(logarithms, self.assumed_spread(one, other), 0.05)?;
        Some(Interval {
            estimate: mean(logarithms)?,
            low: bounds.low,
            high: bounds.high,
        })
    }

    /// The spread assumed of the logarithm of the ratio of two candidates' blocks.
    pub(super) fn assumed_spread(&self, one: usize, other: usize) -> f64 {
        let least = |of: usize| {
            let counts = self.samples(of).into_iter().map(|sample| sample.count);
            counts.min().unwrap_or(1)
        };
        sequential::assumed_spread(self.rules.variation, least(one), least(other))
    }

    /// Blocks of a candidate that count.
    pub fn blocks(&self, candidate: usize) -> usize {
        self.samples(candidate).len()
    }

    /// Counted rounds, and how many of them others disturbed.
    pub fn disturbed(&self) -> (usize, usize) {
        let rounds = self.counted();
        let disturbed = (0..rounds).filter(|round| self.round_disturbed(*round));
        (rounds, disturbed.count())
    }

    /// The counted rounds that are compared.
    pub fn compared(&self) -> Vec<usize> {
        self.basis().rounds
    }

    /// Whether so many rounds were disturbed that fair rates are compared.
    pub fn contended(&self) -> bool {
        self.basis().fair
    }

    /// Median share of the control's blocks that it stood in the run queue.
    pub fn control_delay(&self) -> Option<f64> {
        let control = self.runners.iter().find(|runner| runner.entry.control)?;
        let shares: Vec<f64> = control
            .rounds
            .iter()
            .flatten()
            .filter_map(|sample| sample.load.delay_share())
            .collect();
        median(&shares)
    }

    /// The control's speed in the later half of the rounds that count over that in the earlier half; `None` for fewer than four.
    pub fn control_drift(&self) -> Option<f64> {
        let control = self
            .runners
            .iter()
            .position(|runner| runner.entry.control)?;
        let basis = self.basis();
        let rates: Vec<f64> = self
            .samples(control)
            .iter()
            .map(|sample| basis.pace(sample).steady())
            .collect();
        if rates.len() < 4 {
            return None;
        }
        let (earlier, later) = rates.split_at(rates.len() / 2);
        Some(median(later)? / median(earlier)?)
    }

    /// Rounds that have been counted, disturbed or not.
    fn counted(&self) -> usize {
        self.runners
            .iter()
            .map(|runner| runner.rounds.len())
            .max()
            .unwrap_or(0)
    }

    fn round_disturbed(&self, round: usize) -> bool {
        self.runners
            .iter()
            .filter_map(|runner| runner.rounds.get(round)?.as_ref())
            .any(|sample| sample.disturbed)
    }

    /// The rounds that are compared: the undisturbed ones while few were disturbed, else all by their fair rates; by effort where that scatters
    /// less.
    pub(super) fn basis(&self) -> Basis {
        let all: Vec<usize> = (0..self.counted()).collect();
        let calm: Vec<usize> = all
            .iter()
            .copied()
            .filter(|round| !self.round_disturbed(*round))
            .collect();
        let disturbed = all.len() - calm.len();
        let few = disturbed <= REPEATED.max(calm.len()) && !calm.is_empty();
        let fair = !few && disturbed > 0;
        let rounds = if fair { all } else { calm };
        Basis {
            by_effort: self.effort_explains(&rounds),
            rounds,
            fair,
        }
    }

    /// Whether the control's blocks of these rounds scatter less by effort than by count.
    fn effort_explains(&self, rounds: &[usize]) -> bool {
        let Some(control) = self.runners.iter().find(|runner| runner.entry.control) else {
            return false;
        };
        let blocks = rounds
            .iter()
            .filter_map(|round| control.rounds.get(*round)?.as_ref());
        let rates: Option<Vec<(f64, f64)>> = blocks
            .map(|block| Some((block.by_count.each_s.ln(), block.by_effort?.each_s.ln())))
            .collect();
        let Some(rates) = rates.filter(|rates| rates.len() >= LEAST_ROUNDS) else {
            return false;
        };
        let (by_count, by_effort): (Vec<f64>, Vec<f64>) = rates.into_iter().unzip();
        deviation(&by_effort) < deviation(&by_count)
    }

    pub(super) fn samples(&self, candidate: usize) -> Vec<&Sample> {
        let rounds = &self.runners[candidate].rounds;
        self.basis()
            .rounds
            .iter()
            .filter_map(|round| rounds.get(*round)?.as_ref())
            .collect()
    }

    /// Logarithms of the ratio of their rates in the rounds that count and that both ran.
    ///
    /// In a contended race the more involved of the two must win by what was measured and by the fair rates: its smaller
    /// advantage counts, so that neither having more runnable threads nor having them in bursts makes it look better.
    pub(super) fn log_ratios(&self, candidate: usize, other: usize) -> Vec<f64> {
        let basis = self.basis();
        let (one, two) = (&self.runners[candidate], &self.runners[other]);
        let simpler = one.entry.simplicity < two.entry.simplicity;
        let starts = [candidate, other].map(|index| self.start_per_task_s(index));
        basis
            .rounds
            .iter()
            .filter_map(|round| {
                let one = one.rounds.get(*round)?.as_ref()?;
                let two = two.rounds.get(*round)?.as_ref()?;
                let (one, two) = (basis.pace(one), basis.pace(two));
                let measured = ((two.each_s + starts[1]) / (one.each_s + starts[0])).ln();
                let fair = ((two.needed_s + starts[1]) / (one.needed_s + starts[0])).ln();
                Some(match (basis.fair, simpler) {
                    (false, _) => measured,
                    (true, true) => measured.max(fair),
                    (true, false) => measured.min(fair),
                })
            })
            .collect()
    }

    /// Intervals are drawn from a generator of their own, so that asking for them does not change the order of blocks.
    fn summary_random(&self) -> Random {
        Random::new(self.rules.seed ^ 0x5EED)
    }
}
