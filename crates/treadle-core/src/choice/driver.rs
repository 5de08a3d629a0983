//! The driver of the race: starts the candidates, runs the blocks that the race asks for, hands back what they brought.
//!
//! *Guarantees*: all candidates race over the same inputs in a round; a candidate that crashes or hangs leaves the race with
//! its reason; only the serial control's failure is the function's.

use serde::Deserialize;
use serde_json::{Value, json};

use super::asking::{function_failure, load_request, start};
use super::compare::{Observer, Progress};
use super::comparison::RaceAccount;
use super::error::ChoiceError;
use super::field::{Block, Field, Runner};
use super::laboratory::{CallError, Launch, Surroundings};
use super::model::{Setting, most_under_lock};
use super::noise::CPU_SHARE_THAT_MATTERS;
use super::once::{Inputs, Wish};
use super::plan::Strategy;
use super::profile::Profile;
use super::race::{Entry, Finish, Race, Ran, Rules, Step};
use super::request::Request;
use super::sequential::ERROR;
use super::statistics::Random;
use super::target::Target;
use super::wording;

/// First block length, shorter when the budget would not give each candidate eight blocks. A tenth of a second is twenty switch
/// intervals of the interpreter lock and some thirty slices of the scheduler; what it leaves open, longer blocks settle.
const BLOCK_S: f64 = 0.1;
const BLOCK_LEAST_S: f64 = 0.05;
const BLOCKS_WANTED: f64 = 8.0;
/// A block holds at least so many of the profile's tasks one after the other, if the budget bears it: filling and draining
/// a pool costs about one task's time, so four keep that below a quarter.
const TASKS_IN_BLOCK: f64 = 4.0;
/// Share of the budget that starting candidates may take before the rest stays unraced.
const START_SHARE: f64 = 0.4;
/// Seconds beyond the expected for one block or one start before it counts as hanging.
const GRACE_S: f64 = 5.0;

/// What is raced, and on what terms.
pub(super) struct Terms<'a> {
    pub(super) request: &'a Request,
    pub(super) launch: &'a Launch,
    pub(super) profile: &'a Profile,
    pub(super) setting: &'a Setting,
    pub(super) targets: &'a [Target],
    /// Whether the function keeps to the thread that calls it.
    pub(super) control_alone: bool,
    /// Standard deviation of the sample's durations over their mean.
    pub(super) variation: f64,
    /// The inputs that the sample did not run, when none may be run twice.
    pub(super) unused: Option<Vec<u64>>,
    pub(super) seed: u64,
}

/// What came of a race.
pub(super) enum Raced {
    /// It took place; the candidate that it is certain of, if any.
    Ran(Box<RaceAccount>, Option<usize>),
    /// It was left out, for this reason.
    LeftOut(String),
}

/// Starts every candidate and races them.
pub(super) fn race(
    field: &mut Field,
    terms: Terms<'_>,
    observer: &mut dyn Observer,
    surroundings: Surroundings<'_>,
) -> Result<Raced, ChoiceError> {
    let Terms {
        request,
        launch,
        profile,
        setting,
        seed,
        ..
    } = terms;
    let began = (surroundings.clock)();
    let elapsed = || (surroundings.clock)() - began;
    let mut inputs = match &terms.unused {
        None => None,
        Some(unused) => match divide(field, unused, seed) {
            Some(inputs) => Some(inputs),
            None => {
                return Ok(Raced::LeftOut(format!(
                    "{} inputs are left that were not run yet, which is too few for a race in which none is run twice",
                    unused.len()
                )));
            }
        },
    };
    open_all(field, request, launch, &elapsed, observer, surroundings)?;

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
            simplicity: runner.prediction.plan.simplicity(),
            least_block_s,
            start_per_task_s: setting.count.map_or(0.0, |count| {
                runner.charged_start_s(profile) / count.max(1) as f64
            }),
            parallelism: parallelism(runner.prediction.plan.strategy(), profile, setting),
        })
        .collect();
    let rules = Rules {
        budget_s: request.budget_s,
        block_s,
        warm_up,
        seed,
        cores: setting.cores,
        control_alone: terms.control_alone,
        computes: profile.cpu_share() >= CPU_SHARE_THAT_MATTERS,
        variation: terms.variation,
        targets: terms.targets.to_vec(),
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
                let work = match &mut inputs {
                    None => Work::From(
                        Random::new(seed ^ round as u64).below(usize::MAX) as u64
                            % setting_count(setting, profile),
                    ),
                    Some(inputs) => {
                        match inputs.deal(candidate, seconds / block_s.max(least_block_s)) {
                            Some(dealt) => Work::These(dealt),
                            None => {
                                race.stop(Finish::InputsSpent);
                                continue;
                            }
                        }
                    }
                };
                let runner = &mut field.0[candidate];
                let control = candidate == 0;
                match block(
                    runner,
                    control,
                    &work,
                    seconds,
                    profile,
                    request,
                    surroundings,
                )? {
                    Run::Done(block) => {
                        if let (Some(inputs), Work::These(dealt)) = (&mut inputs, &work) {
                            inputs.give_back(dealt, block.taken.unwrap_or(u64::MAX));
                        }
                        let counted = race.counting();
                        race.observe(
                            candidate,
                            &Ran {
                                count: block.count,
                                errors: block.errors,
                                asked_s: seconds,
                                load: block.load(),
                                latencies: &block.latencies,
                                peak_memory_bytes: block.peak_memory_bytes,
                            },
                        );
                        if let Some(round) = counted {
                            runner.pending.push((round, *block));
                        }
                    }
                    Run::Left { suspect } => {
                        race.withdraw(candidate);
                        if let Some(input) = suspect.filter(|_| !request.once) {
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
        runner.conclude(&race, index);
        if let Some(laboratory) = runner.laboratory.take() {
            laboratory.leave(surroundings);
        }
    }
    if (surroundings.interrupted)() {
        return Err(ChoiceError::Interrupted);
    }
    field.fail_the_lossy();
    let (rounds, disturbed_rounds) = race.disturbed();
    let account = RaceAccount {
        elapsed_s,
        budget_s: request.budget_s,
        finish: finish.name().to_owned(),
        seed,
        warmed_up: warm_up,
        rounds,
        disturbed_rounds,
        contended: race.contended(),
        control_delay: race.control_delay(),
        control_drift: race.control_drift(),
        looks: race.looks(),
        error_probability: ERROR,
        inputs_left: inputs.map(|inputs| inputs.left()),
    };
    Ok(Raced::Ran(Box::new(account), race.winner()))
}

/// Divides the inputs that were not run among the candidates; those that go without are told why.
fn divide(field: &mut Field, unused: &[u64], seed: u64) -> Option<Inputs> {
    let wishes: Vec<Wish> = field
        .0
        .iter()
        .enumerate()
        .filter(|(_, runner)| runner.failed.is_none())
        .map(|(candidate, runner)| Wish {
            candidate,
            workers: u64::from(runner.prediction.plan.workers()),
            tasks: (runner.prediction.per_s * BLOCK_S) as u64,
        })
        .collect();
    let inputs = Inputs::divide(
        unused.to_vec(),
        field.0.len(),
        &wishes,
        &mut Random::new(seed),
    )?;
    for (index, runner) in field.0.iter_mut().enumerate() {
        if runner.failed.is_none() && !inputs.has_share(index) {
            runner.unraced = Some(
                "too few inputs are left to keep its workers busy, when none may be run twice"
                    .to_owned(),
            );
        }
    }
    Some(inputs)
}

/// Starts a laboratory for each candidate, all at the same time; then each its pool, one after the other, so that the time of its
/// start is its own.
fn open_all(
    field: &mut Field,
    request: &Request,
    launch: &Launch,
    elapsed: &dyn Fn() -> f64,
    observer: &mut dyn Observer,
    surroundings: Surroundings<'_>,
) -> Result<(), ChoiceError> {
    let mut loading = Vec::new();
    for (index, runner) in field.0.iter_mut().enumerate() {
        if runner.failed.is_some() || runner.unraced.is_some() {
            continue;
        }
        let laboratory = runner.laboratory.insert(start(launch)?);
        loading.push((index, laboratory.send(&load_request(request))));
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
    for (index, runner) in field.0.iter_mut().enumerate() {
        let Some(laboratory) = runner.laboratory.as_mut() else {
            continue;
        };
        if index > 0 && elapsed() > START_SHARE * request.budget_s {
            runner.unraced = Some(
                "starting the others took too much of the budget; a larger --budget would race it"
                    .to_owned(),
            );
            runner.laboratory = None;
            continue;
        }
        let plan = json!({"do": "plan", "plan": runner.prediction.plan});
        let reply = laboratory.call(&plan, timeout, surroundings, &mut |_| {});
        if let Some(reply) = opened(runner, index == 0, reply, request)? {
            runner.start_s = reply.get("start_s").and_then(Value::as_f64);
        }
    }
    Ok(())
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

/// Cores that a plan can keep busy at most, as far as the profile proves it.
fn parallelism(strategy: Strategy, profile: &Profile, setting: &Setting) -> f64 {
    match strategy {
        Strategy::Coroutines => 1.0,
        Strategy::Threads => {
            let locked = most_under_lock(profile, setting);
            (profile.thread_cpu_s / locked.max(1e-12)).max(1.0)
        }
        _ => f64::INFINITY,
    }
}

/// Inputs to choose a round's first one from; blocks wrap around.
fn setting_count(setting: &Setting, profile: &Profile) -> u64 {
    setting.count.unwrap_or(profile.count).max(1)
}

/// The inputs of a block.
enum Work {
    /// All inputs in order from this one on, over and over.
    From(u64),
    /// These and no others.
    These(Vec<u64>),
}

/// What came of a block.
enum Run {
    /// It ran.
    Done(Box<Block>),
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
    let drain = 10.0 * profile.wall_max_s + 2.0 * f64::from(plan.workers()) * profile.cpu_s();
    let timeout = seconds + drain.min(request.budget_s) + GRACE_S;
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
