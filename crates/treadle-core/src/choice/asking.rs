//! What the laboratory is asked before a race, and its failures in words: load, profile, hand-over, fingerprint.
//!
//! *Guarantees*: a crash or a hang of the function is told with the input that it happened on.

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ChoiceError;
use super::fingerprint::{self, Asked, Fingerprint};
use super::laboratory::{CallError, Laboratory, Launch, Surroundings};
use super::model::{Handover, LoopCost};
use super::profile::Profile;
use super::request::Request;
use super::sample::{Sample, WorkerCosts};
use super::wording;

/// Share of the budget for the serial sample, and its ceiling in seconds: a few hundred tasks of a millisecond suffice for means.
const SAMPLE_SHARE: f64 = 0.15;
const SAMPLE_MOST_S: f64 = 3.0;
/// The sample before a race may end after so many seconds if it holds so many tasks by then: the race measures again what they say, and
/// twenty tasks tell a mean within half of their spread.
const SAMPLE_ENOUGH_S: f64 = 0.4;
const SAMPLE_ENOUGH_COUNT: u64 = 20;
/// When no input may be run twice, the sample takes one in so many, but no fewer than the least: most are left for the race.
const SAMPLE_ONCE: u64 = 5;
const SAMPLE_ONCE_LEAST: u64 = 3;
/// The same when the profile is all that is asked for.
const SAMPLE_ALONE_MOST_S: f64 = 10.0;
/// Most tasks in the sample: the 99th percentile then rests on ten of them.
const SAMPLE_MOST_COUNT: u64 = 1000;
/// Seconds beyond the budget that loading (imports, reading items) may take before it counts as hanging.
const LOAD_GRACE_S: f64 = 30.0;
/// The profile may take the whole budget before an input counts as hanging, and in any case this many seconds: besides the sample it
/// tries pickling, starts a worker of each kind and runs the pilot.
const PROFILE_LEAST_S: f64 = 5.0;
/// Seconds that tasks doing nothing run under each kind of plan, and until they count as hanging.
const HANDOVER_S: f64 = 0.03;
const HANDOVER_MOST_S: f64 = 10.0;
/// Seconds that inputs run on a shared loop: four rounds of them, within these limits.
const SHARED_LOOP_ROUNDS: f64 = 4.0;
const SHARED_LOOP_S: (f64, f64) = (0.1, 0.3);
/// Tasks at a time on the shared loop: wake-ups are shared by then (6 µs of 130 are left), and few services mind.
const SHARED_LOOP_TASKS: u32 = 32;

/// What loading told.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Loaded {
    pub(super) target: String,
    #[serde(default)]
    pub(super) file: Option<String>,
    #[serde(default)]
    pub(super) source_hash: Option<String>,
    pub(super) count: u64,
    pub(super) spec: String,
    #[serde(rename = "async", default)]
    pub(super) asynchronous: bool,
    #[serde(default)]
    pub(super) items_truncated: bool,
    pub(super) python: String,
    pub(super) implementation: String,
    pub(super) gil: bool,
}

/// Starts a laboratory; a failure names the program.
pub(super) fn start(launch: &Launch) -> Result<Laboratory, ChoiceError> {
    Laboratory::start(launch).map_err(|error| {
        let program = launch.command.first().map_or("", String::as_str);
        ChoiceError::usage(
            format!("cannot start the measuring process `{program}`: {error}"),
            "is this the Python that treadle is installed in?",
        )
    })
}

/// The load request of every laboratory of a comparison.
pub(super) fn load_request(request: &Request) -> Value {
    json!({
        "do": "load",
        "target": request.target,
        "items": request.items,
        "pickled": request.pickled,
        "star": request.star,
        "limit": request.limit,
        "once": request.once,
    })
}

pub(super) fn load(
    laboratory: &mut Laboratory,
    request: &Request,
    surroundings: Surroundings<'_>,
) -> Result<Loaded, ChoiceError> {
    let timeout = request.budget_s + LOAD_GRACE_S;
    let reply = laboratory.call(&load_request(request), timeout, surroundings, &mut |_| {});
    let what = request.target.as_deref().unwrap_or("the function");
    match reply {
        Ok(value) => Loaded::deserialize(&value).map_err(|error| broken(&error.to_string())),
        Err(CallError::Refused(refusal)) => Err(ChoiceError::Usage {
            message: refusal.message,
            hint: refusal.hint,
            detail: refusal.detail,
        }),
        Err(CallError::Died { how, stderr, .. }) => Err(ChoiceError::Function {
            message: format!("loading {what} ended the measuring process with {how}"),
            hint: Some("what runs when the module is imported, or when the items are made, must not end the process".to_owned()),
            detail: some_text(stderr),
        }),
        Err(CallError::Late { after_s, stderr, .. }) => Err(ChoiceError::Function {
            message: format!("loading {what} and its items did not end within {}", wording::seconds(after_s)),
            hint: Some("move work out of the module's top level, or give a larger --budget".to_owned()),
            detail: some_text(stderr),
        }),
        Err(CallError::Interrupted) => Err(ChoiceError::Interrupted),
        Err(CallError::Broken(why)) => Err(broken(&why)),
    }
}

pub(super) fn profile(
    laboratory: &mut Laboratory,
    request: &Request,
    count: u64,
    surroundings: Surroundings<'_>,
) -> Result<Sample, ChoiceError> {
    let seconds = if request.profile_only {
        request.budget_s.min(SAMPLE_ALONE_MOST_S)
    } else {
        (request.budget_s * SAMPLE_SHARE).min(SAMPLE_MOST_S)
    };
    let most = if request.once && !request.profile_only {
        (count / SAMPLE_ONCE).clamp(SAMPLE_ONCE_LEAST, SAMPLE_MOST_COUNT)
    } else {
        SAMPLE_MOST_COUNT
    };
    let mut asked = json!({
        "do": "profile", "max_seconds": seconds, "max_count": most, "once": request.once, "workers": false,
    });
    if !request.profile_only {
        asked["enough_seconds"] = json!(SAMPLE_ENOUGH_S);
        asked["enough_count"] = json!(SAMPLE_ENOUGH_COUNT);
    }
    let timeout = request.budget_s.max(PROFILE_LEAST_S);
    let sample = match laboratory.call(&asked, timeout, surroundings, &mut |_| {}) {
        Ok(value) => Sample::deserialize(&value).map_err(|error| broken(&error.to_string()))?,
        Err(CallError::Refused(refusal)) => {
            return Err(ChoiceError::Function {
                message: refusal.message,
                hint: refusal.hint,
                detail: refusal.detail,
            });
        }
        Err(error) => {
            return Err(function_failure(
                error,
                "the serial sample",
                request.budget_s,
            ));
        }
    };
    if sample.all_failed {
        let reads = sample
            .first_error
            .as_ref()
            .is_some_and(|error| error.class == "EOFError");
        let (what, detail) = sample.first_error.map_or_else(
            || (String::new(), None),
            |error| {
                let text = format!(
                    ": input {} raised {}: {}",
                    error.index, error.class, error.message
                );
                (text, some_text(error.traceback))
            },
        );
        let tried = sample.count.max(sample.errors);
        return Err(ChoiceError::Function {
            message: format!("the function failed on every input that was tried ({tried}){what}"),
            hint: Some(
                if reads {
                    "there is no standard input here, nor in workers: pass what the function reads as its input"
                } else {
                    "check --items, and --star if an input holds several arguments"
                }
                .to_owned(),
            ),
            detail,
        });
    }
    Ok(sample)
}

/// The fingerprint of the function that is loaded.
pub(super) fn fingerprint(
    laboratory: &mut Laboratory,
    request: &Request,
    surroundings: Surroundings<'_>,
) -> Result<Fingerprint, ChoiceError> {
    let asked = fingerprint::ask(
        laboratory,
        request.target.as_deref(),
        request.items.as_deref(),
        None,
        surroundings,
    )?;
    match asked {
        Asked::Found(found) => Ok(*found),
        Asked::Refused(refusal) => Err(ChoiceError::Usage {
            message: refusal.message,
            hint: refusal.hint,
            detail: refusal.detail,
        }),
    }
}

/// What it costs to start one worker of each kind: processes and interpreters where `apart` says that they matter. Into the sample.
pub(super) fn worker(
    laboratory: &mut Laboratory,
    request: &Request,
    apart: bool,
    sample: &mut Sample,
    surroundings: Surroundings<'_>,
) -> Result<(), ChoiceError> {
    // A worker imports the function's module, as loading did.
    let timeout = request.budget_s + LOAD_GRACE_S;
    let asked = json!({"do": "worker", "apart": apart});
    match laboratory.call(&asked, timeout, surroundings, &mut |_| {}) {
        Ok(reply) => {
            let costs =
                WorkerCosts::deserialize(&reply).map_err(|error| broken(&error.to_string()))?;
            sample.worker_start_s = costs.worker_start_s;
            sample.worker_rss_bytes = costs.worker_rss_bytes;
            Ok(())
        }
        Err(error) => Err(function_failure(
            error,
            "the start of a worker",
            request.budget_s,
        )),
    }
}

/// What handing a task over costs, to processes only where `apart` says that they matter; what cannot be measured is left out, and the
/// race shows it.
pub(super) fn handover(
    laboratory: &mut Laboratory,
    apart: bool,
    surroundings: Surroundings<'_>,
) -> Handover {
    let asked = json!({"do": "handover", "seconds": HANDOVER_S, "processes": apart});
    laboratory
        .call(&asked, HANDOVER_MOST_S, surroundings, &mut |_| {})
        .ok()
        .and_then(|reply| Handover::deserialize(reply).ok())
        .unwrap_or_default()
}

/// What an async function costs a loop that many tasks share; nothing where it was not measured, which the race shows.
pub(super) fn shared_loop(
    laboratory: &mut Laboratory,
    profile: &Profile,
    surroundings: Surroundings<'_>,
) -> Option<LoopCost> {
    let (least, most) = SHARED_LOOP_S;
    // A round takes as long as one task, or as all of them compute.
    let computing_s = f64::from(SHARED_LOOP_TASKS) * profile.cpu_s();
    let seconds = (SHARED_LOOP_ROUNDS * profile.wall_s.max(computing_s)).clamp(least, most);
    let asked = json!({"do": "loop", "concurrency": SHARED_LOOP_TASKS, "seconds": seconds});
    let reply = laboratory
        .call(&asked, HANDOVER_MOST_S, surroundings, &mut |_| {})
        .ok()?;
    Option::deserialize(reply).ok().flatten()
}

/// A crash or a hang of the function, told with its input.
pub(super) fn function_failure(error: CallError, during: &str, budget_s: f64) -> ChoiceError {
    let at = |input: Option<u64>| {
        input.map_or_else(
            || "the function".to_owned(),
            |index| format!("input {index}"),
        )
    };
    match error {
        CallError::Died {
            how, input, stderr, ..
        } => ChoiceError::Function {
            message: format!("{} ended the measuring process with {how}, during {during}", at(input)),
            hint: Some("a task must return or raise: os._exit, a crash in native code or a lack of memory takes its worker along".to_owned()),
            detail: some_text(stderr),
        },
        CallError::Late { after_s, input, stderr } => ChoiceError::Function {
            message: format!(
                "{} did not return within {}, during {during}",
                at(input),
                wording::seconds(after_s)
            ),
            hint: Some(format!(
                "if one task may take that long, give a --budget of several times its duration (it was {budget_s} s)"
            )),
            detail: some_text(stderr),
        },
        CallError::Refused(refusal) => ChoiceError::Function {
            message: refusal.message,
            hint: refusal.hint,
            detail: refusal.detail,
        },
        CallError::Interrupted => ChoiceError::Interrupted,
        CallError::Broken(why) => broken(&why),
    }
}

pub(super) fn broken(why: &str) -> ChoiceError {
    ChoiceError::Function {
        message: format!(
            "the measuring process said something that is not the measuring protocol: {why}"
        ),
        hint: Some(
            "are treadle's Python files and its compiled part of the same version?".to_owned(),
        ),
        detail: None,
    }
}

fn some_text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
