//! The driver of the race: starts the candidates, runs the blocks that the race asks for, hands back what they brought.
//!
//! *Guarantees*: all candidates race over the same inputs in a round; a candidate that crashes or hangs leaves the race with
//! its reason; only the serial control's failure is the function's.

mod block;
mod opening;
mod reserve;

use super::compare::{Observer, Progress};
use super::comparison::RaceAccount;
use super::error::ChoiceError;
use super::field::{Field, Runner};
use super::laboratory::{Laboratory, Launch, Surroundings};
use super::model::{Model, Setting, most_under_lock};
use super::noise::CPU_SHARE_THAT_MATTERS;
use super::once::{Inputs, Wish};
use super::plan::Strategy;
use super::profile::Profile;
use super::race::{Entry, Finish, Form, Race, Ran, Rules, Step};
use super::request::Request;
use super::sequential::ERROR;
use super::statistics::Random;
use super::target::Target;
use block::{Run, Work, block, confirm};
use opening::Opening;
pub(super) use opening::load_ahead;
use reserve::called;

/// First block length, shorter when the budget would not give each candidate eight blocks. A tenth of a second is twenty switch
/// intervals of the interpreter lock and some thirty slices of the scheduler; what it leaves open, longer blocks settle.
const BLOCK_S: f64 = 0.1;
const BLOCK_LEAST_S: f64 = 0.05;
const BLOCKS_WANTED: f64 = 8.0;
/// A block holds at least so many of the profile's tasks one after the other, if the budget bears it: draining a pool takes about one
/// task's time, in which nothing is learnt.
const TASKS_IN_BLOCK: f64 = 3.0;
/// The plain loop has nothing to drain.
const TASKS_IN_CONTROL_BLOCK: f64 = 2.0;
/// Share of the budget that starting candidates may take before the rest stays unraced.
const START_SHARE: f64 = 0.4;
/// Candidates in reserve are started until so much of the budget is spent: they need three rounds as the others do.
const RESERVE_SHARE: f64 = 0.6;
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
    /// Inputs of the sample and what each takes, as a share of the mean; empty where they do not differ, or are not raced over.
    pub(super) efforts: Vec<(u64, f64)>,
    /// The inputs that the sample did not run, when none may be run twice.
    pub(super) unused: Option<Vec<u64>>,
    /// Laboratories that are loading the function already.
    pub(super) loading: Vec<Laboratory>,
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
        profile,
        setting,
        seed,
        ..
    } = terms;
    let mut opening = Opening {
        request,
        launch: terms.launch,
        loading: terms.loading,
        efforts: terms.efforts,
        surroundings,
    };
    let began = (surroundings.clock)();
    let elapsed = || (surroundings.clock)() - began;
    if terms.unused.is_some() || !terms.targets.is_empty() {
        // A smaller size may meet a target that the best one misses; and inputs are dealt once.
        field.call_sizes();
    }
    if terms.unused.is_some() {
        field.leave_out_the_shut_out();
    }
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
    let first: Vec<usize> = (0..field.0.len())
        .filter(|index| field.0[*index].reserve.is_none())
        .collect();
    opening.open(field, &first, START_SHARE, &elapsed, observer)?;

    let budget_left = (request.budget_s - elapsed()).max(0.1);
    let count = field
        .0
        .iter()
        .filter(|runner| runner.laboratory.is_some())
        .count()
        .max(1) as f64;
    let block_s = (budget_left / (count * BLOCKS_WANTED)).clamp(BLOCK_LEAST_S, BLOCK_S);
    let least = |tasks: f64| (tasks * profile.own_s()).min(budget_left / (count * 5.0));
    let least_block_s = least(TASKS_IN_BLOCK);
    // Serial blocks cannot be shorter than a task; four rounds must fit, or the warm-up is left out.
    let warm_up = count * block_s.max(least_block_s).max(profile.wall_s) * 4.0 <= budget_left;
    let entries: Vec<Entry> = field
        .0
        .iter()
        .enumerate()
        .map(|(index, runner)| Entry {
            control: index == 0,
            simplicity: runner.prediction.plan.simplicity(),
            form: Form::of(runner.prediction.plan),
            least_block_s: if index == 0 {
                least(TASKS_IN_CONTROL_BLOCK)
            } else {
                least_block_s
            },
            start_per_task_s: start_per_task_s(runner, profile, setting),
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
        batch: setting.count,
        variation: terms.variation,
        targets: terms.targets.to_vec(),
        sizes_matter: request.plans.is_some(),
    };
    let mut race = Race::new(rules, &entries);
    for (index, runner) in field.0.iter().enumerate() {
        if runner.laboratory.is_some() {
            continue;
        }
        if runner.reserve.is_some() {
            race.reserve(index);
        } else {
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
                if race.counting().is_some_and(|round| round > 0) {
                    for index in called(field, &race, profile, setting) {
                        let one = [index];
                        opening.open(field, &one, RESERVE_SHARE, &elapsed, observer)?;
                        let runner = &field.0[index];
                        if runner.laboratory.is_some() {
                            race.enter(index, start_per_task_s(runner, profile, setting));
                        }
                    }
                }
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
                        let counted = race.observe(
                            candidate,
                            &Ran {
                                count: block.count,
                                full: block.full(),
                                effort: block.effort(),
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
                            confirm(
                                &mut field.0[0],
                                input,
                                &label,
                                profile,
                                request,
                                surroundings,
                            )?;
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
        .filter(|(_, runner)| !runner.is_out())
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
        if !runner.is_out() && !inputs.has_share(index) {
            runner.unraced = Some(
                "too few inputs are left to keep its workers busy, when none may be run twice"
                    .to_owned(),
            );
        }
    }
    Some(inputs)
}

/// Seconds to charge to each task of a finite batch: the start of its workers as measured, and its end, in which workers run out of tasks,
/// as simulated.
fn start_per_task_s(runner: &Runner, profile: &Profile, setting: &Setting) -> f64 {
    setting.count.map_or(0.0, |count| {
        let end_s = Model::new(profile, setting).end_s(runner.prediction.plan);
        (runner.charged_start_s(profile) + end_s) / count.max(1) as f64
    })
}

/// Cores that a plan can keep busy at most, as far as the profile proves it.
fn parallelism(strategy: Strategy, profile: &Profile, setting: &Setting) -> f64 {
    match strategy {
        // Helper threads compute beside the loop.
        Strategy::Coroutines => (profile.cpu_s() / profile.thread_cpu_s.max(1e-12)).max(1.0),
        Strategy::Threads => {
            let locked = most_under_lock(profile, setting);
            (profile.cpu_s() / locked.max(1e-12)).max(1.0)
        }
        _ => f64::INFINITY,
    }
}

/// Inputs to choose a round's first one from; blocks wrap around.
fn setting_count(setting: &Setting, profile: &Profile) -> u64 {
    setting.count.unwrap_or(profile.count).max(1)
}
