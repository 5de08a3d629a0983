//! The contenders: which of the many predicted plans are worth a place in the race.

use super::model::{Prediction, Setting, predict};
use super::plan::Plan;
use super::profile::Profile;

/// Most candidates in a race, serial among them: each more takes its share of the budget (diagnosis notes 3.4).
pub const MOST_CANDIDATES: usize = 5;
/// A smaller size is preferred when it promises this share of the best of its strategy (the decision's five percent).
const KNEE_SHARE: f64 = 0.95;
/// A strategy that even at its optimistic end promises less than this share of the best pessimistic end is not raced.
const HOPE_SHARE: f64 = 0.7;

/// A plan of coroutines is also raced with up to this many times the tasks at a time.
const LARGER_LOOP: u32 = 4;

/// The plans worth racing: serial first, then the knee of each promising strategy, then other sizes of the best one.
pub fn contenders(
    curves: &[Vec<Prediction>],
    profile: &Profile,
    setting: &Setting,
) -> Vec<Prediction> {
    let serial = predict(Plan::SERIAL, profile, setting);
    let mut knees: Vec<(&Prediction, &Vec<Prediction>)> = curves
        .iter()
        .filter_map(|curve| {
            let feasible = || {
                curve
                    .iter()
                    .filter(|one| one.infeasible.is_none() && one.plan.workers() > 1)
            };
            let best = feasible().map(|one| one.batch_per_s).fold(0.0, f64::max);
            let knee = feasible().find(|one| one.batch_per_s >= KNEE_SHARE * best)?;
            Some((knee, curve))
        })
        .collect();
    knees.sort_by(|one, other| other.0.batch_per_s.total_cmp(&one.0.batch_per_s));
    let certain = knees
        .iter()
        .map(|(knee, _)| knee.low_per_s / knee.per_s * knee.batch_per_s)
        .fold(serial.batch_per_s, f64::max);
    let mut chosen = vec![serial];
    for (place, (knee, _)) in knees.iter().enumerate() {
        // The best one is raced even when serial looks better: a bound is not a proof.
        if place == 0 || knee.batch_per_s >= HOPE_SHARE * certain {
            chosen.push((*knee).clone());
        }
    }
    // The serial sample wakes the loop for every task; many tasks share the wake-ups, so that a loop bears more than it promises (one sleep
    // awaited at a time took six times the processor time of one among 128). How much more, only a race can tell.
    for (knee, curve) in &knees {
        if knee.plan.coroutines.is_none() || !chosen.iter().any(|one| one.plan == knee.plan) {
            continue;
        }
        let larger = curve.iter().rev().find(|one| {
            one.infeasible.is_none()
                && one.plan.workers() > knee.plan.workers()
                && one.plan.workers() <= knee.plan.workers() * LARGER_LOOP
        });
        chosen.extend(larger.cloned());
    }
    // Where waiting decides, the outside may bear fewer at once than we can ask for: try a quarter and a sixteenth.
    if let Some((knee, curve)) = knees.first() {
        for divisor in [4, 16] {
            let wanted = knee.plan.workers() / divisor;
            let smaller = curve.iter().rev().find(|one| {
                one.infeasible.is_none() && one.plan.workers() > 1 && one.plan.workers() <= wanted
            });
            if let Some(smaller) = smaller
                && !chosen.iter().any(|one| one.plan == smaller.plan)
            {
                chosen.push(smaller.clone());
            }
        }
    }
    chosen.truncate(MOST_CANDIDATES);
    chosen
}

#[cfg(test)]
mod tests {
    use super::super::model::curve;
    use super::super::model::tests::{piloted, setting};
    use super::super::plan::Strategy;
    use super::super::profile::tests::sample;
    use super::*;

    #[test]
    fn async_functions_run_as_coroutines_and_on_loops_of_threads_and_processes() {
        let profile = Profile::from_sample(&sample(0.1, 0.0002));
        let mut setting = setting(2.0);
        setting.asynchronous = true;
        let curves = [Strategy::Coroutines, Strategy::Threads, Strategy::Processes]
            .map(|one| curve(one, &profile, &setting));
        let labels: Vec<String> = contenders(&curves, &profile, &setting)
            .iter()
            .map(|one| one.plan.label())
            .collect();
        assert_eq!(
            labels,
            [
                "serial",
                "coroutines=1000",
                "coroutines=192",
                "coroutines=48"
            ]
        );
    }

    #[test]
    fn a_loop_is_raced_with_more_than_it_promises_to_bear() {
        let profile = Profile::from_sample(&sample(0.06, 0.0006));
        let mut setting = setting(2.0);
        setting.asynchronous = true;
        setting.count = Some(2_000);
        let curves =
            [Strategy::Coroutines, Strategy::Threads].map(|one| curve(one, &profile, &setting));
        let chosen = contenders(&curves, &profile, &setting);
        let loops: Vec<u32> = chosen
            .iter()
            .filter_map(|one| one.plan.coroutines)
            .collect();
        assert!(
            loops
                .iter()
                .any(|large| loops.iter().any(|small| *large >= 2 * small)),
            "{loops:?}"
        );
        assert!(chosen.len() <= MOST_CANDIDATES);
    }

    #[test]
    fn contenders_are_few_and_hold_serial() {
        let profile = piloted(0.01, 0.01, 0.95, 1.02);
        let setting = setting(2.0);
        let curves =
            [Strategy::Threads, Strategy::Processes].map(|one| curve(one, &profile, &setting));
        let labels: Vec<String> = contenders(&curves, &profile, &setting)
            .iter()
            .map(|one| one.plan.label())
            .collect();
        assert_eq!(labels[..2], ["serial", "processes=2"]);
        assert!(labels.len() <= MOST_CANDIDATES);
    }

    #[test]
    fn waiting_work_races_several_sizes() {
        let profile = Profile::from_sample(&sample(0.1, 0.0002));
        let setting = setting(2.0);
        let curves =
            [Strategy::Threads, Strategy::Processes].map(|one| curve(one, &profile, &setting));
        let labels: Vec<String> = contenders(&curves, &profile, &setting)
            .iter()
            .map(|one| one.plan.label())
            .collect();
        assert_eq!(
            labels,
            ["serial", "threads=256", "threads=64", "threads=16"]
        );
    }
}
