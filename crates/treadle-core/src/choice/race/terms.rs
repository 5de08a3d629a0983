//! The terms of a race: its rules, who enters, what a block brings, what comes next.

use super::super::disturbance::Load;
use super::super::plan::{Plan, Strategy};
use super::super::target::Target;

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
    /// Tasks of the whole batch; `None` where it has no known end, and its start is nothing.
    pub batch: Option<u64>,
    /// Standard deviation of the tasks' durations over their mean, as the profile saw it.
    pub variation: f64,
    /// What a candidate must meet.
    pub targets: Vec<Target>,
    /// Whether which size of a strategy is best is a question like any other: plans that the user named were named to be told apart.
    pub sizes_matter: bool,
}

/// Which sizes a plan has: plans of one form differ in nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    threads: bool,
    processes: bool,
    coroutines: bool,
    interpreters: bool,
}

impl Form {
    /// The form of a plan.
    pub fn of(plan: Plan) -> Self {
        Self {
            threads: plan.threads.is_some(),
            processes: plan.processes.is_some(),
            coroutines: plan.coroutines.is_some(),
            interpreters: plan.interpreters.is_some(),
        }
    }
}

/// A candidate as it enters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// The serial control is never dropped.
    pub control: bool,
    /// Its place in the order of simplicity.
    pub simplicity: (Strategy, u32),
    /// What it is without its sizes.
    pub form: Form,
    /// A block never asks for less than this, so that it holds several tasks.
    pub least_block_s: f64,
    /// Seconds to charge to each task of a finite batch, for its start and its end.
    pub start_per_task_s: f64,
    /// Cores that it can keep busy at most as far as is known: threads that take turns at the interpreter lock one, processes any number.
    pub parallelism: f64,
}

/// What a block brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ran<'a> {
    /// Tasks done, failed ones included.
    pub count: u64,
    /// Tasks done while the pool was full, and its seconds: filling and draining a large pool is not its rate.
    pub full: (f64, f64),
    /// The tasks done while the pool was full, and all of them, each counted for what the profile says that its input takes (the mean one as 1);
    /// `None` where that is not known.
    pub effort: Option<(f64, f64)>,
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
    /// Only sizes of one strategy were left, and they had their share of the time without being told apart.
    StrategyClear,
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
            Self::StrategyClear => "strategy-clear",
            Self::TargetsMissed => "targets-missed",
            Self::BudgetSpent => "budget-spent",
            Self::InputsSpent => "inputs-spent",
            Self::NobodyLeft => "nobody-left",
        }
    }
}
