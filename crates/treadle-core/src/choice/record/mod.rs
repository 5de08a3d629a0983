//! The record: a decision in `treadle.toml` (for programs) and in `docs/decisions/` (for people, with its evidence).
//!
//! ```text
//! settings     treadle.toml: one table a decision
//! page         NNNN-name.md: the record for people
//! evidence     NNNN-name.json: what `check` compares with
//! conditions   revisit when: bounds on facts, from the model
//! ```
//!
//! *Guarantees*: each file is replaced whole or not at all; what people wrote stays; a name keeps its number.
//! *Assumes*: one program at a time records in a folder.

mod conditions;
mod evidence;
mod page;
mod settings;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

pub use conditions::{Condition, measured, minor};
pub use evidence::{Evidence, Margin, SCHEMA, Status, Superseded, Unusable};
pub use settings::{Decided, Settings, numbering};

pub(super) use evidence::read as read_evidence;

use super::comparison::Comparison;
use super::error::ChoiceError;
use super::plan::Plan;
use super::ranking;

/// The file that programs read.
pub const FILE: &str = "treadle.toml";
/// The folder of pages and evidence, beside `treadle.toml`.
pub const FOLDER: &str = "docs/decisions";

/// The files that a record was written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// `treadle.toml`.
    pub settings: PathBuf,
    /// The page for people.
    pub page: PathBuf,
    /// The evidence.
    pub evidence: PathBuf,
    /// Whether the plan is only proposed.
    pub status: Status,
    /// The plan.
    pub plan: Plan,
}

/// What is to be recorded.
#[derive(Debug, Clone, Copy)]
pub struct Saving<'a> {
    /// The comparison that decided.
    pub comparison: &'a Comparison,
    /// The decision's name.
    pub name: &'a str,
    /// The function as the user wrote it.
    pub function: &'a str,
    /// The folder that the command ran in.
    pub directory: &'a Path,
    /// Today, `YYYY-MM-DD`.
    pub date: &'a str,
    /// The command that decides again, among the same plans.
    pub command: &'a str,
    /// The command that decides afresh, among all plans and by a race.
    pub afresh: &'a str,
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

/// Whether a decision could be recorded from `directory`: told before anything is measured.
pub fn prepare(name: &str, directory: &Path) -> Result<(), ChoiceError> {
    check_name(name)?;
    let settings = destination(directory)?;
    let folder = settings.folder().join(FOLDER);
    let existing = folder.ancestors().find(|place| place.exists());
    for place in std::iter::once(settings.folder()).chain(existing) {
        let probe = place.join(format!(".treadle-{}", std::process::id()));
        fs::File::create(&probe).map_err(|error| unwritable(&folder, &error))?;
        let _ = fs::remove_file(&probe);
    }
    Ok(())
}

/// The nearest `treadle.toml`, or the one to be written in `directory`.
fn destination(directory: &Path) -> Result<Settings, ChoiceError> {
    Settings::read(Settings::nearest(directory).unwrap_or_else(|| directory.join(FILE)))
}

/// Writes a decision into the nearest `treadle.toml` and its record beside it.
///
/// A comparison that only predicted is recorded as proposed. One that decided nothing cannot be recorded, nor can a file
/// that cannot be read or written.
pub fn save(saving: Saving<'_>) -> Result<Saved, ChoiceError> {
    let Saving {
        comparison, name, ..
    } = saving;
    check_name(name)?;
    let (plan, status) = decided(comparison, name)?;
    let mut settings = destination(saving.directory)?;
    let folder = settings.folder().join(FOLDER);
    fs::create_dir_all(&folder).map_err(|error| unwritable(&folder, &error))?;
    let old = settings
        .names()
        .contains(&name.to_owned())
        .then(|| settings.decision(name).ok())
        .flatten();
    let stem = old
        .as_ref()
        .and_then(|old| Some(old.stem()?.to_owned()))
        .or_else(|| recorded_stem(&folder, name))
        .unwrap_or_else(|| format!("{FOLDER}/{:04}-{name}", next_number(&folder)));
    let page = settings.folder().join(format!("{stem}.md"));
    let proof = settings.folder().join(format!("{stem}.json"));
    let existing = match fs::read_to_string(&page) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(ChoiceError::usage(
                format!("cannot read {}: {error}", page.display()),
                "what people wrote there is to be kept: make it a text file in UTF-8 that you may read, or move it away",
            ));
        }
    };
    let evidence = Evidence {
        schema: SCHEMA,
        name: name.to_owned(),
        status,
        decided: saving.date.to_owned(),
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        function: saving.function.to_owned(),
        plan,
        command: saving.command.to_owned(),
        afresh: saving.afresh.to_owned(),
        confirm: format!("treadle check {name}"),
        fingerprint: comparison.fingerprint.clone().unwrap_or_default(),
        margin: evidence::margin(comparison, plan),
        revisit: conditions::conditions(comparison, plan),
        history: history(&proof, old.as_ref(), name, saving.date),
        comparison: Comparison {
            target_file: comparison
                .target_file
                .as_deref()
                .map(|file| portable(&settings, file)),
            ..comparison.clone()
        },
    };
    let json = evidence::text(&evidence).map_err(|error| {
        ChoiceError::usage(
            format!("cannot write the evidence: {error}"),
            "this is a mistake in treadle",
        )
    })?;
    write_whole(&proof, &json)?;
    write_whole(&page, &page::text(&evidence, &stem, existing.as_deref()))?;
    settings.put(
        &evidence,
        &stem,
        below(&settings, saving.directory).as_deref(),
    );
    settings.write()?;
    Ok(Saved {
        settings: settings.path,
        page,
        evidence: proof,
        status,
        plan,
    })
}

/// The plan of a comparison and whether a race stands behind it.
fn decided(comparison: &Comparison, name: &str) -> Result<(Plan, Status), ChoiceError> {
    if let Some(plan) = comparison.decision.plan {
        return Ok((plan, Status::Accepted));
    }
    let nothing = |hint: &str| {
        ChoiceError::usage(
            format!("nothing was decided, so `{name}` was not recorded"),
            hint,
        )
    };
    if !comparison.profile_only {
        return Err(nothing(
            "run it again on a quiet machine, or record what the model expects with --profile-only",
        ));
    }
    ranking::propose(comparison)
        .map(|standing| (standing.plan, Status::Proposed))
        .ok_or_else(|| nothing("no plan can run this function, by the profile"))
}

/// What the record at `proof` replaced so far, and the decision that is replaced now.
fn history(proof: &Path, old: Option<&Decided>, name: &str, date: &str) -> Vec<Superseded> {
    if let Ok(evidence) = evidence::read(proof, name) {
        let chosen = evidence
            .comparison
            .candidates
            .iter()
            .find(|one| one.plan == evidence.plan);
        let replaced = Superseded {
            decided: evidence.decided,
            superseded: date.to_owned(),
            plan: evidence.plan,
            status: Some(evidence.status),
            function: evidence.function,
            measured_per_s: chosen.and_then(|one| one.measured_per_s),
        };
        let mut history = evidence.history;
        history.push(replaced);
        return history;
    }
    // Without evidence, what treadle.toml says of it.
    old.and_then(|old| {
        Some(Superseded {
            decided: old.decided.clone()?,
            superseded: date.to_owned(),
            plan: old.plan,
            status: old.status,
            function: old.function.clone().unwrap_or_default(),
            measured_per_s: None,
        })
    })
    .into_iter()
    .collect()
}

/// Where the command ran, from the file's folder; `None` when it is that folder.
fn below(settings: &Settings, directory: &Path) -> Option<String> {
    inside(settings, directory).filter(|below| !below.is_empty())
}

/// A function's file from the settings' folder, for those who read the record elsewhere; of one outside, its name.
fn portable(settings: &Settings, file: &str) -> String {
    let name = || Path::new(file).file_name()?.to_str().map(str::to_owned);
    inside(settings, Path::new(file))
        .or_else(name)
        .unwrap_or_else(|| file.to_owned())
}

/// A path from the settings' folder, if it is inside.
fn inside(settings: &Settings, path: &Path) -> Option<String> {
    let path = fs::canonicalize(path).ok()?;
    let folder = fs::canonicalize(settings.folder()).ok()?;
    let below = path.strip_prefix(folder).ok()?;
    Some(below.to_string_lossy().into_owned())
}

/// The stem of a record that `treadle.toml` does not know any more: a name keeps its number.
fn recorded_stem(folder: &Path, name: &str) -> Option<String> {
    let mut stems: Vec<String> = stems(folder)
        .into_iter()
        .filter(|stem| settings::name_of(stem) == name && settings::number(stem).is_some())
        .collect();
    stems.sort();
    stems.first().map(|stem| format!("{FOLDER}/{stem}"))
}

/// One more than the highest number in the folder.
fn next_number(folder: &Path) -> u32 {
    let numbers = stems(folder);
    let highest = numbers
        .iter()
        .filter_map(|stem| settings::number(stem))
        .max();
    highest.unwrap_or(0).saturating_add(1)
}

/// The names of the pages and the evidence in the folder, without their endings.
fn stems(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?;
            let stem = name.strip_suffix(".md").or(name.strip_suffix(".json"))?;
            Some(stem.to_owned())
        })
        .collect()
}

/// The plan of the decision `name`, from the nearest `treadle.toml` in `directory` or above it.
pub fn load_decision(directory: &Path, name: &str) -> Result<Plan, ChoiceError> {
    Ok(Settings::find(directory, name)?.decision(name)?.plan)
}

/// The file beside `path` that [`write_whole`] writes first.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

/// Whether [`write_whole`] could make its file beside `path` now.
pub fn check_whole(path: &Path) -> std::io::Result<()> {
    let temporary = temporary(path);
    fs::File::create(&temporary)?;
    fs::remove_file(&temporary)
}

/// Writes a file by way of a temporary one beside it, so that readers see the old or the new text.
pub fn write_whole(path: &Path, text: &str) -> Result<(), ChoiceError> {
    let temporary = temporary(path);
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
