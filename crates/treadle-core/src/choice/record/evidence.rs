//! The evidence: everything that a decision rests on, as `NNNN-name.json` keeps it for `check`.
//!
//! *Guarantees*: what cannot be read is told with its way out; a file of a newer shape is never half understood.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::comparison::{Candidate, Comparison, Confidence, Outcome};
use super::super::fingerprint::Fingerprint;
use super::super::plan::Plan;
use super::conditions::Condition;

/// Version of the shape of `Evidence`.
pub const SCHEMA: u32 = 1;

/// Where a decision is in its life, in the words of MADR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The model expects it; no race has confirmed it.
    Proposed,
    /// A race found it.
    Accepted,
}

impl Status {
    /// The word as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Accepted => "accepted",
        }
    }
}

/// How far the chosen plan is ahead of the best other one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Margin {
    /// The runner-up.
    pub plan: Plan,
    /// The chosen plan's rate over the runner-up's.
    pub times: f64,
    /// Its interval, from the 95 % intervals of both rates; `None` where nothing was raced.
    pub interval: Option<[f64; 2]>,
    /// Whether both were measured.
    pub measured: bool,
}

/// A decision that this one replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Superseded {
    /// When it was decided, `YYYY-MM-DD`.
    pub decided: String,
    /// When it was replaced.
    pub superseded: String,
    /// Its plan.
    pub plan: Plan,
    /// Its status then.
    pub status: Option<Status>,
    /// The function then, as the user wrote it.
    pub function: String,
    /// Its throughput in its race.
    pub measured_per_s: Option<f64>,
}

/// The evidence of a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Version of this shape.
    pub schema: u32,
    /// The decision's name.
    pub name: String,
    /// Proposed or accepted.
    pub status: Status,
    /// When it was decided, `YYYY-MM-DD`.
    pub decided: String,
    /// Version of Treadle.
    pub tool: String,
    /// The function as the user wrote it.
    pub function: String,
    /// The plan.
    pub plan: Plan,
    /// The command that decides again, among the same plans.
    pub command: String,
    /// The command that decides afresh, among all plans and by a race.
    pub afresh: String,
    /// The command that checks it.
    pub confirm: String,
    /// Source and environment.
    pub fingerprint: Fingerprint,
    /// The runner-up and how far it is behind.
    pub margin: Option<Margin>,
    /// When to look at it again.
    pub revisit: Vec<Condition>,
    /// What it replaced, the latest last.
    #[serde(default)]
    pub history: Vec<Superseded>,
    /// The comparison: profile, candidates with prediction and measurement, machine, noise.
    pub comparison: Comparison,
}

/// Why evidence cannot be used, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub hint: String,
}

/// Reads the evidence at `path` of the decision `name`.
pub(in crate::choice) fn read(path: &Path, name: &str) -> Result<Evidence, Unusable> {
    let unusable = |why: String, hint: &str| Unusable {
        why,
        hint: hint.to_owned(),
    };
    let again = "decide it again, with the same --save";
    let text = fs::read_to_string(path).map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            unusable(
                format!("its evidence is missing: there is no {}", path.display()),
                "bring the file back from version control, or decide it again, with the same --save",
            )
        } else {
            unusable(
                format!("its evidence cannot be read: {}: {error}", path.display()),
                "check the file's permissions",
            )
        }
    })?;
    let value: Value = serde_json::from_str(&text).map_err(|error| {
        unusable(
            format!(
                "its evidence is damaged: {} is not JSON: {error}",
                path.display()
            ),
            "bring the file back from version control, or decide it again, with the same --save",
        )
    })?;
    let schema = value.get("schema").and_then(Value::as_u64);
    if schema.is_some_and(|schema| schema > u64::from(SCHEMA)) {
        let by = value
            .get("tool")
            .and_then(Value::as_str)
            .unwrap_or("a newer version");
        return Err(unusable(
            format!(
                "its evidence was written by treadle {by}, in a shape that this version does not know"
            ),
            "update treadle here, or decide it again, with the same --save",
        ));
    }
    let evidence = Evidence::deserialize(&value).map_err(|error| {
        unusable(
            format!("its evidence is not whole: {}: {error}", path.display()),
            again,
        )
    })?;
    if evidence.name != name {
        return Err(unusable(
            format!(
                "its evidence, {}, is that of another decision, `{}`",
                path.display(),
                evidence.name
            ),
            "mend the `record` of one of the two in treadle.toml, or decide it again, with the same --save",
        ));
    }
    Ok(evidence)
}

/// The file's text: a line for each key, and lists of numbers, such as a task's times, on one line.
pub(super) fn text(evidence: &Evidence) -> serde_json::Result<String> {
    let pretty = serde_json::to_string_pretty(evidence)?;
    let mut out = String::with_capacity(pretty.len());
    let mut list: Option<String> = None;
    for line in pretty.lines() {
        let bare = line.trim();
        let number = bare
            .trim_end_matches(',')
            .chars()
            .all(|letter| letter.is_ascii_digit() || "+-.eE".contains(letter));
        match (&mut list, bare) {
            (Some(text), "]" | "],") => {
                out.push_str(text);
                out.push_str(bare);
                out.push('\n');
                list = None;
            }
            (Some(text), _) if number => {
                if !text.ends_with('[') {
                    text.push(' ');
                }
                text.push_str(bare);
            }
            (Some(text), _) => {
                // Something else is in it after all: as it was.
                out.push_str(text);
                out.push('\n');
                list = None;
                if bare.ends_with('[') {
                    list = Some(line.to_owned());
                } else {
                    out.push_str(line);
                    out.push('\n');
                }
            }
            (None, _) if bare.ends_with('[') => list = Some(line.to_owned()),
            (None, _) => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    Ok(out)
}

/// The runner-up among what was raced, or else among what was predicted.
pub(super) fn margin(comparison: &Comparison, plan: Plan) -> Option<Margin> {
    let chosen = comparison.candidates.iter().find(|one| one.plan == plan)?;
    let others = || {
        comparison
            .candidates
            .iter()
            .filter(|one| one.plan != plan && one.outcome != Outcome::Infeasible)
    };
    if let Some(rate) = chosen.batch_per_s {
        let (rival, behind) = others()
            .filter_map(|one| Some((one, one.batch_per_s?)))
            .max_by(|one, other| one.1.total_cmp(&other.1))?;
        return Some(Margin {
            plan: rival.plan,
            times: rate / behind,
            interval: steady_interval(chosen, rival).map(|[low, steady, high]| {
                [rate / behind * low / steady, rate / behind * high / steady]
            }),
            measured: true,
        });
    }
    let rival =
        others().max_by(|one, other| one.predicted_per_s.total_cmp(&other.predicted_per_s))?;
    Some(Margin {
        plan: rival.plan,
        times: chosen.predicted_per_s / rival.predicted_per_s.max(f64::MIN_POSITIVE),
        interval: None,
        measured: false,
    })
}

/// The ratio of two steady rates, as widely as their intervals allow: lowest, central, highest.
fn steady_interval(one: &Candidate, other: &Candidate) -> Option<[f64; 3]> {
    let ([low, high], [below, above]) = (one.interval_per_s?, other.interval_per_s?);
    let least = f64::MIN_POSITIVE;
    let steady = one.measured_per_s? / other.measured_per_s?.max(least);
    (steady > 0.0).then(|| [low / above.max(least), steady, high / below.max(least)])
}

/// The confidence in a word.
pub(super) fn confidence(comparison: &Comparison, status: Status) -> &'static str {
    match (status, comparison.decision.confidence) {
        (Status::Proposed, _) => "none, for no race has confirmed it",
        (_, Confidence::High) => "high",
        _ => "low",
    }
}
