//! The reserve: which candidates that wait for the first counted round are worth racing after it.
//!
//! *Assumes*: no task does more beside others than alone, so that workers over the time of one task bound a plan.

use super::super::contenders::{self, MOST_CANDIDATES, Reserve};
use super::super::field::{Beside, CROWDED, Field};
use super::super::model::Setting;
use super::super::noise::CPU_SHARE_THAT_MATTERS;
use super::super::plan::Plan;
use super::super::profile::Profile;
use super::super::race::{EQUIVALENT, Race};
use super::super::reason;
use super::super::statistics;
use super::super::wording;
use super::parallelism;

/// Where the best size did at least so much of what was predicted of it, the prediction that put it before a smaller one is believed.
const PROMISED: f64 = 0.8;
/// A larger size is worth a try while the best one leaves a tenth of the cores that it can use idle, and does at least half of what its
/// workers would do without hindering each other: below, the outside does not bear more.
const BUSY: f64 = 0.9;
const HINDERED: f64 = 0.5;
/// The low end of a mean of few tasks of very different lengths is not taken below this share of it: that bound would be of no use.
const LEAST_MEAN: f64 = 0.5;

/// The candidates in reserve that are needed: those that may still win. The others are told why not; none is in reserve any more.
pub(super) fn called(
    field: &mut Field,
    race: &Race,
    profile: &Profile,
    setting: &Setting,
) -> Vec<usize> {
    let leader = field.leader(race);
    let places = MOST_CANDIDATES.saturating_sub(
        field
            .0
            .iter()
            .enumerate()
            .filter(|(index, _)| race.racing(*index))
            .count(),
    );
    let best = field.best_of_batch(race);
    let mut needed = Vec::new();
    for index in 0..field.0.len() {
        let Some(reserve) = field.0[index].reserve.take() else {
            continue;
        };
        if field.0[index].failed.is_some() {
            continue;
        }
        let prediction = &field.0[index].prediction;
        let why = match reserve {
            Reserve::Size(knee) => leader.and_then(|leader| {
                let beside = field.so_far(knee, race);
                needless(prediction.plan, leader, beside, profile, setting)
            }),
            Reserve::ShutOut => best
                .filter(|best| !contenders::hopes(prediction, *best))
                .map(|_| reason::shut_out(prediction)),
        };
        let why = why.or_else(|| (needed.len() >= places).then(|| CROWDED.to_owned()));
        match why {
            Some(why) => field.0[index].unraced = Some(why),
            None => needed.push(index),
        }
    }
    needed
}

/// Why a plan need not be raced, now that the leader's rate is known and that of the best size of its own strategy, with the cores that
/// this one used; `None` where it may win.
fn needless(
    plan: Plan,
    (leader, rate): (Plan, f64),
    beside: Option<Beside>,
    profile: &Profile,
    setting: &Setting,
) -> Option<String> {
    let most = at_most(&plan, profile, setting);
    let larger = beside.filter(|beside| beside.plan.workers() < plan.workers());
    let margin = if larger.is_some() {
        EQUIVALENT
    } else {
        -EQUIVALENT
    };
    if most < (1.0 + margin) * rate {
        return Some(format!(
            "it cannot do more than {}, however little its workers hinder each other, and {} did {}",
            wording::rate(most),
            leader.label(),
            wording::rate(rate)
        ));
    }
    if let Some(beside) = &beside
        && larger.is_none()
        && beside.per_s >= PROMISED * beside.predicted_per_s
    {
        return Some(format!(
            "{} kept what was predicted of it, which is more than was predicted of this one",
            beside.plan.label()
        ));
    }
    let Beside {
        plan: knee,
        per_s: own,
        cores: used,
        ..
    } = larger?;
    let busy = parallelism(knee.strategy(), profile, setting).min(setting.cores);
    if used.is_some_and(|used| used >= BUSY * busy) {
        return Some(format!(
            "{} kept {} busy, which is all that it can",
            knee.label(),
            wording::cores(busy)
        ));
    }
    let alone = at_most(&knee, profile, setting);
    (own < HINDERED * alone).then(|| {
        format!(
            "{} did {}, far less than the {} of workers that do not hinder each other: more would not help",
            knee.label(),
            wording::rate(own),
            wording::rate(alone)
        )
    })
}

/// Tasks per second that no plan of so many workers exceeds, for none of them does more than one task alone, nor all of them more than the
/// cores: by the low end of the mean time of a task. (What a task that waits computes among others is not known from one alone.)
fn at_most(plan: &Plan, profile: &Profile, setting: &Setting) -> f64 {
    let low = statistics::mean_low(&profile.walls)
        .map_or(1.0, |low| low / profile.wall_s.max(1e-12))
        .clamp(LEAST_MEAN, 1.0);
    let each = f64::from(plan.workers()) / (profile.own_s() * low).max(1e-12);
    if profile.cpu_share() < CPU_SHARE_THAT_MATTERS {
        each
    } else {
        each.min(setting.cores / (profile.cpu_s() * low).max(1e-12))
    }
}
