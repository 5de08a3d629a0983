//! Check: is each recorded decision still right? From the cheapest test to the dearest, as deep as it takes.
//!
//! ```text
//! facts    0  files, source, environment, machine: nothing that weighs has changed   → holds
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
pub mod order;
pub mod ratios;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::asking;
use super::compare::{Observer, Progress, compare};
use super::comparison::Comparison;
use super::error::ChoiceError;
use super::fingerprint::{self, Asked, Fingerprint};
use super::laboratory::{Laboratory, Refusal, Surroundings};
use super::plan::Plan;
use super::race::EQUIVALENT;
use super::ranking::{self, Calibration, Ranking};
use super::record::{self, Condition, Decided, Evidence, Settings, measured};
use super::request::{Request, default_limit};
use super::wording;
pub use answer::{Answer, Change, Kind, Level, Report, Verdict};
use facts::MachineFacts;
use order::Order;
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

    fn evidence(&mut self) -> Result<Evidence, Box<Finding>> {
        let stale = |why: String, next: String| {
            Box::new(Finding::new(Verdict::Stale, Level::Static, why, next))
        };
        let Some(stem) = self.decided.stem() else {
            let words = match &self.decided.record {
                None => "its table in treadle.toml names no record".to_owned(),
                Some(record) => format!(
                    "its record in treadle.toml, {record}, is not a page in {}",
                    record::FOLDER
                ),
            };
            self.changes.push(Change::weighing(Kind::Record, words));
            return Err(stale(
                "without evidence nothing stands behind the plan.".to_owned(),
                format!("decide it again: {}", self.again(None)),
            ));
        };
        let path = self.settings.folder().join(format!("{stem}.json"));
        let page = self.settings.folder().join(format!("{stem}.md"));
        if !page.is_file() {
            self.changes.push(Change::remark(
                Kind::Record,
                format!("its page is missing: there is no {}", page.display()),
            ));
        }
        record::read_evidence(&path, &self.decided.name).map_err(|unusable| {
            self.changes
                .push(Change::weighing(Kind::Record, unusable.why));
            stale(
                "without evidence nothing stands behind the plan.".to_owned(),
                format!("{}: {}", unusable.hint, self.again(None)),
            )
        })
    }

    /// Level 0: fills in the changes; an answer only where the function cannot be loaded.
    fn facts(
        &mut self,
        evidence: &Evidence,
        surroundings: Surroundings<'_>,
    ) -> Result<Option<Finding>, ChoiceError> {
        self.changes.extend(facts::settings(self.decided, evidence));
        let function = self
            .decided
            .function
            .clone()
            .unwrap_or_else(|| evidence.function.clone());
        let items = self
            .decided
            .items
            .clone()
            .unwrap_or_else(|| evidence.comparison.items.spec.clone());
        let packages: Vec<String> = evidence
            .fingerprint
            .environment
            .distributions
            .keys()
            .cloned()
            .collect();
        let folder = self.folder();
        if !folder.is_dir() {
            self.changes.push(Change::weighing(
                Kind::Settings,
                format!("there is no folder {}", folder.display()),
            ));
            return Ok(Some(Finding::new(
                Verdict::Stale,
                Level::Static,
                "the function was run from that folder.",
                format!(
                    "mend `folder` of decision `{}` in treadle.toml, or delete the decision",
                    self.decided.name
                ),
            )));
        }
        let mut laboratory = asking::start(&self.request(evidence).launch())?;
        let asked = fingerprint::ask(
            &mut laboratory,
            Some(&function),
            Some(&items),
            Some(&packages),
            surroundings,
        )?;
        let now = match asked {
            Asked::Found(found) => *found,
            Asked::Refused(refusal) => {
                let finding = self.missing(&function, evidence, refusal, laboratory, surroundings);
                return Ok(Some(finding));
            }
        };
        laboratory.leave(surroundings);
        self.static_changes(&function, evidence, &now);
        Ok(None)
    }

    fn static_changes(&mut self, function: &str, evidence: &Evidence, now: &Fingerprint) {
        self.changes
            .extend(facts::fingerprint(function, &evidence.fingerprint, now));
        self.changes.extend(facts::machine(
            &MachineFacts::recorded(evidence),
            self.machine,
        ));
        self.changes.extend(facts::conditions(
            &evidence.revisit,
            self.machine,
            &now.environment,
        ));
    }

    /// The function is not where it was, or its module cannot be imported here.
    fn missing(
        &mut self,
        function: &str,
        evidence: &Evidence,
        refusal: Refusal,
        mut laboratory: Laboratory,
        surroundings: Surroundings<'_>,
    ) -> Finding {
        let gone = matches!(
            refusal.kind.as_str(),
            "target-file" | "target-module" | "target-function" | "target-not-callable"
        );
        if !gone {
            laboratory.leave(surroundings);
            self.changes
                .push(Change::weighing(Kind::Source, refusal.message));
            return Finding {
                detail: refusal.detail,
                ..Finding::new(
                    Verdict::Inconclusive,
                    Level::Static,
                    format!("{function} cannot be loaded here, so nothing can be said about it."),
                    refusal
                        .hint
                        .unwrap_or_else(|| "make its module importable here".to_owned()),
                )
            };
        }
        let hash = evidence.fingerprint.source.function.as_deref();
        let places = fingerprint::locate(&mut laboratory, function, hash, surroundings);
        laboratory.leave(surroundings);
        self.changes.push(Change::weighing(
            Kind::Source,
            format!("{function} is gone: {}", refusal.message),
        ));
        let name = &self.decided.name;
        match places.first() {
            Some(place) => Finding::new(
                Verdict::Stale,
                Level::Static,
                format!(
                    "a function of that name is in {}{}.",
                    place.target,
                    if place.same {
                        ", with the same source: it has moved"
                    } else {
                        ", with another source"
                    }
                ),
                format!(
                    "write function = \"{}\" in [decision.{name}] of treadle.toml, then check again; or decide it again with --save {name}",
                    place.target
                ),
            ),
            None => Finding::new(
                Verdict::Stale,
                Level::Static,
                "the decision is about a function that is not there any more.",
                format!(
                    "if it has another name now, write it as `function` in [decision.{name}] of treadle.toml; if it is no more, delete the table, \
                     the page and the evidence"
                ),
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

    fn unchanged(&self, evidence: &Evidence) -> Finding {
        Finding::new(
            Verdict::Holds,
            Level::Static,
            "nothing that the choice rests on has changed: source, inputs, Python, packages and machine are those of the record.",
            if evidence.status == record::Status::Proposed {
                format!("no race has confirmed it yet: {}", evidence.afresh)
            } else {
                "nothing".to_owned()
            },
        )
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

    /// Levels 1 and 2: the new profile against the recorded one, and the ranking for it.
    fn demands(&mut self, evidence: &Evidence, now: &Comparison) -> Finding {
        let before = &evidence.comparison;
        let alike = MachineFacts::recorded(evidence).alike(self.machine);
        self.ratios = ratios::ratios(&before.profile, &now.profile, alike);
        self.changes.extend(
            self.ratios
                .iter()
                .filter(|ratio| ratio.moved)
                .map(|ratio| Change::weighing(Kind::Ratio, ratio.words.clone())),
        );
        self.changes.extend(
            evidence
                .revisit
                .iter()
                .filter(|condition| holds_now(condition, now))
                .map(facts::met),
        );
        let plan = self.decided.plan;
        // A pilot counts only when both were made on a quiet machine, or the two sides would differ by it.
        let trusted = ranking::quiet(before) && ranking::quiet(now);
        let settings = [before, now].map(|one| ranking::setting(one, trusted));
        let profiles = ranking::comparable(&before.profile, &now.profile, trusted, alike);
        let calibration = Calibration::of(before, &profiles[0], &settings[0]);
        let mut field = self.rivals_of_all(evidence, now);
        field.push(plan);
        let [then, here] = [0, 1]
            .map(|side| ranking::standings(&field, &profiles[side], &settings[side], &calibration));
        let ranked = ranking::rank(plan, &here, &then);
        let portrait = format!(
            "A task is {} now ({} of its time computing){}",
            now.profile.class.name(),
            wording::percent(now.profile.cpu_share()),
            if now.profile.class == before.profile.class {
                ", as in the record"
            } else {
                ""
            }
        );
        let again = format!("decide it afresh: {}", evidence.afresh);
        match ranked {
            Ranking::Infeasible { why, rival } => Finding {
                instead: rival.as_ref().map(|rival| rival.plan),
                ..Finding::new(
                    Verdict::Overturned,
                    Level::Ratios,
                    format!("{} cannot run it any more: {why}.", plan.label()),
                    again,
                )
            },
            Ranking::Overtaken {
                rival,
                times,
                simpler,
            } => {
                let words = if simpler {
                    format!(
                        "{portrait}, so {} is as good as {} and simpler.",
                        rival.plan.label(),
                        plan.label()
                    )
                } else {
                    format!(
                        "{portrait}, so {} is expected to do {times:.1} times as much as {}; what limits it is {}.",
                        rival.plan.label(),
                        plan.label(),
                        rival.limit
                    )
                };
                let size_only = rival.plan.strategy() == plan.strategy();
                if size_only
                    && facts::differs(before.machine.usable_cores, now.machine.usable_cores)
                {
                    return Finding::new(
                        Verdict::Stale,
                        Level::Ranking,
                        format!(
                            "{words} The strategy is the same; its size follows from the cores."
                        ),
                        format!("on the machine that it is for, {again}"),
                    );
                }
                Finding {
                    instead: Some(rival.plan),
                    ..Finding::new(Verdict::Overturned, Level::Ranking, words, again)
                }
            }
            Ranking::Unclear { rival, times } => Finding::new(
                Verdict::Inconclusive,
                Level::Ranking,
                format!(
                    "{portrait}, and {} may now reach {times:.2} times the throughput of {}: less than the model can tell.",
                    rival.plan.label(),
                    plan.label()
                ),
                format!("race them: treadle check {} --race", self.decided.name),
            ),
            Ranking::First { margin, runner_up } => {
                let ahead = match (margin, runner_up) {
                    (Some(margin), Some(rival)) if margin > EQUIVALENT => format!(
                        ", so {} stays first, {} ahead of {}",
                        plan.label(),
                        wording::percent(margin),
                        rival.plan.label()
                    ),
                    _ => format!(
                        ", and no plan gains on {} by more than the model can tell",
                        plan.label()
                    ),
                };
                self.kept(format!("{portrait}{ahead}."), evidence, Level::Ranking)
            }
        }
    }

    /// The choice is not contradicted: it holds, unless the record no longer describes the function.
    fn kept(&self, why: String, evidence: &Evidence, level: Level) -> Finding {
        let moved = self.changes.iter().any(|change| {
            change.weighs && matches!(change.kind, Kind::Ratio | Kind::Condition | Kind::Settings)
        });
        let again = self.again(Some(evidence));
        if moved {
            return Finding::new(
                Verdict::Stale,
                level,
                format!("{why} The record's numbers no longer describe it."),
                format!("record it as it is now: {again}"),
            );
        }
        let weighs = self.changes.iter().any(|change| change.weighs);
        Finding::new(
            Verdict::Holds,
            level,
            why,
            if weighs {
                format!("nothing; to have the record say so: {again}")
            } else {
                "nothing".to_owned()
            },
        )
    }

    /// Every plan that may win now: the record's, and those that the model names for the new profile.
    fn rivals_of_all(&self, evidence: &Evidence, now: &Comparison) -> Vec<Plan> {
        let mut found = ranking::plans(&evidence.comparison);
        found.extend(ranking::plans(now));
        found.push(Plan::SERIAL);
        found.sort_by_key(Plan::simplicity);
        found.dedup();
        found
    }

    /// The plans of a race: the plan in force, the runner-up, what the model names first now; serial always is.
    fn rivals(&self, evidence: &Evidence, now: &Comparison) -> Vec<Plan> {
        let plan = self.decided.plan;
        let mut found = vec![plan];
        found.extend(evidence.margin.as_ref().map(|margin| margin.plan));
        let setting = ranking::setting(now, ranking::quiet(now));
        let before = &evidence.comparison;
        let calibration = Calibration::of(
            before,
            &before.profile,
            &ranking::setting(before, ranking::quiet(before)),
        );
        let field = self.rivals_of_all(evidence, now);
        found.extend(
            ranking::standings(&field, &now.profile, &setting, &calibration)
                .into_iter()
                .filter(|rival| rival.infeasible.is_none() && rival.plan != plan)
                .max_by(|one, other| one.per_s.total_cmp(&other.per_s))
                .map(|rival| rival.plan),
        );
        let mut unique = Vec::new();
        for one in found {
            if !unique.contains(&one) {
                unique.push(one);
            }
        }
        unique
    }

    /// Level 3.
    fn order(&mut self, evidence: &Evidence, race: &Comparison) -> Finding {
        let missed = &race.decision.missed_targets;
        if race.decision.plan.is_some()
            && !missed.is_empty()
            && evidence.comparison.decision.missed_targets.is_empty()
        {
            let alike = MachineFacts::recorded(evidence).alike(self.machine);
            return Finding::new(
                if alike {
                    Verdict::Overturned
                } else {
                    Verdict::Stale
                },
                Level::Race,
                format!(
                    "no plan meets the targets any more: {}{}.",
                    missed.join(", "),
                    if alike { "" } else { ", on another machine" }
                ),
                format!("decide it afresh: {}", evidence.afresh),
            );
        }
        match order::order(self.decided.plan, race) {
            Order::Kept(words) => self.kept(format!("{words}."), evidence, Level::Race),
            Order::Lost { rival, words } => Finding {
                instead: Some(rival),
                ..Finding::new(
                    Verdict::Overturned,
                    Level::Race,
                    format!("{words}."),
                    format!("decide it afresh: {}", evidence.afresh),
                )
            },
            Order::Unclear(words) => Finding::new(
                Verdict::Inconclusive,
                Level::Race,
                format!("{words}."),
                format!(
                    "run it again on a quiet machine, or with a larger --budget: treadle check {} --race --budget {}",
                    self.decided.name,
                    self.asking.budget_s * 2.0
                ),
            ),
        }
    }
}

/// Whether a condition on a measured fact is met by the new profile.
fn holds_now(condition: &Condition, now: &Comparison) -> bool {
    measured(&condition.fact, &now.profile).is_some_and(|value| condition.met_by(value))
}
