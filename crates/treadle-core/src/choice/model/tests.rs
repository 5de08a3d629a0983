//! The model against textbooks and laws: asymptotes, bounds, exact mean values, and what the profile rules out.

use super::super::plan::Plan;
use super::super::profile::Profile;
use super::super::profile::tests::sample;
use super::super::sample::{PickleFault, Pilot};
use super::super::statistics::Random;
use super::bounds::{bounds, least};
use super::demands::{Demands, Task, Transfer};
use super::queueing::mean_value_analysis;
use super::route::Route;
use super::script::Script;
use super::simulation::{Course, run};
use super::*;

/// A quiet machine with this many cores, where handing over costs next to nothing.
pub(crate) fn setting(cores: f64) -> Setting {
    let nothing = Some(Cost {
        parent_s: 1e-7,
        worker_s: 1e-7,
    });
    Setting {
        cores,
        gil: true,
        asynchronous: false,
        interpreters: false,
        pilot_trusted: true,
        count: None,
        memory_available: Some(8e9),
        handover: Handover {
            serial_s: None,
            threads: nothing,
            coroutines: nothing,
            processes: nothing,
            chunked: nothing,
        },
        shared_loop: None,
    }
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

fn within(one: f64, other: f64, share: f64) {
    assert!(
        (one / other - 1.0).abs() < share,
        "{one} is not within {share} of {other}"
    );
}

/// A random positive number with this mean, exponentially distributed.
fn exponential(random: &mut Random, mean: f64) -> f64 {
    let uniform = (random.bits() >> 11) as f64 / (1u64 << 53) as f64;
    -mean * (1.0 - uniform).ln()
}

fn uniform(random: &mut Random, low: f64, high: f64) -> f64 {
    low + (high - low) * (random.bits() >> 11) as f64 / (1u64 << 53) as f64
}

/// Simulated tasks per second of tasks with these demands; `counted` of them, after a tenth.
fn simulated(plan: Plan, demands: &Demands, setting: &Setting, counted: u64) -> f64 {
    let route = Route::new(plan, demands, setting);
    let locked = setting.gil && (route.slots > 1 || route.parent_inside);
    let script = Script::new(&route, locked, &mut Random::new(7));
    let course = Course {
        cores: setting.cores,
        locked,
        skipped: counted / 10,
        counted,
        finite: false,
        start_s: 0.0,
        abreast: 1.0,
    };
    run(&route, &script, course).per_s * f64::from(route.chunk)
}

fn predict(plan: Plan, profile: &Profile, setting: &Setting) -> Prediction {
    Model::new(profile, setting).predict(plan)
}

#[test]
fn the_simulation_agrees_with_exact_mean_values() {
    let mut random = Random::new(11);
    let wide = setting(10_000.0);
    let mut tasks = |held: f64, free: f64, wait: f64| -> Demands {
        let tasks = (0..20_000)
            .map(|_| Task {
                held: exponential(&mut random, held),
                free: exponential(&mut random, free),
                wait: exponential(&mut random, wait),
                ..Task::default()
            })
            .collect();
        Demands::of(tasks, 1.0, Transfer::default())
    };
    // The lock is one queue, of which a task takes half before it waits and half after.
    let locked = tasks(0.010, 0.0, 0.050);
    // One core is one queue with equal shares; a process each, so that no lock is in the way.
    let computing = tasks(0.0, 0.010, 0.030);
    let one_core = setting(1.0);
    for customers in [1, 2, 4, 8, 16] {
        let exact = mean_value_analysis(&[0.010], 0.050, customers);
        let threads = simulated(Plan::threads(customers), &locked, &wide, 60_000);
        within(threads, exact, 0.04);
        let exact = mean_value_analysis(&[0.010], 0.030, customers);
        let processes = simulated(Plan::processes(customers), &computing, &one_core, 60_000);
        within(processes, exact, 0.04);
    }
    // A loop serves in order of arrival.
    let turns = tasks(0.002, 0.0, 0.020);
    let mut setting = wide;
    setting.asynchronous = true;
    for customers in [1, 4, 10, 40] {
        let exact = mean_value_analysis(&[0.002], 0.020, customers);
        let coroutines = simulated(Plan::coroutines(customers), &turns, &setting, 60_000);
        within(coroutines, exact, 0.04);
    }
}

#[test]
fn asymptotes() {
    let wide = setting(64.0);
    let pure = |held: f64, free: f64, wait: f64| {
        Demands::of(
            vec![
                Task {
                    held,
                    free,
                    wait,
                    ..Task::default()
                };
                20
            ],
            1.0,
            Transfer::default(),
        )
    };
    let computing = pure(0.01, 0.0, 0.0);
    within(
        simulated(Plan::threads(1), &computing, &wide, 400),
        100.0,
        0.01,
    );
    within(
        simulated(Plan::threads(8), &computing, &wide, 400),
        100.0,
        0.01,
    );
    within(
        simulated(Plan::processes(8), &computing, &setting(8.0), 800),
        800.0,
        0.01,
    );
    within(
        simulated(Plan::processes(8), &computing, &setting(2.0), 800),
        200.0,
        0.01,
    );
    within(
        simulated(Plan::processes(4), &computing, &setting(1.5), 800),
        150.0,
        0.01,
    );
    let releasing = pure(0.0, 0.01, 0.0);
    within(
        simulated(Plan::threads(4), &releasing, &setting(4.0), 400),
        400.0,
        0.01,
    );
    let waiting = pure(0.0, 0.0, 0.01);
    within(
        simulated(Plan::threads(32), &waiting, &setting(1.0), 3200),
        3200.0,
        0.02,
    );
    let mut free_threaded = setting(4.0);
    free_threaded.gil = false;
    within(
        simulated(Plan::threads(4), &computing, &free_threaded, 400),
        400.0,
        0.01,
    );
    let hybrid = Plan {
        threads: Some(4),
        ..Plan::processes(2)
    };
    within(simulated(hybrid, &computing, &wide, 800), 200.0, 0.01);
    let mixed = pure(0.01, 0.0, 0.03);
    within(simulated(hybrid, &mixed, &wide, 2000), 200.0, 0.05);
}

#[test]
fn bounds_hold() {
    let seed = 20_261_122;
    println!("seed {seed}");
    let mut random = Random::new(seed);
    for case in 0..300 {
        let mut scale = |high: f64| {
            if random.below(3) == 0 {
                0.0
            } else {
                uniform(&mut random, -5.0, high).exp2() * 0.01
            }
        };
        let (held, blocked, free, wait, native) =
            (scale(1.0), scale(-1.0), scale(1.0), scale(3.0), scale(0.0));
        let releases = random.below(12) as f64;
        let tasks: Vec<Task> = (0..200)
            .map(|_| {
                let length = uniform(&mut random, 0.5, 1.5);
                Task {
                    held: held * length + 1e-6,
                    blocked: blocked * length,
                    free: free * length,
                    wait: wait * length,
                    native: native * length,
                }
            })
            .collect();
        let transfer = Transfer {
            out: uniform(&mut random, 0.0, 1e-4),
            back: uniform(&mut random, 0.0, 1e-4),
            worker_in: uniform(&mut random, 0.0, 1e-4),
            worker_out: uniform(&mut random, 0.0, 1e-4),
        };
        let demands = Demands::of(tasks, releases, transfer);
        let mut setting = setting(uniform(&mut random, 0.5, 16.0));
        setting.gil = random.below(4) > 0;
        setting.asynchronous = random.below(2) > 0;
        let inner = 1 + random.below(12) as u32;
        let outer = 1 + random.below(6) as u32;
        let plan = match random.below(6) {
            0 => Plan::threads(inner),
            1 => Plan::processes(outer),
            2 => Plan::coroutines(inner),
            3 => Form::Interpreters.plan(1, outer),
            4 => Form::ProcessesThreads.plan(outer, inner),
            _ => Form::ProcessesCoroutines.plan(outer, inner),
        };
        let per_s = simulated(plan, &demands, &setting, 2_000);
        let bounds = bounds(plan, &demands, &setting);
        assert!(
            per_s <= least(&bounds) * 1.03,
            "case {case}, {}: {per_s} of {bounds:?}",
            plan.label()
        );
        assert!(
            per_s > 0.2 * least(&bounds),
            "case {case}, {}: {per_s} of {bounds:?}",
            plan.label()
        );
        assert_eq!(per_s, simulated(plan, &demands, &setting, 2_000));
    }
}

#[test]
fn who_waits_behind_a_computing_thread_waits_a_switch_interval() {
    // One task in a thousand computes a second under the lock; the others need the lock for a moment after each millisecond of waiting.
    let long = Task {
        held: 1.0,
        ..Task::default()
    };
    let short = Task {
        held: 1e-5,
        wait: 1e-3,
        ..Task::default()
    };
    let mut tasks = vec![short; 1000];
    tasks.push(long);
    let demands = Demands::of(tasks, 1.0, Transfer::default());
    let wide = setting(8.0);
    let convoy = simulated(Plan::threads(2), &demands, &wide, 30_030);
    let mut free = wide.clone();
    free.gil = false;
    let unlocked = simulated(Plan::threads(2), &demands, &free, 30_030);
    // Beside the long one, a short one takes an interval and its millisecond; those left take a millisecond, two at a time.
    let beside = 1.0 / (0.005 + 0.001);
    within(
        convoy,
        1001.0 / (1.0 + (1000.0 - beside) * 0.001 / 2.0),
        0.1,
    );
    // Without the lock both threads are always at work. The bounds are the same for both, within 2 %.
    within(unlocked, 2.0 * 1001.0 / 2.01, 0.1);
}

#[test]
fn processes_are_bound_by_cores_and_threads_by_the_lock() {
    let profile = piloted(0.01, 0.01, 0.95, 1.02);
    let processes = predict(Plan::processes(8), &profile, &setting(4.0));
    within(processes.per_s, 400.0, 0.02);
    assert_eq!(processes.limit, "the 4 usable cores");
    let threads = predict(Plan::threads(8), &profile, &setting(4.0));
    assert_eq!(threads.limit, "the interpreter lock");
    within(threads.per_s, 100.0, 0.03);
    assert!(threads.low_per_s <= threads.per_s && threads.per_s <= threads.high_per_s);
    assert!(threads.bound_per_s < 135.0);
}

#[test]
fn without_split_and_pilot_threads_are_uncertain() {
    let profile = Profile::from_sample(&sample(0.01, 0.01));
    let threads = predict(Plan::threads(4), &profile, &setting(4.0));
    within(threads.high_per_s, 400.0, 0.02);
    within(threads.low_per_s, 100.0, 0.02);
    within(threads.bound_per_s, 400.0, 0.02);
}

#[test]
fn waiting_limits_threads_and_the_words_say_so() {
    let profile = Profile::from_sample(&sample(0.1, 0.0005));
    let threads = predict(Plan::threads(32), &profile, &setting(2.0));
    within(threads.per_s, 320.0, 0.05);
    assert_eq!(threads.limit, "waiting: 32 tasks at once");
}

#[test]
fn coroutines_share_the_loops_turns_but_not_work() {
    let mut setting = setting(2.0);
    setting.asynchronous = true;
    setting.shared_loop = Some(LoopCost {
        concurrency: 32,
        cpu_s: 24e-6,
        count: 1000,
    });
    let waiting = Profile::from_sample(&sample(0.02, 150e-6));
    let prediction = predict(Plan::coroutines(1000), &waiting, &setting);
    // As many as keep the loop just busy: a few turns pass idle.
    within(prediction.per_s, 1.0 / 20.4e-6, 0.08);
    setting.shared_loop = Some(LoopCost {
        concurrency: 32,
        cpu_s: 0.015,
        count: 100,
    });
    let working = Profile::from_sample(&sample(0.02, 0.015));
    let prediction = predict(Plan::coroutines(1000), &working, &setting);
    within(prediction.per_s, 1.0 / 0.015, 0.03);
    assert_eq!(prediction.limit, "the one thread of the event loop");
}

#[test]
fn the_parent_limits_heavy_results() {
    let mut heavy = sample(0.01, 0.01);
    heavy.result_loads_s = Some(0.008);
    let processes = predict(
        Plan::processes(16),
        &Profile::from_sample(&heavy),
        &setting(16.0),
    );
    within(processes.per_s, 1.0 / 0.008, 0.02);
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
fn stragglers_cost_the_end_of_a_batch() {
    let mut skewed = sample(0.01, 0.0001);
    skewed.walls = vec![0.005; 19];
    skewed.walls.push(0.105);
    skewed.cpus = vec![0.0001; 20];
    let profile = Profile::from_sample(&skewed);
    let mut setting = setting(2.0);
    setting.count = Some(20);
    let threads = predict(Plan::threads(20), &profile, &setting);
    // No batch ends before its slowest task.
    assert!(threads.batch_per_s <= 20.0 / 0.105 * 1.01, "{threads:?}");
    assert!(threads.per_s > 1.5 * threads.batch_per_s);
    // Few inputs and much skew: the interval says so.
    assert!(threads.high_per_s / threads.low_per_s > 1.3, "{threads:?}");
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
fn forms_that_this_version_does_not_run_are_predicted_and_say_so() {
    let profile = Profile::from_sample(&sample(0.04, 0.01));
    let mut setting = setting(4.0);
    setting.interpreters = true;
    let model = Model::new(&profile, &setting);
    for curve in model.curves() {
        assert!(!curve.points.is_empty());
        for point in &curve.points {
            assert_eq!(point.not_run.is_none(), curve.form.runs(), "{point:?}");
            assert!(point.per_s > 0.0 && point.per_s <= point.bound_per_s * 1.0001);
            assert_eq!(Form::of(point.plan), Some(curve.form));
        }
    }
    let forms: Vec<Form> = model.curves().iter().map(|curve| curve.form).collect();
    assert!(forms.contains(&Form::ProcessesThreads) && forms.contains(&Form::Interpreters));
}

#[test]
fn short_tasks_travel_in_chunks_and_the_parent_limits_them() {
    let profile = Profile::from_sample(&sample(20e-6, 20e-6));
    let mut setting = setting(64.0);
    setting.handover.processes = Some(Cost {
        parent_s: 30e-6,
        worker_s: 20e-6,
    });
    setting.handover.chunked = Some(Cost {
        parent_s: 1e-6,
        worker_s: 1e-6,
    });
    let processes = predict(Plan::processes(32), &profile, &setting);
    // 1 µs an item, 30 µs a chunk of about a hundred, 4 µs of pickling.
    within(processes.per_s, 1.0 / 5.4e-6, 0.06);
}

#[test]
fn every_plan_of_a_comparison_is_predicted_in_a_moment() {
    // Printed, not asserted: `cargo test --release … -- --nocapture` shows what a comparison pays.
    let mut random = Random::new(5);
    for (name, wall, cpu, asynchronous) in [
        ("waiting", 0.1, 0.0005, false),
        ("mixed", 0.01, 0.002, false),
        ("computing", 0.005, 0.005, false),
        ("short", 20e-6, 20e-6, false),
        ("awaiting", 0.05, 0.0001, true),
    ] {
        let mut sample = sample(wall, cpu);
        let lengths: Vec<f64> = (0..1000).map(|_| exponential(&mut random, 1.0)).collect();
        sample.walls = lengths.iter().map(|one| one * wall).collect();
        sample.cpus = lengths.iter().map(|one| one * cpu).collect();
        let profile = Profile::from_sample(&sample);
        let mut setting = setting(8.0);
        setting.asynchronous = asynchronous;
        setting.interpreters = true;
        setting.count = Some(10_000);
        let began = std::time::Instant::now();
        let model = Model::new(&profile, &setting);
        let curves = model.curves();
        let points: usize = curves.iter().map(|curve| curve.points.len()).sum();
        let chosen = super::super::contenders::contenders(&curves, &model);
        println!(
            "{name}: {points} points and {} contenders in {:?}",
            chosen.len(),
            began.elapsed()
        );
        assert!(points > 10 && chosen.len() > 1);
    }
}

#[test]
fn sizes_whose_tasks_do_not_fit_into_the_memory_are_infeasible() {
    let mut hungry = sample(0.1, 0.001);
    hungry.baseline_rss_bytes = Some(30e6);
    hungry.rss_growth_bytes = Some(50e6);
    hungry.peak_rss_bytes = Some(2.08e9);
    let profile = Profile::from_sample(&hungry);
    assert_eq!(profile.task_rss_bytes, Some(2e9));
    let mut setting = setting(2.0);
    setting.memory_available = Some(20e9);
    let model = Model::new(&profile, &setting);
    for form in [Form::Threads, Form::Processes] {
        let curve = model.curve(form);
        let most = curve.points.iter().filter(|one| one.infeasible.is_none());
        // Eight of 2 GB fit into 80 % of 20 GB; with a process around each, seven.
        let most = most.map(|one| one.plan.workers()).max().unwrap();
        assert_eq!(most, if form == Form::Threads { 8 } else { 6 });
        assert!(curve.knee().unwrap().plan.workers() <= most);
    }
    let why = model.quick(Plan::threads(256)).infeasible.unwrap();
    assert!(
        why.contains("256 tasks at once that need 1.9 GiB each"),
        "{why}"
    );
    // What stays after the first task is shared by threads.
    hungry.rss_growth_bytes = Some(2.05e9);
    let profile = Profile::from_sample(&hungry);
    assert_eq!(profile.task_rss_bytes, Some(0.0));
    let model = Model::new(&profile, &setting);
    assert_eq!(model.quick(Plan::threads(256)).infeasible, None);
}
