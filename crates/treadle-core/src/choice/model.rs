//! The model: the throughput that a plan cannot exceed, from the profile, and what binds it, in words.
//!
//! Operational bounds (Denning and Buzen; Lazowska et al.): with per-task demands in seconds, each resource serves at most
//! one over its demand, and n workers at most n over the time a task stays in one. The smallest is the bound, and its name is the explanation.
//! A finite batch also pays for the start of its workers and for the slowest task at its end.
//!
//! *Guarantees*: a bound is an upper limit; `low_per_s` is the same bound with all CPU time under the interpreter lock as far as the pilot allows it.
//! *Assumes*: tasks are independent and alike; the outside bears as many requests as we make (the race finds out).

use super::plan::{Plan, Strategy};
use super::profile::Profile;
use super::wording;

/// Hand-over of one task in seconds of the parent's time, at best, as a bound wants it: the native engine's prototype took 1.0 to
/// 2.6 µs a task (transport notes 3.4), an event loop 8 µs (CPython 3.11, two virtual cores). The race shows what it really takes.
const THREAD_DISPATCH_S: f64 = 2e-6;
const COROUTINE_DISPATCH_S: f64 = 8e-6;
const PROCESS_DISPATCH_S: f64 = 2e-6;
/// Sizes on the curve: about four a doubling below 16, two above, enough to see a knee within 25 %.
const SIZES: [u32; 24] = [
    1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100, 128, 192, 256, 384, 512, 768, 1000, 1500, 2000,
    3000, 4000,
];
/// Most threads that are tried: each takes a stack and a kernel task, and more seldom helps.
const MOST_THREADS: u32 = 256;
/// Most coroutines that are tried.
const MOST_COROUTINES: u32 = 1000;
/// Share of the free memory that worker processes may fill; the rest is for their data and for others.
const MEMORY_SHARE: f64 = 0.8;
/// A pilot whose high end is below this saw threads give nothing: at least most CPU time was under the lock.
const LOCKED_SPEEDUP: f64 = 1.25;

/// Bounds within this factor of the smallest bind together: closer than a race can tell.
const TOGETHER: f64 = 1.05;

/// CPU time of an event loop's wake-up for a single task, which tasks in flight together share: awaiting a 20 ms sleep took
/// 153 µs of CPU one by one and 24 µs with 128 in flight (CPython 3.11, two virtual cores).
const SHARED_WAKE_UP_S: f64 = 130e-6;

/// What the machine and the function allow.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Usable cores.
    pub cores: f64,
    /// Whether an interpreter lock serialises threads.
    pub gil: bool,
    /// Whether the function is an async function.
    pub asynchronous: bool,
    /// Whether the machine was quiet enough for a slow pilot to speak against threads.
    pub pilot_trusted: bool,
    /// Tasks in the batch; `None` when the items were only a part of it, so that start-up is not charged.
    pub count: Option<u64>,
    /// Memory that may still be used, in bytes.
    pub memory_available: Option<f64>,
}

/// The bound of one plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The plan.
    pub plan: Plan,
    /// Steady tasks per second, at most.
    pub per_s: f64,
    /// The same, when as much CPU time as the pilot allows is under the interpreter lock.
    pub low_per_s: f64,
    /// Tasks per second over the finite batch, start-up and stragglers included.
    pub batch_per_s: f64,
    /// What binds it, in words.
    pub limit: String,
    /// Why the plan cannot run at all.
    pub infeasible: Option<String>,
}

/// One bound: the optimistic rate, the pessimistic rate, and its name.
struct Bound(f64, f64, String);

/// Seconds of CPU time a task that are under the interpreter lock, at least and at most.
pub fn lock_demand(profile: &Profile, setting: &Setting) -> (f64, f64) {
    if !setting.gil {
        return (0.0, 0.0);
    }
    if let Some(split) = &profile.split {
        // Who is blocked with the lock keeps it from others as much as who computes.
        return (
            split.gil_cpu.low_s + split.gil_blocked.low_s,
            split.gil_cpu.high_s + split.gil_blocked.high_s,
        );
    }
    let all = profile.thread_cpu_s;
    match profile.pilot {
        Some(pilot) if pilot.interval[0] > 0.0 && setting.cores >= 1.5 => {
            // Throughput seen in the pilot cannot exceed one over the demand on the lock.
            let most = (profile.own_s() / pilot.interval[0]).min(all);
            let least = if setting.pilot_trusted && pilot.interval[1] < LOCKED_SPEEDUP {
                (profile.own_s() / pilot.interval[1].max(1.0)).min(all) * 0.8
            } else {
                0.0
            };
            (least.min(most), most)
        }
        _ => (0.0, all),
    }
}

/// CPU seconds a task of the event loop's thread, at least (what wake-ups cost is shared by many tasks) and at most.
fn loop_demand(profile: &Profile) -> (f64, f64) {
    let most = profile.thread_cpu_s;
    let least = if profile.wait_s > 0.5 * profile.own_s() {
        (most - SHARED_WAKE_UP_S).max(0.0)
    } else {
        most
    };
    (least + COROUTINE_DISPATCH_S, most + COROUTINE_DISPATCH_S)
}

/// The bound of `plan`.
pub fn predict(plan: Plan, profile: &Profile, setting: &Setting) -> Prediction {
    let wall = profile.own_s().max(1e-9);
    let cpu = profile.cpu_s();
    let (lock_least, lock_most) = lock_demand(profile, setting);
    let workers = f64::from(plan.workers());
    let cores = setting.cores;
    let core_words = format!(
        "the {} usable {}",
        wording::cores(cores),
        if cores > 1.0 { "cores" } else { "core" }
    );
    let worker_pickle =
        profile.argument_loads_s.unwrap_or(0.0) + profile.result_dumps_s.unwrap_or(0.0);
    let parent_pickle = profile.parent_pickle_s();
    let inside = |name: &str| {
        if profile.wait_s > 0.5 * wall {
            format!("waiting: {} tasks at once", plan.workers())
        } else {
            format!("{} {name}, one task each", plan.workers())
        }
    };
    let same = |rate: f64, words: String| Bound(rate, rate, words);
    let start_thread = profile.worker_start_s.thread.unwrap_or(0.0);
    let start_process = profile.worker_start_s.process.unwrap_or(0.0);
    let mut start = 0.0;
    let mut bounds: Vec<Bound> = Vec::new();
    match plan.strategy() {
        Strategy::Serial => bounds.push(same(1.0 / wall, "one task at a time".to_owned())),
        Strategy::Threads => {
            start = start_thread * workers;
            bounds.push(same(
                workers / (wall + THREAD_DISPATCH_S),
                inside("threads"),
            ));
            bounds.push(same(cores / (cpu + THREAD_DISPATCH_S), core_words));
            if setting.gil {
                bounds.push(Bound(
                    1.0 / (lock_least + THREAD_DISPATCH_S),
                    1.0 / (lock_most + THREAD_DISPATCH_S),
                    "the interpreter lock".to_owned(),
                ));
            }
        }
        Strategy::Coroutines => {
            start = start_thread;
            bounds.push(same(
                workers / (wall + COROUTINE_DISPATCH_S),
                inside("coroutines"),
            ));
            let (least, most) = loop_demand(profile);
            bounds.push(Bound(
                cores / (least + profile.native_cpu_s),
                cores / (most + profile.native_cpu_s),
                core_words,
            ));
            bounds.push(Bound(
                1.0 / least,
                1.0 / most,
                "the one thread of the event loop".to_owned(),
            ));
        }
        Strategy::Processes | Strategy::Interpreters | Strategy::Hybrid => {
            let outer = f64::from(plan.processes.or(plan.interpreters).unwrap_or(1));
            start = start_process * (outer / cores).max(1.0);
            bounds.push(same(
                workers / (wall + worker_pickle + parent_pickle + PROCESS_DISPATCH_S),
                inside("workers"),
            ));
            bounds.push(same(
                cores / (cpu + worker_pickle + parent_pickle + PROCESS_DISPATCH_S),
                core_words,
            ));
            bounds.push(same(
                1.0 / (parent_pickle + PROCESS_DISPATCH_S),
                "the parent's serialisation".to_owned(),
            ));
            if plan.strategy() == Strategy::Hybrid {
                let (least, most) = if plan.coroutines.is_some() {
                    (profile.thread_cpu_s, profile.thread_cpu_s)
                } else {
                    (lock_least, lock_most)
                };
                bounds.push(Bound(
                    outer / (least + worker_pickle + THREAD_DISPATCH_S),
                    outer / (most + worker_pickle + THREAD_DISPATCH_S),
                    format!(
                        "the interpreter locks of {} processes",
                        wording::cores(outer)
                    ),
                ));
            }
        }
    }
    let least = bounds
        .iter()
        .map(|bound| bound.0)
        .fold(f64::INFINITY, f64::min);
    // Of bounds that fall together, the later ones say more: that all cores are busy, rather than that all workers are.
    let limit = bounds
        .iter()
        .rev()
        .find(|bound| bound.0 <= least * TOGETHER)
        .map_or_else(String::new, |bound| bound.2.clone());
    let low_per_s = bounds
        .iter()
        .map(|bound| bound.1)
        .fold(f64::INFINITY, f64::min);
    let batch_per_s = setting.count.map_or(least, |count| {
        let count = count.max(1) as f64;
        // The last wave still takes one task's time, and no batch ends before its slowest task.
        let waves = (count / workers).ceil() * wall;
        let steady = count / least;
        count / (start + steady.max(waves.min(steady + wall)).max(profile.wall_max_s))
    });
    Prediction {
        plan,
        per_s: least,
        low_per_s,
        batch_per_s,
        limit,
        infeasible: infeasible(plan, profile, setting),
    }
}

/// Why a plan cannot run this function at all.
fn infeasible(plan: Plan, profile: &Profile, setting: &Setting) -> Option<String> {
    if plan.coroutines.is_some() && !setting.asynchronous {
        return Some(
            "the function is not an async function, so coroutines would run one after the other"
                .to_owned(),
        );
    }
    let outer = plan.processes.or(plan.interpreters)?;
    if let Some(obstacle) = profile.pickle.obstacle() {
        return Some(obstacle);
    }
    let (available, each) = (setting.memory_available?, profile.worker_rss_bytes?);
    let most = (available * MEMORY_SHARE / each.max(1.0)).floor();
    (f64::from(outer) > most).then(|| {
        format!(
            "memory: {outer} workers of {} each do not fit in {} of the {} that are free",
            wording::bytes(each),
            wording::percent(MEMORY_SHARE),
            wording::bytes(available)
        )
    })
}

/// The curve of one strategy: every size that the machine bears, in rising order.
pub fn curve(strategy: Strategy, profile: &Profile, setting: &Setting) -> Vec<Prediction> {
    // With a core busy c seconds a task that stays w seconds, w / c tasks keep it busy (Goetz); twice that shows the plateau.
    let demand = match strategy {
        Strategy::Coroutines => loop_demand(profile).0 + profile.native_cpu_s,
        _ => profile.cpu_s().max(1e-7),
    };
    let knee = (profile.own_s() / demand * setting.cores).max(setting.cores);
    let wanted = (2.0 * knee).ceil().clamp(2.0, 1e6) as u32;
    let most = match strategy {
        Strategy::Serial => 1,
        Strategy::Threads => wanted.min(MOST_THREADS),
        Strategy::Coroutines => wanted.min(MOST_COROUTINES),
        Strategy::Processes | Strategy::Interpreters => {
            wanted.min((4.0 * setting.cores).ceil().max(4.0) as u32)
        }
        Strategy::Hybrid => 0,
    };
    let most = most.min(setting.count.map_or(u32::MAX, |count| {
        u32::try_from(count).unwrap_or(u32::MAX).max(1)
    }));
    let whole = setting.cores.ceil() as u32;
    let mut sizes: Vec<u32> = SIZES
        .iter()
        .copied()
        .chain([whole])
        .filter(|size| *size <= most)
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
        .into_iter()
        .map(|size| {
            let plan = match strategy {
                Strategy::Threads => Plan::threads(size),
                Strategy::Coroutines => Plan::coroutines(size),
                Strategy::Processes => Plan::processes(size),
                Strategy::Interpreters => Plan {
                    interpreters: Some(size),
                    ..Plan::SERIAL
                },
                Strategy::Serial | Strategy::Hybrid => Plan::SERIAL,
            };
            predict(plan, profile, setting)
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::profile::tests::sample;
    use super::super::profile::{PickleFault, Pilot, Profile};
    use super::*;

    /// A quiet machine with this many cores.
    pub(crate) fn setting(cores: f64) -> Setting {
        Setting {
            cores,
            gil: true,
            asynchronous: false,
            pilot_trusted: true,
            count: None,
            memory_available: Some(8e9),
        }
    }

    fn close(one: f64, other: f64) {
        assert!(
            (one / other - 1.0).abs() < 0.02,
            "{one} is not about {other}"
        );
    }

    /// A profile whose pilot had this interval.
    pub(crate) fn piloted(wall: f64, cpu: f64, low: f64, high: f64) -> Profile {
        let mut sample = sample(wall, cpu);
        sample.pilot = Some(Pilot {
            threads: 2,
            speedup: (low + high) / 2.0,
            interval: [low, high],
        });
        Profile::from_sample(&sample)
    }

    #[test]
    fn processes_are_bound_by_cores_and_threads_by_the_lock() {
        let profile = piloted(0.01, 0.01, 0.95, 1.02);
        let processes = predict(Plan::processes(8), &profile, &setting(4.0));
        close(processes.per_s, 400.0);
        assert_eq!(processes.limit, "the 4 usable cores");
        let threads = predict(Plan::threads(8), &profile, &setting(4.0));
        assert_eq!(threads.limit, "the interpreter lock");
        assert!(threads.per_s < 130.0 && threads.low_per_s <= threads.per_s);
    }

    #[test]
    fn without_a_pilot_threads_are_uncertain_and_ranked_by_hope() {
        let profile = Profile::from_sample(&sample(0.01, 0.01));
        let threads = predict(Plan::threads(4), &profile, &setting(4.0));
        close(threads.per_s, 400.0);
        close(threads.low_per_s, 100.0);
    }

    #[test]
    fn waiting_binds_threads_and_the_words_say_so() {
        let profile = Profile::from_sample(&sample(0.1, 0.0005));
        let threads = predict(Plan::threads(32), &profile, &setting(2.0));
        close(threads.per_s, 320.0);
        assert_eq!(threads.limit, "waiting: 32 tasks at once");
    }

    #[test]
    fn coroutines_share_wake_ups_but_not_work() {
        let mut setting = setting(2.0);
        setting.asynchronous = true;
        let waiting = Profile::from_sample(&sample(0.02, 150e-6));
        let prediction = predict(Plan::coroutines(1000), &waiting, &setting);
        close(prediction.per_s, 1.0 / 28e-6);
        close(prediction.low_per_s, 1.0 / 158e-6);
        let working = Profile::from_sample(&sample(0.02, 0.015));
        let prediction = predict(Plan::coroutines(1000), &working, &setting);
        close(prediction.per_s, prediction.low_per_s);
        assert_eq!(prediction.limit, "the one thread of the event loop");
    }

    #[test]
    fn the_parent_binds_heavy_results() {
        let mut heavy = sample(0.01, 0.01);
        heavy.result_loads_s = Some(0.008);
        let processes = predict(
            Plan::processes(16),
            &Profile::from_sample(&heavy),
            &setting(16.0),
        );
        close(processes.per_s, 1.0 / 0.008);
        assert_eq!(processes.limit, "the parent's serialisation");
    }

    #[test]
    fn a_small_batch_stays_serial() {
        let profile = Profile::from_sample(&sample(0.001, 0.001));
        let mut setting = setting(4.0);
        setting.count = Some(20);
        let serial = predict(Plan::SERIAL, &profile, &setting);
        let processes = predict(Plan::processes(4), &profile, &setting);
        assert!(processes.per_s > serial.per_s);
        assert!(processes.batch_per_s < serial.batch_per_s);
    }

    #[test]
    fn memory_pickling_and_sync_functions_make_plans_infeasible() {
        let mut profile = Profile::from_sample(&sample(0.01, 0.01));
        let mut setting = setting(4.0);
        setting.memory_available = Some(100e6);
        let reason =
            |plan, profile: &Profile, setting: &Setting| predict(plan, profile, setting).infeasible;
        assert_eq!(reason(Plan::processes(2), &profile, &setting), None);
        assert!(
            reason(Plan::processes(4), &profile, &setting)
                .unwrap()
                .starts_with("memory")
        );
        assert!(
            reason(Plan::coroutines(4), &profile, &setting)
                .unwrap()
                .contains("async")
        );
        profile.pickle.result = Some(PickleFault {
            path: "result.handle".to_owned(),
            ..PickleFault::default()
        });
        assert!(
            reason(Plan::processes(2), &profile, &setting)
                .unwrap()
                .contains("result.handle")
        );
    }

    #[test]
    fn a_pilot_on_a_noisy_machine_does_not_speak_against_threads() {
        let profile = piloted(0.01, 0.01, 0.55, 1.02);
        let mut setting = setting(2.0);
        let quiet = lock_demand(&profile, &setting).0;
        setting.pilot_trusted = false;
        assert!(quiet > 0.0);
        assert_eq!(lock_demand(&profile, &setting).0, 0.0);
    }
}
