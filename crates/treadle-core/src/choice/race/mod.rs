//! The race: which candidate runs the next block, and when is the answer clear?
//!
//! Sans-IO: `next` says what to do, `observe` takes what happened, time is passed in. Blocks of all candidates are
//! interleaved in random order, so that what the machine does hits all alike, and compared round by round (paired).
//! A candidate's first block warms up, is half as long and is not counted, but what it takes longer for is charged to the batch; it and
//! the first counted one go by promise. Blocks double when four rounds did not suffice, and once more. Candidates in reserve enter when the
//! caller says so.
//!
//! *Rule*. After some rounds (`sequential`) the race looks. A candidate leaves when it certainly misses a target, when it is simpler than
//! the leader and certainly more than five percent slower, or when it is not simpler and certainly not more than five percent
//! faster. The race ends when one candidate certainly meets every target, is certainly not more than five percent slower than any other that
//! may meet them, and certainly faster than each simpler one. "Certainly" is said with an error probability of five percent for
//! the whole race.
//!
//! Once only sizes of one strategy are left, they get as much time again, and at least a tenth of the budget, to be told apart: another
//! size is no other program, and an obvious case shall not cost the budget for what two sizes of its winner differ by. Where the plans were
//! named by the user, sizes are a question like any other.
//!
//! Where inputs differ in what they take, blocks are compared by the effort in them and not by the number of tasks (`rounds`).
//!
//! Rounds in which others disturbed a block are set aside and run again. When they are the larger part, all rounds count, and
//! candidates are compared by their fair rates (`disturbance`).
//!
//! *Guarantees*: the serial control runs to the end; the race never plans a block past its budget; before three counted rounds nothing is
//! called certain but what stands apart by more than any spread that was ever seen (`sequential`), and before two the race does not end.
//! *Assumes*: what `sequential` and `disturbance` assume.

mod rounds;
mod targets;
mod terms;

use super::sequential::{self, Bounds};
use super::statistics::Random;
use super::target::Quantity;
use rounds::{Pace, REPEATED, Sample};
pub use terms::{Entry, Finish, Form, Ran, Rules, Step};

/// Two candidates within this share of each other are equivalent (diagnosis notes 3.4).
pub const EQUIVALENT: f64 = 0.05;
/// Counted rounds from which on the spread is seen; with fewer it is assumed, which only a great distance outweighs.
pub const LEAST_ROUNDS: usize = 3;
/// Counted rounds before the race may end, however far apart the candidates are: one block of each has no interval.
pub const FEWEST_ROUNDS: usize = 2;
/// A warm-up block over a counted one: imports, caches and connections are made by the first tasks of each worker, which it holds anyway.
const WARM_UP_SHARE: f64 = 0.5;
/// Counted rounds of a block length; then it doubles, twice at most. Longer blocks average what happens within them, but what happens
/// from one to the next is told only by more of them: with no bound, ten rounds of five candidates took half of 30 s.
const ROUNDS_OF_A_LENGTH: usize = 4;
const MOST_DOUBLINGS: usize = 2;
/// Share of the budget that sizes of the one strategy left may take at least: three to six rounds of two or three pools in 30 s, which tell a
/// quarter apart where blocks scatter by a tenth (`tests/race.rs`).
const SIZES_SHARE: f64 = 0.1;

/// No block shows more than its processor time allows on the cores that its plan can keep busy, but for this factor: the kernel counts in ticks.
/// Tasks that all start together wait together; a block that is shorter than the time of a task among the others sees little else, and a loop
/// that can do 7.6 tasks a second showed 16.
const CLOCK_SLACK: f64 = 1.1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reserve,
    Racing,
    Dropped,
    Withdrawn,
}

#[derive(Debug)]
struct Runner {
    entry: Entry,
    state: State,
    /// Whether its first block is behind it.
    warm: bool,
    /// Tasks of that block and its seconds beyond those that were asked for, if it warmed up.
    first: Option<(u64, f64)>,
    rounds: Vec<Option<Sample>>,
    /// Wall seconds of the longest block over the seconds asked for, to plan by.
    overrun_s: f64,
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
    /// Seconds from the start, as of the latest step.
    elapsed_s: f64,
    /// When only sizes of one strategy were left.
    clear_at_s: Option<f64>,
}

impl Race {
    /// A race of these candidates.
    pub fn new(rules: Rules, entries: &[Entry]) -> Self {
        let runners = entries
            .iter()
            .map(|entry| Runner {
                entry: *entry,
                state: State::Racing,
                warm: !rules.warm_up,
                first: None,
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
            elapsed_s: 0.0,
            clear_at_s: None,
        }
    }

    /// The next step, `elapsed_s` seconds after the start of the race.
    pub fn next(&mut self, elapsed_s: f64) -> Step {
        self.elapsed_s = elapsed_s;
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

    /// Takes a block's outcome; gives the counted round that it belongs to, `None` for a warm-up.
    pub fn observe(&mut self, candidate: usize, outcome: &Ran<'_>) -> Option<usize> {
        let counted = self.counted_round();
        let runner = &mut self.runners[candidate];
        let (count, wall_s) = (outcome.count, outcome.load.wall_s);
        runner.overrun_s = runner.overrun_s.max(wall_s - outcome.asked_s);
        let warm = std::mem::replace(&mut runner.warm, true);
        if !warm {
            runner.first = Some((count, wall_s - outcome.asked_s));
        }
        let round = counted.filter(|_| warm)?;
        if count == 0 || wall_s <= 0.0 {
            return Some(round);
        }
        let (tasks, full_s) = outcome.full;
        let least_s = outcome.load.cpu_s.map_or(0.0, |cpu_s| {
            let busy = runner.entry.parallelism.min(self.rules.cores.ceil());
            cpu_s / count as f64 / busy / CLOCK_SLACK
        });
        // Of the time in which the pool was full, the same part was its own as of the whole block.
        let needed_s = full_s / wall_s
            * outcome
                .load
                .needed_s(self.rules.cores, runner.entry.parallelism);
        let pace = |tasks: f64, least_s: f64| Pace {
            each_s: (full_s / tasks).max(least_s),
            needed_s: (needed_s / tasks).max(least_s),
        };
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
            by_count: pace(tasks, least_s),
            by_effort: outcome
                .effort
                .filter(|(full, all)| *full > 0.0 && *all > 0.0)
                .map(|(full, all)| pace(full, least_s * count as f64 / all)),
            disturbed: self.rules.computes
                && outcome
                    .load
                    .disturbed(runner.entry.control && self.rules.control_alone),
            peak_memory_bytes: outcome.peak_memory_bytes,
            over: over.collect(),
        };
        runner.rounds.resize(round + 1, None);
        runner.rounds[round] = Some(sample);
        Some(round)
    }

    /// Keeps a candidate out of the race until it [enters](Self::enter).
    pub fn reserve(&mut self, candidate: usize) {
        self.runners[candidate].state = State::Reserve;
    }

    /// Lets a candidate in reserve take part from the next round on; `start_per_task_s` is the start-up to charge to its tasks.
    pub fn enter(&mut self, candidate: usize, start_per_task_s: f64) {
        let runner = &mut self.runners[candidate];
        runner.entry.start_per_task_s = start_per_task_s;
        runner.state = State::Racing;
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
        let runner = &self.runners[candidate];
        let whole = length.max(runner.entry.least_block_s);
        if runner.warm {
            whole
        } else {
            whole * WARM_UP_SHARE
        }
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
        let fewest = if self.rules.targets.is_empty() {
            FEWEST_ROUNDS
        } else {
            LEAST_ROUNDS
        };
        if rounds < fewest {
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
        let left: Vec<usize> = eligible
            .into_iter()
            .filter(|index| self.racing(*index))
            .collect();
        if !self.rules.sizes_matter && left.iter().all(|index| meets[*index] == Some(true)) {
            self.end_if_only_sizes(&left, leader, level);
        }
    }

    /// Ends the race once the sizes of the only strategy that is `left` have had their time.
    fn end_if_only_sizes(&mut self, left: &[usize], leader: usize, level: f64) {
        let form = |index: usize| self.runners[index].entry.form;
        let clear = left.iter().all(|index| {
            form(*index) == form(leader)
                // The control stays to the end, but is known not to be the answer.
                || self.runners[*index].entry.control
                    && self
                        .certain_ratio(*index, leader, level)
                        .is_some_and(|ratio| ratio.high < 1.0 - EQUIVALENT)
        });
        if !clear {
            self.clear_at_s = None;
            return;
        }
        let since = *self.clear_at_s.get_or_insert(self.elapsed_s);
        if self.elapsed_s >= since + since.max(SIZES_SHARE * self.rules.budget_s) {
            self.finish = Some(Finish::StrategyClear);
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

    /// Bounds of the paired ratio at an error probability of `level`.
    fn certain_ratio(&self, candidate: usize, other: usize, level: f64) -> Option<Bounds> {
        let logarithms = self.log_ratios(candidate, other);
        let assumed = self.assumed_spread(candidate, other);
        let found = sequential::mean_bounds(&logarithms, assumed, level)?;
        Some(Bounds {
            low: found.low.exp(),
            high: found.high.exp(),
        })
    }
}
