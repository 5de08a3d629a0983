//! The comparison: everything that was learnt, in the shape that `--json` writes.
//!
//! *Guarantees*: a number that was not measured is null; the keys of the public contract stay, others may be added.

use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;
use super::model::{Handover, LoopCost, Setting, has_interpreters};
use super::noise::Readings;
use super::plan::Plan;
use super::profile::Profile;
use super::wording::percent;

/// Version of the shape of `Comparison`.
pub const SCHEMA: u32 = 1;
/// The inputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Items {
    /// How many were read.
    pub count: u64,
    /// Where they come from.
    pub spec: String,
    /// Whether there were more than the limit.
    pub truncated: bool,
    /// Whether a tuple was passed as the list of arguments.
    pub star: bool,
    /// Whether no input was run twice.
    #[serde(default)]
    pub once: bool,
    /// At most so many were asked for.
    #[serde(default = "super::request::default_limit")]
    pub limit: u64,
}

/// The machine and the interpreter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Cores that this process may use.
    pub usable_cores: f64,
    /// Logical processors in the affinity mask.
    pub affinity: Option<usize>,
    /// CPU quota of the control groups, in cores.
    pub quota: Option<f64>,
    /// Physical cores among them.
    pub physical_cores: Option<usize>,
    /// Version of Python.
    pub python: String,
    /// Native threads of the spin test, and the cores' worth that they got before anything was started.
    #[serde(default)]
    pub spin_threads: usize,
    /// The same, measured in cores.
    #[serde(default)]
    pub spin_cores: Option<f64>,
    /// The same after the race; null without one.
    #[serde(default)]
    pub spin_cores_after: Option<f64>,
    /// `cpython` and the like.
    pub implementation: String,
    /// Whether there is an interpreter lock.
    pub gil: bool,
    /// `quiet` or `noisy`.
    pub noise: String,
    /// Why it is noisy.
    pub noise_grounds: Vec<String>,
    /// The readings behind it.
    pub readings: Readings,
    /// Whether the noise gate was overridden.
    pub noise_ignored: bool,
    /// Processor model.
    pub cpu: Option<String>,
    /// Kernel name and release.
    pub kernel: Option<String>,
    /// Memory that was free at the start, in bytes.
    pub memory_available_bytes: Option<u64>,
    /// Memory limit of the machine or its control group, in bytes.
    pub memory_limit_bytes: Option<u64>,
}

/// What became of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// This is the plan.
    Chosen,
    /// As fast as the best within five percent.
    Equivalent,
    /// Slower, or it misses a target.
    Slower,
    /// Only predicted.
    NotRaced,
    /// It cannot run this function here.
    Infeasible,
}

/// One plan with what was predicted and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The plan; `{}` is serial.
    pub plan: Plan,
    /// Steady tasks per second, by the simulation.
    pub predicted_per_s: f64,
    /// Low end of its interval.
    pub predicted_low_per_s: f64,
    /// High end of its interval.
    #[serde(default)]
    pub predicted_high_per_s: Option<f64>,
    /// What no schedule exceeds.
    #[serde(default)]
    pub bound_per_s: Option<f64>,
    /// The prediction over the measurement, less one: 0.1 promised ten percent too much.
    #[serde(default)]
    pub prediction_error: Option<f64>,
    /// Steady tasks per second in the race.
    pub measured_per_s: Option<f64>,
    /// Its 95 % interval.
    pub interval_per_s: Option<[f64; 2]>,
    /// Tasks per second over the whole batch, start-up included.
    pub batch_per_s: Option<f64>,
    /// Throughput relative to serial, start-up included, with its 95 % interval.
    pub speedup: Option<[f64; 3]>,
    /// Median seconds of a task in its worker.
    pub p50_s: Option<f64>,
    /// 99th percentile of the same.
    pub p99_s: Option<f64>,
    /// Cores in use.
    pub cpu_cores: Option<f64>,
    /// Peak bytes of all processes together.
    pub peak_memory_bytes: Option<f64>,
    /// `pss` or `rss`.
    pub memory_kind: Option<String>,
    /// Seconds until every worker had imported the function.
    pub start_s: Option<f64>,
    /// Tasks that failed in counted blocks.
    pub errors: u64,
    /// Tasks in counted blocks.
    pub tasks: u64,
    /// Counted blocks.
    pub blocks: usize,
    /// What binds the prediction.
    pub limit: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, in words.
    pub reason: String,
}

/// Predicted throughput against size for one strategy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// `threads`, `processes`, `coroutines`.
    pub strategy: String,
    /// Size and predicted tasks per second.
    pub points: Vec<(u32, f64)>,
    /// Low and high end of each point's interval, in the same order.
    #[serde(default)]
    pub intervals: Vec<[f64; 2]>,
    /// The plan of each point, in the same order.
    #[serde(default)]
    pub plans: Vec<Plan>,
}

impl Curve {
    /// The curve that the model predicted.
    pub(super) fn of(curve: &super::model::Curve) -> Self {
        let points = &curve.points;
        Self {
            strategy: curve.form.strategy().name().to_owned(),
            points: points
                .iter()
                .map(|one| (one.plan.workers(), one.per_s))
                .collect(),
            intervals: points
                .iter()
                .map(|one| [one.low_per_s, one.high_per_s])
                .collect(),
            plans: points.iter().map(|one| one.plan).collect(),
        }
    }
}

/// How sure the decision is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// A quiet machine and a clear race.
    High,
    /// Something to be careful about; the reason says what.
    Low,
    /// Nothing was decided.
    None,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The plan; null when nothing was decided.
    pub plan: Option<Plan>,
    /// Why, in a paragraph.
    pub reason: String,
    /// How sure.
    pub confidence: Confidence,
    /// The conditions of high confidence that do not hold, by name.
    #[serde(default)]
    pub doubts: Vec<String>,
    /// Targets that the plan misses, in words; empty when it meets all.
    pub missed_targets: Vec<String>,
    /// The line of code that runs it.
    pub code: Option<String>,
}

/// How the race went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RaceAccount {
    /// Seconds that it took, pools started included.
    pub elapsed_s: f64,
    /// Seconds that it was given.
    pub budget_s: f64,
    /// `leader-clear`, `equivalent`, `strategy-clear`, `targets-missed`, `budget-spent`, `inputs-spent`, `nobody-left`.
    pub finish: String,
    /// The seed that reproduces its order.
    pub seed: u64,
    /// Whether the first block of each candidate was discarded.
    pub warmed_up: bool,
    /// Counted rounds.
    #[serde(default)]
    pub rounds: usize,
    /// Counted rounds that others disturbed; they are set aside, unless they are the larger part.
    #[serde(default)]
    pub disturbed_rounds: usize,
    /// Whether they are the larger part, so that fair rates were compared: what others took from a plan is given back.
    #[serde(default)]
    pub contended: bool,
    /// Median share of the control's blocks that it stood in the run queue.
    #[serde(default)]
    pub control_delay: Option<f64>,
    /// The control's speed in the later half of the race over that in the earlier half.
    #[serde(default)]
    pub control_drift: Option<f64>,
    /// Times that the race asked whether it knew enough.
    #[serde(default)]
    pub looks: usize,
    /// Probability that anything it called certain is not so.
    #[serde(default)]
    pub error_probability: f64,
    /// Inputs that were left when no input was to be run twice; null otherwise.
    #[serde(default)]
    pub inputs_left: Option<u64>,
}

/// Seconds that each part of a comparison took.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Took {
    /// Starting the measuring process and loading function and inputs.
    pub loading_s: f64,
    /// The serial sample, and what hand-over and workers cost.
    pub profiling_s: f64,
    /// The model.
    pub predicting_s: f64,
    /// The race, from starting the candidates to their leaving; null without one.
    pub racing_s: Option<f64>,
}

/// Everything that was learnt: the object that `--json` writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Version of this shape.
    pub schema: u32,
    /// `module:function`.
    pub target: String,
    /// The file that the function is in.
    pub target_file: Option<String>,
    /// Digest of its source.
    pub source_hash: Option<String>,
    /// What a record keeps of source and environment; null when it was not asked for.
    #[serde(default)]
    pub fingerprint: Option<Fingerprint>,
    /// Whether it is an async function.
    pub asynchronous: bool,
    /// The inputs.
    pub items: Items,
    /// The machine.
    pub machine: Machine,
    /// What one task costs.
    pub profile: Profile,
    /// What the parts of the comparison took.
    #[serde(default)]
    pub took: Took,
    /// What handing a task over costs.
    #[serde(default)]
    pub handover: Handover,
    /// What a task costs a loop that many share; null where it was not measured.
    #[serde(default)]
    pub shared_loop: Option<LoopCost>,
    /// Serial first, then by what was measured or predicted.
    pub candidates: Vec<Candidate>,
    /// Predicted throughput against size.
    pub curves: Vec<Curve>,
    /// The race; null when there was none.
    pub race: Option<RaceAccount>,
    /// The requirements.
    pub targets: Vec<String>,
    /// Whether no race was asked for.
    pub profile_only: bool,
    /// What was decided.
    pub decision: Decision,
}

impl Comparison {
    /// The setting that its predictions were made in, to predict again: the same gives the same, a changed one what would change.
    pub fn setting(&self) -> Setting {
        let machine = &self.machine;
        Setting {
            cores: machine.usable_cores,
            gil: machine.gil,
            asynchronous: self.asynchronous,
            interpreters: has_interpreters(&machine.implementation, &machine.python),
            pilot_trusted: machine.noise == "quiet",
            count: (!self.items.truncated).then_some(self.items.count),
            memory_available: machine.memory_available_bytes.map(|bytes| bytes as f64),
            handover: self.handover,
            shared_loop: self.shared_loop,
        }
    }

    /// How far predictions were from measurements, in a sentence; nothing where none was raced. The plain loop is left out: its
    /// prediction is the profile.
    pub fn prediction_sentence(&self) -> Option<String> {
        let raced: Vec<(&Candidate, f64)> = self
            .candidates
            .iter()
            .filter(|one| one.plan != Plan::SERIAL)
            .filter_map(|one| Some((one, one.prediction_error?)))
            .collect();
        let (worst, error) = raced
            .iter()
            .max_by(|one, other| one.1.abs().total_cmp(&other.1.abs()))?;
        let sizes: Vec<f64> = raced.iter().map(|(_, error)| error.abs()).collect();
        let median = super::statistics::median(&sizes)?;
        let side = if *error > 0.0 { "high" } else { "low" };
        let (label, off) = (worst.plan.label(), percent(error.abs()));
        Some(if raced.len() == 1 {
            format!("The prediction for {label} was {off} too {side}.")
        } else {
            format!(
                "The predictions of {} raced plans were off by {} in the median; the worst, {label}, was {off} too {side}.",
                raced.len(),
                percent(median)
            )
        })
    }

    /// 0 decided (or only profiled, as asked), 3 nothing could be decided: too noisy, or no time to measure.
    pub fn exit_code(&self) -> i32 {
        if self.decision.plan.is_some() || self.profile_only {
            0
        } else {
            3
        }
    }
}
