//! The check against a scripted laboratory: each of the four answers at each level, and records that are not whole.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use treadle_core::choice::check::{Answer, Asking, Level, Report, Verdict, check};
use treadle_core::choice::compare::Silent;
use treadle_core::choice::laboratory::Surroundings;
use treadle_core::choice::plan::Plan;
use treadle_core::choice::record::{self, FILE, FOLDER, Saving};
use treadle_core::choice::{ChoiceError, Request, compare};

fn calm() -> bool {
    false
}

fn surroundings() -> Surroundings<'static> {
    Surroundings {
        clock: &treadle_probe::clock::monotonic,
        interrupted: &calm,
    }
}

fn laboratory() -> Vec<String> {
    vec![
        std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned()),
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/laboratory.py").to_owned(),
    ]
}

/// A folder with the decision `jobs`, recorded from the script `cpu`; gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn recorded(name: &str) -> Self {
        let folder = Self::decided(name, "cpu", |_| ());
        assert!(folder.toml().contains("plan = { processes = 2 }"));
        folder
    }

    /// The decision about `script`, made as `change` asks.
    fn decided(name: &str, script: &str, change: impl Fn(&mut Request)) -> Self {
        let folder =
            std::env::temp_dir().join(format!("treadle-check-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let folder = Self(folder);
        let mut request = Request {
            budget_s: 20.0,
            plans: Some("threads=2;processes=2".to_owned()),
            ignore_noise: true,
            seed: Some(1),
            laboratory: Some(laboratory()),
            fingerprint: true,
            directory: Some(folder.0.clone()),
            ..Request::new(script, "range:1000")
        };
        change(&mut request);
        let comparison = compare(&request, &mut Silent, surroundings()).unwrap();
        record::save(Saving {
            comparison: &comparison,
            name: "jobs",
            function: script,
            directory: &folder.0,
            date: "2026-11-22",
            command: "treadle compare cpu --items range:1000 --save jobs",
            afresh: "treadle compare cpu --save jobs",
        })
        .unwrap();
        folder
    }

    fn toml(&self) -> String {
        std::fs::read_to_string(self.0.join(FILE)).unwrap()
    }

    /// From now on, laboratories write down what they are asked.
    fn listen(&self) {
        std::fs::write(self.0.join("asked"), "").unwrap();
    }

    /// What they were asked: the word of each request, and the request.
    fn asked(&self) -> Vec<(String, serde_json::Value)> {
        let text = std::fs::read_to_string(self.0.join("asked")).unwrap();
        let requests = text.lines().map(|line| {
            let request: serde_json::Value = serde_json::from_str(line).unwrap();
            (request["do"].as_str().unwrap().to_owned(), request)
        });
        requests.collect()
    }

    /// The function is what this script says from now on.
    fn becomes(&self, script: &str) {
        std::fs::write(self.0.join("now"), script).unwrap();
    }

    fn edit(&self, file: &str, edit: impl Fn(&str) -> String) {
        let path = self.0.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let edited = edit(&text);
        assert_ne!(text, edited, "the edit of {file} changes something");
        std::fs::write(path, edited).unwrap();
    }

    fn asking(&self) -> Asking {
        Asking {
            ignore_noise: true,
            laboratory: Some(laboratory()),
            ..Asking::new(&self.0)
        }
    }

    fn report(&self, change: impl Fn(&mut Asking)) -> Result<Report, ChoiceError> {
        let mut asking = self.asking();
        change(&mut asking);
        check(&asking, &mut Silent, surroundings())
    }

    fn answer(&self, change: impl Fn(&mut Asking)) -> Answer {
        let report = self.report(change).unwrap();
        assert_eq!(report.exit_code, report.decisions[0].answer.exit_code());
        report.decisions[0].clone()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn default(_: &mut Asking) {}

fn weighing(answer: &Answer) -> String {
    let words: Vec<&str> = answer
        .changes
        .iter()
        .filter(|change| change.weighs)
        .map(|change| change.words.as_str())
        .collect();
    words.join("; ")
}

#[test]
fn nothing_has_changed() {
    let folder = Folder::recorded("same");
    let answer = folder.answer(default);
    assert_eq!(
        (answer.answer, answer.level),
        (Verdict::Holds, Level::Static),
        "{answer:?}"
    );
    let measured = folder.answer(|asking| asking.measure = true);
    assert_eq!(
        (measured.answer, measured.level),
        (Verdict::Holds, Level::Ranking),
        "{measured:?}"
    );
    assert!(!measured.ratios.is_empty());
    let below = folder.0.join("docs");
    let report = folder
        .report(|asking| asking.directory = below.clone())
        .unwrap();
    assert_eq!(report.answer, Verdict::Holds, "found from a folder below");
}

#[test]
fn a_change_that_costs_the_same_holds_and_files_alone_call_it_stale() {
    let folder = Folder::recorded("alike");
    folder.becomes("alike");
    let answer = folder.answer(default);
    assert_eq!(
        (answer.answer, answer.level),
        (Verdict::Holds, Level::Ranking),
        "{answer:?}"
    );
    assert!(weighing(&answer).contains("the source of cpu has changed"));
    assert!(answer.next.contains("--save jobs"), "{}", answer.next);
    let alone = folder.answer(|asking| asking.static_only = true);
    assert_eq!(
        (alone.answer, alone.level),
        (Verdict::Stale, Level::Static),
        "{alone:?}"
    );
    assert!(alone.next.contains("treadle check jobs"));
}

#[test]
fn computing_that_becomes_waiting_is_overturned() {
    let folder = Folder::recorded("wait");
    folder.becomes("wait");
    let answer = folder.answer(default);
    assert_eq!(
        (answer.answer, answer.level),
        (Verdict::Overturned, Level::Ranking),
        "{answer:?}"
    );
    assert!(answer.instead.unwrap().threads.is_some());
    assert!(weighing(&answer).contains("CPU share"), "{answer:?}");
    assert!(answer.why.contains("io-bound"), "{}", answer.why);
    // No race is needed to see that.
    let raced = folder.answer(|asking| asking.race = true);
    assert_eq!(raced.level, Level::Ranking);
}

#[test]
fn a_ratio_that_moves_without_another_winner_is_stale() {
    let folder = Folder::recorded("big");
    folder.becomes("big");
    let answer = folder.answer(default);
    assert_eq!(
        (answer.answer, answer.level),
        (Verdict::Stale, Level::Ranking),
        "{answer:?}"
    );
    assert!(weighing(&answer).contains("result size: 20 B in the record, 97.7 KiB now"));
}

#[test]
fn what_cannot_run_any_more_is_overturned() {
    let folder = Folder::recorded("unpicklable");
    folder.becomes("unpicklable");
    let answer = folder.answer(default);
    assert_eq!(
        (answer.answer, answer.level),
        (Verdict::Overturned, Level::Ratios),
        "{answer:?}"
    );
    assert!(answer.why.contains("result.lock"), "{}", answer.why);
}

#[test]
fn a_function_that_fails_is_inconclusive() {
    let folder = Folder::recorded("fails");
    folder.becomes("fails");
    let answer = folder.answer(default);
    assert_eq!(answer.answer, Verdict::Inconclusive, "{answer:?}");
    assert!(answer.why.contains("every input"), "{}", answer.why);
    assert!(!answer.next.is_empty());
}

#[test]
fn another_python_is_named_and_weighed() {
    let folder = Folder::recorded("python");
    folder.becomes("python");
    let alone = folder.answer(|asking| asking.static_only = true);
    assert!(
        weighing(&alone).contains("recorded with cpython 3.11.7, this is cpython 3.12.0"),
        "{alone:?}"
    );
    assert_eq!(alone.answer, Verdict::Stale);
}

#[test]
fn a_race_keeps_or_loses_the_order() {
    let folder = Folder::recorded("race");
    let kept = folder.answer(|asking| asking.race = true);
    assert_eq!(
        (kept.answer, kept.level),
        (Verdict::Holds, Level::Race),
        "{kept:?}"
    );
    // Its demands are the same, but processes bring nothing any more.
    folder.becomes("same");
    let lost = folder.answer(|asking| asking.race = true);
    assert_eq!(
        (lost.answer, lost.level, lost.instead),
        (Verdict::Overturned, Level::Race, Some(Plan::SERIAL)),
        "{lost:?}"
    );
}

#[test]
fn a_function_that_moved_is_found() {
    let folder = Folder::recorded("gone");
    folder.becomes("gone");
    let answer = folder.answer(default);
    assert_eq!(
        (answer.answer, answer.level),
        (Verdict::Stale, Level::Static),
        "{answer:?}"
    );
    assert!(answer.why.contains("with the same source: it has moved"));
    assert!(answer.next.contains("function = \"elsewhere.py:work\""));
}

#[test]
fn a_plan_edited_by_hand_is_not_what_was_recorded() {
    let folder = Folder::recorded("edited");
    folder.edit(FILE, |text| text.replace("processes = 2", "processes = 3"));
    let answer = folder.answer(default);
    assert!(
        weighing(&answer).contains("treadle.toml has plan processes=3, the evidence processes=2"),
        "{answer:?}"
    );
    assert_ne!(answer.answer, Verdict::Holds);
    assert_eq!(
        answer.plan,
        Plan::processes(3),
        "the plan in force is checked"
    );
}

#[test]
fn records_that_are_not_whole_say_so() {
    let evidence = format!("{FOLDER}/0001-jobs.json");
    let told = |name: &str, damage: &dyn Fn(&Folder), word: &str| {
        let folder = Folder::recorded(name);
        damage(&folder);
        let answer = folder.answer(default);
        assert_eq!(answer.answer, Verdict::Stale, "{answer:?}");
        assert!(weighing(&answer).contains(word), "{word}: {answer:?}");
        assert!(answer.next.contains("--save jobs"), "{}", answer.next);
    };
    told(
        "no-evidence",
        &|folder| std::fs::remove_file(folder.0.join(&evidence)).unwrap(),
        "missing",
    );
    told(
        "half",
        &|folder| folder.edit(&evidence, |text| text[..200].to_owned()),
        "not JSON",
    );
    told(
        "shape",
        &|folder| {
            folder.edit(&evidence, |text| {
                text.replace("\"fingerprint\"", "\"print\"")
            })
        },
        "fingerprint",
    );
    told(
        "newer",
        &|folder| {
            folder.edit(&evidence, |text| {
                text.replacen("\"schema\": 1", "\"schema\": 99", 1)
            })
        },
        "does not know",
    );
    told(
        "other",
        &|folder| {
            folder.edit(&evidence, |text| {
                text.replacen("\"name\": \"jobs\"", "\"name\": \"other\"", 1)
            });
        },
        "another decision, `other`",
    );
    told(
        "no-record",
        &|folder| folder.edit(FILE, |text| text.replace("record = ", "# record = ")),
        "names no record",
    );
    told(
        "outside",
        &|folder| folder.edit(FILE, |text| text.replace("docs/decisions/0001", "../0001")),
        "is not a page in docs/decisions",
    );
}

#[test]
fn what_programs_cannot_load_is_refused_in_the_same_words() {
    let folder = Folder::recorded("refused");
    let refused = |text: &str, name: &str| {
        std::fs::write(folder.0.join(FILE), text).unwrap();
        let error = folder
            .report(|asking| asking.names = vec![name.to_owned()])
            .unwrap_err();
        assert_eq!(Err(error.clone()), record::load_decision(&folder.0, name));
        assert!(error.hint().is_some(), "{error}");
        error.to_string()
    };
    assert!(refused("[decision\n", "jobs").contains("not valid TOML"));
    assert!(refused("decision = 3\n", "jobs").contains("is not a table"));
    assert!(refused("[decision]\njobs = 3\n", "jobs").contains("is not a table"));
    assert!(refused("[decision.jobs]\nplan = 3\n", "jobs").contains("is not a table"));
    assert!(refused("[decision.jobs]\nplan = {}\nfunction = 3\n", "jobs").contains("`function`"));
    assert!(refused("[decision.other]\nplan = {}\n", "jobs").contains("no decision `jobs`"));
    std::fs::write(folder.0.join(FILE), "# nothing\n").unwrap();
    let error = folder.report(default).unwrap_err();
    assert!(error.to_string().contains("records no decision"), "{error}");
    std::fs::remove_file(folder.0.join(FILE)).unwrap();
    let error = folder.report(default).unwrap_err();
    assert!(error.to_string().contains("no treadle.toml in"), "{error}");
    assert!(Path::new(&folder.0).is_dir());
}

#[test]
fn the_worst_of_several_is_the_report_s() {
    let folder = Folder::recorded("several");
    folder.edit(FILE, |text| {
        format!("{text}\n[decision.bare]\nplan = {{ threads = 4 }}\nfunction = \"cpu\"\nitems = \"range:10\"\n")
    });
    let report = folder.report(default).unwrap();
    let answers: Vec<Verdict> = report.decisions.iter().map(|one| one.answer).collect();
    assert_eq!(answers, [Verdict::Holds, Verdict::Stale]);
    assert_eq!((report.answer, report.exit_code), (Verdict::Stale, 1));
    std::fs::write(folder.0.join("docs/decisions/0001-twin.md"), "").unwrap();
    let report = folder
        .report(|asking| asking.names = vec!["jobs".to_owned()])
        .unwrap();
    assert_eq!(report.exit_code, 0, "{report:?}");
    assert!(report.remarks[0].contains("number 0001"), "{report:?}");
}

#[test]
fn what_may_run_once_is_checked_so_and_runs_nothing_twice() {
    let folder = Folder::decided("once", "cpu", |request| request.once = true);
    assert!(folder.toml().contains("once = true"), "{}", folder.toml());
    folder.listen();
    let measured = folder.answer(|asking| asking.measure = true);
    assert_eq!(measured.answer, Verdict::Holds, "{measured:?}");
    let raced = folder.answer(|asking| asking.race = true);
    assert_eq!(
        (raced.answer, raced.level),
        (Verdict::Holds, Level::Race),
        "{raced:?}"
    );
    let asked = folder.asked();
    let of = |word: &str| asked.iter().filter(|(one, _)| one == word).count();
    assert_eq!(of("profile"), 2, "the race's own sample is its profile");
    for (word, request) in &asked {
        if word == "load" || word == "profile" {
            assert_eq!(request["once"], true, "{request}");
        }
        assert!(word != "block" || request["inputs"].is_array(), "{request}");
    }
    // Without the word in the table, the evidence is contradicted.
    folder.edit(FILE, |text| text.replace("once = true\n", ""));
    let edited = folder.answer(|asking| asking.static_only = true);
    assert!(weighing(&edited).contains("treadle.toml has once false, the evidence true"));
}

#[test]
fn what_was_only_proposed_is_checked_and_asks_for_a_race() {
    let folder = Folder::decided("proposed", "cpu", |request| request.profile_only = true);
    assert!(folder.toml().contains("status = \"proposed\""));
    let unchanged = folder.answer(default);
    assert_eq!(unchanged.answer, Verdict::Holds, "{unchanged:?}");
    assert!(
        unchanged.next.contains("no race has confirmed it yet"),
        "{}",
        unchanged.next
    );
    let measured = folder.answer(|asking| asking.measure = true);
    assert_eq!(measured.answer, Verdict::Holds, "{measured:?}");
    let raced = folder.answer(|asking| asking.race = true);
    assert_eq!(
        (raced.answer, raced.level),
        (Verdict::Holds, Level::Race),
        "{raced:?}"
    );
    folder.becomes("wait");
    let answer = folder.answer(default);
    assert_eq!(answer.answer, Verdict::Overturned, "{answer:?}");
}

#[test]
fn a_lock_that_is_released_meets_the_condition_that_the_record_names() {
    let folder = Folder::decided("released", "watched", |_| ());
    let stem = folder.0.join(FOLDER).join("0001-jobs");
    let page = std::fs::read_to_string(stem.with_extension("md")).unwrap();
    let condition = "a task holds the interpreter lock for ";
    assert!(page.contains(condition), "{page}");
    let text = std::fs::read_to_string(stem.with_extension("json")).unwrap();
    let evidence: record::Evidence = serde_json::from_str(&text).unwrap();
    let split = evidence.comparison.profile.split.unwrap();
    assert!(
        split.gil_cpu.low_s < split.gil_cpu.mean_s && split.gil_cpu.mean_s < split.gil_cpu.high_s,
        "the evidence has the intervals: {split:?}"
    );
    let bound = |fact: &str| {
        let found = evidence.revisit.iter().find(|one| one.fact == fact);
        found.unwrap_or_else(|| panic!("{fact} is not among {:?}", evidence.revisit))
    };
    let lock = bound("lock_share");
    assert!(
        lock.at_most
            .is_some_and(|share| (0.1..0.9).contains(&share)),
        "{lock:?}"
    );
    assert!(lock.then.unwrap().threads.is_some(), "{lock:?}");
    assert!(bound("cpu_share").at_most.is_some_and(|share| share < 0.9));
    folder.becomes("released");
    let answer = folder.answer(default);
    assert_eq!(answer.answer, Verdict::Overturned, "{answer:?}");
    assert!(answer.instead.unwrap().threads.is_some(), "{answer:?}");
    let told = weighing(&answer);
    assert!(
        told.contains("it was to be revisited when a task holds the interpreter lock for"),
        "{told}"
    );
}
