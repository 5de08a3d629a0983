//! The command against a scripted laboratory: exit codes, what goes to which stream, files.

use std::path::PathBuf;

use treadle_top::{World, run};

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn command(
    words: &[&str],
    folder: &std::path::Path,
    noise: Option<&str>,
    interrupted: bool,
) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../treadle-core/tests/laboratory.py"
    );
    let arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let code = run(
        &arguments,
        &mut World {
            stdout: &mut out,
            stderr: &mut err,
            python: PathBuf::from(&python),
            interrupted: &|| interrupted,
            terminal: Some((90, 30)),
            rewrite: false,
            directory: folder.to_path_buf(),
            environment: &|name| (name == "TREADLE_NOISE").then(|| noise.map(str::to_owned))?,
            laboratory: Some(vec![python.clone(), script.to_owned()]),
        },
    );
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran {
        code,
        out: text(out),
        err: text(err),
    }
}

fn treadle(words: &[&str]) -> Ran {
    command(words, &std::env::temp_dir(), Some("ignore"), false)
}

#[test]
fn help_lists_only_what_works() {
    let ran = treadle(&["--help"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    for works in ["compare", "check", "top", "dump"] {
        assert!(
            ran.out
                .lines()
                .any(|line| line.trim_start().starts_with(works)),
            "{works}"
        );
    }
    for missing in ["lint", "web"] {
        assert!(
            !ran.out
                .lines()
                .any(|line| line.trim_start().starts_with(missing)),
            "{missing}"
        );
    }
    assert!(treadle(&["compare", "--help"]).out.contains("--budget"));
}

#[test]
fn usage_errors_are_told_on_standard_error() {
    for words in [
        &["compare"][..],
        &["compare", "cpu"],
        &["fly"],
        &["compare", "refused", "--items", "range:10"],
        &[
            "compare", "cpu", "--items", "range:10", "--target", "speed=1",
        ],
        &[
            "compare", "cpu", "--items", "range:10", "--plans", "fibers=1",
        ],
        &["compare", "cpu", "--items", "range:10", "--save", "../up"],
        &["compare", "cpu", "--items", "range:10", "--limit", "0"],
        &["compare", "cpu", "--items", "range:10", "--budget", "0"],
    ] {
        let ran = treadle(words);
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (2, ""),
            "{words:?}: {}",
            ran.err
        );
        assert!(!ran.err.is_empty());
    }
    let ran = command(
        &["compare", "cpu", "--items", "range:1"],
        &std::env::temp_dir(),
        Some("maybe"),
        false,
    );
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("TREADLE_NOISE") && ran.err.contains("hint:"),
        "{}",
        ran.err
    );
}

#[test]
fn the_report_is_data_and_progress_is_not() {
    let ran = treadle(&[
        "compare",
        "cpu",
        "--items",
        "range:1000",
        "--plans",
        "processes=2",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for part in [
        "What a task costs",
        "Candidates",
        "Throughput against size",
        "Decision",
        "treadle.Executor(processes=2)",
    ] {
        assert!(ran.out.contains(part), "{part} is not in\n{}", ran.out);
    }
    assert!(ran.err.contains("treadle: racing") && !ran.out.contains("racing "));
    // The line of code stays whole, so that it can be copied.
    let long = ran
        .out
        .lines()
        .filter(|line| line.chars().count() > 90 && !line.contains("executor.map"))
        .count();
    assert_eq!(long, 0, "{}", ran.out);
}

#[test]
fn json_goes_where_it_is_asked() {
    let words = [
        "compare",
        "cpu",
        "--items",
        "range:1000",
        "--plans",
        "processes=2",
        "--json",
    ];
    let ran = treadle(&words);
    let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(value["decision"]["plan"]["processes"], 2);
    assert!(ran.err.contains("Candidates"));
    let folder = std::env::temp_dir().join(format!("treadle-command-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let ran = command(
        &[&words[..], &["out.json", "--save", "thumbnails"]].concat(),
        &folder,
        Some("ignore"),
        false,
    );
    let json = std::fs::read_to_string(folder.join("out.json")).unwrap();
    let settings = std::fs::read_to_string(folder.join("treadle.toml")).unwrap();
    let page = std::fs::read_to_string(folder.join("docs/decisions/0001-thumbnails.md")).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("Candidates") && json.starts_with('{'));
    assert!(settings.contains("[decision.thumbnails]"));
    assert!(
        page.contains("treadle compare cpu --items range:1000"),
        "{page}"
    );
}

#[test]
fn the_page_is_written_whole_or_refused_before_anything_runs() {
    let folder = std::env::temp_dir().join(format!("treadle-page-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let words = [
        "compare",
        "cpu",
        "--items",
        "range:1000",
        "--plans",
        "processes=2",
        "--html",
    ];
    let ran = command(
        &[&words[..], &["page.html"]].concat(),
        &folder,
        Some("ignore"),
        false,
    );
    let page = std::fs::read_to_string(folder.join("page.html")).unwrap();
    let left = std::fs::read_dir(&folder).unwrap().count();
    for file in ["absent/page.html", ".", "-", "page.html/below.html"] {
        let ran = command(&[&words[..], &[file]].concat(), &folder, None, false);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{file}: {}", ran.err);
        assert!(
            ran.err.contains("cannot write the page") && ran.err.contains("hint:"),
            "{file}: {}",
            ran.err
        );
        assert!(!ran.err.contains("loading"), "{file} was refused too late");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!((ran.code, left), (0, 1), "{}", ran.err);
    assert!(ran.out.contains("Candidates") && ran.err.contains("wrote the page"));
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"));
    assert!(page.contains("treadle compare cpu --items range:1000"));
}

#[test]
fn failures_have_their_codes() {
    let ran = treadle(&["compare", "exit", "--items", "range:10"]);
    assert_eq!((ran.code, ran.out.as_str()), (4, ""));
    assert!(
        ran.err.contains("input 5") && ran.err.contains("hint:"),
        "{}",
        ran.err
    );
    let ran = command(
        &["compare", "cpu", "--items", "range:10"],
        &std::env::temp_dir(),
        None,
        true,
    );
    assert_eq!(ran.code, 130);
    assert!(ran.err.ends_with("treadle: interrupted\n"), "{}", ran.err);
}
