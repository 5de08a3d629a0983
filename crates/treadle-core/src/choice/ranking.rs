//! The ranking: does a recorded plan still win, by the model, when a task's demands or the machine have changed?
//!
//! Predictions are calibrated by the race of the record: where a plan reached 0.6 of its prediction then, it is expected to
//! reach 0.6 of its prediction now. A plan that was not raced takes the factor of the nearest raced one of its strategy, or
//! else the mean of all: what a busy machine took from every plan, it would have taken from that one.
//!
//! *Guarantees*: a plan is overtaken only when the rival's pessimistic end is ahead of the plan's optimistic end by more than
//! the model's own error, the intervals of the recorded race being part of both ends.
//! *Assumes*: the model errs now as it erred then; both profiles were measured serially.

use super::comparison::{Comparison, Outcome};
use super::model::{Model, Prediction, Setting};
use super::plan::{Plan, Strategy};
use super::profile::Profile;
use super::race::EQUIVALENT;

/// How far a calibrated prediction may be off before a rival counts as ahead: the model's worst error on waiting tasks was
/// 29 % (diagnosis notes 3.5, measured on two virtual cores).
pub const MODEL_ERROR: f64 = 1.3;

/// No interval.
const EXACT: [f64; 2] = [1.0, 1.0];

/// What a plan is expected to reach, in tasks a second over the batch, start-up included.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The plan.
    pub plan: Plan,
    /// With as much CPU time under the interpreter lock as is possible, at the low end of its race's interval.
    pub low_per_s: f64,
    /// The expectation.
    pub per_s: f64,
    /// The 95 % interval of its race, as shares of what it reached.
    pub spread: [f64; 2],
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
    Setting {
        pilot_trusted,
        ..comparison.setting()
    }
}

/// Whether the pilot of a comparison was made on a quiet machine.
pub fn quiet(comparison: &Comparison) -> bool {
    comparison.machine.noise == "quiet"
}

/// Measured over predicted for each plan that was raced, and the interval of the measurement as shares of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Calibration(Vec<(Plan, f64, [f64; 2])>);

impl Calibration {
    /// From the race of `comparison`, its predictions made again for `profile` so that both sides come from the same model.
    pub fn of(comparison: &Comparison, profile: &Profile, setting: &Setting) -> Self {
        let model = Model::new(profile, setting);
        let factors = comparison.candidates.iter().filter_map(|one| {
            let measured = one.batch_per_s.filter(|rate| *rate > 0.0)?;
            let predicted = model.quick(one.plan).batch_per_s;
            let spread = match (one.measured_per_s, one.interval_per_s) {
                (Some(rate), Some([low, high])) if rate > 0.0 => [low / rate, high / rate],
                _ => EXACT,
            };
            (predicted > 0.0).then(|| (one.plan, measured / predicted, spread))
        });
        Self(factors.collect())
    }

    /// The factor of `plan` and its interval: its own, that of the nearest size of its strategy, or the geometric mean of all.
    pub fn factor(&self, plan: Plan) -> (f64, [f64; 2]) {
        let distance = |other: &Plan| {
            (f64::from(other.workers()) / f64::from(plan.workers()))
                .ln()
                .abs()
        };
        self.0
            .iter()
            .filter(|(other, ..)| other.strategy() == plan.strategy())
            .min_by(|one, other| distance(&one.0).total_cmp(&distance(&other.0)))
            .map_or_else(
                || (self.mean(), EXACT),
                |(_, factor, spread)| (*factor, *spread),
            )
    }

    /// The geometric mean of the factors; 1 without a race.
    fn mean(&self) -> f64 {
        let logarithms: f64 = self.0.iter().map(|(_, factor, _)| factor.ln()).sum();
        (logarithms / self.0.len().max(1) as f64).exp()
    }
}

/// Both profiles with what is not comparable between them left out: the pilots unless both machines were quiet, and on the same
/// machine the starts of workers, which are absolute times and far more at the mercy of others than a task's shares.
pub fn comparable(before: &Profile, now: &Profile, trusted: bool, alike: bool) -> [Profile; 2] {
    let mut both = [before.clone(), now.clone()];
    let least = |one: Option<f64>, other: Option<f64>| match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    let [old, new] = [&before.worker_start_s, &now.worker_start_s];
    for profile in &mut both {
        if !trusted {
            profile.pilot = None;
        }
        if alike {
            profile.worker_start_s.process = least(old.process, new.process);
            profile.worker_start_s.thread = least(old.thread, new.thread);
            profile.worker_start_s.interpreter = least(old.interpreter, new.interpreter);
        }
    }
    both
}

/// What a prediction and the record's race together let a plan expect.
fn standing(prediction: Prediction, calibration: &Calibration) -> Standing {
    let Prediction {
        plan,
        per_s,
        low_per_s,
        batch_per_s,
        limit,
        infeasible,
        ..
    } = prediction;
    let (factor, spread) = calibration.factor(plan);
    let expected = batch_per_s * factor;
    Standing {
        plan,
        low_per_s: expected * spread[0] * (low_per_s / per_s.max(f64::MIN_POSITIVE)).min(1.0),
        per_s: expected,
        spread,
        limit,
        infeasible,
    }
}

/// What each of these plans is expected to reach.
pub fn standings(
    plans: &[Plan],
    profile: &Profile,
    setting: &Setting,
    calibration: &Calibration,
) -> Vec<Standing> {
    let model = Model::new(profile, setting);
    plans
        .iter()
        .map(|plan| standing(model.predict(*plan), calibration))
        .collect()
}

/// The same by the likely value alone, without the runs that an interval takes.
pub fn quick_standings(
    plans: &[Plan],
    profile: &Profile,
    setting: &Setting,
    calibration: &Calibration,
) -> Vec<Standing> {
    let model = Model::new(profile, setting);
    plans
        .iter()
        .map(|plan| standing(model.quick(*plan), calibration))
        .collect()
}

/// Ranks `plan` by what it and its rivals are expected to reach `now`; `before` is what they were when it was chosen.
///
/// A rival that the model already put ahead then, against what the race found, counts only for what it has gained since.
pub fn rank(plan: Plan, now: &[Standing], before: &[Standing]) -> Ranking {
    let find = |side: &[Standing], plan: Plan| side.iter().find(|one| one.plan == plan).cloned();
    let Some(own) = find(now, plan) else {
        return Ranking::First {
            margin: None,
            runner_up: None,
        };
    };
    let mut others: Vec<Standing> = now
        .iter()
        .filter(|rival| rival.plan != plan && rival.infeasible.is_none())
        .cloned()
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
        let (Some(then), Some(own_then)) = (find(before, rival.plan), find(before, plan)) else {
            return true;
        };
        times(rival) > (1.0 + EQUIVALENT) * then.per_s / own_then.per_s.max(f64::MIN_POSITIVE)
    };
    // What the race could not tell apart, the model does not either.
    let told_apart = |rival: &Standing| {
        let (Some(then), Some(own_then)) = (find(before, rival.plan), find(before, plan)) else {
            return true;
        };
        let [low, high] = own_then.spread.map(|share| share * own_then.per_s);
        then.per_s * then.spread[1] < low || then.per_s * then.spread[0] > high
    };
    let most = own.per_s * own.spread[1];
    let simpler = |rival: &Standing| rival.plan.strategy() < plan.strategy();
    let ahead = others
        .iter()
        .find(|rival| rival.low_per_s > most * MODEL_ERROR && gained(rival));
    if let Some(rival) = ahead {
        return Ranking::Overtaken {
            times: times(rival),
            rival: rival.clone(),
            simpler: false,
        };
    }
    // A prediction is an upper end, and a simpler plan that reaches the upper end of this one is as good.
    let simplest = |equal: &dyn Fn(&Standing) -> bool| {
        others
            .iter()
            .filter(|rival| simpler(rival) && gained(rival) && equal(rival))
            .min_by_key(|rival| rival.plan.simplicity())
    };
    if let Some(rival) = simplest(&|rival| rival.low_per_s >= most * (1.0 - EQUIVALENT)) {
        return Ranking::Overtaken {
            times: times(rival),
            rival: rival.clone(),
            simpler: true,
        };
    }
    let perhaps =
        |rival: &Standing| rival.per_s >= own.per_s * (1.0 - EQUIVALENT) && told_apart(rival);
    if let Some(rival) = simplest(&perhaps) {
        return Ranking::Unclear {
            times: times(rival),
            rival: rival.clone(),
        };
    }
    let other_strategy = |rival: &&Standing| rival.plan.strategy() != plan.strategy();
    let doubtful = others.iter().filter(other_strategy).find(|rival| {
        rival.per_s > own.per_s * (1.0 + EQUIVALENT) && gained(rival) && told_apart(rival)
    });
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
    let field: Vec<Standing> = standings(&plans(comparison), &comparison.profile, &setting, &none)
        .into_iter()
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

#[cfg(test)]
mod tests {
    use super::super::model::Handover;
    use super::super::model::tests::setting as machine;
    use super::super::profile::tests::sample;
    use super::*;

    fn profile(wall_s: f64, cpu_s: f64) -> Profile {
        Profile::from_sample(&sample(wall_s, cpu_s))
    }

    fn raced() -> Calibration {
        Calibration(vec![
            (Plan::SERIAL, 1.0, [0.99, 1.01]),
            (Plan::processes(2), 0.9, [0.95, 1.05]),
            (Plan::threads(2), 0.5, [0.95, 1.05]),
        ])
    }

    fn rank_now(plan: Plan, now: &Profile, before: &Profile, calibration: &Calibration) -> Ranking {
        let here = Setting {
            handover: Handover::default(),
            ..machine(2.0)
        };
        let rivals = [
            Plan::SERIAL,
            Plan::threads(2),
            Plan::threads(64),
            Plan::processes(2),
        ];
        let of = |profile| standings(&rivals, profile, &here, calibration);
        rank(plan, &of(now), &of(before))
    }

    #[test]
    fn a_factor_is_that_of_the_nearest_size_or_the_mean() {
        let calibration = raced();
        assert_eq!(calibration.factor(Plan::processes(8)).0, 0.9);
        assert_eq!(calibration.factor(Plan::threads(64)).0, 0.5);
        let (mean, spread) = calibration.factor(Plan::coroutines(10));
        assert!((mean - 0.45_f64.powf(1.0 / 3.0)).abs() < 1e-12);
        assert_eq!(spread, EXACT);
        assert_eq!(Calibration::default().factor(Plan::SERIAL).0, 1.0);
    }

    #[test]
    fn the_same_demands_keep_the_plan_first_also_on_a_faster_machine() {
        let before = profile(0.01, 0.01);
        for now in [before.clone(), profile(0.003, 0.003)] {
            let ranked = rank_now(Plan::processes(2), &now, &before, &raced());
            assert!(matches!(ranked, Ranking::First { .. }), "{ranked:?}");
        }
    }

    #[test]
    fn waiting_overtakes_and_tiny_tasks_stay_serial() {
        let before = profile(0.01, 0.01);
        let waiting = rank_now(
            Plan::processes(2),
            &profile(0.01, 0.0001),
            &before,
            &raced(),
        );
        let Ranking::Overtaken { rival, times, .. } = waiting else {
            panic!("{waiting:?}")
        };
        assert_eq!(rival.plan, Plan::threads(64));
        assert!(times > 10.0, "{times}");
        let tiny = rank_now(Plan::processes(2), &profile(2e-6, 2e-6), &before, &raced());
        assert!(
            matches!(
                &tiny,
                Ranking::Overtaken { rival, .. } if rival.plan.strategy() < Strategy::Processes
            ),
            "{tiny:?}"
        );
    }

    #[test]
    fn what_a_race_has_refuted_counts_only_for_what_it_has_gained() {
        // The model puts threads level with processes, for it does not know the lock's share.
        let before = profile(0.01, 0.01);
        let flat = Calibration::default();
        let ranked = rank_now(Plan::processes(2), &before, &before, &flat);
        assert!(matches!(ranked, Ranking::First { .. }), "{ranked:?}");
    }

    #[test]
    fn what_the_race_could_not_tell_apart_is_not_overturned_by_a_little() {
        // A slow start of workers brings serial level; with intervals as wide as this that is no news.
        let here = Setting {
            count: Some(400),
            ..machine(2.0)
        };
        let [before, mut now] = [profile(0.005, 0.005), profile(0.005, 0.005)];
        now.worker_start_s.process = Some(0.5);
        let ranked = |spread: [f64; 2]| {
            let calibration = Calibration(vec![
                (Plan::SERIAL, 0.6, spread),
                (Plan::processes(2), 0.4, spread),
            ]);
            let plans = [Plan::SERIAL, Plan::processes(2)];
            let of = |profile| standings(&plans, profile, &here, &calibration);
            rank(Plan::processes(2), &of(&now), &of(&before))
        };
        let noisy = ranked([0.6, 1.7]);
        assert!(matches!(noisy, Ranking::First { .. }), "{noisy:?}");
        let quiet = ranked([0.99, 1.01]);
        assert!(
            matches!(quiet, Ranking::Overtaken { simpler: true, .. }),
            "{quiet:?}"
        );
    }

    #[test]
    fn starts_and_pilots_are_made_comparable() {
        let mut before = profile(0.01, 0.01);
        let mut now = before.clone();
        before.worker_start_s.process = Some(0.3);
        now.worker_start_s.process = Some(0.1);
        now.pilot = Some(super::super::sample::Pilot {
            threads: 2,
            speedup: 1.9,
            interval: [1.8, 2.0],
        });
        let [one, other] = comparable(&before, &now, false, true);
        assert_eq!(one.worker_start_s, other.worker_start_s);
        assert_eq!((one.worker_start_s.process, other.pilot), (Some(0.1), None));
        let [one, other] = comparable(&before, &now, true, false);
        assert_eq!(one.worker_start_s.process, Some(0.3));
        assert!(other.pilot.is_some());
    }
}
