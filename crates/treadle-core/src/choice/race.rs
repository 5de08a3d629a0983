//! The race: which candidate runs the next block, and when is the answer clear?
//!
//! Sans-IO: `next` says what to do, `observe` takes what happened, time is passed in. Blocks of all candidates are
//! interleaved in random order, so that what the machine does hits all alike, and compared round by round (paired).
//! The first round warms up and is not counted. Blocks grow by doubling when four rounds did not suffice.
//!
//! *Guarantees*: the serial control runs to the end; a candidate is dropped only when the 95 % interval of its paired
//! throughput ratio to the leader excludes parity; the race never plans a block past its budget.
//! *Assumes*: looking after each round makes a wrong drop somewhat likelier than 5 %; the decision's margin of
//! five percent, not the test alone, guards against calling equals different.

use super::statistics::{Interval, Random, bootstrap_mean, paired_ratio};

/// Two candidates within this share of each other are equivalent (diagnosis notes 3.4).
pub const EQUIVALENT: f64 = 0.05;
/// Counted rounds before anything is judged: with fewer the widened interval is hopeless (t is 12.7 for two values).
const LEAST_ROUNDS: usize = 3;
/// Counted rounds of the first block length; then it doubles every second round.
const ROUNDS_BEFORE_GROWTH: usize = 4;

/// The conditions of a race.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Seconds from the start of the race.
    pub budget_s: f64,
    /// Seconds of a block at first.
    pub block_s: f64,
    /// Whether the first round only warms up; not affordable when tasks are as long as the budget.
    pub warm_up: bool,
    /// Seed of the order of blocks and of the intervals.
    pub seed: u64,
}

/// A candidate as it enters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// The serial control is never dropped.
    pub control: bool,
    /// A block never asks for less than this, so that it holds several tasks.
    pub least_block_s: f64,
    /// Start-up seconds to charge to each task of a finite batch.
    pub start_per_task_s: f64,
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
    /// Every other candidate is slower than the leader.
    LeaderClear,
    /// Every candidate left is slower than the leader or equivalent to it.
    Equivalent,
    /// Time ran out with the question open.
    BudgetSpent,
    /// Every candidate had to be withdrawn.
    NobodyLeft,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Racing,
    Dropped,
    Withdrawn,
}

#[derive(Debug)]
struct Runner {
    entry: Entry,
    state: State,
    /// Steady tasks per second of each counted round.
    steady: Vec<Option<f64>>,
    /// The same with start-up charged: what is compared.
    charged: Vec<Option<f64>>,
    /// Wall seconds of the longest block over the seconds asked for, to plan by.
    overrun_s: f64,
    tasks: u64,
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
}

impl Race {
    /// A race of these candidates.
    pub fn new(rules: Rules, entries: &[Entry]) -> Self {
        let runners = entries
            .iter()
            .map(|entry| Runner {
                entry: *entry,
                state: State::Racing,
                steady: Vec::new(),
                charged: Vec::new(),
                overrun_s: 0.0,
                tasks: 0,
            })
            .collect();
        Self {
            rules,
            runners,
            random: Random::new(rules.seed),
            order: Vec::new(),
            round: 0,
            begun: false,
            finish: None,
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
                self.finish = Some(Finish::BudgetSpent);
                continue;
            }
            return Step::Block {
                candidate,
                seconds,
                round: self.round,
            };
        }
    }

    /// Takes a block's outcome: tasks done and the wall seconds that they took, for the seconds that were asked.
    pub fn observe(&mut self, candidate: usize, count: u64, wall_s: f64, asked_s: f64) {
        let counted = self.counted_round();
        let runner = &mut self.runners[candidate];
        runner.overrun_s = runner.overrun_s.max(wall_s - asked_s);
        let Some(round) = counted else { return };
        if count == 0 || wall_s <= 0.0 {
            return;
        }
        runner.tasks += count;
        runner.steady.resize(round + 1, None);
        runner.charged.resize(round + 1, None);
        runner.steady[round] = Some(count as f64 / wall_s);
        let charged_s = wall_s + count as f64 * runner.entry.start_per_task_s;
        runner.charged[round] = Some(count as f64 / charged_s);
    }

    /// Takes a candidate out of the race for good, because it failed.
    pub fn withdraw(&mut self, candidate: usize) {
        self.runners[candidate].state = State::Withdrawn;
    }

    /// Steady tasks per second of a candidate: geometric mean of its blocks, with its interval when there are two or more.
    pub fn steady(&self, candidate: usize) -> Option<(f64, Option<Interval>)> {
        self.summary(&self.runners[candidate].steady)
    }

    /// The same with start-up charged to each task.
    pub fn charged(&self, candidate: usize) -> Option<(f64, Option<Interval>)> {
        self.summary(&self.runners[candidate].charged)
    }

    /// The paired throughput ratio of one candidate to another, start-up charged.
    pub fn ratio(&self, candidate: usize, other: usize) -> Option<Interval> {
        let (numerators, denominators) = self.pairs(candidate, other);
        paired_ratio(&numerators, &denominators, &mut self.summary_random())
    }

    /// Counted blocks of a candidate.
    pub fn blocks(&self, candidate: usize) -> usize {
        self.runners[candidate].steady.iter().flatten().count()
    }

    /// Tasks in the counted blocks of a candidate.
    pub fn tasks(&self, candidate: usize) -> u64 {
        self.runners[candidate].tasks
    }

    /// Whether blocks of the round now running count.
    pub fn counting(&self) -> bool {
        self.counted_round().is_some()
    }

    /// Whether the candidate still takes part.
    pub fn racing(&self, candidate: usize) -> bool {
        self.runners[candidate].state == State::Racing
    }

    fn counted_round(&self) -> Option<usize> {
        self.round.checked_sub(usize::from(self.rules.warm_up))
    }

    fn block_seconds(&self, candidate: usize) -> f64 {
        let grown = self.counted_round().map_or(0, |round| {
            (round + 2).saturating_sub(ROUNDS_BEFORE_GROWTH) / 2
        });
        let length = self.rules.block_s * f64::from(1u32 << grown.min(16) as u32);
        length.max(self.runners[candidate].entry.least_block_s)
    }

    fn active(&self) -> Vec<usize> {
        (0..self.runners.len())
            .filter(|index| self.racing(*index))
            .collect()
    }

    fn end_round(&mut self) {
        let was_running = self.begun;
        if was_running {
            self.judge();
            self.round += 1;
        }
        self.begun = true;
        if self.finish.is_none() {
            self.order = self.active();
            self.random.shuffle(&mut self.order);
            if self.order.is_empty() {
                self.finish = Some(Finish::NobodyLeft);
            }
        }
    }

    /// Drops what is clearly slower and ends the race when nothing is open.
    fn judge(&mut self) {
        let active = self.active();
        let least = active
            .iter()
            .map(|index| self.blocks(*index))
            .min()
            .unwrap_or(0);
        if least < LEAST_ROUNDS {
            return;
        }
        let Some(leader) = self.leader() else { return };
        let (mut open, mut equivalent) = (false, false);
        for candidate in active.into_iter().filter(|candidate| *candidate != leader) {
            match self.ratio(candidate, leader) {
                Some(ratio)
                    if ratio.low >= 1.0 - EQUIVALENT && ratio.high <= 1.0 / (1.0 - EQUIVALENT) =>
                {
                    equivalent = true;
                }
                Some(ratio) if ratio.high < 1.0 => {
                    if !self.runners[candidate].entry.control {
                        self.runners[candidate].state = State::Dropped;
                    }
                }
                _ => open = true,
            }
        }
        if !open {
            self.finish = Some(if equivalent {
                Finish::Equivalent
            } else {
                Finish::LeaderClear
            });
        }
    }

    /// The fastest of those that still race.
    fn leader(&self) -> Option<usize> {
        self.active()
            .into_iter()
            .filter_map(|index| Some((index, self.charged(index)?.0)))
            .max_by(|one, other| one.1.total_cmp(&other.1))
            .map(|(index, _)| index)
    }

    fn pairs(&self, candidate: usize, other: usize) -> (Vec<f64>, Vec<f64>) {
        self.runners[candidate]
            .charged
            .iter()
            .zip(&self.runners[other].charged)
            .filter_map(|(one, other)| Some(((*one)?, (*other)?)))
            .unzip()
    }

    fn summary(&self, rates: &[Option<f64>]) -> Option<(f64, Option<Interval>)> {
        let logarithms: Vec<f64> = rates.iter().flatten().map(|rate| rate.ln()).collect();
        let middle = super::statistics::mean(&logarithms)?.exp();
        let interval = bootstrap_mean(&logarithms, &mut self.summary_random());
        Some((middle, interval.map(|one| one.map(f64::exp))))
    }

    /// Intervals are drawn from a generator of their own, so that asking for them does not change the order of blocks.
    fn summary_random(&self) -> Random {
        Random::new(self.rules.seed ^ 0x5EED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROL: Entry = Entry {
        control: true,
        least_block_s: 0.0,
        start_per_task_s: 0.0,
    };
    const RIVAL: Entry = Entry {
        control: false,
        ..CONTROL
    };

    fn rules(budget_s: f64, seed: u64) -> Rules {
        Rules {
            budget_s,
            block_s: 0.3,
            warm_up: true,
            seed,
        }
    }

    /// Runs a race on a scripted clock; `rate(candidate, round, noise)` gives tasks per second, noise in -1..1.
    fn run(
        rules: Rules,
        entries: &[Entry],
        rate: impl Fn(usize, usize, f64) -> f64,
    ) -> (Race, Finish, f64, Vec<(usize, usize)>) {
        let mut race = Race::new(rules, entries);
        let mut noise = Random::new(rules.seed + 1);
        let (mut elapsed, mut log) = (0.0, Vec::new());
        loop {
            match race.next(elapsed) {
                Step::Finished(finish) => return (race, finish, elapsed, log),
                Step::Block {
                    candidate,
                    seconds,
                    round,
                } => {
                    let swing = noise.bits() as f64 / u64::MAX as f64 * 2.0 - 1.0;
                    let count = (rate(candidate, round, swing) * seconds).round() as u64;
                    elapsed += seconds;
                    log.push((round, candidate));
                    race.observe(candidate, count, seconds, seconds);
                }
            }
        }
    }

    #[test]
    fn an_obvious_case_ends_after_three_counted_rounds() {
        let (race, finish, elapsed, log) = run(
            rules(30.0, 1),
            &[CONTROL, RIVAL, RIVAL],
            |candidate, _, noise| [1000.0, 1900.0, 1010.0][candidate] * (1.0 + 0.02 * noise),
        );
        assert_eq!(finish, Finish::LeaderClear);
        assert_eq!(log.len(), 12);
        assert!(elapsed < 4.0);
        assert!(
            !race.racing(2) && race.racing(0),
            "the rival is dropped, the control never"
        );
        let ratio = race.ratio(1, 0).unwrap();
        assert!(ratio.low < 1.9 && 1.9 < ratio.high, "{ratio:?}");
    }

    #[test]
    fn equals_are_called_equivalent() {
        let (_, finish, _, _) = run(
            rules(30.0, 2),
            &[CONTROL, RIVAL, RIVAL],
            |candidate, _, noise| [10_000.0, 40_000.0, 40_200.0][candidate] * (1.0 + 0.005 * noise),
        );
        assert_eq!(finish, Finish::Equivalent);
    }

    #[test]
    fn noise_that_hits_a_whole_round_does_not_matter() {
        // The machine halves its speed in every second round; pairing removes it.
        let (_, finish, _, log) = run(
            rules(30.0, 3),
            &[CONTROL, RIVAL],
            |candidate, round, noise| {
                let speed = if round % 2 == 0 { 1.0 } else { 0.5 };
                [1000.0, 1300.0][candidate] * speed * (1.0 + 0.01 * noise)
            },
        );
        assert_eq!(finish, Finish::LeaderClear);
        assert!(log.len() <= 10, "{log:?}");
    }

    #[test]
    fn an_open_question_spends_the_budget_and_not_more() {
        let (_, finish, elapsed, _) = run(rules(10.0, 4), &[CONTROL, RIVAL], |_, _, noise| {
            1000.0 * (1.0 + 0.5 * noise)
        });
        assert_eq!(finish, Finish::BudgetSpent);
        assert!(elapsed <= 10.0);
    }

    #[test]
    fn every_round_runs_every_candidate_once_in_an_order_that_changes() {
        let (_, _, _, log) = run(rules(20.0, 5), &[CONTROL, RIVAL, RIVAL], |_, _, noise| {
            1000.0 * (1.0 + 0.5 * noise)
        });
        let mut orders = std::collections::BTreeSet::new();
        for round in log.chunks_exact(3) {
            let mut order: Vec<usize> = round.iter().map(|(_, candidate)| *candidate).collect();
            assert!(round.iter().all(|(number, _)| *number == round[0].0));
            orders.insert(order.clone());
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2]);
        }
        assert!(orders.len() > 1);
    }

    #[test]
    fn blocks_double_when_four_rounds_do_not_suffice() {
        let mut race = Race::new(rules(1000.0, 6), &[CONTROL, RIVAL]);
        let mut lengths = Vec::new();
        let mut noise = Random::new(1);
        while lengths.len() < 20 {
            let Step::Block {
                candidate, seconds, ..
            } = race.next(0.0)
            else {
                break;
            };
            lengths.push(seconds);
            race.observe(candidate, 500 + noise.below(1000) as u64, 1.0, 1.0);
        }
        assert_eq!(lengths[..10], [0.3; 10]);
        assert_eq!(lengths[10..14], [0.6; 4]);
        assert_eq!(lengths[14..18], [1.2; 4]);
    }

    #[test]
    fn start_up_is_charged_to_each_task() {
        let costly = Entry {
            start_per_task_s: 0.001,
            ..RIVAL
        };
        let (race, finish, _, _) =
            run(rules(30.0, 7), &[CONTROL, costly], |candidate, _, noise| {
                [1000.0, 2000.0][candidate] * (1.0 + 0.01 * noise)
            });
        assert_eq!(finish, Finish::LeaderClear);
        assert!(race.steady(1).unwrap().0 > 1900.0);
        assert!(race.charged(1).unwrap().0 < 700.0);
    }

    #[test]
    fn withdrawn_candidates_get_no_more_blocks() {
        let mut race = Race::new(rules(10.0, 8), &[CONTROL, RIVAL]);
        race.withdraw(1);
        for _ in 0..3 {
            match race.next(0.0) {
                Step::Block {
                    candidate, seconds, ..
                } => {
                    assert_eq!(candidate, 0);
                    race.observe(0, 10, seconds, seconds);
                }
                Step::Finished(_) => unreachable!(),
            }
        }
        race.withdraw(0);
        assert_eq!(race.next(0.0), Step::Finished(Finish::NobodyLeft));
    }

    #[test]
    fn the_same_seed_runs_the_same_race() {
        let order = |seed| {
            run(rules(8.0, seed), &[CONTROL, RIVAL, RIVAL], |_, _, noise| {
                1000.0 * (1.0 + 0.4 * noise)
            })
            .3
        };
        assert_eq!(order(11), order(11));
    }
}
