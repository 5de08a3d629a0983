//! The driver of the race: starts the candidates, runs the blocks that the race asks for, hands back what they brought.
//!
//! *Guarantees*: all candidates race over the same inputs in a round; a candidate that crashes or hangs leaves the race with
//! its reason; only the serial control's failure is the function's.

use serde::Deserialize;
use serde_json::json;

use super::compare::{Observer, Progress, function_failure, load_request, start};
use super::comparison::RaceAccount;
use super::error::ChoiceError;
use super::field::{Block, Field, Runner};
use super::laboratory::{CallError, Launch, Surroundings};
use super::model::Setting;
use super::profile::Profile;
use super::race::{Entry, Finish, Race, Rules, Step};
use super::request::Request;
use super::statistics::Random;
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
    let least_block_s = (TASKS_IN_BLOCK * profile.own_s()).min(budget_left / (count * 5.0));
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
                let control = candidate == 0;
                match block(
                    runner,
                    control,
                    first,
                    seconds,
                    profile,
                    request,
                    surroundings,
                )? {
                    Run::Done(block) => {
                        if race.counting() {
                            runner.take(&block);
                        }
                        race.observe(candidate, block.count, block.wall_s, seconds);
                    }
                    Run::Left { suspect } => {
                        race.withdraw(candidate);
                        if let Some(input) = suspect {
                            let label = runner.prediction.plan.label();
                            confirm(&mut field.0[0], input, &label, request, surroundings)?;
                        }
                    }
                }
            }
        }
    };
    let elapsed_s = elapsed();
    for laboratory in field
        .0
        .iter_mut()
        .filter_map(|runner| runner.laboratory.as_mut())
    {
        laboratory.dismiss();
    }
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

/// What came of a block.
enum Run {
    /// It ran.
    Done(Block),
    /// The rival had to leave the race.
    Left {
        /// The input that may have ended or stopped it, and would do so under any plan.
        suspect: Option<u64>,
    },
}

/// Runs one block; a failure of a rival is its own, unless the function plainly ended the process itself.
fn block(
    runner: &mut Runner,
    control: bool,
    first: u64,
    seconds: f64,
    profile: &Profile,
    request: &Request,
    surroundings: Surroundings<'_>,
) -> Result<Run, ChoiceError> {
    let Some(laboratory) = runner.laboratory.as_mut() else {
        return Ok(Run::Left { suspect: None });
    };
    let plan = runner.prediction.plan;
    // What is in flight when the block's time is up: each worker's task, one after the other if they share one core.
    let drain = 10.0 * profile.wall_max_s + 2.0 * f64::from(plan.workers()) * profile.cpu_s();
    let timeout = seconds + drain.min(request.budget_s) + GRACE_S;
    let asked =
        json!({"do": "block", "first": first, "count": 1_000_000_000u64, "seconds": seconds});
    let reply = laboratory.call(&asked, timeout, surroundings, &mut |_| {});
    let block = reply.and_then(|value| {
        Block::deserialize(&value).map_err(|error| CallError::Broken(error.to_string()))
    });
    let within = plan.processes.is_none() && plan.interpreters.is_none();
    let (failure, suspect) = match block {
        Ok(block) if block.lost_workers == 0 || control => return Ok(Run::Done(block)),
        Ok(block) => {
            let input = block.first_error.as_ref().map(|error| error.index);
            let words = block.first_error.map_or_else(String::new, |error| {
                format!(
                    " (input {}: {}: {})",
                    error.index, error.class, error.message
                )
            });
            (format!("a worker ended while it ran a task{words}"), input)
        }
        Err(CallError::Interrupted) => return Err(ChoiceError::Interrupted),
        Err(error) if control => {
            return Err(function_failure(
                error,
                "the race, running serially",
                request.budget_s,
            ));
        }
        // An exit code is asked for, whatever the plan; a signal may come of tasks that share memory.
        Err(error @ CallError::Died { exited: true, .. }) if within => {
            let during = format!("the race, as {}", plan.label());
            return Err(function_failure(error, &during, request.budget_s));
        }
        Err(error) => {
            let input = match &error {
                CallError::Late { input, .. } | CallError::Died { input, .. } => *input,
                _ => None,
            };
            (rival_failure(error, "during the race"), input)
        }
    };
    runner.laboratory = None;
    runner.failed = Some(failure);
    Ok(Run::Left { suspect })
}

/// Runs one input serially that a rival may have failed on: if it ends or stops this process too, the function fails.
fn confirm(
    control: &mut Runner,
    input: u64,
    rival: &str,
    request: &Request,
    surroundings: Surroundings<'_>,
) -> Result<(), ChoiceError> {
    let Some(laboratory) = control.laboratory.as_mut() else {
        return Ok(());
    };
    let asked = json!({"do": "block", "first": input, "count": 1, "seconds": 0.0});
    match laboratory.call(&asked, GRACE_S, surroundings, &mut |_| {}) {
        Ok(_) | Err(CallError::Refused(_)) => Ok(()),
        Err(error) => {
            let during = format!("the race, as {rival} and again serially");
            Err(function_failure(error, &during, request.budget_s))
        }
    }
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
