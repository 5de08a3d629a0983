//! The page: the record for people, in Markdown with the sections of MADR 4 (adr.github.io/madr).
//!
//! What treadle writes stands between its own markers, which carry a digest of it. *Guarantees*: everything outside the
//! markers is kept, wherever it stands, with front matter keys that are not treadle's; text that somebody changed between
//! the markers is moved to the notes, not lost.

use super::super::comparison::{Candidate, Comparison, Outcome};
use super::super::plan::{Plan, Strategy};
use super::super::portrait;
use super::super::wording;
use super::evidence::{Evidence, Status, confidence};

/// The sections: marker, heading that stands before it.
const SECTIONS: [(&str, &str); 9] = [
    ("summary", ""),
    ("context", "## Context and Problem Statement"),
    ("drivers", "## Decision Drivers"),
    ("options", "## Considered Options"),
    ("outcome", "## Decision Outcome"),
    ("consequences", "### Consequences"),
    ("confirmation", "### Confirmation"),
    ("revisit", "## Revisit when"),
    ("history", "## History"),
];
const NOTES: &str = "## Notes";
/// The keys of the front matter that are written again.
const KEYS: [&str; 4] = ["status", "date", "confidence", "evidence"];

/// The page of `evidence`, with what people wrote into the `existing` one.
pub(super) fn text(evidence: &Evidence, stem: &str, existing: Option<&str>) -> String {
    let file = stem.rsplit('/').next().unwrap_or(stem);
    let (front, body) = split_front(existing.unwrap_or(""));
    let mut out = front_matter(evidence, file, &front);
    let sections: Vec<(&str, &str, String)> = SECTIONS
        .iter()
        .map(|(marker, heading)| (*marker, *heading, section(marker, evidence, file)))
        .collect();
    if body.trim().is_empty() {
        for (marker, heading, content) in &sections {
            out.push('\n');
            if !heading.is_empty() {
                out.push_str(&format!("{heading}\n\n"));
            }
            out.push_str(&block(marker, content));
        }
        out.push_str(&format!(
            "\n{NOTES}\n\nWrite here, or anywhere outside of treadle's markers: it is kept when the record is written again.\n"
        ));
        return out;
    }
    let mut body = body.to_owned();
    let mut edited = String::new();
    let mut missing = String::new();
    for (marker, heading, content) in &sections {
        match find(&body, marker) {
            Some(found) => {
                if found.edited {
                    edited.push_str(&format!(
                        "\nWritten by hand into *{marker}*, moved here on {}:\n\n{}\n",
                        evidence.decided,
                        quoted(&found.content)
                    ));
                }
                body.replace_range(found.start..found.end, &block(marker, content));
            }
            None => {
                missing.push('\n');
                if !heading.is_empty() {
                    missing.push_str(&format!("{heading}\n\n"));
                }
                missing.push_str(&block(marker, content));
            }
        }
    }
    if sections
        .iter()
        .all(|one| missing.contains(&opening_start(one.0)))
    {
        // A page of somebody else's, or one whose markers are gone: ours first, theirs below.
        out.push_str(&missing);
        out.push_str(&format!("\n{NOTES}\n\n{}\n", body.trim()));
    } else {
        out.push_str(&format!("\n{}\n{missing}", body.trim()));
    }
    out.push_str(&edited);
    out
}

fn opening_start(marker: &str) -> String {
    format!("<!-- treadle {marker} ")
}

fn closing(marker: &str) -> String {
    format!("<!-- /treadle {marker} -->")
}

/// A generated section between its markers.
fn block(marker: &str, content: &str) -> String {
    let content = content.trim_end();
    format!(
        "{}{} -->\n{content}\n{}\n",
        opening_start(marker),
        digest(content),
        closing(marker)
    )
}

/// A generated section of an existing page.
struct Found {
    start: usize,
    end: usize,
    content: String,
    edited: bool,
}

fn find(body: &str, marker: &str) -> Option<Found> {
    let start = body.find(&opening_start(marker))?;
    let head_end = start + body[start..].find("-->")? + 3;
    let stop = head_end + body[head_end..].find(&closing(marker))?;
    let written = body[start + opening_start(marker).len()..head_end - 3].trim();
    let content = body[head_end..stop].trim().to_owned();
    let end = stop + closing(marker).len();
    let end = end + usize::from(body[end..].starts_with('\n'));
    Some(Found {
        start,
        end,
        edited: digest(&content) != written,
        content,
    })
}

/// FNV-1a over the words, so that a change of line ends or of trailing blanks is none (Fowler, Noll and Vo).
fn digest(text: &str) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    for word in text.split_whitespace() {
        for byte in word.bytes().chain([b' ']) {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    }
    format!("{hash:08x}")
}

fn quoted(text: &str) -> String {
    text.lines()
        .map(|line| format!("> {line}").trim_end().to_owned() + "\n")
        .collect()
}

/// (lines of the front matter, the rest).
fn split_front(page: &str) -> (Vec<&str>, &str) {
    let Some(rest) = page
        .strip_prefix("---\n")
        .or_else(|| page.strip_prefix("---\r\n"))
    else {
        return (Vec::new(), page);
    };
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        if line.trim_end() == "---" {
            let lines = rest[..at].lines().collect();
            return (lines, &rest[at + line.len()..]);
        }
        at += line.len();
    }
    (Vec::new(), page)
}

fn front_matter(evidence: &Evidence, file: &str, existing: &[&str]) -> String {
    let mut out = format!(
        "---\nstatus: {}\ndate: {}\nconfidence: {}\nevidence: {file}.json\n",
        evidence.status.name(),
        evidence.decided,
        confidence(&evidence.comparison, evidence.status),
    );
    let mut ours = false;
    for line in existing {
        let nested = line.starts_with([' ', '\t', '-']);
        if !nested {
            ours = line
                .split_once(':')
                .is_some_and(|(key, _)| KEYS.contains(&key.trim()));
        }
        if !ours {
            out.push_str(&format!("{line}\n"));
        }
    }
    out.push_str("---\n");
    out
}

fn section(marker: &str, evidence: &Evidence, file: &str) -> String {
    let comparison = &evidence.comparison;
    match marker {
        "summary" => format!(
            "# {}: run `{}` {}",
            evidence.name,
            evidence.function,
            manner(evidence.plan)
        ),
        "context" => context(evidence),
        "drivers" => drivers(comparison),
        "options" => options(evidence),
        "outcome" => outcome(evidence),
        "consequences" => consequences(evidence.plan),
        "confirmation" => format!(
            "Is it still right? This says so, and exits with 0 if it is:\n\n```sh\n{}\n```\n\n`{} --race` measures the order again. \
             To decide again:\n\n```sh\n{}\n```\n\nThe evidence is in [{file}.json]({file}.json), written by treadle {}.",
            evidence.confirm, evidence.confirm, evidence.command, evidence.tool
        ),
        "revisit" => revisit(evidence),
        _ => history(evidence),
    }
}

/// How a plan runs, to be read after a function's name.
fn manner(plan: Plan) -> String {
    if plan == Plan::SERIAL {
        "in a plain loop".to_owned()
    } else {
        format!("with {}", plan.label())
    }
}

fn context(evidence: &Evidence) -> String {
    let comparison = &evidence.comparison;
    let mut text = format!(
        "How should `{}` be run over its inputs ({} of `{}`{})?\n\nMeasured on {}{}.\n\n| a task costs | measured |\n|---|---|\n",
        evidence.function,
        wording::count(comparison.items.count),
        comparison.items.spec,
        if comparison.items.star {
            ", a tuple being the arguments"
        } else {
            ""
        },
        comparison
            .machine
            .cpu
            .as_ref()
            .map_or_else(String::new, |cpu| format!("{cpu}, ")),
        portrait::machine_line(&comparison.machine)
    );
    for (what, measured) in portrait::profile_lines(&comparison.profile) {
        text.push_str(&format!("| {what} | {measured} |\n"));
    }
    text
}

fn drivers(comparison: &Comparison) -> String {
    let mut text = String::new();
    for target in &comparison.targets {
        text.push_str(&format!("- {target} is required\n"));
    }
    text.push_str(if comparison.targets.is_empty() {
        "- The fastest plan is wanted\n"
    } else {
        "- Of the plans that meet this, the fastest is wanted\n"
    });
    text.push_str("- Plans within 5 % of it count as equal, and the simplest of them wins\n");
    text
}

fn options(evidence: &Evidence) -> String {
    let mut text = String::from(
        "| plan | predicted | measured (95 % interval) | of serial | p50 | p99 | peak memory | outcome | limit |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for candidate in &evidence.comparison.candidates {
        text.push_str(&option_row(candidate, evidence));
    }
    text
}

fn option_row(candidate: &Candidate, evidence: &Evidence) -> String {
    let dash = || "-".to_owned();
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let measured = candidate.measured_per_s.map_or_else(dash, |rate| {
        candidate.interval_per_s.map_or_else(
            || wording::rate(rate),
            |[low, high]| {
                format!(
                    "{} ({} to {})",
                    wording::rate(rate),
                    wording::number(low),
                    wording::number(high)
                )
            },
        )
    });
    let outcome = match candidate.outcome {
        _ if candidate.plan == evidence.plan && evidence.status == Status::Proposed => {
            "**proposed**"
        }
        Outcome::Chosen => "**chosen**",
        Outcome::Equivalent => "equivalent",
        Outcome::Slower => "slower",
        Outcome::NotRaced => "not raced",
        Outcome::Infeasible => "infeasible",
    };
    format!(
        "| {} | {} | {measured} | {} | {} | {} | {} | {outcome}: {} | {} |\n",
        candidate.plan.label(),
        wording::rate(candidate.predicted_per_s),
        candidate
            .speedup
            .map_or_else(dash, |[times, ..]| format!("{times:.2}")),
        candidate.p50_s.map_or_else(dash, wording::seconds),
        candidate.p99_s.map_or_else(dash, wording::seconds),
        candidate
            .peak_memory_bytes
            .map_or_else(dash, wording::bytes),
        cell(&candidate.reason),
        cell(&candidate.limit)
    )
}

fn outcome(evidence: &Evidence) -> String {
    let short = evidence
        .function
        .rsplit(':')
        .next()
        .unwrap_or(&evidence.function);
    let mut text = match evidence.status {
        Status::Accepted => evidence.comparison.decision.reason.clone(),
        Status::Proposed => format!(
            "The model proposes {}: the simplest plan within 5 % of the best prediction. No race has confirmed it.",
            evidence.plan.label()
        ),
    };
    if let Some(margin) = &evidence.margin {
        text.push_str(&format!(
            "\n\nThe runner-up is {}: {} {} {:.2} times its throughput{}.",
            margin.plan.label(),
            evidence.plan.label(),
            if margin.measured {
                "has"
            } else {
                "is predicted to have"
            },
            margin.times,
            margin.interval.map_or_else(String::new, |[low, high]| {
                format!(" ({low:.2} to {high:.2}), start-up of the workers included")
            })
        ));
    }
    text.push_str(&format!(
        "\n\n```python\n{}\n```\n\nor, with the name of this decision, `treadle.Executor.decided(\"{}\")`.",
        evidence.plan.code(short),
        evidence.name
    ));
    text
}

fn consequences(plan: Plan) -> String {
    let lines: &[&str] = match plan.strategy() {
        Strategy::Serial => &[
            "Good, because there is nothing to start, to share or to serialise; one task's failure is one exception.",
        ],
        Strategy::Threads => &[
            "Good, because nothing is serialised and workers start at once.",
            "Bad, because tasks share memory: what they change in common needs a lock.",
            "Bad, because a task that crashes the interpreter takes the program along.",
        ],
        Strategy::Coroutines => &[
            "Good, because a waiting task costs next to nothing.",
            "Bad, because everything that a task calls must await; one blocking call stops all.",
            "Bad, because a task that crashes the interpreter takes the program along.",
        ],
        Strategy::Processes | Strategy::Hybrid => &[
            "Good, because a worker that dies loses only the task that it ran.",
            "Bad, because arguments and results are pickled; what cannot be pickled stays out.",
            "Bad, because each worker holds its own copy of what the function imports and loads.",
        ],
        Strategy::Interpreters => &[
            "Good, because each worker has an interpreter lock of its own, in one process.",
            "Bad, because every extension module that tasks import must support sub-interpreters.",
            "Bad, because a task that crashes the interpreter takes the program along.",
        ],
    };
    lines.iter().map(|line| format!("- {line}\n")).collect()
}

fn revisit(evidence: &Evidence) -> String {
    let mut text = format!(
        "- the source of `{}` changes, or of what it uses in this project\n",
        evidence.function
    );
    for condition in &evidence.revisit {
        text.push_str(&format!("- {}\n", condition.words));
    }
    let packages = &evidence.fingerprint.environment.distributions;
    if !packages.is_empty() {
        let names: Vec<String> = packages
            .iter()
            .map(|(name, version)| format!("{name} {}", version.as_deref().unwrap_or("?")))
            .collect();
        text.push_str(&format!(
            "- a package that it imports changes: {}\n",
            names.join(", ")
        ));
    }
    text
}

fn history(evidence: &Evidence) -> String {
    let mut text = String::new();
    for old in &evidence.history {
        text.push_str(&format!(
            "- {}: {}{}{}, superseded on {}\n",
            old.decided,
            old.plan.label(),
            old.measured_per_s
                .map_or_else(String::new, |rate| format!(" with {}", wording::rate(rate))),
            old.status
                .map_or_else(String::new, |status| format!(" ({})", status.name())),
            old.superseded
        ));
    }
    text.push_str(&format!(
        "- {}: {} ({})\n",
        evidence.decided,
        evidence.plan.label(),
        evidence.status.name()
    ));
    text
}
