//! The choice against a scripted laboratory: outcomes, failures, what is left behind, and records.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

use treadle_core::choice::compare::Silent;
use treadle_core::choice::comparison::{Confidence, Outcome};
use treadle_core::choice::laboratory::Surroundings;
use treadle_core::choice::model::Model;
use treadle_core::choice::plan::{Plan, Strategy};
use treadle_core::choice::record::{self, Evidence, FILE, Saved, Saving, Status};
use treadle_core::choice::{
    ChoiceError, Comparison, Observer, Progress, Request, compare, compare_json, load_decision,
};

fn request(script: &str) -> Request {
    Request {
        budget_s: 20.0,
        plans: Some("threads=2;processes=2".to_owned()),
        ignore_noise: true,
        seed: Some(1),
        laboratory: Some(vec![
            std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned()),
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/laboratory.py").to_owned(),
        ]),
        ..Request::new(script, "range:1000")
    }
}

fn calm() -> bool {
    false
}

fn run(request: &Request) -> Result<Comparison, ChoiceError> {
    compare(
        request,
        &mut Silent,
        Surroundings {
            clock: &treadle_probe::clock::monotonic,
            interrupted: &calm,
        },
    )
}

fn outcome(comparison: &Comparison, plan: Plan) -> (Outcome, String) {
    let candidate = comparison
        .candidates
        .iter()
        .find(|one| one.plan == plan)
        .expect("the plan is among the candidates");
    (candidate.outcome, candidate.reason.clone())
}

#[test]
fn computing_chooses_processes_and_tells_why() {
    let comparison = run(&request("cpu")).unwrap();
    assert_eq!(comparison.decision.plan, Some(Plan::processes(2)));
    assert_eq!(comparison.exit_code(), 0);
    assert_eq!(outcome(&comparison, Plan::SERIAL).0, Outcome::Slower);
    assert_eq!(outcome(&comparison, Plan::threads(2)).0, Outcome::Slower);
    let race = comparison.race.as_ref().unwrap();
    assert_eq!((race.finish.as_str(), race.seed), ("leader-clear", 1));
    let reason = &comparison.decision.reason;
    assert!(
        reason.contains("processes=2") && reason.contains("two threads together"),
        "{reason}"
    );
    let chosen = comparison
        .candidates
        .iter()
        .find(|one| one.outcome == Outcome::Chosen)
        .unwrap();
    let [low, high] = chosen.interval_per_s.unwrap();
    assert!(low <= 1900.0 && 1900.0 <= high);
    assert!(
        chosen.blocks >= 3 && chosen.p99_s == Some(0.001) && chosen.peak_memory_bytes == Some(3e7)
    );
}

#[test]
fn waiting_chooses_threads() {
    let mut request = request("wait");
    request.plans = None;
    let comparison = run(&request).unwrap();
    assert!(comparison.decision.plan.unwrap().threads.is_some());
    assert_eq!(comparison.profile.class.name(), "io-bound");
    let reason = &comparison.decision.reason;
    assert!(reason.contains("waits for"), "{reason}");
}

/// Counts the processes that were started for candidates.
#[derive(Default)]
struct Starts(Vec<Plan>);

impl Observer for Starts {
    fn progress(&mut self, progress: &Progress) {
        if let Progress::Starting { plan } = progress {
            self.0.push(*plan);
        }
    }
}

fn run_counting(request: &Request) -> (Comparison, Vec<Plan>) {
    let mut starts = Starts::default();
    let surroundings = Surroundings {
        clock: &treadle_probe::clock::monotonic,
        interrupted: &calm,
    };
    let comparison = compare(request, &mut starts, surroundings).expect("the script decides");
    (comparison, starts.0)
}

#[test]
fn an_obvious_case_takes_two_processes_and_two_counted_rounds() {
    let mut request = request("far");
    request.plans = None;
    let (comparison, starts) = run_counting(&request);
    let chosen = comparison.decision.plan.unwrap();
    assert_eq!(chosen, Plan::threads(256));
    assert_eq!(starts, [Plan::SERIAL, chosen]);
    let race = comparison.race.as_ref().unwrap();
    assert_eq!((race.rounds, race.finish.as_str()), (2, "leader-clear"));
    assert!(
        !comparison
            .decision
            .doubts
            .contains(&"three-blocks".to_owned()),
        "{:?}",
        comparison.decision.doubts
    );
    // Smaller sizes were not needed, and what a process costs was not asked.
    let (outcome, reason) = outcome(&comparison, Plan::threads(64));
    assert_eq!(outcome, Outcome::NotRaced);
    assert!(reason.contains("cannot do more than 1,280/s"), "{reason}");
    assert_eq!(comparison.profile.worker_start_s.process, None);
    assert_eq!(comparison.handover.processes, None);
    // Two blocks do not show their spread: the interval is that of the assumed one.
    let [times, low, high] = comparison
        .candidates
        .iter()
        .find(|one| one.plan == chosen)
        .and_then(|one| one.speedup)
        .unwrap();
    assert!(
        low < 0.5 * times && 2.0 * times < high && low > 10.0,
        "{low} {high}"
    );
}

#[test]
fn smaller_sizes_race_where_the_best_does_less_than_was_promised() {
    // Whatever is outside bears twenty at once, and no more.
    let mut request = request("wait");
    request.plans = None;
    let (comparison, starts) = run_counting(&request);
    assert_eq!(starts[..2], [Plan::SERIAL, Plan::threads(256)]);
    assert_eq!(starts[2..], [Plan::threads(64)]);
    assert_eq!(
        comparison.decision.plan,
        Some(Plan::threads(64)),
        "as fast, and simpler"
    );
    let (outcome, reason) = outcome(&comparison, Plan::threads(16));
    assert_eq!(outcome, Outcome::NotRaced, "{reason}");
    assert!(reason.contains("cannot do more than 320/s"), "{reason}");
}

#[test]
fn a_strategy_that_a_prediction_shuts_out_races_where_that_prediction_fails() {
    let apart = |comparison: &Comparison| {
        comparison
            .candidates
            .iter()
            .find(|one| one.plan.strategy() == Strategy::Processes)
            .map(|one| (one.outcome, one.plan, one.reason.clone()))
            .expect("processes are among the candidates")
    };
    let mut request = request("far");
    request.plans = None;
    let (comparison, starts) = run_counting(&request);
    let (outcome, plan, reason) = apart(&comparison);
    assert!(!starts.contains(&plan), "{starts:?}");
    assert_eq!(outcome, Outcome::NotRaced);
    assert!(reason.contains("far below the best"), "{reason}");
    // The profile is the same, and so are the predictions; but threads do half of what the plain loop does.
    request.target = Some("apart".to_owned());
    let (comparison, starts) = run_counting(&request);
    let (outcome, plan, reason) = apart(&comparison);
    assert!(starts.contains(&plan), "{starts:?}");
    assert_eq!(outcome, Outcome::Chosen, "{reason}");
    assert_eq!(comparison.decision.plan, Some(plan));
}

#[test]
fn a_comparison_read_back_predicts_the_same_again() {
    let comparison = run(&request("cpu")).unwrap();
    let text = serde_json::to_string(&comparison).unwrap();
    let read: Comparison = serde_json::from_str(&text).unwrap();
    let setting = read.setting();
    let model = Model::new(&read.profile, &setting);
    assert!(comparison.prediction_sentence().is_some());
    for candidate in &comparison.candidates {
        let again = model.predict(candidate.plan).per_s;
        let error = again / candidate.predicted_per_s - 1.0;
        // The noise may have been judged anew after the race; the likely reading does not depend on it.
        assert!(error.abs() < 1e-9, "{}: {error}", candidate.plan.label());
        let measured = candidate.measured_per_s.unwrap();
        let error = candidate.predicted_per_s / measured - 1.0;
        assert!((candidate.prediction_error.unwrap() - error).abs() < 1e-12);
    }
}

#[test]
fn equals_choose_the_plain_loop() {
    let comparison = run(&request("same")).unwrap();
    assert_eq!(comparison.decision.plan, Some(Plan::SERIAL));
    assert!(
        comparison
            .decision
            .reason
            .starts_with("Keep the plain loop")
    );
    assert_eq!(
        outcome(&comparison, Plan::threads(2)).0,
        Outcome::Equivalent
    );
}

#[test]
fn some_errors_are_counted() {
    let comparison = run(&request("some")).unwrap();
    assert_eq!(comparison.profile.errors, 4);
    assert_eq!(comparison.exit_code(), 0);
    assert!(
        comparison
            .candidates
            .iter()
            .all(|one| one.errors > 0 && one.outcome != Outcome::Infeasible)
    );
}

#[test]
fn the_json_has_the_fixed_keys() {
    let value = serde_json::to_value(run(&request("cpu")).unwrap()).unwrap();
    assert_eq!(value["schema"], 1);
    assert_eq!(value["items"]["count"], 1000);
    for key in ["usable_cores", "python", "gil", "noise"] {
        assert!(!value["machine"][key].is_null(), "{key}");
    }
    for key in [
        "wall_s",
        "gil_cpu_s",
        "gil_blocked_s",
        "free_cpu_s",
        "wait_s",
        "native_cpu_s",
        "argument_bytes",
        "result_bytes",
        "pickle_s",
        "peak_rss_bytes",
        "class",
    ] {
        assert!(value["profile"].get(key).is_some(), "{key}");
    }
    for candidate in value["candidates"].as_array().unwrap() {
        for key in [
            "plan",
            "predicted_per_s",
            "measured_per_s",
            "interval_per_s",
            "p50_s",
            "p99_s",
            "cpu_cores",
            "peak_memory_bytes",
            "errors",
            "limit",
            "outcome",
            "reason",
        ] {
            assert!(candidate.get(key).is_some(), "{key}");
        }
    }
    assert_eq!(value["candidates"][0]["plan"], serde_json::json!({}));
    assert_eq!(
        value["decision"]["plan"],
        serde_json::json!({"processes": 2})
    );
    let again: Comparison = serde_json::from_value(value).unwrap();
    assert_eq!(again.schema, 1);
}

#[test]
fn a_crash_names_its_input() {
    for (script, words) in [
        ("exit", ["input 5", "exit code 3"]),
        ("crash", ["input 2", "SIGSEGV"]),
    ] {
        let error = run(&request(script)).unwrap_err();
        assert_eq!(error.exit_code(), 4);
        assert!(
            words.iter().all(|word| error.to_string().contains(word)),
            "{error}"
        );
        assert_eq!(error.detail(), Some("this goes to standard error"));
    }
}

/// Jumps a clock forward at every look once something happens, so that hangs take the test little time; the jump is small
/// against every deadline, so that the process has looks enough to come to its hang.
struct Jumper<'a, F: Fn(&Progress) -> bool> {
    step: &'a Cell<f64>,
    when: F,
}

impl<F: Fn(&Progress) -> bool> Observer for Jumper<'_, F> {
    fn progress(&mut self, progress: &Progress) {
        self.step.set(if (self.when)(progress) { 0.1 } else { 0.0 });
    }
}

fn run_jumping(
    request: &Request,
    when: impl Fn(&Progress) -> bool,
) -> Result<Comparison, ChoiceError> {
    let (now, step) = (Cell::new(0.0), Cell::new(0.0));
    let clock = || {
        now.set(now.get() + step.get());
        now.get()
    };
    let mut observer = Jumper { step: &step, when };
    compare(
        request,
        &mut observer,
        Surroundings {
            clock: &clock,
            interrupted: &calm,
        },
    )
}

#[test]
fn a_hang_is_bounded_and_names_its_input() {
    let error = run_jumping(&request("hang"), |progress| {
        matches!(progress, Progress::Profiling { .. })
    })
    .unwrap_err();
    assert_eq!(error.exit_code(), 4);
    let text = error.to_string();
    assert!(text.contains("input 7 did not return within"), "{text}");
    assert!(error.hint().unwrap().contains("--budget"));
}

#[test]
fn an_input_that_ends_or_stops_any_plan_is_the_functions_failure() {
    let error = run(&request("rare-exit")).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    let text = error.to_string();
    assert!(
        text.contains("input 437 ended")
            && text.contains("exit code 7")
            && text.contains("threads=2"),
        "{text}"
    );
    let threads = |progress: &Progress| matches!(progress, Progress::Racing { plan, .. } if plan.threads.is_some());
    let mut patient = request("rare-hang");
    patient.budget_s = 1e4;
    let text = run_jumping(&patient, threads).unwrap_err().to_string();
    assert!(
        text.contains("input 437 did not return") && text.contains("again serially"),
        "{text}"
    );
}

#[test]
fn an_input_that_stops_only_one_plan_is_that_plans_failure() {
    let threads = |progress: &Progress| matches!(progress, Progress::Racing { plan, .. } if plan.threads.is_some());
    let mut patient = request("deadlock");
    patient.budget_s = 1e4;
    let comparison = run_jumping(&patient, threads).unwrap();
    let (outcome, reason) = outcome(&comparison, Plan::threads(2));
    assert_eq!(outcome, Outcome::Infeasible);
    assert!(
        reason.contains("did not answer") && reason.contains("437"),
        "{reason}"
    );
    assert_eq!(comparison.decision.plan, Some(Plan::processes(2)));
}

#[test]
fn an_interrupt_ends_it_and_leaves_no_process() {
    let name = std::env::temp_dir().join(format!("treadle-family-{}", std::process::id()));
    let seen = RefCell::new(Vec::<u32>::new());
    let interrupted = || {
        if let Ok(text) = std::fs::read_to_string(&name) {
            *seen.borrow_mut() = text.split(' ').map(|word| word.parse().unwrap()).collect();
        }
        !seen.borrow().is_empty()
    };
    let script = format!("family={}", name.display());
    let error = compare(
        &request(&script),
        &mut Silent,
        Surroundings {
            clock: &treadle_probe::clock::monotonic,
            interrupted: &interrupted,
        },
    )
    .unwrap_err();
    std::fs::remove_file(&name).unwrap();
    assert_eq!(
        (error.clone(), error.exit_code()),
        (ChoiceError::Interrupted, 130)
    );
    for process in seen.into_inner() {
        let state = std::fs::read_to_string(format!("/proc/{process}/stat"))
            .ok()
            .and_then(|text| treadle_probe::process::parse_state(&text));
        assert!(
            matches!(state, None | Some('Z' | 'X')),
            "process {process} is left: {state:?}"
        );
    }
}

#[test]
fn failures_of_rivals_are_their_own() {
    let cases = [
        ("unpicklable", "result.lock"),
        ("lost", "exit code 9"),
        ("lossy", "KeyError"),
        ("nostart", "did not start"),
    ];
    for (script, word) in cases {
        let comparison = run(&request(script)).unwrap();
        let (outcome, reason) = outcome(&comparison, Plan::processes(2));
        assert_eq!(outcome, Outcome::Infeasible, "{script}: {reason}");
        assert!(reason.contains(word), "{script}: {reason}");
        assert!(comparison.decision.plan.is_some());
    }
}

#[test]
fn failures_of_the_function_and_of_the_request() {
    for (script, code, word) in [
        ("fails", 4, "every input"),
        ("refused", 2, "no module"),
        ("garbage", 4, "protocol"),
    ] {
        let error = run(&request(script)).unwrap_err();
        assert_eq!(error.exit_code(), code, "{script}: {error}");
        assert!(error.to_string().contains(word), "{script}: {error}");
        assert!(error.hint().is_some());
    }
    let mut nowhere = request("cpu");
    nowhere.laboratory = None;
    nowhere.python = Some("/nonexistent/python".to_owned());
    assert_eq!(run(&nowhere).unwrap_err().exit_code(), 2);
    let mut nothing = request("cpu");
    nothing.budget_s = 0.0;
    assert_eq!(run(&nothing).unwrap_err().exit_code(), 2);
}

#[test]
fn targets_decide_and_misses_are_told() {
    let mut met = request("cpu");
    met.targets = Some("throughput=1500/s".to_owned());
    assert_eq!(
        run(&met).unwrap().decision.missed_targets,
        Vec::<String>::new()
    );
    let mut missed = request("cpu");
    missed.targets = Some("throughput=3800/s".to_owned());
    let decision = run(&missed).unwrap().decision;
    assert_eq!(decision.plan, Some(Plan::processes(2)));
    assert!(
        decision.missed_targets[0].contains("missed by"),
        "{decision:?}"
    );
    assert!(decision.reason.starts_with("No plan meets the targets"));
}

#[test]
fn a_race_among_others_is_told_as_what_it_is() {
    // Overridden, it decides with little confidence; heeded, it cannot tell, before the race or after it.
    let comparison = run(&request("crowded")).unwrap();
    let race = comparison.race.as_ref().unwrap();
    assert!(race.contended && race.disturbed_rounds == race.rounds && race.rounds >= 3);
    assert!((race.control_delay.unwrap() - 0.4).abs() < 1e-9);
    assert_eq!(comparison.decision.plan, Some(Plan::processes(2)));
    assert_eq!(comparison.decision.confidence, Confidence::Low);
    for doubt in ["quiet-machine", "gate-heeded", "undisturbed-rounds"] {
        assert!(
            comparison.decision.doubts.iter().any(|one| one == doubt),
            "{doubt}: {:?}",
            comparison.decision.doubts
        );
    }
    let advice = "run it again when nothing else runs";
    assert!(comparison.decision.reason.contains(advice));
    let mut heeding = request("crowded");
    heeding.ignore_noise = false;
    let comparison = run(&heeding).unwrap();
    assert_eq!(
        (comparison.decision.plan, comparison.exit_code()),
        (None, 3)
    );
    assert!(comparison.decision.reason.starts_with("Cannot tell"));
}

#[test]
fn no_input_twice_divides_what_the_sample_left() {
    let mut once = request("cpu");
    once.once = true;
    let comparison = run(&once).unwrap();
    assert!(comparison.items.once);
    let race = comparison.race.as_ref().unwrap();
    let left = race.inputs_left.unwrap();
    let tasks: u64 = comparison.candidates.iter().map(|one| one.tasks).sum();
    assert!(
        left + tasks < 980 && tasks > 0,
        "{left} left, {tasks} counted"
    );
    let mut many = once.clone();
    many.plans = Some("threads=500".to_owned());
    let comparison = run(&many).unwrap();
    assert_eq!(
        (comparison.exit_code(), comparison.race.is_none()),
        (3, true)
    );
    assert!(comparison.decision.reason.contains("too few for a race"));
    let (outcome, _) = outcome(&comparison, Plan::threads(500));
    assert_eq!(outcome, Outcome::NotRaced);
}

#[test]
fn json_in_json_out_heeding_the_environment() {
    let surroundings = Surroundings {
        clock: &treadle_probe::clock::monotonic,
        interrupted: &calm,
    };
    let text = serde_json::to_string(&Request {
        ignore_noise: false,
        ..request("cpu")
    })
    .unwrap();
    let ignore = |name: &str| (name == "TREADLE_NOISE").then(|| "ignore".to_owned());
    let answer = compare_json(&text, &ignore, &mut Silent, surroundings).unwrap();
    let answer: Comparison = serde_json::from_str(&answer).unwrap();
    assert!(answer.machine.noise_ignored && answer.decision.plan.is_some());
    for (wrong, noise) in [("{\"speed\": 1}", "ignore"), (text.as_str(), "maybe")] {
        let environment = |_: &str| Some(noise.to_owned());
        let error = compare_json(wrong, &environment, &mut Silent, surroundings).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn profile_only_decides_nothing() {
    let mut request = request("cpu");
    request.profile_only = true;
    let comparison = run(&request).unwrap();
    assert_eq!(comparison.decision.plan, None);
    assert_eq!(comparison.decision.confidence, Confidence::None);
    assert_eq!(comparison.exit_code(), 0);
    assert!(comparison.race.is_none());
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("treadle-record-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the test");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("the file was written")
}

#[test]
fn a_record_is_written_read_and_written_again() {
    let folder = Folder::new("again");
    let settings = folder.0.join(FILE);
    std::fs::write(&settings, "# ours\n[other]\nkey = 1 # kept\n").unwrap();
    let comparison = run(&request("cpu")).unwrap();
    let saved = save(&comparison, "thumbnails", &folder.0, "2026-11-22").unwrap();
    assert!(saved.page.ends_with("docs/decisions/0001-thumbnails.md"));
    let text = read(&settings);
    assert!(
        text.starts_with("# ours\n[other]\nkey = 1 # kept\n"),
        "{text}"
    );
    assert!(
        text.contains("[decision.thumbnails]") && text.contains("plan = { processes = 2 }"),
        "{text}"
    );
    assert_eq!(
        load_decision(&folder.0, "thumbnails").unwrap(),
        Plan::processes(2)
    );
    // From a folder below, and after people added to the page.
    assert_eq!(
        load_decision(&folder.0.join("docs/decisions"), "thumbnails").unwrap(),
        Plan::processes(2)
    );
    let page = read(&saved.page);
    for heading in [
        "## Context",
        "## Decision Drivers",
        "## Considered Options",
        "## Decision Outcome",
        "### Consequences",
        "### Confirmation",
        "treadle check thumbnails",
        "## Revisit when",
    ] {
        assert!(page.contains(heading), "{heading}");
    }
    std::fs::write(&saved.page, format!("{page}\nAgreed by all.\n")).unwrap();
    let second = run(&request("same")).unwrap();
    let again = save(&second, "thumbnails", &folder.0, "2026-11-23").unwrap();
    assert_eq!(again.page, saved.page);
    let page = read(&again.page);
    assert!(
        page.contains("Agreed by all.")
            && page.contains("date: 2026-11-23")
            && page.contains("superseded on 2026-11-23"),
        "{page}"
    );
    assert_eq!(
        load_decision(&folder.0, "thumbnails").unwrap(),
        Plan::SERIAL
    );
    let other = save(&comparison, "other", &folder.0, "2026-11-23").unwrap();
    assert!(other.page.ends_with("0002-other.md"));
    let text = read(&other.evidence);
    assert!(
        text.lines()
            .any(|line| line.contains("\"interval_per_s\": [") && line.ends_with("],")),
        "numbers of a list stand on one line"
    );
    let evidence: Evidence = serde_json::from_str(&text).unwrap();
    assert_eq!(evidence.comparison.decision, comparison.decision);
    assert_eq!(evidence.margin.unwrap().plan, Plan::SERIAL);
    assert!(evidence.revisit.iter().any(|one| one.fact == "cpu_share"));
    let left: Vec<_> = std::fs::read_dir(&folder.0)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left.len(), 2, "no temporary file is left: {left:?}");
}

#[test]
fn a_record_names_the_functions_file_for_a_reader_elsewhere() {
    let folder = Folder::new("file");
    let ours = folder.0.join("src/work.py");
    std::fs::create_dir_all(ours.parent().expect("it has one")).unwrap();
    std::fs::write(&ours, "").unwrap();
    let mut comparison = run(&request("cpu")).unwrap();
    for (file, named) in [
        (ours.to_str().expect("a path of letters"), "src/work.py"),
        ("/nowhere/python3.11/hashlib.py", "hashlib.py"),
    ] {
        comparison.target_file = Some(file.to_owned());
        let saved = save(&comparison, "work", &folder.0, "2026-11-22").unwrap();
        let evidence: Evidence = serde_json::from_str(&read(&saved.evidence)).unwrap();
        assert_eq!(evidence.comparison.target_file.as_deref(), Some(named));
    }
}

#[test]
fn missing_and_damaged_records_are_told() {
    let folder = Folder::new("damaged");
    let check = |text: &str, word: &str| {
        std::fs::write(folder.0.join(FILE), text).unwrap();
        let error = load_decision(&folder.0, "thumbnails").unwrap_err();
        let all = format!("{error} {:?} {:?}", error.hint(), error.detail());
        assert!(all.contains(word), "{all}");
    };
    check("", "no decision `thumbnails`");
    check("[decision.other]\nplan = {}\n", "recorded are: other");
    check("[decision.thumbnails]\n", "is missing");
    check("[decision.thumbnails]\nplan = { fibers = 2 }\n", "fibers");
    check(
        "[decision.thumbnails]\nplan = { threads = \"two\" }\n",
        "whole number",
    );
    check(
        "[decision.thumbnails]\nplan = { threads = 0 }\n",
        "threads=0",
    );
    check("[decision\n", "not valid TOML");
    assert!(
        save(
            &run(&self::request("cpu")).unwrap(),
            "../up",
            &folder.0,
            "2026-11-22"
        )
        .is_err()
    );
}

#[test]
fn what_was_only_predicted_is_proposed_and_a_race_accepts_it() {
    let folder = Folder::new("proposed");
    let mut guess = request("cpu");
    guess.profile_only = true;
    let comparison = run(&guess).unwrap();
    let saved = save(&comparison, "guess", &folder.0, "2026-11-22").unwrap();
    assert_eq!(saved.status, Status::Proposed);
    assert_eq!(saved.plan, Plan::processes(2));
    let page = read(&saved.page);
    assert!(
        page.contains("status: proposed") && page.contains("No race has confirmed it"),
        "{page}"
    );
    assert!(read(&folder.0.join(FILE)).contains("status = \"proposed\""));
    let raced = run(&request("cpu")).unwrap();
    let again = save(&raced, "guess", &folder.0, "2026-11-23").unwrap();
    assert_eq!((again.status, &again.page), (Status::Accepted, &saved.page));
    let page = read(&again.page);
    assert!(
        page.contains("- 2026-11-22: processes=2 (proposed), superseded on 2026-11-23"),
        "{page}"
    );
}

#[test]
fn what_people_wrote_stays_wherever_it_stands() {
    let folder = Folder::new("people");
    let comparison = run(&request("cpu")).unwrap();
    let saved = save(&comparison, "jobs", &folder.0, "2026-11-22").unwrap();
    let page = read(&saved.page)
        .replace(
            "status: accepted",
            "deciders: [Ada, Grace]\nstatus: accepted",
        )
        .replace(
            "## Decision Drivers",
            "Ada wants it simple.\n\n## What drives it",
        )
        .replace(
            "- The fastest plan is wanted",
            "- The fastest plan is wanted, says Grace",
        );
    std::fs::write(&saved.page, page).unwrap();
    let settings = folder.0.join(FILE);
    let text = read(&settings)
        .replace(
            "[decision.jobs]",
            "# the nightly jobs\n[decision.jobs]\nowner = \"Ada\" # ask her",
        )
        .replace(
            "plan = { processes = 2 }",
            "# of two cores\nplan = { processes = 2 } # measured",
        );
    std::fs::write(&settings, text).unwrap();
    let second = run(&request("same")).unwrap();
    save(&second, "jobs", &folder.0, "2026-11-23").unwrap();
    let page = read(&saved.page);
    for kept in [
        "deciders: [Ada, Grace]",
        "Ada wants it simple.",
        "## What drives it",
        "> - The fastest plan is wanted, says Grace",
        "moved here on 2026-11-23",
        "- 2026-11-22: processes=2 with",
    ] {
        assert!(page.contains(kept), "{kept} in {page}");
    }
    assert_eq!(page.matches("\n# jobs: run").count(), 1, "{page}");
    assert!(!page.contains("## Decision Drivers"), "{page}");
    let text = read(&settings);
    for kept in [
        "# the nightly jobs",
        "owner = \"Ada\" # ask her",
        "# of two cores\n",
        "# measured",
    ] {
        assert!(text.contains(kept), "{kept} in {text}");
    }
    assert!(text.contains("plan = {}"), "{text}");
    // A third time: what was moved to the notes is not moved again.
    save(&second, "jobs", &folder.0, "2026-11-24").unwrap();
    assert_eq!(read(&saved.page).matches("says Grace").count(), 1);
}

#[test]
fn a_name_keeps_its_number_and_damage_loses_no_page() {
    let folder = Folder::new("number");
    let comparison = run(&request("cpu")).unwrap();
    let first = save(&comparison, "one", &folder.0, "2026-11-22").unwrap();
    save(&comparison, "two", &folder.0, "2026-11-22").unwrap();
    std::fs::remove_file(folder.0.join(FILE)).unwrap();
    std::fs::write(&first.evidence, "{").unwrap();
    std::fs::write(&first.page, "all by hand\n").unwrap();
    let again = save(&comparison, "one", &folder.0, "2026-11-23").unwrap();
    assert_eq!(again.page, first.page);
    let page = read(&again.page);
    assert!(page.ends_with("## Notes\n\nall by hand\n"), "{page}");
    assert_eq!(
        record::numbering(&folder.0.join(record::FOLDER)),
        Vec::<String>::new()
    );
    std::fs::write(folder.0.join("docs/decisions/0002-one.md"), "").unwrap();
    let told = record::numbering(&folder.0.join(record::FOLDER));
    assert!(
        told.iter().any(|one| one.contains("number 0002"))
            && told.iter().any(|one| one.contains("`one` has two records")),
        "{told:?}"
    );
}

#[test]
fn the_nearest_file_is_written_from_below() {
    let folder = Folder::new("below");
    let below = folder.0.join("tools");
    std::fs::create_dir_all(&below).unwrap();
    let comparison = run(&request("cpu")).unwrap();
    std::fs::write(folder.0.join(FILE), "").unwrap();
    let saved = save(&comparison, "jobs", &below, "2026-11-22").unwrap();
    assert_eq!(saved.settings, folder.0.join(FILE));
    assert!(read(&saved.settings).contains("folder = \"tools\""));
}

#[test]
fn a_folder_that_cannot_be_written_is_told_before_anything_runs() {
    let folder = Folder::new("unwritable");
    record::prepare("jobs", &folder.0).unwrap();
    assert!(!folder.0.join("docs").exists(), "nothing is made yet");
    std::fs::write(folder.0.join("docs"), "a file").unwrap();
    let error = record::prepare("jobs", &folder.0).unwrap_err();
    assert!(error.to_string().contains("docs/decisions"), "{error}");
    std::fs::write(folder.0.join(FILE), "[decision\n").unwrap();
    let error = record::prepare("jobs", &folder.0).unwrap_err();
    assert!(error.to_string().contains("not valid TOML"), "{error}");
}

fn save(
    comparison: &Comparison,
    name: &str,
    directory: &Path,
    date: &str,
) -> Result<Saved, ChoiceError> {
    record::save(Saving {
        comparison,
        name,
        function: "jobs.py:work",
        directory,
        date,
        command: "treadle compare jobs.py:work --items range:1000 --save jobs",
        afresh: "treadle compare cpu --save jobs",
    })
}
