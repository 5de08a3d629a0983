//! Revisit when: the bounds within which the chosen plan stays first by the model, as data and in words.
//!
//! One fact is moved at a time, away from what was measured, until the ranking turns; that is the bound. What no value
//! turns has no condition.
//!
//! *Assumes*: the model ranks as the race did, which the calibration by the race sees to.

use serde::{Deserialize, Serialize};

use super::super::comparison::Comparison;
use super::super::model::Setting;
use super::super::plan::{Plan, Strategy};
use super::super::profile::Profile;
use super::super::ranking::{self, Calibration, Ranking};
use super::super::split::{Estimate, Split};
use super::super::wording;

/// A fact and the values at which the decision is to be looked at again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// `usable_cores`, `python`, `gil`, `cpu_share`, `task_s`, `transfer_bytes` or `lock_share`.
    pub fact: String,
    /// From this value up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// From this value down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// Any other value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_not: Option<String>,
    /// The plan that the model then expects to win.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub then: Option<Plan>,
    /// The condition in words, to be read after "when".
    pub words: String,
}

impl Condition {
    /// Whether a measured value meets it.
    pub fn met_by(&self, value: f64) -> bool {
        self.at_least.is_some_and(|bound| value >= bound)
            || self.at_most.is_some_and(|bound| value <= bound)
    }
}

/// Cores that machines have; a bound between two of them is met by the first beyond it.
const CORES: [f64; 14] = [
    1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0,
];
/// A share is told in steps of ten points: a finer bound would pretend to know.
const SHARE_STEPS: u32 = 10;
/// Sizes and times are moved by factors of four, up to four thousand: each step predicts every plan again.
const FACTOR: f64 = 4.0;
const STEPS: i32 = 6;

/// The value that a fact has in a profile; `None` where it is not known or not one of a profile's.
pub fn measured(fact: &str, profile: &Profile) -> Option<f64> {
    match fact {
        "cpu_share" => Some(profile.cpu_share()),
        "task_s" => Some(profile.own_s()),
        "transfer_bytes" => Some(profile.argument_bytes? + profile.result_bytes?),
        "lock_share" => {
            let held = profile.gil_cpu_s? + profile.gil_blocked_s.unwrap_or(0.0);
            Some((held / profile.own_s().max(1e-12)).min(1.0))
        }
        _ => None,
    }
}

/// The conditions under which `plan` is to be looked at again.
pub(super) fn conditions(comparison: &Comparison, plan: Plan) -> Vec<Condition> {
    let setting = ranking::setting(comparison, ranking::quiet(comparison));
    let profile = &comparison.profile;
    let calibration = Calibration::of(comparison, profile, &setting);
    let standings = |changed: &Profile, other: &Setting| {
        let mut plans = ranking::usual(comparison, other.cores);
        plans.push(plan);
        ranking::quick_standings(&plans, changed, other, &calibration)
    };
    let before = standings(profile, &setting);
    let turned = |changed: &Profile, other: &Setting| match ranking::rank(
        plan,
        &standings(changed, other),
        &before,
    ) {
        Ranking::Overtaken { rival, .. } => Some(rival.plan),
        _ => None,
    };
    let mut found = vec![
        Condition {
            fact: "python".to_owned(),
            is_not: Some(minor(&comparison.machine.python)),
            words: format!("Python is no longer {}", minor(&comparison.machine.python)),
            ..Condition::default()
        },
        Condition {
            fact: "gil".to_owned(),
            is_not: Some(comparison.machine.gil.to_string()),
            words: format!(
                "the interpreter lock is {}",
                if comparison.machine.gil {
                    "gone"
                } else {
                    "back"
                }
            ),
            ..Condition::default()
        },
    ];
    let cores = |value: f64| {
        let other = Setting {
            cores: value,
            ..setting.clone()
        };
        Some((value, turned(profile, &other)?))
    };
    let words = |value: f64| {
        let cores = if value > 1.0 { "cores" } else { "core" };
        format!("{} usable {cores}", wording::cores(value))
    };
    let above = CORES.iter().copied().filter(|one| *one > setting.cores);
    found.extend(bound(
        "usable_cores",
        true,
        above.filter_map(cores).next(),
        words,
    ));
    let below = CORES
        .iter()
        .rev()
        .copied()
        .filter(|one| *one < setting.cores);
    found.extend(bound(
        "usable_cores",
        false,
        below.filter_map(cores).next(),
        words,
    ));

    let share = profile.cpu_share();
    let at_share = |step: u32| {
        let value = f64::from(step) / f64::from(SHARE_STEPS);
        Some((value, turned(&with_cpu_share(profile, value), &setting)?))
    };
    let words = |value: f64| {
        format!(
            "a task computes for {} of its time",
            wording::percent(value)
        )
    };
    let here = (share * f64::from(SHARE_STEPS)).floor() as u32;
    let up = (here + 1..=SHARE_STEPS).filter_map(at_share).next();
    found.extend(bound("cpu_share", true, up, words));
    let down = (1..=here).rev().filter_map(at_share).next();
    found.extend(bound(
        "cpu_share",
        false,
        down.filter(|(value, _)| *value < share),
        words,
    ));

    if let Some(held) = measured("lock_share", profile).filter(|_| comparison.machine.gil) {
        let at_share = |step: u32| {
            let value = f64::from(step) / f64::from(SHARE_STEPS);
            Some((value, turned(&with_lock_share(profile, value)?, &setting)?))
        };
        let words = |value: f64| {
            format!(
                "a task holds the interpreter lock for {} of its time",
                wording::percent(value)
            )
        };
        let here = (held * f64::from(SHARE_STEPS)).floor() as u32;
        let up = (here + 1..=SHARE_STEPS).filter_map(at_share).next();
        found.extend(bound("lock_share", true, up, words));
        let down = (0..=here).rev().filter_map(at_share).next();
        found.extend(bound(
            "lock_share",
            false,
            down.filter(|(value, _)| *value < held),
            words,
        ));
    }

    let at_time = |step: i32| {
        let factor = FACTOR.powi(step);
        let value = round(profile.own_s() * factor);
        Some((value, turned(&with_time(profile, value), &setting)?))
    };
    let words = |value: f64| format!("a task takes {}", wording::seconds(value));
    let up = (1..=STEPS).filter_map(at_time).next();
    found.extend(bound("task_s", true, up, words));
    let down = (1..=STEPS).map(|step| -step).filter_map(at_time).next();
    found.extend(bound("task_s", false, down, words));

    if matches!(
        plan.strategy(),
        Strategy::Processes | Strategy::Interpreters | Strategy::Hybrid
    ) && let Some(here) = measured("transfer_bytes", profile).filter(|bytes| *bytes > 0.0)
    {
        let at_size = |step: i32| {
            let value = round(here * FACTOR.powi(step));
            Some((
                value,
                turned(&with_transfer(profile, value / here), &setting)?,
            ))
        };
        let words = |value: f64| {
            format!(
                "arguments and result of a task take {} together",
                wording::bytes(value)
            )
        };
        let up = (1..=STEPS).filter_map(at_size).next();
        found.extend(bound("transfer_bytes", true, up, words));
    }
    found
}

fn bound(
    fact: &str,
    upwards: bool,
    found: Option<(f64, Plan)>,
    words: impl Fn(f64) -> String,
) -> Option<Condition> {
    let (value, then) = found?;
    Some(Condition {
        fact: fact.to_owned(),
        at_least: upwards.then_some(value),
        at_most: (!upwards).then_some(value),
        then: Some(then),
        words: format!(
            "{} or {} (the model then expects {} to win)",
            words(value),
            if upwards { "more" } else { "less" },
            then.label()
        ),
        ..Condition::default()
    })
}

/// `3.11` of `3.11.7`.
pub fn minor(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// Two meaningful digits: a bound is not known better.
fn round(value: f64) -> f64 {
    if value <= 0.0 {
        return 0.0;
    }
    let unit = 10_f64.powf(value.log10().floor() - 1.0);
    (value / unit).round() * unit
}

fn scaled(values: &[f64], factor: f64) -> Vec<f64> {
    values.iter().map(|value| value * factor).collect()
}

/// The same task computing for this share of its time, waiting for the rest; each sampled one in its proportion.
fn with_cpu_share(profile: &Profile, share: f64) -> Profile {
    let own = profile.own_s();
    let factor = share * own / profile.cpu_s().max(1e-9);
    Profile {
        wall_s: own,
        walls: scaled(&profile.walls, own / profile.wall_s.max(1e-12)),
        // Where the sample hardly computed, its proportions say nothing.
        cpus: if profile.cpu_share() > 0.5 / f64::from(SHARE_STEPS) {
            scaled(&profile.cpus, factor)
        } else {
            Vec::new()
        },
        run_queue_s: Some(0.0),
        thread_cpu_s: (profile.thread_cpu_s * factor)
            .max(share * own - profile.native_cpu_s * factor),
        native_cpu_s: profile.native_cpu_s * factor,
        wait_s: (1.0 - share) * own,
        pilot: None,
        ..profile.clone()
    }
}

/// The same task with this share of its time under the interpreter lock, its CPU time as it was; `None` where it does not compute enough
/// for that, or too much of it is blocked with the lock.
fn with_lock_share(profile: &Profile, share: f64) -> Option<Profile> {
    let split = profile.split?;
    let exact = |mean_s: f64| Estimate {
        mean_s,
        low_s: mean_s,
        high_s: mean_s,
    };
    let cpu = split.gil_cpu.mean_s + split.free_cpu.mean_s;
    let held = share * profile.own_s() - split.gil_blocked.mean_s;
    // What is left of a share by rounding is not a reason to leave out all of it, or none.
    let slack = 0.5 / f64::from(SHARE_STEPS) * profile.own_s();
    if held < -1e-9 * cpu || held > cpu + slack {
        return None;
    }
    let held = held.clamp(0.0, cpu);
    Some(Profile {
        split: Some(Split {
            gil_cpu: exact(held),
            free_cpu: exact(cpu - held),
            ..split
        }),
        gil_cpu_s: Some(held),
        free_cpu_s: Some(cpu - held),
        ..profile.clone()
    })
}

fn with_time(profile: &Profile, own_s: f64) -> Profile {
    let factor = own_s / profile.own_s().max(1e-12);
    let pilot = profile.pilot;
    Profile {
        wall_s: own_s,
        wall_max_s: profile.wall_max_s * factor,
        walls: scaled(
            &profile.walls,
            factor * profile.own_s() / profile.wall_s.max(1e-12),
        ),
        cpus: scaled(&profile.cpus, factor),
        run_queue_s: Some(0.0),
        thread_cpu_s: profile.thread_cpu_s * factor,
        native_cpu_s: profile.native_cpu_s * factor,
        wait_s: profile.wait_s * factor,
        pilot,
        ..profile.clone()
    }
}

fn with_transfer(profile: &Profile, factor: f64) -> Profile {
    let scaled = |value: Option<f64>| value.map(|value| value * factor);
    Profile {
        argument_bytes: scaled(profile.argument_bytes),
        result_bytes: scaled(profile.result_bytes),
        pickle_s: scaled(profile.pickle_s),
        argument_dumps_s: scaled(profile.argument_dumps_s),
        argument_loads_s: scaled(profile.argument_loads_s),
        result_dumps_s: scaled(profile.result_dumps_s),
        result_loads_s: scaled(profile.result_loads_s),
        ..profile.clone()
    }
}
