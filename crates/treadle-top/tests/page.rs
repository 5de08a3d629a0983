//! Pages of comparisons that hardly occur: hostile names, numbers that are none, no race, nothing at all.

use treadle_core::choice::Comparison;
use treadle_core::choice::comparison::Outcome;
use treadle_top::html::{Origin, page};

/// A comparison as `--json` writes it, with two candidates, a curve and a race.
fn comparison() -> Comparison {
    serde_json::from_value(serde_json::json!({
        "schema": 1, "target": "work:fetch", "target_file": "/srv/work.py", "source_hash": "ab12",
        "asynchronous": false,
        "items": {"count": 400, "spec": "range:400", "truncated": false, "star": false},
        "machine": {
            "usable_cores": 2.0, "affinity": 2, "quota": null, "physical_cores": null, "python": "3.11.7",
            "implementation": "cpython", "gil": true, "noise": "quiet", "noise_grounds": [],
            "readings": {"pressure_before": 0.01, "cores_share": 0.99, "run_queue_share": null, "steal_share": null},
            "noise_ignored": false, "cpu": null, "kernel": null, "memory_available_bytes": null,
            "memory_limit_bytes": null
        },
        "profile": {
            "count": 40, "errors": 0, "first_error": null, "wall_s": 0.005, "wall_p50_s": 0.005,
            "wall_p99_s": 0.007, "wall_max_s": 0.009, "gil_cpu_s": null, "gil_blocked_s": null,
            "free_cpu_s": null, "thread_cpu_s": 0.001, "native_cpu_s": 0.0, "wait_s": 0.004,
            "run_queue_s": null, "native_threads": null, "first_call_s": null, "argument_bytes": 16.0,
            "result_bytes": 5.0, "pickle_s": 2e-6, "argument_dumps_s": null, "argument_loads_s": null,
            "result_dumps_s": null, "result_loads_s": null, "pickle": {}, "peak_rss_bytes": null,
            "rss_growth_bytes": null, "worker_rss_bytes": null, "worker_start_s": {}, "pilot": null,
            "class": "io-bound"
        },
        "candidates": [
            {"plan": {}, "predicted_per_s": 200.0, "predicted_low_per_s": 200.0, "measured_per_s": 197.0,
             "interval_per_s": [196.0, 198.0], "batch_per_s": 197.0, "speedup": null, "p50_s": 0.005,
             "p99_s": 0.007, "cpu_cores": 0.2, "peak_memory_bytes": 16e6, "memory_kind": "pss", "start_s": 0.0,
             "errors": 0, "tasks": 800, "blocks": 8, "limit": "one task at a time", "outcome": "slower",
             "reason": "87 % slower"},
            {"plan": {"threads": 8}, "predicted_per_s": 1600.0, "predicted_low_per_s": 1600.0,
             "measured_per_s": 1523.0, "interval_per_s": [1490.0, 1555.0], "batch_per_s": 1500.0,
             "speedup": [7.7, 7.5, 7.9], "p50_s": 0.005, "p99_s": 0.008, "cpu_cores": 1.5,
             "peak_memory_bytes": 18e6, "memory_kind": "pss", "start_s": 0.001, "errors": 3, "tasks": 6400,
             "blocks": 8, "limit": "waiting: 8 tasks at once", "outcome": "chosen", "reason": "the fastest"}
        ],
        "curves": [{"strategy": "threads", "points": [[1, 200.0], [2, 400.0], [4, 800.0], [8, 1600.0]]}],
        "race": {"elapsed_s": 6.0, "budget_s": 30.0, "finish": "leader-clear", "seed": 7, "warmed_up": true},
        "targets": ["throughput=150/s", "p99=1ms"],
        "profile_only": false,
        "decision": {"plan": {"threads": 8}, "reason": "Use threads=8.", "confidence": "high",
                     "missed_targets": ["p99=1ms is missed by 700 %"], "code": "with treadle.Executor(threads=8) as executor: results = list(executor.map(fetch, items))"}
    }))
    .expect("a comparison")
}

fn rendered(comparison: &Comparison) -> String {
    page(
        comparison,
        &Origin {
            command: Some("treadle compare work:fetch --items range:400".to_owned()),
            date: "2026-11-22".to_owned(),
        },
    )
}

#[test]
fn the_page_says_it_all_in_order() {
    let text = rendered(&comparison());
    let mut from = 0;
    for part in [
        "<!DOCTYPE html>",
        "No plan meets the targets; 8 threads comes nearest",
        "with treadle.Executor(threads=8) as executor",
        "<h2 id=\"why\"",
        "<h2 id=\"targets\"",
        "met</span> <code>throughput=150/s",
        "missed</span> p99=1ms is missed by 700 %",
        "<h2 id=\"curves\"",
        "<h2 id=\"time\"",
        "not measured",
        "<h2 id=\"durations\"",
        "<h2 id=\"candidates\"",
        "value=\"1523\"",
        "<h2 id=\"confidence\"",
        "<h2 id=\"machine\"",
        "treadle compare work:fetch --items range:400 --seed 7",
        "2026-11-22",
    ] {
        let found = text[from..].find(part);
        let found = found.unwrap_or_else(|| panic!("{part} is not after byte {from} in\n{text}"));
        from += found;
    }
}

#[test]
fn nothing_of_the_comparison_becomes_markup() {
    let hostile = "<script>alert('&')</script>\"><img src=x onerror=1>";
    let mut comparison = comparison();
    comparison.target = hostile.to_owned();
    comparison.target_file = Some(hostile.to_owned());
    comparison.source_hash = Some(hostile.to_owned());
    comparison.items.spec = hostile.to_owned();
    comparison.machine.python = hostile.to_owned();
    comparison.machine.implementation = hostile.to_owned();
    comparison.machine.noise = hostile.to_owned();
    comparison.machine.noise_grounds = vec![hostile.to_owned()];
    comparison.machine.cpu = Some(hostile.to_owned());
    comparison.machine.kernel = Some(hostile.to_owned());
    comparison.targets = vec![hostile.to_owned(), "p99".to_owned()];
    comparison.decision.missed_targets = vec![format!("p99 {hostile}")];
    comparison.decision.reason = hostile.to_owned();
    comparison.decision.code = Some(hostile.to_owned());
    comparison.curves[0].strategy = hostile.to_owned();
    comparison.profile.first_error = serde_json::from_value(serde_json::json!({
        "index": 3, "type": hostile, "message": hostile, "traceback": hostile
    }))
    .expect("an error");
    if let Some(race) = &mut comparison.race {
        race.finish = hostile.to_owned();
    }
    for one in &mut comparison.candidates {
        one.limit = hostile.to_owned();
        one.reason = hostile.to_owned();
        one.memory_kind = Some(hostile.to_owned());
    }
    let text = page(
        &comparison,
        &Origin {
            command: Some(hostile.to_owned()),
            date: hostile.to_owned(),
        },
    );
    assert!(
        !text.contains("<script") && !text.contains("<img"),
        "{text}"
    );
    assert!(
        !text.contains("\"><img") && text.matches("&lt;script&gt;").count() > 20,
        "{text}"
    );
}

#[test]
fn numbers_that_are_none_are_dashes() {
    let mut comparison = comparison();
    comparison.profile.wall_s = f64::NAN;
    comparison.profile.wait_s = f64::INFINITY;
    comparison.profile.walls = vec![f64::NAN, 0.0, f64::INFINITY];
    comparison.curves[0].points = vec![(0, f64::NAN), (1, f64::INFINITY), (2, 0.0)];
    for one in &mut comparison.candidates {
        one.predicted_per_s = f64::INFINITY;
        one.measured_per_s = Some(f64::NAN);
        one.interval_per_s = Some([f64::NAN, f64::INFINITY]);
        one.speedup = Some([f64::NAN, 0.0, f64::INFINITY]);
    }
    let text = rendered(&comparison);
    let (_, text) = text.split_once("</style>").expect("a style sheet");
    for word in ["NaN", "inf\"", "inf<", "inf ", "-0.0"] {
        assert!(!text.contains(word), "{word} in\n{text}");
    }
}

#[test]
fn coordinates_stay_numbers_in_every_odd_chart() {
    let mut comparison = comparison();
    comparison.profile.walls = vec![0.005; 30];
    comparison.candidates[1].interval_per_s = Some([-5.0, 1e12]);
    comparison.candidates[0].measured_per_s = Some(1e-9);
    comparison.curves[0].points = vec![(1, 1e-9), (100_000, 1e9)];
    let text = rendered(&comparison);
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    comparison.profile.walls = vec![1e-9, 1e-3, 5.0, 5.0, 5.0, 5.0, 5.0, 1e4];
    let text = rendered(&comparison);
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
}

#[test]
fn without_a_race_there_is_a_page_that_says_so() {
    let mut comparison = comparison();
    comparison.race = None;
    comparison.decision.plan = None;
    comparison.decision.code = None;
    for one in &mut comparison.candidates {
        one.measured_per_s = None;
        one.interval_per_s = None;
        one.speedup = None;
        one.outcome = Outcome::NotRaced;
    }
    comparison.machine.noise = "noisy".to_owned();
    let text = rendered(&comparison);
    assert!(
        text.contains("Cannot tell: the machine is too noisy"),
        "{text}"
    );
    assert!(text.contains("Nothing was raced") && text.contains("not judged"));
    comparison.profile_only = true;
    let text = rendered(&comparison);
    assert!(text.contains("Measured, not decided"), "{text}");
    assert!(text.contains("run it again without --profile-only"));
    comparison.candidates.clear();
    comparison.curves.clear();
    let text = rendered(&comparison);
    assert!(text.contains("There is no curve to draw") && text.contains("There is no candidate"));
}

#[test]
fn the_split_takes_the_place_of_what_was_not_measured() {
    let mut comparison = comparison();
    let estimate =
        |mean: f64| serde_json::json!({"mean_s": mean, "low_s": mean * 0.9, "high_s": mean * 1.1});
    comparison.profile.split = serde_json::from_value(serde_json::json!({
        "samples": 2000, "rate_hz": 1000.0, "gil_cpu": estimate(0.0008), "gil_blocked": estimate(0.0001),
        "free_cpu": estimate(0.0001), "wait": estimate(0.004), "native_cpu": estimate(0.002),
        "run_queue": estimate(0.0), "releases_per_task": 3.5, "overhead": 0.004
    }))
    .expect("a split");
    let text = rendered(&comparison);
    for part in [
        "CPU with the interpreter lock",
        "blocked with the lock",
        "CPU without the lock",
        "CPU of helpers",
        "value=\"0.0008\"",
        "value=\"0.002\"",
        "value=\"3.5\"",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("<strong>not measured"), "{text}");
}
