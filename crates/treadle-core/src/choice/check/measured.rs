//! Levels 1 to 3: a new profile, the model with its demands, a race.

use super::super::comparison::Comparison;
use super::super::plan::Plan;
use super::super::race::EQUIVALENT;
use super::super::ranking::{self, Calibration, Ranking};
use super::super::record::{Condition, Evidence, measured};
use super::super::wording;
use super::answer::{Change, Kind, Level, Verdict};
use super::facts::{self, MachineFacts};
use super::order::{self, Order};
use super::ratios;
use super::{Case, Finding};

impl Case<'_> {
    /// Levels 1 and 2: the new profile against the recorded one, and the ranking for it.
    pub(super) fn demands(&mut self, evidence: &Evidence, now: &Comparison) -> Finding {
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
    pub(super) fn rivals(&self, evidence: &Evidence, now: &Comparison) -> Vec<Plan> {
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
    pub(super) fn order(&mut self, evidence: &Evidence, race: &Comparison) -> Finding {
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
