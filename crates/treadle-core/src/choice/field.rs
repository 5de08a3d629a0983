//! The field: the candidates of a race with a laboratory each, what was measured of them, and what became of each.
//!
//! *Guarantees*: each candidate has a fresh process, kept through its blocks.

use serde::Deserialize;

use super::comparison::{Candidate, Outcome};
use super::contenders::{Contender, MOST_CANDIDATES, Reserve};
use super::decide::{self, Choice, Measured};
use super::disturbance::Load;
use super::laboratory::Laboratory;
use super::model::Prediction;
use super::plan::{Plan, Strategy};
use super::profile::Profile;
use super::race::{EQUIVALENT, Race};
use super::reason;
use super::sample::TaskError;
use super::statistics::{Interval, quantile};
use super::target::Target;
use super::wording;

/// A plan fails when it loses at least this share of its tasks while serial loses less than half of that share.
const FAILING_SHARE: f64 = 0.5;

/// Why a plan was not raced for which there was no place.
pub(super) const CROWDED: &str =
    "others were more promising, and each more takes its share of the budget";

/// The laboratory's reply to `block`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Block {
    pub(super) count: u64,
    pub(super) wall_s: f64,
    /// Tasks done while the pool was full, in parts where they went on beyond it, and its seconds; the whole block where not told.
    #[serde(default)]
    work: Option<f64>,
    #[serde(default)]
    window_s: Option<f64>,
    /// The same tasks, and all, by what the profile says that they take.
    #[serde(default)]
    window_effort: Option<f64>,
    #[serde(default)]
    effort: Option<f64>,
    #[serde(default)]
    pub(super) errors: u64,
    #[serde(default)]
    pub(super) first_error: Option<TaskError>,
    #[serde(default)]
    pub(super) latencies: Vec<f64>,
    #[serde(default)]
    pub(super) cpu_s: Option<f64>,
    #[serde(default)]
    pub(super) peak_memory_bytes: Option<f64>,
    #[serde(default)]
    pub(super) memory_kind: Option<String>,
    #[serde(default)]
    pub(super) lost_workers: u64,
    /// Inputs that were begun, of those that were named.
    #[serde(default)]
    pub(super) taken: Option<u64>,
    #[serde(default)]
    pub(super) run_queue_s: Option<f64>,
    #[serde(default)]
    pub(super) machine_capacity_s: Option<f64>,
    #[serde(default)]
    pub(super) machine_busy_s: Option<f64>,
    #[serde(default)]
    pub(super) machine_stolen_s: Option<f64>,
}

impl Block {
    /// Tasks done and the seconds that they took, while the pool was full.
    pub(super) fn full(&self) -> (f64, f64) {
        match (self.work, self.window_s) {
            (Some(work), Some(window_s)) if work > 0.0 && window_s > 0.0 => (work, window_s),
            _ => (self.count as f64, self.wall_s),
        }
    }

    /// The tasks of `full`, and all, by what the profile says that their inputs take.
    pub(super) fn effort(&self) -> Option<(f64, f64)> {
        Some((self.window_effort?, self.effort?))
    }

    /// What was read around it.
    pub(super) fn load(&self) -> Load {
        Load {
            wall_s: self.wall_s,
            cpu_s: self.cpu_s,
            delay_s: self.run_queue_s,
            capacity_s: self.machine_capacity_s,
            busy_s: self.machine_busy_s,
            stolen_s: self.machine_stolen_s,
        }
    }
}

/// One candidate.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) prediction: Prediction,
    pub(super) laboratory: Option<Laboratory>,
    pub(super) start_s: Option<f64>,
    pub(super) latencies: Vec<f64>,
    pub(super) cpu_s: Option<f64>,
    pub(super) wall_s: f64,
    pub(super) peak_memory_bytes: Option<f64>,
    pub(super) memory_kind: Option<String>,
    pub(super) errors: u64,
    pub(super) tasks: u64,
    pub(super) blocks: usize,
    /// Counted blocks with their rounds, until it is known which rounds are compared.
    pub(super) pending: Vec<(usize, Block)>,
    pub(super) first_error: Option<TaskError>,
    pub(super) failed: Option<String>,
    pub(super) unraced: Option<String>,
    /// What has to be measured before it is known whether this one is worth racing.
    pub(super) reserve: Option<Reserve>,
    pub(super) steady: Option<(f64, Option<Interval>)>,
    pub(super) charged_per_s: Option<f64>,
    pub(super) speedup: Option<Interval>,
}

/// What is known of a plan in the middle of a race.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside {
    pub(super) plan: Plan,
    pub(super) predicted_per_s: f64,
    /// Measured so far.
    pub(super) per_s: f64,
    /// Cores in use.
    pub(super) cores: Option<f64>,
}

/// All candidates; serial is the first.
#[derive(Debug)]
pub(super) struct Field(pub(super) Vec<Runner>);

impl Field {
    /// A field of these candidates, serial first.
    pub(super) fn new(contenders: Vec<Contender>) -> Self {
        Self(
            contenders
                .into_iter()
                .map(|contender| Runner {
                    failed: contender.prediction.infeasible.clone(),
                    prediction: contender.prediction,
                    reserve: contender.reserve,
                    laboratory: None,
                    start_s: None,
                    latencies: Vec::new(),
                    cpu_s: None,
                    wall_s: 0.0,
                    peak_memory_bytes: None,
                    memory_kind: None,
                    errors: 0,
                    tasks: 0,
                    blocks: 0,
                    pending: Vec::new(),
                    first_error: None,
                    unraced: None,
                    steady: None,
                    charged_per_s: None,
                    speedup: None,
                })
                .collect(),
        )
    }

    /// Lets other sizes of a strategy race from the start, smaller ones first, as far as there are places.
    pub(super) fn call_sizes(&mut self) {
        let racing = self.0.iter().filter(|runner| runner.reserve.is_none());
        let mut places = MOST_CANDIDATES.saturating_sub(racing.count());
        for smaller in [true, false] {
            for runner in &mut self.0 {
                let size = runner.prediction.plan.workers();
                let called = runner.reserve.take_if(|reserve| match reserve {
                    Reserve::Size(knee) => (size < knee.workers()) == smaller,
                    Reserve::ShutOut => false,
                });
                if called.is_none() {
                    continue;
                }
                match places.checked_sub(1) {
                    Some(left) => places = left,
                    None => runner.unraced = Some(CROWDED.to_owned()),
                }
            }
        }
    }

    /// Leaves out whom another one's prediction shuts out, whatever that one does.
    pub(super) fn leave_out_the_shut_out(&mut self) {
        for runner in &mut self.0 {
            if runner
                .reserve
                .take_if(|reserve| *reserve == Reserve::ShutOut)
                .is_some()
            {
                runner.unraced = Some(reason::shut_out(&runner.prediction));
            }
        }
    }

    /// What was measured, for the decision.
    pub(super) fn measured(&self) -> Vec<Measured> {
        self.0
            .iter()
            .map(|runner| Measured {
                plan: runner.prediction.plan,
                charged_per_s: runner.charged_per_s,
                steady_per_s: runner.steady.map(|(rate, _)| rate),
                latencies: runner.latencies.clone(),
                peak_memory_bytes: runner.peak_memory_bytes,
                errors: runner.errors,
                tasks: runner.tasks,
                cpu_cores: runner.cpu_cores(),
                failed: runner.failed.is_some(),
            })
            .collect()
    }

    /// The candidates with their outcomes: serial first, then by throughput.
    pub(super) fn candidates(&self, choice: Option<&Choice>, targets: &[Target]) -> Vec<Candidate> {
        let measured = self.measured();
        let mut candidates: Vec<Candidate> = self
            .0
            .iter()
            .enumerate()
            .map(|(index, runner)| {
                let (outcome, reason) = judge(index, runner, &measured, choice, targets);
                runner.candidate(outcome, reason)
            })
            .collect();
        if let Some((_, rest)) = candidates.split_first_mut() {
            let rate = |one: &Candidate| one.measured_per_s.unwrap_or(0.0);
            rest.sort_by(|one, other| {
                rate(other)
                    .total_cmp(&rate(one))
                    .then(other.predicted_per_s.total_cmp(&one.predicted_per_s))
            });
        }
        candidates
    }

    /// What is known of a plan, as far as its race has come.
    pub(super) fn so_far(&self, plan: Plan, race: &Race) -> Option<Beside> {
        let index = self
            .0
            .iter()
            .position(|runner| runner.prediction.plan == plan)?;
        let blocks = self.0[index].pending.iter().map(|(_, block)| block);
        let wall_s: f64 = blocks.clone().map(|block| block.wall_s).sum();
        let cpu_s: Option<f64> = blocks.map(|block| block.cpu_s).sum();
        let cores = cpu_s.filter(|_| wall_s > 0.0).map(|cpu| cpu / wall_s);
        Some(Beside {
            plan,
            predicted_per_s: self.0[index].prediction.per_s,
            per_s: race.steady(index)?.0,
            cores,
        })
    }

    pub(super) fn leader(&self, race: &Race) -> Option<(Plan, f64)> {
        self.0
            .iter()
            .enumerate()
            .filter(|(_, runner)| runner.failed.is_none())
            .filter_map(|(index, runner)| Some((runner.prediction.plan, race.steady(index)?.0)))
            .max_by(|one, other| one.1.total_cmp(&other.1))
    }

    /// Tasks per second of the whole batch that the best one does, as far as the race has come.
    pub(super) fn best_of_batch(&self, race: &Race) -> Option<f64> {
        (0..self.0.len())
            .filter(|index| self.0[*index].failed.is_none())
            .filter_map(|index| race.charged(index))
            .max_by(f64::total_cmp)
    }

    /// Leaves out plans that lose tasks which serial does not.
    pub(super) fn fail_the_lossy(&mut self) {
        let share = |runner: &Runner| {
            if runner.tasks == 0 {
                0.0
            } else {
                runner.errors as f64 / runner.tasks as f64
            }
        };
        let serial = self.0.first().map_or(0.0, share);
        for runner in self.0.iter_mut().skip(1) {
            if runner.failed.is_none()
                && share(runner) >= FAILING_SHARE
                && serial < FAILING_SHARE / 2.0
            {
                runner.failed = Some(format!(
                    "{} of {} tasks failed under it and not serially{}",
                    runner.errors,
                    runner.tasks,
                    runner
                        .first_error
                        .as_ref()
                        .map_or_else(String::new, |error| format!(
                            ": input {} raised {}: {}",
                            error.index, error.class, error.message
                        ))
                ));
            }
        }
    }
}

impl Runner {
    /// Whether it takes no part: it cannot run, or is not worth a place.
    pub(super) fn is_out(&self) -> bool {
        self.failed.is_some() || self.unraced.is_some()
    }

    fn cpu_cores(&self) -> Option<f64> {
        (self.wall_s > 0.0)
            .then_some(self.cpu_s?)
            .map(|cpu| cpu / self.wall_s)
    }

    /// Start-up to charge to a batch. Where workers are processes it is what was just measured. Threads and loops import
    /// nothing, and making hundreds of them meet takes the laboratory longer than starting them: there the profile's
    /// time of one start counts, if that is less.
    pub(super) fn charged_start_s(&self, profile: &Profile) -> f64 {
        let plan = self.prediction.plan;
        let measured = self.start_s.unwrap_or(0.0);
        match (plan.strategy(), profile.worker_start_s.thread) {
            (Strategy::Serial, _) => 0.0,
            (Strategy::Threads, Some(each)) => measured.min(each * f64::from(plan.workers())),
            (Strategy::Coroutines, Some(each)) => measured.min(each),
            _ => measured,
        }
    }

    /// Takes what the race brought: the blocks of the rounds that are compared, and what it made of them.
    pub(super) fn conclude(&mut self, race: &Race, index: usize) {
        let compared = race.compared();
        for (round, block) in std::mem::take(&mut self.pending) {
            if compared.contains(&round) {
                self.take(&block);
            }
        }
        if self.failed.is_none() {
            self.steady = race.steady(index);
            self.charged_per_s = race.charged(index);
            if index > 0 {
                self.speedup = race.ratio(index, 0);
            }
        }
    }

    fn take(&mut self, block: &Block) {
        self.latencies.extend_from_slice(&block.latencies);
        self.cpu_s = block
            .cpu_s
            .map(|cpu| cpu + self.cpu_s.unwrap_or(0.0))
            .or(self.cpu_s);
        self.wall_s += block.wall_s;
        if let Some(bytes) = block.peak_memory_bytes {
            self.peak_memory_bytes =
                Some(self.peak_memory_bytes.map_or(bytes, |seen| seen.max(bytes)));
        }
        self.memory_kind = block.memory_kind.clone().or(self.memory_kind.take());
        self.errors += block.errors;
        self.tasks += block.count;
        self.blocks += 1;
        self.first_error = self
            .first_error
            .take()
            .or_else(|| block.first_error.clone());
    }

    fn candidate(&self, outcome: Outcome, reason: String) -> Candidate {
        Candidate {
            plan: self.prediction.plan,
            predicted_per_s: self.prediction.per_s,
            predicted_low_per_s: self.prediction.low_per_s,
            predicted_high_per_s: Some(self.prediction.high_per_s),
            bound_per_s: Some(self.prediction.bound_per_s),
            prediction_error: self
                .steady
                .filter(|(rate, _)| *rate > 0.0)
                .map(|(rate, _)| self.prediction.per_s / rate - 1.0),
            measured_per_s: self.steady.map(|(rate, _)| rate),
            interval_per_s: self
                .steady
                .and_then(|(_, interval)| Some([interval?.low, interval?.high])),
            batch_per_s: self.charged_per_s,
            speedup: self
                .speedup
                .map(|ratio| [ratio.estimate, ratio.low, ratio.high]),
            p50_s: quantile(&self.latencies, 0.5),
            p99_s: quantile(&self.latencies, 0.99),
            cpu_cores: self.cpu_cores(),
            peak_memory_bytes: self.peak_memory_bytes,
            memory_kind: self.memory_kind.clone(),
            start_s: self.start_s,
            errors: self.errors,
            tasks: self.tasks,
            blocks: self.blocks,
            limit: self.prediction.limit.clone(),
            outcome,
            reason,
        }
    }
}

/// What became of a candidate and why.
fn judge(
    index: usize,
    runner: &Runner,
    measured: &[Measured],
    choice: Option<&Choice>,
    targets: &[Target],
) -> (Outcome, String) {
    if let Some(why) = &runner.failed {
        return (Outcome::Infeasible, why.clone());
    }
    let Some(choice) = choice else {
        return if runner.charged_per_s.is_some() {
            (
                Outcome::Equivalent,
                "raced, but on this machine it cannot be told from the others".to_owned(),
            )
        } else {
            let why = runner.unraced.clone();
            (
                Outcome::NotRaced,
                why.unwrap_or_else(|| "predicted only: there was no race".to_owned()),
            )
        };
    };
    let Some(rate) = runner.charged_per_s else {
        let why = runner.unraced.clone();
        return (
            Outcome::NotRaced,
            why.unwrap_or_else(|| "the budget was spent before it could be measured".to_owned()),
        );
    };
    let fastest = &measured[choice.fastest];
    let best = fastest.charged_per_s.unwrap_or(rate);
    let label = measured[choice.index].plan.label();
    let behind = 1.0 - rate / best;
    if index == choice.index {
        let why = match (choice.misses.first(), index == choice.fastest) {
            (Some(_), _) => "no plan meets the targets; this one fails least".to_owned(),
            (None, true)
                if measured
                    .iter()
                    .filter(|one| one.charged_per_s.is_some())
                    .count()
                    == 1 =>
            {
                "the only plan that was measured".to_owned()
            }
            (None, true) => "the fastest, and no simpler plan comes within 5 %".to_owned(),
            (None, false) => format!(
                "the simplest within 5 % of the fastest, {} ({} behind)",
                fastest.plan.label(),
                wording::percent(behind.max(0.0))
            ),
        };
        return (Outcome::Chosen, why);
    }
    let misses: Vec<String> = targets
        .iter()
        .filter_map(|target| Some(decide::miss(&measured[index], target)?.words))
        .collect();
    if !misses.is_empty() {
        return (Outcome::Slower, misses.join("; "));
    }
    if behind <= EQUIVALENT {
        (
            Outcome::Equivalent,
            format!("as fast within 5 %, but {label} is simpler"),
        )
    } else {
        let steady = |one: &Measured| one.steady_per_s.unwrap_or(0.0);
        let started = steady(&measured[index]) >= steady(fastest) * (1.0 - EQUIVALENT);
        let (percent, name) = (wording::percent(behind), fastest.plan.label());
        let why = if started {
            format!(
                "as fast as {name} once started, but its start, its first and its last tasks make this batch {percent} slower"
            )
        } else {
            format!("{percent} slower than {name}")
        };
        (Outcome::Slower, why)
    }
}
