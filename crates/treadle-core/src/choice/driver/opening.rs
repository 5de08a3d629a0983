//! The opening: candidates' laboratories are started and load the function all at the same time, their pools one after the other.
//!
//! *Guarantees*: a candidate that does not start leaves the race with its reason; only the serial control's failure is the function's.

use serde_json::{Value, json};

use super::super::asking::{function_failure, load_request, start};
use super::super::compare::{Observer, Progress};
use super::super::error::ChoiceError;
use super::super::field::{Field, Runner};
use super::super::laboratory::{CallError, Laboratory, Launch, Surroundings};
use super::super::request::Request;
use super::GRACE_S;
use super::block::rival_failure;

/// Starts the laboratories of the first two candidates, which race in any case, and has them load the function.
pub(in crate::choice) fn load_ahead(
    launch: &Launch,
    request: &Request,
) -> Result<Vec<Laboratory>, ChoiceError> {
    let mut loading = Vec::new();
    for _ in 0..2 {
        let mut laboratory = start(launch)?;
        // A process that is gone is told when its reply is looked for.
        let _ = laboratory.send(&load_request(request));
        loading.push(laboratory);
    }
    Ok(loading)
}

/// How laboratories for candidates are started.
pub(super) struct Opening<'a> {
    pub(super) request: &'a Request,
    pub(super) launch: &'a Launch,
    /// Those that are loading the function already.
    pub(super) loading: Vec<Laboratory>,
    /// Inputs and what each takes, as a share of the mean.
    pub(super) efforts: Vec<(u64, f64)>,
    pub(super) surroundings: Surroundings<'a>,
}

impl Opening<'_> {
    /// Starts a laboratory for each of these candidates, all at the same time; then each its pool, one after the other, so that the
    /// time of its start is its own. When `share` of the budget is spent, the rest is not raced.
    pub(super) fn open(
        &mut self,
        field: &mut Field,
        wanted: &[usize],
        share: f64,
        elapsed: &dyn Fn() -> f64,
        observer: &mut dyn Observer,
    ) -> Result<(), ChoiceError> {
        let (request, surroundings) = (self.request, self.surroundings);
        let mut loading = Vec::new();
        for index in wanted {
            let runner = &mut field.0[*index];
            if runner.is_out() {
                continue;
            }
            let sent = match self.loading.pop() {
                Some(laboratory) => {
                    runner.laboratory = Some(laboratory);
                    Ok(())
                }
                None => runner
                    .laboratory
                    .insert(start(self.launch)?)
                    .send(&load_request(request)),
            };
            loading.push((*index, sent));
        }
        let timeout = request.budget_s + GRACE_S;
        for (index, sent) in loading {
            let runner = &mut field.0[index];
            let Some(laboratory) = runner.laboratory.as_mut() else {
                continue;
            };
            observer.progress(&Progress::Starting {
                plan: runner.prediction.plan,
            });
            let loaded = sent.and_then(|()| laboratory.receive(timeout, surroundings, &mut |_| {}));
            opened(runner, index == 0, loaded, request)?;
        }
        for index in wanted {
            let runner = &mut field.0[*index];
            let Some(laboratory) = runner.laboratory.as_mut() else {
                continue;
            };
            if *index > 0 && elapsed() > share * request.budget_s {
                runner.unraced = Some(
                    "starting the others took too much of the budget; a larger --budget would race it"
                        .to_owned(),
                );
                runner.laboratory = None;
                continue;
            }
            let plan =
                json!({"do": "plan", "plan": runner.prediction.plan, "efforts": self.efforts});
            let reply = laboratory.call(&plan, timeout, surroundings, &mut |_| {});
            if let Some(reply) = opened(runner, *index == 0, reply, request)? {
                runner.start_s = reply.get("start_s").and_then(Value::as_f64);
            }
        }
        Ok(())
    }
}

/// A step of a candidate's start; a failure of a rival is its own.
fn opened(
    runner: &mut Runner,
    control: bool,
    reply: Result<Value, CallError>,
    request: &Request,
) -> Result<Option<Value>, ChoiceError> {
    match reply {
        Ok(reply) => Ok(Some(reply)),
        Err(CallError::Interrupted) => Err(ChoiceError::Interrupted),
        Err(error) if control => Err(function_failure(
            error,
            "the start of the serial control",
            request.budget_s,
        )),
        Err(error) => {
            runner.laboratory = None;
            runner.failed = Some(rival_failure(error, "while its workers were started"));
            Ok(None)
        }
    }
}
