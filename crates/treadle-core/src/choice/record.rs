//! The record: a decision in `treadle.toml` (for programs) and in `docs/decisions/` (for people, with its evidence).
//!
//! *Guarantees*: each file is replaced whole or not at all; tables and comments of others in `treadle.toml` stay as they are,
//! and so does what people wrote between the markers of a decision's page.
//! *Assumes*: one program at a time records in a folder.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, InlineTable, Item, Table, Value, value};

use super::comparison::{Candidate, Comparison, Confidence, Outcome};
use super::error::ChoiceError;
use super::plan::Plan;
use super::wording;

/// The file that programs read.
pub const FILE: &str = "treadle.toml";
/// The folder of pages and evidence, beside `treadle.toml`.
pub const FOLDER: &str = "docs/decisions";
const BEGIN: &str = "<!-- treadle: yours from here on, kept when the record is written again -->";
const END: &str = "<!-- treadle: end of yours -->";

/// The files that a record was written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// `treadle.toml`.
    pub settings: PathBuf,
    /// The page for people.
    pub page: PathBuf,
    /// The comparison as JSON.
    pub evidence: PathBuf,
}

/// Checks a decision's name: it becomes a table's key, a file's name and an argument.
pub fn check_name(name: &str) -> Result<(), ChoiceError> {
    let fine = !name.is_empty()
        && name.len() <= 64
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_');
    if fine {
        Ok(())
    } else {
        Err(ChoiceError::usage(
            format!("`{name}` cannot name a decision"),
            "use letters, digits, `-` and `_`, 64 at most, such as --save thumbnails",
        ))
    }
}

/// Writes the decision `name` of `comparison` into `directory`; `date` is `YYYY-MM-DD`, `command` reproduces it.
///
/// A comparison without a decision cannot be recorded, nor a file that cannot be read or written.
pub fn save(
    comparison: &Comparison,
    name: &str,
    directory: &Path,
    date: &str,
    command: &str,
) -> Result<Saved, ChoiceError> {
    check_name(name)?;
    let Some(plan) = comparison.decision.plan else {
        return Err(ChoiceError::usage(
            format!("nothing was decided, so `{name}` was not recorded"),
            "a prediction that no race has confirmed is not a decision",
        ));
    };
    let settings = directory.join(FILE);
    let mut document = read_settings(&settings)?;
    let folder = directory.join(FOLDER);
    fs::create_dir_all(&folder).map_err(|error| unwritable(&folder, &error))?;
    let stem = match recorded_stem(&document, name) {
        Some(stem) => stem,
        None => format!("{:04}-{name}", next_number(&folder)),
    };
    let page = folder.join(format!("{stem}.md"));
    let evidence = folder.join(format!("{stem}.json"));
    let yours = fs::read_to_string(&page)
        .ok()
        .and_then(|text| between_markers(&text).map(str::to_owned));

    let json = serde_json::to_string_pretty(comparison).map_err(|error| {
        ChoiceError::usage(
            format!("cannot write the evidence: {error}"),
            "this is a mistake in treadle",
        )
    })?;
    write_whole(&evidence, &format!("{json}\n"))?;
    write_whole(
        &page,
        &page_text(
            comparison,
            name,
            plan,
            date,
            command,
            &stem,
            yours.as_deref(),
        ),
    )?;
    let decisions = document
        .entry("decision")
        .or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        })
        .as_table_like_mut()
        .ok_or_else(|| {
            ChoiceError::usage(
                format!("`decision` in {} is not a table", settings.display()),
                "rename it: treadle keeps its decisions in [decision.NAME]",
            )
        })?;
    fill(
        decisions.entry(name).or_insert(Item::Table(Table::new())),
        comparison,
        plan,
        date,
        &stem,
    );
    write_whole(&settings, &document.to_string())?;
    Ok(Saved {
        settings,
        page,
        evidence,
    })
}

/// The plan of the decision `name`, from the nearest `treadle.toml` in `directory` or above it.
pub fn load_decision(directory: &Path, name: &str) -> Result<Plan, ChoiceError> {
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
    let Some(path) = directory
        .ancestors()
        .map(|folder| folder.join(FILE))
        .find(|path| path.is_file())
    else {
        return Err(ChoiceError::usage(
            format!(
                "no {FILE} in {} or any folder above it",
                directory.display()
            ),
            format!("record a decision with: treadle compare TARGET --items SPEC --save {name}"),
        ));
    };
    let document = read_settings(&path)?;
    let decisions = document.get("decision").and_then(Item::as_table_like);
    let Some(decision) = decisions
        .and_then(|table| table.get(name))
        .and_then(Item::as_table_like)
    else {
        let known: Vec<String> = decisions
            .map(|table| table.iter().map(|(key, _)| key.to_owned()).collect())
            .unwrap_or_default();
        let hint = if known.is_empty() {
            format!("record it with: treadle compare TARGET --items SPEC --save {name}")
        } else {
            format!("recorded are: {}", known.join(", "))
        };
        return Err(ChoiceError::usage(
            format!("no decision `{name}` in {}", path.display()),
            hint,
        ));
    };
    let wrong = |what: &str| {
        ChoiceError::usage(
            format!("the plan of decision `{name}` in {} {what}", path.display()),
            "it looks like: plan = { processes = 8 }, and { } is serial",
        )
    };
    let sizes = decision
        .get("plan")
        .and_then(Item::as_table_like)
        .ok_or_else(|| wrong("is missing"))?;
    let mut plan = Plan::SERIAL;
    for (key, item) in sizes.iter() {
        let size = item
            .as_integer()
            .and_then(|size| u32::try_from(size).ok())
            .ok_or_else(|| wrong(&format!("has a size `{key}` that is not a whole number")))?;
        match key {
            "threads" => plan.threads = Some(size),
            "processes" => plan.processes = Some(size),
            "coroutines" => plan.coroutines = Some(size),
            "interpreters" => plan.interpreters = Some(size),
            "chunk" => plan.chunk = Some(size),
            other => return Err(wrong(&format!("names `{other}`, which is not a strategy"))),
        }
    }
    plan.check()?;
    Ok(plan)
}

fn read_settings(path: &Path) -> Result<DocumentMut, ChoiceError> {
    match fs::read_to_string(path) {
        Ok(text) => text
            .parse()
            .map_err(|error: toml_edit::TomlError| ChoiceError::Usage {
                message: format!("{} is not valid TOML", path.display()),
                hint: Some("mend the line below, then run this again".to_owned()),
                detail: Some(error.to_string()),
            }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(DocumentMut::new()),
        Err(error) => Err(ChoiceError::usage(
            format!("cannot read {}: {error}", path.display()),
            "check its permissions",
        )),
    }
}

/// The stem of the files of a decision that is recorded already.
fn recorded_stem(document: &DocumentMut, name: &str) -> Option<String> {
    let record = document
        .get("decision")?
        .get(name)?
        .get("record")?
        .as_str()?;
    let stem = record
        .strip_prefix(FOLDER)?
        .strip_prefix('/')?
        .strip_suffix(".md")?;
    (!stem.contains('/')).then(|| stem.to_owned())
}

/// One more than the highest number in the folder.
fn next_number(folder: &Path) -> u32 {
    let numbers = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.split_once('-')?.0.parse::<u32>().ok()
        });
    numbers.max().unwrap_or(0) + 1
}

fn fill(item: &mut Item, comparison: &Comparison, plan: Plan, date: &str, stem: &str) {
    let mut sizes = InlineTable::new();
    for (name, size) in [
        ("processes", plan.processes),
        ("interpreters", plan.interpreters),
        ("threads", plan.threads),
        ("coroutines", plan.coroutines),
        ("chunk", plan.chunk),
    ] {
        if let Some(size) = size {
            sizes.insert(name, Value::from(i64::from(size)));
        }
    }
    item["plan"] = value(sizes);
    item["function"] = value(comparison.target.as_str());
    item["items"] = value(comparison.items.spec.as_str());
    if let Some(table) = item.as_table_like_mut() {
        table.remove("star");
        table.remove("targets");
    }
    if comparison.items.star {
        item["star"] = value(true);
    }
    if !comparison.targets.is_empty() {
        item["targets"] = value(comparison.targets.join(","));
    }
    item["decided"] = value(date);
    item["record"] = value(format!("{FOLDER}/{stem}.md"));
}

fn between_markers(page: &str) -> Option<&str> {
    let (_, after) = page.split_once(BEGIN)?;
    let (yours, _) = after.split_once(END)?;
    Some(yours)
}

fn page_text(
    comparison: &Comparison,
    name: &str,
    plan: Plan,
    date: &str,
    command: &str,
    stem: &str,
    yours: Option<&str>,
) -> String {
    let machine = &comparison.machine;
    let decision = &comparison.decision;
    let confidence = if decision.confidence == Confidence::High {
        "high"
    } else {
        "low"
    };
    let mut text = format!(
        "---\nstatus: accepted\ndate: {date}\nconfidence: {confidence}\nevidence: {stem}.json\n---\n\n# {name}: run `{}` {}\n\n",
        comparison.target,
        if plan == Plan::SERIAL {
            "in a plain loop".to_owned()
        } else {
            format!("with {}", plan.label())
        }
    );
    text.push_str(&format!(
        "## Context and problem\n\nHow should `{}` be run over its inputs ({} of `{}`)? {}{}\n\n| a task costs | measured |\n|---|---|\n",
        comparison.target,
        wording::count(comparison.items.count),
        comparison.items.spec,
        if comparison.targets.is_empty() {
            "The fastest plan is wanted, the simplest of equals.".to_owned()
        } else {
            format!("Required: {}.", comparison.targets.join(", "))
        },
        format_args!(" Measured on {}.", super::reason::machine_line(machine)),
    ));
    for (what, measured) in super::reason::profile_lines(&comparison.profile) {
        text.push_str(&format!("| {what} | {measured} |\n"));
    }
    text.push_str(
        "\n## Options considered\n\n| plan | predicted | measured (95 % interval) | of serial | p50 | p99 | peak memory | outcome | limit |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for candidate in &comparison.candidates {
        text.push_str(&option_row(candidate));
    }
    text.push_str(&format!(
        "\n## Outcome\n\n{}\n\n```python\n{}\n```\n\nor, with the name of this decision, `treadle.Executor.decided(\"{name}\")`.\n",
        decision.reason,
        decision.code.as_deref().unwrap_or_default()
    ));
    text.push_str(&format!("\n## Consequences\n\n{}", consequences(plan)));
    text.push_str(&format!(
        "\n## Confirmation\n\nThe evidence is in [{stem}.json]({stem}.json). To measure again:\n\n```sh\n{command}\n```\n"
    ));
    text.push_str(&format!("\n## Revisit when\n\n{}", revisit(comparison)));
    text.push_str(&format!(
        "\n## Notes\n\n{BEGIN}{}{END}\n",
        yours.unwrap_or("\n\n")
    ));
    text
}

fn option_row(candidate: &Candidate) -> String {
    let dash = || "-".to_owned();
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
        candidate.reason.replace('|', "\\|").replace('\n', " "),
        candidate.limit
    )
}

fn consequences(plan: Plan) -> String {
    use super::plan::Strategy;
    let lines: &[&str] = match plan.strategy() {
        Strategy::Serial => {
            &["Nothing to start, to share or to serialise; one task's failure is one exception."]
        }
        Strategy::Threads => &[
            "Tasks share memory: what they change in common needs a lock.",
            "A task that crashes the interpreter takes the program along.",
        ],
        Strategy::Coroutines => &[
            "Everything that a task calls must await; one blocking call stops all.",
            "A task that crashes the interpreter takes the program along.",
        ],
        Strategy::Processes | Strategy::Hybrid => &[
            "Arguments and results are pickled; what cannot be pickled stays out.",
            "Each worker holds its own copy of what the function imports and loads.",
            "A worker that dies loses only the task that it ran.",
        ],
        Strategy::Interpreters => &[
            "Every extension module that tasks import must support sub-interpreters.",
            "A task that crashes the interpreter takes the program along.",
        ],
    };
    lines.iter().map(|line| format!("- {line}\n")).collect()
}

fn revisit(comparison: &Comparison) -> String {
    let machine = &comparison.machine;
    let profile = &comparison.profile;
    let mut lines = vec![
        format!("the source of `{}` changes", comparison.target),
        format!(
            "the usable cores are no longer {}",
            wording::cores(machine.usable_cores)
        ),
        format!(
            "Python is no longer {}, or the interpreter lock is {}",
            machine.python,
            if machine.gil { "gone" } else { "back" }
        ),
        format!(
            "a task's CPU share moves far from {} or its time from {}",
            wording::percent(profile.cpu_share()),
            wording::seconds(profile.wall_s)
        ),
    ];
    if let (Some(argument), Some(result)) = (profile.argument_bytes, profile.result_bytes) {
        lines.push(format!(
            "arguments or results become much larger than {} and {}",
            wording::bytes(argument),
            wording::bytes(result)
        ));
    }
    lines.iter().map(|line| format!("- {line}\n")).collect()
}

/// Writes a file by way of a temporary one beside it, so that readers see the old or the new text.
pub fn write_whole(path: &Path, text: &str) -> Result<(), ChoiceError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = fs::File::create(&temporary).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        unwritable(path, &error)
    })
}

fn unwritable(path: &Path, error: &std::io::Error) -> ChoiceError {
    ChoiceError::usage(
        format!("cannot write {}: {error}", path.display()),
        "name a file in a folder that exists and can be written",
    )
}
