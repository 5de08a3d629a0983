//! The field: the candidates of a race with a laboratory each, run block by block, and what was measured of them.
//!
//! *Guarantees*: each candidate has a fresh process, kept through its blocks; all of them race over the same inputs in a
//! round. A candidate that crashes or hangs leaves the race with its reason; only the serial control's failure is the function's.

use serde::Deserialize;
use serde_json::json;

use super::compare::{
    Candidate, Observer, Outcome, Progress, RaceAccount, Request, function_failure, load_request,
    start,
};
use super::decide::{self, Choice, Measured, Target};
use super::error::ChoiceError;
use super::laboratory::{CallError, Laboratory, Launch, Surroundings};
use super::model::{Prediction, Setting};
use super::plan::{Plan, Strategy};
use super::profile::{Profile, TaskError};
use super::race::{EQUIVALENT, Entry, Finish, Race, Rules, Step};
use super::statistics::{Interval, Random, quantile};
use super::wording;

/// First block length, shorter when the budget would not give each candidate eight blocks.
const BLOCK_S: f64 = 0.3;
const BLOCK_LEAST_S: f64 = 0.05;
const BLOCKS_WANTED: f64 = 8.0;
/// A block holds at least so many of the profile's tasks one after the other, if the budget bears it: filling and draining
/// a pool costs about one task's time, so four keep that below a quarter.
const TASKS_IN_BLOCK: f64 = 4.0;
/// Share of the budget that starting candidates may take before the rest stays unraced.
const START_SHARE: f64 = 0.4;
/// Seconds beyond the expected for one block or one start before it counts as hanging.
const GRACE_S: f64 = 5.0;
/// A plan fails when it loses at least this share of its tasks while serial loses less than half of that share.
const FAILING_SHARE: f64 = 0.5;

/// The laboratory's reply to `block`.
#[derive(Debug, Clone, Deserialize)]
struct Block {
    count: u64,
    wall_s: f64,
    #[serde(default)]
    errors: u64,
    #[serde(default)]
    first_error: Option<TaskError>,
    #[serde(default)]
    latencies: Vec<f64>,
    #[serde(default)]
    cpu_s: Option<f64>,
    #[serde(default)]
    peak_memory_bytes: Option<f64>,
    #[serde(default)]
    memory_kind: Option<String>,
    #[serde(default)]
    lost_workers: u64,
}

/// One candidate.
#[derive(Debug)]
struct Runner {
    prediction: Prediction,
    laboratory: Option<Laboratory>,
    start_s: Option<f64>,
    latencies: Vec<f64>,
    cpu_s: Option<f64>,
    wall_s: f64,
    peak_memory_bytes: Option<f64>,
    memory_kind: Option<String>,
    errors: u64,
    tasks: u64,
    blocks: usize,
    first_error: Option<TaskError>,
    failed: Option<String>,
    unraced: Option<String>,
    steady: Option<(f64, Option<Interval>)>,
    charged_per_s: Option<f64>,
    speedup: Option<Interval>,
}

/// All candidates; serial is the first.
#[derive(Debug)]
pub(super) struct Field(Vec<Runner>);

impl Field {
    /// A field of these candidates, serial first.
    pub(super) fn new(predictions: &[Prediction]) -> Self {
        Self(
            predictions
                .iter()
                .map(|prediction| Runner {
                    prediction: prediction.clone(),
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
                    first_error: None,
                    failed: prediction.infeasible.clone(),
                    unraced: None,
                    steady: None,
                    charged_per_s: None,
                    speedup: None,
                })
                .collect(),
        )
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

    fn leader(&self, race: &Race) -> Option<(Plan, f64)> {
        self.0
            .iter()
            .enumerate()
            .filter(|(_, runner)| runner.failed.is_none())
            .filter_map(|(index, runner)| Some((runner.prediction.plan, race.steady(index)?.0)))
            .max_by(|one, other| one.1.total_cmp(&other.1))
    }

    /// Leaves out plans that lose tasks which serial does not.
    fn fail_the_lossy(&mut self) {
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
    fn cpu_cores(&self) -> Option<f64> {
        (self.wall_s > 0.0)
            .then_some(self.cpu_s?)
            .map(|cpu| cpu / self.wall_s)
    }

    /// Start-up to charge to a batch. Where workers are processes it is what was just measured. Threads and loops import
    /// nothing, and making hundreds of them meet takes the laboratory longer than starting them: there the profile's
    /// time of one start counts, if that is less.
    fn charged_start_s(&self, profile: &Profile) -> f64 {
        let plan = self.prediction.plan;
        let measured = self.start_s.unwrap_or(0.0);
        match (plan.strategy(), profile.worker_start_s.thread) {
            (Strategy::Serial, _) => 0.0,
            (Strategy::Threads, Some(each)) => measured.min(each * f64::from(plan.workers())),
            (Strategy::Coroutines, Some(each)) => measured.min(each),
            _ => measured,
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
        return (
            Outcome::NotRaced,
            "predicted only: there was no race".to_owned(),
        );
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
        (
            Outcome::Slower,
            format!(
                "{} slower than {}",
                wording::percent(behind),
                fastest.plan.label()
            ),
        )
    }
}

/// Starts every candidate and races them.
#[expect(
    clippy::too_many_arguments,
    reason = "the one place where all parts of a comparison meet"
)]
pub(super) fn race(
    field: &mut Field,
    request: &Request,
    launch: &Launch,
    profile: &Profile,
    setting: &Setting,
    seed: u64,
    observer: &mut dyn Observer,
    surroundings: Surroundings<'_>,
) -> Result<RaceAccount, ChoiceError> {
    let began = (surroundings.clock)();
    let elapsed = || (surroundings.clock)() - began;
    // All interpreters come up at the same time; loading then finds them ready.
    for runner in field.0.iter_mut().filter(|runner| runner.failed.is_none()) {
        runner.laboratory = Some(start(launch)?);
    }
    for index in 0..field.0.len() {
        let runner = &mut field.0[index];
        if runner.laboratory.is_none() {
            continue;
        }
        if index > 0 && elapsed() > START_SHARE * request.budget_s {
            runner.unraced = Some(
                "starting the others took too much of the budget; a larger --budget would race it"
                    .to_owned(),
            );
            runner.laboratory = None;
            continue;
        }
        observer.progress(&Progress::Starting {
            plan: runner.prediction.plan,
        });
        open(runner, index == 0, request, surroundings)?;
    }

    let budget_left = (request.budget_s - elapsed()).max(0.1);
    let count = field
        .0
        .iter()
        .filter(|runner| runner.laboratory.is_some())
        .count()
        .max(1) as f64;
    let block_s = (budget_left / (count * BLOCKS_WANTED)).clamp(BLOCK_LEAST_S, BLOCK_S);
    let least_block_s = (TASKS_IN_BLOCK * profile.wall_s).min(budget_left / (count * 5.0));
    // Serial blocks cannot be shorter than a task; four rounds must fit, or the warm-up is left out.
    let warm_up = count * block_s.max(least_block_s).max(profile.wall_s) * 4.0 <= budget_left;
    let entries: Vec<Entry> = field
        .0
        .iter()
        .enumerate()
        .map(|(index, runner)| Entry {
            control: index == 0,
            least_block_s,
            start_per_task_s: setting.count.map_or(0.0, |count| {
                runner.charged_start_s(profile) / count.max(1) as f64
            }),
        })
        .collect();
    let rules = Rules {
        budget_s: request.budget_s,
        block_s,
        warm_up,
        seed,
    };
    let mut race = Race::new(rules, &entries);
    for (index, runner) in field.0.iter().enumerate() {
        if runner.laboratory.is_none() {
            race.withdraw(index);
        }
    }
    let finish = loop {
        match race.next(elapsed()) {
            Step::Finished(finish) => break finish,
            Step::Block {
                candidate,
                seconds,
                round,
            } => {
                observer.progress(&Progress::Racing {
                    elapsed_s: elapsed(),
                    budget_s: request.budget_s,
                    plan: field.0[candidate].prediction.plan,
                    leader: field.leader(&race),
                });
                let first = Random::new(seed ^ round as u64).below(usize::MAX) as u64
                    % setting_count(setting, profile);
                let runner = &mut field.0[candidate];
                match block(
                    runner,
                    candidate == 0,
                    first,
                    seconds,
                    profile,
                    request,
                    surroundings,
                )? {
                    Some(block) => {
                        if race.counting() {
                            runner.take(&block);
                        }
                        race.observe(candidate, block.count, block.wall_s, seconds);
                    }
                    None => race.withdraw(candidate),
                }
            }
        }
    };
    let elapsed_s = elapsed();
    for (index, runner) in field.0.iter_mut().enumerate() {
        if runner.failed.is_none() {
            runner.steady = race.steady(index);
            runner.charged_per_s = race.charged(index).map(|(rate, _)| rate);
            if index > 0 {
                runner.speedup = race.ratio(index, 0);
            }
        }
        if let Some(laboratory) = runner.laboratory.take() {
            laboratory.leave(surroundings);
        }
    }
    if (surroundings.interrupted)() {
        return Err(ChoiceError::Interrupted);
    }
    field.fail_the_lossy();
    Ok(RaceAccount {
        elapsed_s,
        budget_s: request.budget_s,
        finish: match finish {
            Finish::LeaderClear => "leader-clear",
            Finish::Equivalent => "equivalent",
            Finish::BudgetSpent => "budget-spent",
            Finish::NobodyLeft => "nobody-left",
        }
        .to_owned(),
        seed,
        warmed_up: warm_up,
    })
}

/// Inputs to choose a round's first one from; blocks wrap around.
fn setting_count(setting: &Setting, profile: &Profile) -> u64 {
    setting.count.unwrap_or(profile.count).max(1)
}

/// Loads the function into a candidate's laboratory and starts its pool; a failure of a rival is its own.
fn open(
    runner: &mut Runner,
    control: bool,
    request: &Request,
    surroundings: Surroundings<'_>,
) -> Result<(), ChoiceError> {
    let Some(laboratory) = runner.laboratory.as_mut() else {
        return Ok(());
    };
    let timeout = request.budget_s + GRACE_S;
    let plan = json!({"do": "plan", "plan": runner.prediction.plan});
    let opened = laboratory
        .call(&load_request(request), timeout, surroundings, &mut |_| {})
        .and_then(|_| laboratory.call(&plan, timeout, surroundings, &mut |_| {}));
    match opened {
        Ok(reply) => {
            runner.start_s = reply.get("start_s").and_then(serde_json::Value::as_f64);
            Ok(())
        }
        Err(CallError::Interrupted) => Err(ChoiceError::Interrupted),
        Err(error) if control => Err(function_failure(
            error,
            "the start of the serial control",
            request.budget_s,
        )),
        Err(error) => {
            runner.laboratory = None;
            runner.failed = Some(rival_failure(error, "while its workers were started"));
            Ok(())
        }
    }
}

/// Runs one block; `None` when a rival failed.
fn block(
    runner: &mut Runner,
    control: bool,
    first: u64,
    seconds: f64,
    profile: &Profile,
    request: &Request,
    surroundings: Surroundings<'_>,
) -> Result<Option<Block>, ChoiceError> {
    let Some(laboratory) = runner.laboratory.as_mut() else {
        return Ok(None);
    };
    // What is in flight when the block's time is up: each worker's task, one after the other if they share one core.
    let drain = 10.0 * profile.wall_max_s
        + 2.0 * f64::from(runner.prediction.plan.workers()) * profile.cpu_s();
    let timeout = seconds + drain.min(request.budget_s) + GRACE_S;
    let asked =
        json!({"do": "block", "first": first, "count": 1_000_000_000u64, "seconds": seconds});
    let reply = laboratory.call(&asked, timeout, surroundings, &mut |_| {});
    let block = reply.and_then(|value| {
        Block::deserialize(&value).map_err(|error| CallError::Broken(error.to_string()))
    });
    let failure = match block {
        Ok(block) if block.lost_workers == 0 || control => return Ok(Some(block)),
        Ok(block) => format!(
            "a worker ended while it ran a task{}",
            block.first_error.map_or_else(String::new, |error| format!(
                " (input {}: {}: {})",
                error.index, error.class, error.message
            ))
        ),
        Err(CallError::Interrupted) => return Err(ChoiceError::Interrupted),
        Err(error) if control => {
            return Err(function_failure(
                error,
                "the race, running serially",
                request.budget_s,
            ));
        }
        Err(error) => rival_failure(error, "during the race"),
    };
    runner.laboratory = None;
    runner.failed = Some(failure);
    Ok(None)
}

/// Why a rival left, in words.
fn rival_failure(error: CallError, when: &str) -> String {
    let at =
        |input: Option<u64>| input.map_or_else(String::new, |index| format!(" at input {index}"));
    match error {
        CallError::Refused(refusal) => match refusal.hint {
            Some(hint) => format!("{}; {hint}", refusal.message),
            None => refusal.message,
        },
        CallError::Died { how, input, .. } => {
            format!("its process ended with {how} {when}{}", at(input))
        }
        CallError::Late { after_s, input, .. } => {
            format!(
                "it did not answer within {} {when}{}",
                wording::seconds(after_s),
                at(input)
            )
        }
        CallError::Interrupted => "interrupted".to_owned(),
        CallError::Broken(why) => format!("its process broke the measuring protocol {when}: {why}"),
    }
}
