//! The answer: is a decision still right, why, and what to do; and the report of several.

use serde::Serialize;

use super::super::plan::Plan;
use super::super::record::Status;
use super::ratios::Ratio;

/// Version of the shape of `Report`.
pub const SCHEMA: u32 = 1;

/// What became of a decision, ordered by how much it asks for: the worst of several is the report's.
///
/// *Inconclusive* comes before *stale*: it asks to run again, and must not hide what asks for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The choice is as right as on the day it was made.
    Holds,
    /// It could not be told.
    Inconclusive,
    /// Facts have changed so that the record no longer describes them; the choice is not contradicted.
    Stale,
    /// Another plan is better now.
    Overturned,
}

impl Verdict {
    /// The word that people read.
    pub fn name(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Inconclusive => "inconclusive",
            Self::Stale => "stale",
            Self::Overturned => "overturned",
        }
    }

    /// 0 holds, 1 stale, 2 overturned, 3 inconclusive.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Holds => 0,
            Self::Stale => 1,
            Self::Overturned => 2,
            Self::Inconclusive => 3,
        }
    }
}

/// How deep a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Files, source, environment.
    Static,
    /// The serial profile's ratios.
    Ratios,
    /// The model's ranking for the new profile.
    Ranking,
    /// A race.
    Race,
}

impl Level {
    /// How it was found out, to be read after a comma.
    pub fn words(self) -> &'static str {
        match self {
            Self::Static => "from files alone",
            Self::Ratios => "from a serial profile",
            Self::Ranking => "from a serial profile and the model",
            Self::Race => "from a race",
        }
    }
}

/// What kind of thing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A file of the record.
    Record,
    /// The table in `treadle.toml`.
    Settings,
    /// The function's source.
    Source,
    /// The source of something that it uses.
    Callee,
    /// What makes the inputs.
    Items,
    /// Interpreter, packages, native pools.
    Environment,
    /// Processor, cores, memory.
    Machine,
    /// A ratio of the profile.
    Ratio,
    /// A condition under which it was to be revisited.
    Condition,
}

/// Something that is not as it was.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// What kind.
    pub kind: Kind,
    /// What changed, from what to what.
    pub words: String,
    /// Whether it can change the choice; what cannot is only told.
    pub weighs: bool,
}

impl Change {
    pub(super) fn weighing(kind: Kind, words: impl Into<String>) -> Self {
        Self {
            kind,
            words: words.into(),
            weighs: true,
        }
    }

    pub(super) fn remark(kind: Kind, words: impl Into<String>) -> Self {
        Self {
            kind,
            words: words.into(),
            weighs: false,
        }
    }
}

/// The answer about one decision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The decision's name.
    pub name: String,
    /// The answer.
    pub answer: Verdict,
    /// How deep it went.
    pub level: Level,
    /// The plan in force.
    pub plan: Plan,
    /// The plan that is better now; null unless overturned.
    pub instead: Option<Plan>,
    /// Proposed or accepted.
    pub status: Option<Status>,
    /// The function as it is recorded.
    pub function: Option<String>,
    /// The page of the record, from the folder of `treadle.toml`.
    pub record: Option<String>,
    /// What has changed.
    pub changes: Vec<Change>,
    /// Ratios of the recorded and the present profile; empty when none was taken.
    pub ratios: Vec<Ratio>,
    /// Why the answer follows.
    pub why: String,
    /// What to do.
    pub next: String,
    /// A short traceback of the user's own code, when that code raised.
    pub detail: Option<String>,
    /// Seconds that it took.
    pub elapsed_s: f64,
}

/// The answers of a check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Version of this shape.
    pub schema: u32,
    /// The worst of the answers: overturned, then stale, then inconclusive, then holds.
    pub answer: Verdict,
    /// Its exit code.
    pub exit_code: i32,
    /// The `treadle.toml` that was checked.
    pub settings: String,
    /// The answers, in the order of the file or of the names asked for.
    pub decisions: Vec<Answer>,
    /// What is wrong with the records as files, without bearing on an answer.
    pub remarks: Vec<String>,
}

impl Report {
    /// A report of these answers.
    pub fn new(settings: String, decisions: Vec<Answer>, remarks: Vec<String>) -> Self {
        let answer = decisions
            .iter()
            .map(|one| one.answer)
            .max()
            .unwrap_or(Verdict::Holds);
        Self {
            schema: SCHEMA,
            answer,
            exit_code: answer.exit_code(),
            settings,
            decisions,
            remarks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_what_asks_for_most() {
        let mut order = [
            Verdict::Overturned,
            Verdict::Holds,
            Verdict::Stale,
            Verdict::Inconclusive,
        ];
        order.sort();
        assert_eq!(order.map(Verdict::exit_code), [0, 3, 1, 2]);
    }
}
