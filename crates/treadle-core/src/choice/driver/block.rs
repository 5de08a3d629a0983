//! A block of the race, run in its candidate's laboratory; a failure of a rival is its own.

use serde::Deserialize;
use serde_json::json;

use super::super::asking::function_failure;
use super::super::error::ChoiceError;
use super::super::field::{Block, Runner};
use super::super::laboratory::{CallError, Surroundings};
use super::super::profile::Profile;
use super::super::request::Request;
use super::super::wording;
use super::GRACE_S;

/// The inputs of a block.
pub(super) enum Work {
    /// All inputs in order from this one on, over and over.
    From(u64),
    /// These and no others.
    These(Vec<u64>),
}

/// What came of a block.
pub(super) enum Run {
    /// It ran.
    Done(Box<Block>),
    /// The rival had to leave the race.
    Left {
        /// The input that may have ended or stopped it, and would do so under any plan.
        suspect: Option<u64>,
    },
}

/// Runs one block; a failure of a rival is its own, unless the function plainly ended the process itself.
pub(super) fn block(
    runner: &mut Runner,
    control: bool,
    work: &Work,
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
    let timeout = seconds + patience_s(plan.workers(), profile, request) + GRACE_S;
    let asked = match work {
        Work::From(first) => {
            json!({"do": "block", "first": first, "count": 1_000_000_000u64, "seconds": seconds})
        }
        Work::These(inputs) => json!({"do": "block", "inputs": inputs, "seconds": seconds}),
    };
    let reply = laboratory.call(&asked, timeout, surroundings, &mut |_| {});
    let block = reply.and_then(|value| {
        Block::deserialize(&value).map_err(|error| CallError::Broken(error.to_string()))
    });
    let within = plan.processes.is_none() && plan.interpreters.is_none();
    let (failure, suspect) = match block {
        Ok(block) if block.lost_workers == 0 || control => return Ok(Run::Done(Box::new(block))),
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

/// Seconds that the tasks of so many workers may take to end, before one of them counts as hanging.
fn patience_s(workers: u32, profile: &Profile, request: &Request) -> f64 {
    let each = 10.0 * profile.wall_max_s;
    let all = each + 2.0 * f64::from(workers) * profile.cpu_s();
    all.min(request.budget_s).max(2.0 * profile.wall_max_s)
}

/// Runs one input serially that a rival may have failed on: if it ends or stops this process too, the function fails.
pub(super) fn confirm(
    control: &mut Runner,
    input: u64,
    rival: &str,
    profile: &Profile,
    request: &Request,
    surroundings: Surroundings<'_>,
) -> Result<(), ChoiceError> {
    let Some(laboratory) = control.laboratory.as_mut() else {
        return Ok(());
    };
    let asked = json!({"do": "block", "first": input, "count": 1, "seconds": 0.0});
    let timeout = patience_s(1, profile, request) + GRACE_S;
    match laboratory.call(&asked, timeout, surroundings, &mut |_| {}) {
        Ok(_) | Err(CallError::Refused(_)) => Ok(()),
        Err(error) => {
            let during = format!("the race, as {rival} and again serially");
            Err(function_failure(error, &during, request.budget_s))
        }
    }
}

/// Why a rival left, in words.
pub(super) fn rival_failure(error: CallError, when: &str) -> String {
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
