//! Check: is each recorded decision still right? From the cheapest test to the dearest, as deep as it takes.
//!
//! ```text
//! files    0  files, source, environment, machine (`facts`): nothing that weighs has changed   → holds
//! measured    what a measurement tells:
//! ratios   1  a serial profile: shares, bytes, picklability against the record
//! ranking  2  the model with the new demands: is the plan still first?
//! order    3  with --race: the plan, its runner-up and serial, raced again
//! answer      the four answers, and which is the worst of several
//! ```
//!
//! *Guarantees*: nothing is written; the function runs only in processes of its own; the order of plans is tested, never an
//! absolute time.
//! *Assumes*: the record's folder is where the program lives.

pub mod answer;
pub mod facts;
mod files;
mod measured;
pub mod order;
pub mod ratios;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::compare::{Observer, Progress, compare};
use super::error::ChoiceError;
use super::laboratory::Surroundings;
use super::plan::Plan;
use super::record::{self, Decided, Evidence, Settings};
use super::request::{Request, default_limit};
pub use answer::{Answer, Change, Kind, Level, Report, Verdict};
use facts::MachineFacts;
use ratios::Ratio;

/// Seconds of the serial profile: the sample takes about half of them, which is some hundred tasks of ten milliseconds.
const PROFILE_S: f64 = 3.0;

/// What is to be checked, and how deep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asking {
    /// The decisions; all of them when none is named.
    #[serde(default)]
    pub names: Vec<String>,
    /// The folder from which `treadle.toml` is looked for, upwards.
    pub directory: PathBuf,
    /// Level 0 only.
    #[serde(default, rename = "static")]
    pub static_only: bool,
    /// Profile and rank even where nothing has changed.
    #[serde(default)]
    pub measure: bool,
    /// Race unless a lower level contradicts the choice.
    #[serde(default)]
    pub race: bool,
    /// Seconds of the race.
    #[serde(default = "default_budget")]
    pub budget_s: f64,
    /// Race however noisy the machine is.
    #[serde(default)]
    pub ignore_noise: bool,
    /// The Python interpreter whose `treadle._laboratory` measures.
    #[serde(default)]
    pub python: Option<String>,
    /// Program and arguments of the measuring process, instead of `python`.
    #[serde(default)]
    pub laboratory: Option<Vec<String>>,
}

fn default_budget() -> f64 {
    15.0
}

impl Asking {
    /// Every decision of the nearest file, from files alone or with a profile where something has changed.
    pub fn new(directory: &Path) -> Self {
        Self {
            names: Vec::new(),
            directory: directory.to_path_buf(),
            static_only: false,
            measure: false,
            race: false,
            budget_s: default_budget(),
            ignore_noise: false,
            python: None,
            laboratory: None,
        }
    }
}

/// The decisions that a check of `asking` would look at: file and names.
pub fn decisions(directory: &Path) -> Result<(PathBuf, Vec<String>), ChoiceError> {
    let settings = Settings::find(directory, "NAME")?;
    let names = settings.names();
    Ok((settings.path, names))
}

/// Checks as asked. What keeps `treadle.toml` from being read is an error; what is wrong with one decision is its answer.
pub fn check(
    asking: &Asking,
    observer: &mut dyn Observer,
    surroundings: Surroundings<'_>,
) -> Result<Report, ChoiceError> {
    if !(asking.budget_s > 0.0 && asking.budget_s.is_finite()) {
        return Err(ChoiceError::usage(
            format!("the budget is {} s, but a race needs time", asking.budget_s),
            "give --budget a number of seconds above 0, such as --budget 15",
        ));
    }
    let wanted = asking.names.first().map_or("NAME", String::as_str);
    let settings = Settings::find(&asking.directory, wanted)?;
    let decisions = settings.decisions(&asking.names)?;
    let machine = MachineFacts::read();
    let mut answers = Vec::new();
    for decided in &decisions {
        observer.progress(&Progress::Checking {
            name: decided.name.clone(),
        });
        let began = (surroundings.clock)();
        let mut case = Case {
            asking,
            settings: &settings,
            decided,
            machine: &machine,
            changes: Vec::new(),
            ratios: Vec::new(),
        };
        let finding = case.judge(observer, surroundings)?;
        let elapsed = (surroundings.clock)() - began;
        answers.push(case.answer(finding, elapsed));
    }
    Ok(Report::new(
        settings.path.display().to_string(),
        answers,
        record::numbering(&settings.folder().join(record::FOLDER)),
    ))
}

/// What was found out about a decision.
struct Finding {
    verdict: Verdict,
    level: Level,
    instead: Option<Plan>,
    why: String,
    next: String,
    detail: Option<String>,
}

impl Finding {
    fn new(
        verdict: Verdict,
        level: Level,
        why: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self {
            verdict,
            level,
            instead: None,
            why: why.into(),
            next: next.into(),
            detail: None,
        }
    }
}

/// One decision under check.
struct Case<'a> {
    asking: &'a Asking,
    settings: &'a Settings,
    decided: &'a Decided,
    machine: &'a MachineFacts,
    changes: Vec<Change>,
    ratios: Vec<Ratio>,
}

impl Case<'_> {
    fn answer(self, finding: Finding, elapsed_s: f64) -> Answer {
        Answer {
            name: self.decided.name.clone(),
            answer: finding.verdict,
            level: finding.level,
            plan: self.decided.plan,
            instead: finding.instead,
            status: self.decided.status,
            function: self.decided.function.clone(),
            record: self.decided.record.clone(),
            changes: self.changes,
            ratios: self.ratios,
            why: finding.why,
            next: finding.next,
            detail: finding.detail,
            elapsed_s,
        }
    }

    fn judge(
        &mut self,
        observer: &mut dyn Observer,
        surroundings: Surroundings<'_>,
    ) -> Result<Finding, ChoiceError> {
        let evidence = match self.evidence() {
            Ok(evidence) => evidence,
            Err(finding) => return Ok(*finding),
        };
        if let Some(finding) = self.facts(&evidence, surroundings)? {
            return Ok(finding);
        }
        let weighs = self.changes.iter().any(|change| change.weighs);
        if self.asking.static_only {
            return Ok(if weighs {
                Finding::new(
                    Verdict::Stale,
                    Level::Static,
                    "what it rests on has changed; whether the choice still holds, files alone do not tell.",
                    format!(
                        "treadle check {} measures and says whether it does",
                        self.decided.name
                    ),
                )
            } else {
                self.unchanged(&evidence)
            });
        }
        if !weighs && !self.asking.measure && !self.asking.race {
            return Ok(self.unchanged(&evidence));
        }
        let request = self.request(&evidence);
        if request.once && self.asking.race {
            return self.once(&evidence, request, observer, surroundings);
        }
        let profiled = Request {
            budget_s: PROFILE_S,
            profile_only: true,
            ..request.clone()
        };
        let now = match compare(&profiled, observer, surroundings) {
            Ok(now) => now,
            Err(ChoiceError::Interrupted) => return Err(ChoiceError::Interrupted),
            Err(error) => return Ok(self.unmeasurable(&error, Level::Ratios)),
        };
        let finding = self.demands(&evidence, &now);
        if !self.asking.race || finding.verdict == Verdict::Overturned {
            return Ok(finding);
        }
        let rivals: Vec<String> = self
            .rivals(&evidence, &now)
            .iter()
            .map(Plan::label)
            .collect();
        let raced = Request {
            plans: Some(rivals.join(";")),
            budget_s: self.asking.budget_s,
            targets: self.decided.targets.clone(),
            ..request
        };
        match compare(&raced, observer, surroundings) {
            Ok(race) => Ok(self.order(&evidence, &race)),
            Err(ChoiceError::Interrupted) => Err(ChoiceError::Interrupted),
            Err(error) => Ok(self.unmeasurable(&error, Level::Race)),
        }
    }

    /// Levels 1 to 3 in one race, for inputs that may be run once: its own sample is the profile.
    fn once(
        &mut self,
        evidence: &Evidence,
        request: Request,
        observer: &mut dyn Observer,
        surroundings: Surroundings<'_>,
    ) -> Result<Finding, ChoiceError> {
        let mut plans = vec![self.decided.plan.label()];
        plans.extend(evidence.margin.as_ref().map(|margin| margin.plan.label()));
        let raced = Request {
            plans: Some(plans.join(";")),
            budget_s: self.asking.budget_s,
            targets: self.decided.targets.clone(),
            ..request
        };
        let race = match compare(&raced, observer, surroundings) {
            Ok(race) => race,
            Err(ChoiceError::Interrupted) => return Err(ChoiceError::Interrupted),
            Err(error) => return Ok(self.unmeasurable(&error, Level::Race)),
        };
        let finding = self.demands(evidence, &race);
        Ok(if finding.verdict == Verdict::Overturned {
            finding
        } else {
            self.order(evidence, &race)
        })
    }

    /// The command that decides again, as it was recorded or as far as it is known.
    fn again(&self, evidence: Option<&Evidence>) -> String {
        match evidence {
            Some(evidence) => evidence.command.clone(),
            None => format!(
                "treadle compare {} --items {} --save {}",
                self.decided.function.as_deref().unwrap_or("TARGET"),
                self.decided
                    .items
                    .as_deref()
                    .map_or("SPEC".to_owned(), |spec| format!("'{spec}'")),
                self.decided.name
            ),
        }
    }

    /// The folder that function and items are found from.
    fn folder(&self) -> PathBuf {
        let base = self.settings.folder();
        self.decided
            .folder
            .as_ref()
            .map_or_else(|| base.to_path_buf(), |folder| base.join(folder))
    }

    fn request(&self, evidence: &Evidence) -> Request {
        let decided = self.decided;
        let items = &evidence.comparison.items;
        Request {
            star: decided.star,
            once: decided.once,
            limit: decided.limit.unwrap_or_else(default_limit),
            ignore_noise: self.asking.ignore_noise,
            python: self.asking.python.clone(),
            laboratory: self.asking.laboratory.clone(),
            directory: Some(self.folder()),
            ..Request::new(
                decided.function.as_deref().unwrap_or(&evidence.function),
                decided.items.as_deref().unwrap_or(&items.spec),
            )
        }
    }

    /// The function could not be measured.
    fn unmeasurable(&self, error: &ChoiceError, level: Level) -> Finding {
        Finding {
            detail: error.detail().map(str::to_owned),
            ..Finding::new(
                Verdict::Inconclusive,
                level,
                format!("it could not be measured: {error}"),
                error.hint().unwrap_or("see the message above"),
            )
        }
    }
}
