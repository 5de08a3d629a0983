//! The race: which candidate runs the next block, and when is the answer clear?
//!
//! Sans-IO: `next` says what to do, `observe` takes what happened, time is passed in. Blocks of all candidates are
//! interleaved in random order, so that what the machine does hits all alike, and compared round by round (paired).
//! The first round warms up and is not counted; it and the first counted one go by promise. Blocks double when four rounds did not suffice, and once more.
//!
//! *Rule*. After some rounds (`sequential`) the race looks. A candidate leaves when it certainly misses a target, when it is simpler than
//! the leader and certainly more than five percent slower, or when it is not simpler and certainly not more than five percent
//! faster. The race ends when one candidate certainly meets every target, is certainly not more than five percent slower than any other that
//! may meet them, and certainly faster than each simpler one. "Certainly" is said with an error probability of five percent for
//! the whole race.
//!
//! Rounds in which others disturbed a block are set aside and run again. When they are the larger part, all rounds count, and
//! candidates are compared by their fair rates (`disturbance`).
//!
//! *Guarantees*: the serial control runs to the end; the race never plans a block past its budget; nothing is called certain before three
//! counted rounds but that a candidate leaves.
//! *Assumes*: what `sequential` and `disturbance` assume.

use super::decide::{Quantity, Target};
use super::disturbance::Load;
use super::plan::Strategy;
use super::sequential::{self, Bounds};
use super::statistics::{Interval, Random, bootstrap_mean, mean, median};

/// Two candidates within this share of each other are equivalent (diagnosis notes 3.4).
pub const EQUIVALENT: f64 = 0.05;
/// Counted rounds before the race may end: with fewer the spread is assumed, not seen.
pub const LEAST_ROUNDS: usize = 3;
/// Counted rounds of a block length; then it doubles, twice at most. Longer blocks average what happens within them, but what happens
/// from one to the next is told only by more of them: with no bound, ten rounds of five candidates took half of 30 s.
const ROUNDS_OF_A_LENGTH: usize = 4;
const MOST_DOUBLINGS: usize = 2;
/// Disturbed rounds that are set aside in any case; from then on the undisturbed ones must not be fewer than they.
const REPEATED: usize = 2;

/// The conditions of a race.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Seconds from the start of the race.
    pub budget_s: f64,
    /// Seconds of a block at first.
    pub block_s: f64,
    /// Whether the first round only warms up; not affordable when tasks are as long as the budget.
    pub warm_up: bool,
    /// Seed of the order of blocks and of the intervals.
    pub seed: u64,
    /// Usable cores, for the fair rates.
    pub cores: f64,
    /// Whether the control runs one thread alone, so that what it stands in the run queue is others' doing.
    pub control_alone: bool,
    /// Whether tasks compute enough for others on the processors to matter; waiting does not get slower beside them.
    pub computes: bool,
    /// Standard deviation of the tasks' durations over their mean, as the profile saw it.
    pub variation: f64,
    /// What a candidate must meet.
    pub targets: Vec<Target>,
}

/// A candidate as it enters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// The serial control is never dropped.
    pub control: bool,
    /// Its place in the order of simplicity.
    pub simplicity: (Strategy, u32),
    /// A block never asks for less than this, so that it holds several tasks.
    pub least_block_s: f64,
    /// Start-up seconds to charge to each task of a finite batch.
    pub start_per_task_s: f64,
    /// Cores that it can keep busy at most as far as is known: threads that take turns at the interpreter lock one, processes any number.
    pub parallelism: f64,
}

/// What a block brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ran<'a> {
    /// Tasks done, failed ones included.
    pub count: u64,
    /// Failed tasks.
    pub errors: u64,
    /// Seconds that were asked for.
    pub asked_s: f64,
    /// Seconds and what others did in them.
    pub load: Load,
    /// Seconds of the tasks in their workers (of an even selection, if there were many).
    pub latencies: &'a [f64],
    /// Peak bytes of all processes together.
    pub peak_memory_bytes: Option<f64>,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// Run a block.
    Block {
        /// Index of the candidate.
        candidate: usize,
        /// Stop handing out tasks after this many seconds.
        seconds: f64,
        /// Number of the round; the same in all candidates' blocks of a round.
        round: usize,
    },
    /// The race is over.
    Finished(Finish),
}

/// Why the race ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Every other candidate is slower than the winner.
    LeaderClear,
    /// Some others may be as fast as the winner, but not more than five percent faster.
    Equivalent,
    /// No candidate meets the targets.
    TargetsMissed,
    /// Time ran out with the question open.
    BudgetSpent,
    /// No input is left that has not been run.
    InputsSpent,
    /// Every candidate had to be withdrawn.
    NobodyLeft,
}

impl Finish {
    /// The word for it in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::LeaderClear => "leader-clear",
            Self::Equivalent => "equivalent",
            Self::TargetsMissed => "targets-missed",
            Self::BudgetSpent => "budget-spent",
            Self::InputsSpent => "inputs-spent",
            Self::NobodyLeft => "nobody-left",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Racing,
    Dropped,
    Withdrawn,
}

/// A counted block.
#[derive(Debug, Clone)]
struct Sample {
    count: u64,
    errors: u64,
    load: Load,
    /// Steady tasks per second.
    steady: f64,
    /// The same with start-up charged, as it was and as it would have been without others.
    charged: f64,
    fair: f64,
    disturbed: bool,
    peak_memory_bytes: Option<f64>,
    /// For each target: tasks over a latency bound, and tasks looked at.
    over: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct Runner {
    entry: Entry,
    state: State,
    rounds: Vec<Option<Sample>>,
    /// Wall seconds of the longest block over the seconds asked for, to plan by.
    overrun_s: f64,
}

/// The rounds that are compared.
#[derive(Debug, Clone, PartialEq)]
struct Basis {
    rounds: Vec<usize>,
    fair: bool,
}

impl Basis {
    /// What a block is compared by.
    fn rate(&self, sample: &Sample) -> f64 {
        if self.fair {
            sample.fair
        } else {
            sample.charged
        }
    }
}

/// A race in progress.
#[derive(Debug)]
pub struct Race {
    rules: Rules,
    runners: Vec<Runner>,
    random: Random,
    order: Vec<usize>,
    round: usize,
    begun: bool,
    finish: Option<Finish>,
    winner: Option<usize>,
    looks: usize,
    next_look: usize,
}

impl Race {
    /// A race of these candidates.
    pub fn new(rules: Rules, entries: &[Entry]) -> Self {
        let runners = entries
            .iter()
            .map(|entry| Runner {
                entry: *entry,
                state: State::Racing,
                rounds: Vec::new(),
                overrun_s: 0.0,
            })
            .collect();
        Self {
            random: Random::new(rules.seed),
            rules,
            runners,
            order: Vec::new(),
            round: 0,
            begun: false,
            finish: None,
            winner: None,
            looks: 0,
            next_look: 1,
        }
    }

    /// The next step, `elapsed_s` seconds after the start of the race.
    pub fn next(&mut self, elapsed_s: f64) -> Step {
        loop {
            if let Some(finish) = self.finish {
                return Step::Finished(finish);
            }
            let Some(candidate) = self.order.pop() else {
                self.end_round();
                continue;
            };
            if self.runners[candidate].state != State::Racing {
                continue;
            }
            let seconds = self.block_seconds(candidate);
            if elapsed_s + seconds + self.runners[candidate].overrun_s > self.rules.budget_s {
                self.stop(Finish::BudgetSpent);
                continue;
            }
            return Step::Block {
                candidate,
                seconds,
                round: self.round,
            };
        }
    }

    /// Takes a block's outcome.
    pub fn observe(&mut self, candidate: usize, outcome: &Ran<'_>) {
        let counted = self.counted_round();
        let runner = &mut self.runners[candidate];
        let (count, wall_s) = (outcome.count, outcome.load.wall_s);
        runner.overrun_s = runner.overrun_s.max(wall_s - outcome.asked_s);
        let Some(round) = counted else { return };
        if count == 0 || wall_s <= 0.0 {
            return;
        }
        let tasks = count as f64;
        let start_s = tasks * runner.entry.start_per_task_s;
        let needed_s = outcome
            .load
            .needed_s(self.rules.cores, runner.entry.parallelism);
        let over = self.rules.targets.iter().map(|target| {
            let over = |bound: f64| outcome.latencies.iter().filter(|one| **one > bound).count();
            match target.quantity {
                Quantity::Latency(_) => (over(target.bound) as u64, outcome.latencies.len() as u64),
                _ => (0, 0),
            }
        });
        let sample = Sample {
            count,
            errors: outcome.errors,
            load: outcome.load,
            steady: tasks / wall_s,
            charged: tasks / (wall_s + start_s),
            fair: tasks / (needed_s + start_s),
            disturbed: self.rules.computes
                && outcome
                    .load
                    .disturbed(runner.entry.control && self.rules.control_alone),
            peak_memory_bytes: outcome.peak_memory_bytes,
            over: over.collect(),
        };
        runner.rounds.resize(round + 1, None);
        runner.rounds[round] = Some(sample);
    }

    /// Takes a candidate out of the race for good, because it failed.
    pub fn withdraw(&mut self, candidate: usize) {
        self.runners[candidate].state = State::Withdrawn;
    }

    /// Ends the race with a last look, for a reason that the caller knows.
    pub fn stop(&mut self, finish: Finish) {
        if self.finish.is_none() {
            self.judge(true);
        }
        self.finish.get_or_insert(finish);
    }

    /// The candidate that certainly is the plan to choose, once the race has ended with certainty.
    pub fn winner(&self) -> Option<usize> {
        self.winner
    }

    /// Steady tasks per second of a candidate: geometric mean of its blocks, with its interval when there are two or more.
    pub fn steady(&self, candidate: usize) -> Option<(f64, Option<Interval>)> {
        self.summary(candidate, |sample| sample.steady)
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
            self.samples(of)
                .into_iter()
                .map(|sample| basis.rate(sample).ln())
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

    /// The paired throughput ratio of one candidate to another, start-up charged, with its 95 % interval.
    pub fn ratio(&self, candidate: usize, other: usize) -> Option<Interval> {
        let logarithms = self.log_ratios(candidate, other);
        bootstrap_mean(&logarithms, &mut self.summary_random())
            .map(|interval| interval.map(f64::exp))
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
        let rates: Vec<f64> = self
            .samples(control)
            .iter()
            .map(|sample| sample.steady)
            .collect();
        if rates.len() < 4 {
            return None;
        }
        let (earlier, later) = rates.split_at(rates.len() / 2);
        Some(median(later)? / median(earlier)?)
    }

    /// Which of the counted rounds is now running; `None` while it is the warm-up.
    pub fn counting(&self) -> Option<usize> {
        self.counted_round()
    }

    /// Whether the candidate still takes part.
    pub fn racing(&self, candidate: usize) -> bool {
        self.runners[candidate].state == State::Racing
    }

    /// Looks that were taken.
    pub fn looks(&self) -> usize {
        self.looks
    }

    fn counted_round(&self) -> Option<usize> {
        self.round.checked_sub(usize::from(self.rules.warm_up))
    }

    fn block_seconds(&self, candidate: usize) -> f64 {
        let grown = self
            .counted_round()
            .map_or(0, |round| (round / ROUNDS_OF_A_LENGTH).min(MOST_DOUBLINGS));
        let length = self.rules.block_s * f64::from(1u32 << grown);
        length.max(self.runners[candidate].entry.least_block_s)
    }

    fn active(&self) -> Vec<usize> {
        (0..self.runners.len())
            .filter(|index| self.racing(*index))
            .collect()
    }

    fn end_round(&mut self) {
        if self.begun {
            self.judge(false);
            self.round += 1;
        }
        self.begun = true;
        if self.finish.is_none() {
            self.order = self.active();
            if self.runners.iter().any(|runner| !runner.rounds.is_empty()) {
                self.random.shuffle(&mut self.order);
            } else {
                // Until something is counted, the most promising first, then the control: a budget that ends here must not end
                // with neither of them measured. The order is a stack.
                self.order
                    .sort_by_key(|index| std::cmp::Reverse((*index > 1, *index == 0, *index)));
            }
            if self.order.is_empty() {
                self.finish = Some(Finish::NobodyLeft);
            }
        }
    }

    /// Takes a look, if one is due or the last one: drops who cannot win and ends the race when nothing is open.
    fn judge(&mut self, last: bool) {
        let (counted, disturbed) = self.disturbed();
        if counted == disturbed && disturbed <= REPEATED && !last {
            return;
        }
        let active = self.active();
        let rounds = active
            .iter()
            .map(|index| self.blocks(*index))
            .min()
            .unwrap_or(0);
        if rounds == 0 || (rounds < self.next_look && !last) {
            return;
        }
        self.looks += 1;
        self.next_look = sequential::next_look(rounds);
        let runners = self.runners.len();
        let level = sequential::level(
            // A look whose spread is estimated never takes the share of those whose spread is assumed.
            if rounds > sequential::EARLY_LOOKS {
                self.looks.max(sequential::EARLY_LOOKS + 1)
            } else {
                self.looks
            },
            runners - 1 + runners * self.rules.targets.len(),
        );
        let meets: Vec<Option<bool>> = (0..runners)
            .map(|index| self.meets_targets(index, level))
            .collect();
        for index in &active {
            if meets[*index] == Some(false) && rounds >= LEAST_ROUNDS {
                self.drop_unless_control(*index);
            }
        }
        let eligible: Vec<usize> = active
            .into_iter()
            .filter(|index| meets[*index] != Some(false))
            .collect();
        if eligible.is_empty() && rounds >= LEAST_ROUNDS {
            self.finish = Some(Finish::TargetsMissed);
        }
        let Some(leader) = self.fastest(&eligible) else {
            return;
        };
        let simpler = |race: &Self, one: usize, other: usize| {
            race.runners[one].entry.simplicity < race.runners[other].entry.simplicity
        };
        // Only who certainly meets the targets may drive out others.
        if meets[leader] == Some(true) {
            for index in eligible.iter().copied().filter(|index| *index != leader) {
                let Some(ratio) = self.certain_ratio(index, leader, level) else {
                    continue;
                };
                let hopeless = if simpler(self, index, leader) {
                    ratio.high < 1.0 - EQUIVALENT
                } else {
                    ratio.high <= 1.0 / (1.0 - EQUIVALENT)
                };
                if hopeless {
                    self.drop_unless_control(index);
                }
            }
        }
        if rounds < LEAST_ROUNDS {
            return;
        }
        let certain = |race: &Self, index: usize| -> Option<bool> {
            let mut clear = true;
            for other in eligible.iter().copied().filter(|other| *other != index) {
                let ratio = race.certain_ratio(other, index, level)?;
                let settled = if simpler(race, other, index) {
                    ratio.high < 1.0
                } else {
                    ratio.high <= 1.0 / (1.0 - EQUIVALENT)
                };
                if !settled {
                    return None;
                }
                clear &= ratio.high < 1.0;
            }
            Some(clear)
        };
        let mut order = eligible.clone();
        order.sort_by_key(|index| self.runners[*index].entry.simplicity);
        for index in order {
            if meets[index] == Some(true)
                && let Some(clear) = certain(self, index)
            {
                self.winner = Some(index);
                self.finish = Some(if clear {
                    Finish::LeaderClear
                } else {
                    Finish::Equivalent
                });
                return;
            }
        }
    }

    fn drop_unless_control(&mut self, candidate: usize) {
        let runner = &mut self.runners[candidate];
        if !runner.entry.control {
            runner.state = State::Dropped;
        }
    }

    fn fastest(&self, of: &[usize]) -> Option<usize> {
        of.iter()
            .copied()
            .filter_map(|index| Some((index, self.charged(index)?)))
            .max_by(|one, other| one.1.total_cmp(&other.1))
            .map(|(index, _)| index)
    }

    /// Whether a candidate meets all targets: certainly (`Some(true)`), certainly not, or open.
    fn meets_targets(&self, candidate: usize, level: f64) -> Option<bool> {
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
                let found = bounds(&|sample| Some(basis.rate(sample)))?;
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

    /// Bounds of the paired ratio at an error probability of `level`.
    fn certain_ratio(&self, candidate: usize, other: usize, level: f64) -> Option<Bounds> {
        let logarithms = self.log_ratios(candidate, other);
        let least = |of: usize| {
            let counts = self.samples(of).into_iter().map(|sample| sample.count);
            counts.min().unwrap_or(1)
        };
        let assumed =
            sequential::assumed_spread(self.rules.variation, least(candidate), least(other));
        let found = sequential::mean_bounds(&logarithms, assumed, level)?;
        Some(Bounds {
            low: found.low.exp(),
            high: found.high.exp(),
        })
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

    /// The rounds that are compared: the undisturbed ones while few were disturbed, else all by their fair rates.
    fn basis(&self) -> Basis {
        let all: Vec<usize> = (0..self.counted()).collect();
        let calm: Vec<usize> = all
            .iter()
            .copied()
            .filter(|round| !self.round_disturbed(*round))
            .collect();
        let disturbed = all.len() - calm.len();
        let few = disturbed <= REPEATED.max(calm.len()) && !calm.is_empty();
        if few || disturbed == 0 {
            Basis {
                rounds: calm,
                fair: false,
            }
        } else {
            Basis {
                rounds: all,
                fair: true,
            }
        }
    }

    fn samples(&self, candidate: usize) -> Vec<&Sample> {
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
    fn log_ratios(&self, candidate: usize, other: usize) -> Vec<f64> {
        let basis = self.basis();
        let (one, two) = (&self.runners[candidate], &self.runners[other]);
        let simpler = one.entry.simplicity < two.entry.simplicity;
        basis
            .rounds
            .iter()
            .filter_map(|round| {
                let one = one.rounds.get(*round)?.as_ref()?;
                let two = two.rounds.get(*round)?.as_ref()?;
                let measured = (one.charged / two.charged).ln();
                let fair = (one.fair / two.fair).ln();
                Some(match (basis.fair, simpler) {
                    (false, _) => measured,
                    (true, true) => measured.max(fair),
                    (true, false) => measured.min(fair),
                })
            })
            .collect()
    }

    fn summary(
        &self,
        candidate: usize,
        rate: impl Fn(&Sample) -> f64,
    ) -> Option<(f64, Option<Interval>)> {
        let logarithms: Vec<f64> = self
            .samples(candidate)
            .into_iter()
            .map(|sample| rate(sample).ln())
            .collect();
        let middle = mean(&logarithms)?.exp();
        let interval = bootstrap_mean(&logarithms, &mut self.summary_random());
        Some((middle, interval.map(|one| one.map(f64::exp))))
    }

    /// Intervals are drawn from a generator of their own, so that asking for them does not change the order of blocks.
    fn summary_random(&self) -> Random {
        Random::new(self.rules.seed ^ 0x5EED)
    }
}
