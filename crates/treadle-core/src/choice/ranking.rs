//! The ranking: does a recorded plan still win, by the model, when a task's demands or the machine have changed?
//!
//! Predictions are calibrated by the race of the record: where a plan reached 0.6 of its prediction then, it is expected to
//! reach 0.6 of its prediction now. A plan that was not raced takes the factor of the nearest raced one of its strategy.
//!
//! *Guarantees*: a plan is overtaken only when the rival's pessimistic end is ahead of the plan's optimistic end by more than
//! the model's own error.
//! *Assumes*: the model errs now as it erred then; both profiles were measured serially.

use super::comparison::{Comparison, Outcome};
use super::model::{self, Prediction, Setting};
use super::plan::{Plan, Strategy};
use super::profile::Profile;
use super::race::EQUIVALENT;

/// How far a calibrated prediction may be off before a rival counts as ahead: the model's worst error on waiting tasks was
/// 29 % (diagnosis notes 3.5, measured on two virtual cores).
pub const MODEL_ERROR: f64 = 1.3;

/// What a plan is expected to reach, in tasks a second over the batch, start-up included.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The plan.
    pub plan: Plan,
    /// With as much CPU time under the interpreter lock as is possible.
    pub low_per_s: f64,
    /// The expectation.
    pub per_s: f64,
    /// What binds it.
    pub limit: String,
    /// Why it cannot run.
    pub infeasible: Option<String>,
}

/// How a plan stands among its rivals.
#[derive(Debug, Clone, PartialEq)]
pub enum Ranking {
    /// It is the best, or equivalent to the best and the simplest such.
    First {
        /// How far the best plan of another strategy is behind; 0.5 is half as fast again as it. `None` without one.
        margin: Option<f64>,
        /// The best plan of another strategy.
        runner_up: Option<Standing>,
    },
    /// A rival may be ahead, by less than the model can tell.
    Unclear {
        /// The rival.
        rival: Standing,
        /// The rival's rate over the plan's.
        times: f64,
    },
    /// A rival is ahead.
    Overtaken {
        /// The rival.
        rival: Standing,
        /// The rival's rate over the plan's.
        times: f64,
        /// Whether it wins for being simpler, not faster.
        simpler: bool,
    },
    /// It cannot run any more.
    Infeasible {
        /// Why.
        why: String,
        /// The best that can.
        rival: Option<Standing>,
    },
}

/// The setting that a comparison was made in; `pilot_trusted` says whether its pilot counts.
pub fn setting(comparison: &Comparison, pilot_trusted: bool) -> Setting {
    let machine = &comparison.machine;
    Setting {
        cores: machine.usable_cores,
        gil: machine.gil,
        asynchronous: comparison.asynchronous,
        pilot_trusted,
        count: (!comparison.items.truncated).then_some(comparison.items.count),
        memory_available: machine.memory_available_bytes.map(|bytes| bytes as f64),
    }
}

/// Whether the pilot of a comparison was made on a quiet machine.
pub fn quiet(comparison: &Comparison) -> bool {
    comparison.machine.noise == "quiet"
}

/// Measured over predicted, for each plan that was raced.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Calibration(Vec<(Plan, f64)>);

impl Calibration {
    /// From the race of `comparison`, its predictions made again so that both sides come from the same model.
    pub fn of(comparison: &Comparison, setting: &Setting) -> Self {
        let factors = comparison.candidates.iter().filter_map(|one| {
            let measured = one.batch_per_s.filter(|rate| *rate > 0.0)?;
            let predicted = model::predict(one.plan, &comparison.profile, setting).batch_per_s;
            (predicted > 0.0).then(|| (one.plan, measured / predicted))
        });
        Self(factors.collect())
    }

    /// The factor of `plan`: its own, or that of the nearest size of its strategy, or 1.
    pub fn factor(&self, plan: Plan) -> f64 {
        let distance = |other: &Plan| {
            (f64::from(other.workers()) / f64::from(plan.workers()))
                .ln()
                .abs()
        };
        self.0
            .iter()
            .filter(|(other, _)| other.strategy() == plan.strategy())
            .min_by(|one, other| distance(&one.0).total_cmp(&distance(&other.0)))
            .map_or(1.0, |(_, factor)| *factor)
    }
}

/// What `plan` is expected to reach.
pub fn standing(
    plan: Plan,
    profile: &Profile,
    setting: &Setting,
    calibration: &Calibration,
) -> Standing {
    let Prediction {
        per_s,
        low_per_s,
        batch_per_s,
        limit,
        infeasible,
        ..
    } = model::predict(plan, profile, setting);
    let expected = batch_per_s * calibration.factor(plan);
    Standing {
        plan,
        low_per_s: expected * (low_per_s / per_s.max(f64::MIN_POSITIVE)).min(1.0),
        per_s: expected,
        limit,
        infeasible,
    }
}

/// Ranks `plan` among `rivals` for a task with this profile; `before` is the profile and setting that it was chosen in.
///
/// A rival that the model already put ahead then, against what the race found, counts only for what it has gained since.
pub fn rank(
    plan: Plan,
    rivals: &[Plan],
    now: (&Profile, &Setting),
    before: Option<(&Profile, &Setting)>,
    calibration: &Calibration,
) -> Ranking {
    let of = |plan: Plan| standing(plan, now.0, now.1, calibration);
    let own = of(plan);
    let mut others: Vec<Standing> = rivals
        .iter()
        .filter(|rival| **rival != plan)
        .map(|rival| of(*rival))
        .filter(|rival| rival.infeasible.is_none())
        .collect();
    others.sort_by(|one, other| other.per_s.total_cmp(&one.per_s));
    if let Some(why) = own.infeasible {
        return Ranking::Infeasible {
            why,
            rival: others.into_iter().next(),
        };
    }
    let times = |rival: &Standing| rival.per_s / own.per_s.max(f64::MIN_POSITIVE);
    let gained = |rival: &Standing| {
        let Some((profile, setting)) = before else {
            return true;
        };
        let then = |plan| standing(plan, profile, setting, calibration).per_s;
        times(rival) > (1.0 + EQUIVALENT) * then(rival.plan) / then(plan).max(f64::MIN_POSITIVE)
    };
    let simpler = |rival: &Standing| rival.plan.strategy() < plan.strategy();
    let ahead = others
        .iter()
        .find(|rival| rival.low_per_s > own.per_s * MODEL_ERROR && gained(rival));
    if let Some(rival) = ahead {
        return Ranking::Overtaken {
            times: times(rival),
            rival: rival.clone(),
            simpler: false,
        };
    }
    // A prediction is an upper end, and a simpler plan that reaches the upper end of this one is as good.
    let equal = others
        .iter()
        .filter(|rival| simpler(rival) && gained(rival))
        .min_by_key(|rival| rival.plan.simplicity());
    if let Some(rival) = equal {
        let floor = own.per_s * (1.0 - EQUIVALENT);
        if rival.low_per_s >= floor {
            return Ranking::Overtaken {
                times: times(rival),
                rival: rival.clone(),
                simpler: true,
            };
        }
        if rival.per_s >= floor {
            return Ranking::Unclear {
                times: times(rival),
                rival: rival.clone(),
            };
        }
    }
    let other_strategy = |rival: &&Standing| rival.plan.strategy() != plan.strategy();
    let doubtful = others
        .iter()
        .filter(other_strategy)
        .find(|rival| rival.per_s > own.per_s * (1.0 + EQUIVALENT) && gained(rival));
    if let Some(rival) = doubtful {
        return Ranking::Unclear {
            times: times(rival),
            rival: rival.clone(),
        };
    }
    let runner_up = others.iter().find(other_strategy).cloned();
    Ranking::First {
        margin: runner_up.as_ref().map(|rival| 1.0 / times(rival) - 1.0),
        runner_up,
    }
}

/// The plans of a comparison that can run.
pub fn plans(comparison: &Comparison) -> Vec<Plan> {
    comparison
        .candidates
        .iter()
        .filter(|one| one.outcome != Outcome::Infeasible)
        .map(|one| one.plan)
        .collect()
}

/// The plan that the model alone proposes: the simplest within five percent of the best pessimistic end that can run.
///
/// Targets are not looked at: what the model does not predict, such as a latency, only a race can confirm.
pub fn propose(comparison: &Comparison) -> Option<Standing> {
    let setting = setting(comparison, quiet(comparison));
    let none = Calibration::default();
    let field: Vec<Standing> = plans(comparison)
        .into_iter()
        .map(|plan| standing(plan, &comparison.profile, &setting, &none))
        .filter(|one| one.infeasible.is_none())
        .collect();
    let best = field.iter().map(|one| one.low_per_s).fold(0.0, f64::max);
    field
        .into_iter()
        .filter(|one| one.low_per_s >= best * (1.0 - EQUIVALENT))
        .min_by_key(|one| one.plan.simplicity())
}

/// Plans of every strategy that may win elsewhere: those of the comparison, and the usual sizes for other demands and cores.
pub fn usual(comparison: &Comparison, cores: f64) -> Vec<Plan> {
    let whole = cores.ceil().max(1.0) as u32;
    let mut found = plans(comparison);
    found.push(Plan::SERIAL);
    found.extend([whole, 4 * whole, 16 * whole].map(|size| Plan::threads(size.max(2))));
    if comparison.asynchronous {
        found.extend([50, 500].map(Plan::coroutines));
    }
    found.push(Plan::processes(whole.max(2)));
    found.sort_by_key(|plan| plan.simplicity());
    found.dedup();
    found.retain(|plan| plan.strategy() != Strategy::Coroutines || comparison.asynchronous);
    found
}
