//! The contenders: which of the many predicted plans are worth a place in the race.

use super::model::{Curve, Form, KNEE_SHARE, Model, Prediction};
use super::plan::{Plan, Strategy};
use super::race::EQUIVALENT;

/// Most candidates that race at a time, serial among them: each more takes its share of the budget (diagnosis notes 3.4).
pub(super) const MOST_CANDIDATES: usize = 5;
/// A strategy that even at the high end of its interval promises less than this share of what the best promises at its low end is not
/// raced. The rest, 30 %, is left for what the model does not know, which its interval does not hold either.
pub(super) const HOPE_SHARE: f64 = 0.7;
/// Where it was not measured what a loop costs that many tasks share, so many times the tasks are raced too: alone, a task that sleeps
/// cost its loop six times what it cost among 128 (CPython 3.11, two virtual cores).
const LARGER_LOOP: u32 = 4;
/// The outside may bear fewer tasks at once than we can ask for, which no profile shows: these shares of the best size are raced too.
const SMALLER: [u32; 2] = [4, 16];
/// A task that waits was measured by itself, waking a processor that had gone to sleep: among others it may compute a third of that; and a
/// task whose helpers compute leaves its core idle when it wakes up. So many times the workers may then still be of use.
const LARGER: u32 = 4;
/// A process costs memory and a start, so that fewer more are tried.
const LARGER_APART: u32 = 2;

/// A plan that is worth a place in the race.
#[derive(Debug, Clone, PartialEq)]
pub struct Contender {
    /// The plan with what it promises.
    pub prediction: Prediction,
    /// Why it waits for the first counted round, if it does.
    pub reserve: Option<Reserve>,
}

/// What must be measured before it is known whether a contender is worth a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// This one, the best size of its own strategy: a smaller one is better where the outside bears less than was predicted, a larger one
    /// where tasks hinder each other less.
    Size(Plan),
    /// Whatever leads: it promises so much less than another one that it races only where that promise was far too high.
    ShutOut,
}

impl Contender {
    /// One that races from the start.
    pub fn new(prediction: Prediction) -> Self {
        Self {
            prediction,
            reserve: None,
        }
    }
}

/// The plans worth racing: serial first, then the knee of each promising strategy, then other sizes of the best one.
pub fn contenders(curves: &[Curve], model: &Model<'_>) -> Vec<Contender> {
    let serial = model.predict(Plan::SERIAL);
    let mut knees: Vec<(&Prediction, &Curve)> = curves
        .iter()
        .filter_map(|curve| Some((curve.knee()?, curve)))
        .collect();
    // A plan that mixes two wins only if it is faster than every simpler one by what counts as a difference.
    let simple = knees
        .iter()
        .filter(|(knee, _)| knee.plan.strategy() != Strategy::Hybrid)
        .map(|(knee, _)| knee.batch_per_s)
        .fold(serial.batch_per_s, f64::max);
    // Where tasks wait and compute, it is raced by less: alone, such a task computes for longer than beside others, each time on a processor that
    // had gone to sleep, and the mix gains most where it does not.
    let more = if model.mixed() { 1.0 } else { 1.0 + EQUIVALENT };
    knees.retain(|(knee, _)| {
        knee.plan.strategy() != Strategy::Hybrid
            || model.knows_processes() && knee.batch_per_s > simple * more
    });
    knees.sort_by(|one, other| other.0.batch_per_s.total_cmp(&one.0.batch_per_s));
    let certain = knees
        .iter()
        .map(|(knee, _)| knee.batch_low_per_s())
        .fold(serial.batch_low_per_s(), f64::max);
    let mut chosen: Vec<Prediction> = Vec::new();
    let mut shut_out: Vec<Prediction> = Vec::new();
    for (place, (knee, _)) in knees.iter().enumerate() {
        // The best one is raced even when serial looks better: a prediction is not a proof. So is the best simple one beside a mix.
        let control = knees[..place]
            .iter()
            .all(|(other, _)| other.plan.strategy() == Strategy::Hybrid);
        if control || hopes(knee, certain) {
            chosen.push((*knee).clone());
        } else {
            shut_out.push((*knee).clone());
        }
    }
    for (knee, curve) in &knees {
        if curve.form != Form::Coroutines
            || model.knows_shared_loop()
            || !chosen.iter().any(|one| one.plan == knee.plan)
        {
            continue;
        }
        let larger = at_most(curve, knee.plan.workers() * LARGER_LOOP)
            .filter(|one| one.plan.workers() > knee.plan.workers());
        chosen.extend(larger.cloned());
    }
    let racing: Vec<Plan> = chosen.iter().map(|one| one.plan).collect();
    let mut reserves: Vec<(Plan, &Prediction)> = Vec::new();
    for (place, (knee, curve)) in knees.iter().enumerate() {
        if !racing.contains(&knee.plan) {
            continue;
        }
        let size = knee.plan.workers();
        let times = if curve.form.apart() {
            LARGER_APART
        } else {
            LARGER
        };
        // Only where the model sees nothing to gain from more: what it sees a gain in, it has weighed.
        let larger = at_most(curve, size.saturating_mul(times))
            .filter(|one| one.plan.workers() > size && KNEE_SHARE * one.per_s <= knee.per_s);
        let smaller = SMALLER
            .iter()
            .filter_map(|divisor| at_most(curve, size / divisor));
        // Other strategies' smaller sizes are not worth a process: the best one's stand for what the outside bears.
        let smaller = smaller.take(if place == 0 { SMALLER.len() } else { 0 });
        for one in larger.into_iter().chain(smaller) {
            if !racing.contains(&one.plan)
                && !reserves.iter().any(|(_, other)| other.plan == one.plan)
            {
                reserves.push((knee.plan, one));
            }
        }
    }
    chosen.truncate(MOST_CANDIDATES - 1);
    let waiting = |prediction: Prediction, reserve: Reserve| Contender {
        prediction,
        reserve: Some(reserve),
    };
    let mut all = vec![Contender::new(serial)];
    all.extend(chosen.into_iter().map(Contender::new));
    // Another strategy is more of a difference than another size: it comes first where there is not a place for each.
    all.extend(
        shut_out
            .into_iter()
            .map(|one| waiting(one, Reserve::ShutOut)),
    );
    all.extend(
        reserves
            .into_iter()
            .map(|(knee, one)| waiting(one.clone(), Reserve::Size(knee))),
    );
    all
}

/// Whether a plan may win beside one that does so many tasks per second of a whole batch.
pub(super) fn hopes(prediction: &Prediction, per_s: f64) -> bool {
    prediction.batch_high_per_s() >= HOPE_SHARE * per_s
}

/// The largest size of a curve with several workers, but so many at most.
fn at_most(curve: &Curve, workers: u32) -> Option<&Prediction> {
    curve.points.iter().rev().find(|one| {
        one.infeasible.is_none() && one.plan.workers() > 1 && one.plan.workers() <= workers
    })
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{piloted, setting};
    use super::super::model::{LoopCost, Setting};
    use super::super::profile::Profile;
    use super::super::profile::tests::sample;
    use super::*;

    fn labels(profile: &Profile, setting: &Setting) -> Vec<String> {
        let model = Model::new(profile, setting);
        let chosen = contenders(&model.curves(), &model);
        let racing = chosen.iter().filter(|one| one.reserve.is_none());
        assert!(racing.count() <= MOST_CANDIDATES);
        chosen
            .iter()
            .map(|one| {
                let mark = match one.reserve {
                    None => "",
                    Some(Reserve::Size(_)) => "?",
                    Some(Reserve::ShutOut) => "!",
                };
                one.prediction.plan.label() + mark
            })
            .collect()
    }

    #[test]
    fn async_functions_run_as_coroutines_and_on_many_loops_where_one_is_busy() {
        let mut setting = setting(2.0);
        setting.asynchronous = true;
        setting.shared_loop = Some(LoopCost {
            concurrency: 32,
            cpu_s: 0.000_01,
            count: 100,
        });
        let waiting = labels(&Profile::from_sample(&sample(0.1, 0.000_01)), &setting);
        assert_eq!(waiting[0], "serial");
        assert!(waiting[1].starts_with("coroutines="), "{waiting:?}");
        assert!(waiting.iter().all(|one| !one.contains('+')), "{waiting:?}");
        // With much computing one loop is full with 50 tasks, and its core is not the only one.
        setting.shared_loop = None;
        let busy = labels(&Profile::from_sample(&sample(0.1, 0.002)), &setting);
        let holds = |start: &str| busy.iter().any(|one| one.starts_with(start));
        assert!(holds("processes=2+coroutines="), "{busy:?}");
        assert!(
            holds("coroutines="),
            "the simple plan is its control: {busy:?}"
        );
    }

    #[test]
    fn a_mix_is_raced_only_where_it_promises_more_than_the_simple_plans() {
        // Half of it waits, half holds the lock: threads overlap the first half, processes the second, a mix both.
        let profile = piloted(0.02, 0.01, 0.95, 1.02);
        let labels = labels(&profile, &setting(2.0));
        assert!(
            labels
                .iter()
                .any(|one| one.starts_with("processes=2+threads=")),
            "{labels:?}"
        );
    }

    #[test]
    fn a_mix_of_what_waits_and_computes_is_raced_by_a_smaller_promise() {
        let mut here = setting(2.0);
        here.count = Some(60);
        for (cpu_s, raced) in [(0.12, true), (0.24, false)] {
            let profile = Profile::from_sample(&sample(0.25, cpu_s));
            let model = Model::new(&profile, &here);
            let curves = model.curves();
            let knee = |form| {
                let curve = curves.iter().find(|one| one.form == form);
                curve.and_then(Curve::knee).unwrap().batch_per_s
            };
            let promise = knee(Form::ProcessesThreads) / knee(Form::Processes);
            assert!((1.0..1.0 + EQUIVALENT).contains(&promise), "{promise}");
            let labels = labels(&profile, &here);
            let found = labels
                .iter()
                .any(|one| one.starts_with("processes=2+threads="));
            assert_eq!(found, raced, "{labels:?}");
        }
    }

    #[test]
    fn a_loop_that_was_not_measured_is_raced_with_more_than_it_promises_to_bear() {
        let profile = Profile::from_sample(&sample(0.06, 0.0006));
        let mut setting = setting(2.0);
        setting.asynchronous = true;
        setting.count = Some(2_000);
        let most = |setting: &Setting| {
            let model = Model::new(&profile, setting);
            let chosen = contenders(&model.curves(), &model);
            let racing = chosen.iter().filter(|one| one.reserve.is_none());
            let single = racing
                .map(|one| one.prediction.plan)
                .filter(|plan| plan.processes.is_none());
            let loops: Vec<u32> = single.filter_map(|plan| plan.coroutines).collect();
            (loops[0], *loops.iter().max().unwrap())
        };
        let (knee, largest) = most(&setting);
        assert!(largest >= 2 * knee, "{largest} and {knee}");
        setting.shared_loop = Some(LoopCost {
            concurrency: 32,
            cpu_s: 0.0005,
            count: 100,
        });
        let (knee, largest) = most(&setting);
        assert_eq!(knee, largest);
    }

    #[test]
    fn contenders_are_few_and_hold_serial() {
        let profile = piloted(0.01, 0.01, 0.95, 1.02);
        let labels = labels(&profile, &setting(2.0));
        assert_eq!(
            labels,
            ["serial", "processes=2", "threads=2!", "processes=4?"]
        );
    }

    #[test]
    fn waiting_work_races_its_best_size_and_keeps_smaller_ones_in_reserve() {
        let profile = Profile::from_sample(&sample(0.1, 0.0002));
        assert_eq!(
            labels(&profile, &setting(2.0)),
            [
                "serial",
                "threads=256",
                "processes=8!",
                "threads=64?",
                "threads=16?"
            ]
        );
    }
}
