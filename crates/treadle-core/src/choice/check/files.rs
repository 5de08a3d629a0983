//! Level 0: what files and the machine tell, with nothing measured.

use super::super::asking;
use super::super::error::ChoiceError;
use super::super::fingerprint::{self, Asked, Fingerprint};
use super::super::laboratory::{Laboratory, Refusal, Surroundings};
use super::super::record::{self, Evidence};
use super::answer::{Change, Kind, Level, Verdict};
use super::facts::{self, MachineFacts};
use super::{Case, Finding};

impl Case<'_> {
    pub(super) fn evidence(&mut self) -> Result<Evidence, Box<Finding>> {
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
    pub(super) fn facts(
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

    pub(super) fn unchanged(&self, evidence: &Evidence) -> Finding {
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
}
