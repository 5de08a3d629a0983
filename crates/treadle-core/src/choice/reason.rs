//! The reason: the decision's paragraph, from the numbers, for a person who is tired.

use super::comparison::{Candidate, Confidence, Decision, Outcome, RaceAccount};
use super::confidence::{self, Evidence};
use super::decide::Choice;
use super::model::{Curve, Form, Prediction, Setting};
use super::noise::{Level, Verdict};
use super::plan::{Plan, Strategy};
use super::portrait::portrait;
use super::profile::Profile;
use super::target::Target;
use super::wording::{count, rate, seconds};

/// Tasks' times that a race of the plain loop and one other plan takes: a warm-up of one and two rounds of five, and a pool that drains twice.
const TASKS_OF_A_RACE: f64 = 14.0;

/// Everything that the paragraph draws on.
pub(super) struct Grounds<'a> {
    pub(super) function: &'a str,
    pub(super) profile: &'a Profile,
    pub(super) setting: &'a Setting,
    pub(super) candidates: &'a [Candidate],
    pub(super) choice: Option<&'a Choice>,
    pub(super) race: Option<&'a RaceAccount>,
    pub(super) verdict: &'a Verdict,
    pub(super) ignored: bool,
    /// Whether the race was certain of the choice.
    pub(super) certain: bool,
    /// Whether the gate let no race run.
    pub(super) refused: bool,
    /// Whether the gate found after the race that it tells nothing.
    pub(super) cannot_tell: bool,
    /// Why there was no race, if it was not for the gate.
    pub(super) left_out: Option<&'a str>,
    pub(super) profile_only: bool,
    pub(super) targets: &'a [Target],
}

/// Why a plan is not raced that promises far less than another one, or mixes two and promises no more than they.
pub(super) fn shut_out(prediction: &Prediction) -> String {
    if prediction.plan.strategy() == Strategy::Hybrid {
        format!(
            "it mixes two plans, and promises {}, not 5 % more than one of them alone",
            rate(prediction.batch_per_s)
        )
    } else if prediction.batch_per_s < 0.8 * prediction.per_s {
        format!(
            "this batch is too short to repay the start of its workers (about {} with it, {} without)",
            rate(prediction.batch_per_s),
            rate(prediction.per_s)
        )
    } else {
        format!(
            "even the high end of its prediction, {}, is far below the best",
            rate(prediction.high_per_s)
        )
    }
}

/// A form that was not raced: its best size with its prediction, or why it cannot run.
pub(super) fn unraced(
    curve: &Curve,
    candidates: &[Candidate],
    setting: &Setting,
) -> Option<Candidate> {
    let raced = |one: &Candidate| Form::of(one.plan) == Some(curve.form);
    if candidates.iter().any(raced) {
        return None;
    }
    let size = setting.cores.ceil().max(2.0) as u32;
    let shown = curve
        .knee()
        .or_else(|| {
            let large = |one: &&Prediction| one.plan.workers() >= size;
            curve.points.iter().find(large)
        })
        .or(curve.points.last())?;
    let (outcome, reason) = match &shown.infeasible {
        Some(why) => (Outcome::Infeasible, why.clone()),
        None => (Outcome::NotRaced, shut_out(shown)),
    };
    Some(Candidate {
        plan: shown.plan,
        predicted_per_s: shown.per_s,
        predicted_low_per_s: shown.low_per_s,
        predicted_high_per_s: Some(shown.high_per_s),
        bound_per_s: Some(shown.bound_per_s),
        prediction_error: None,
        measured_per_s: None,
        interval_per_s: None,
        batch_per_s: None,
        speedup: None,
        p50_s: None,
        p99_s: None,
        cpu_cores: None,
        peak_memory_bytes: None,
        memory_kind: None,
        start_s: None,
        errors: 0,
        tasks: 0,
        blocks: 0,
        limit: shown.limit.clone(),
        outcome,
        reason,
    })
}

/// The decision with its paragraph.
pub(super) fn decision(grounds: &Grounds<'_>) -> Decision {
    let mut sentences = Vec::new();
    let undecided = |sentences: Vec<String>| Decision {
        plan: None,
        reason: sentences.join(" "),
        confidence: Confidence::None,
        doubts: Vec::new(),
        missed_targets: Vec::new(),
        code: None,
    };
    if grounds.cannot_tell {
        sentences.push(
            "Cannot tell: the machine was too noisy while the plans raced, so their numbers say more about it than about them."
                .to_owned(),
        );
        sentences.push(grounds_sentence(grounds.verdict));
        sentences.push(portrait(grounds.profile, grounds.setting));
        sentences.push(
            "Run this again when nothing else runs, or set TREADLE_NOISE=ignore to decide all the same."
                .to_owned(),
        );
        return undecided(sentences);
    }
    if let Some(why) = grounds.left_out {
        sentences.push(format!(
            "Nothing was decided, for there was no race: {why}. Give more inputs, or leave out --once if they may be run again."
        ));
        sentences.push(portrait(grounds.profile, grounds.setting));
        return undecided(sentences);
    }
    if grounds.refused {
        sentences.push("Cannot tell: the machine is too noisy to race plans on.".to_owned());
        sentences.push(grounds_sentence(grounds.verdict));
        sentences.push(portrait(grounds.profile, grounds.setting));
        sentences.push(
            "The bounds above hold for a quiet machine; run this again when it is, or set TREADLE_NOISE=ignore to race all the same."
                .to_owned(),
        );
        return undecided(sentences);
    }
    let (Some(choice), Some(race)) = (grounds.choice, grounds.race) else {
        sentences.push(if grounds.profile_only {
            "Nothing was decided: only the profile was asked for, so the bounds are predictions that no race has confirmed.".to_owned()
        } else {
            format!(
                "Nothing was decided: the budget was spent before any plan could be measured; where a task takes {}, give a --budget of {} or more.",
                seconds(grounds.profile.wall_s),
                seconds((TASKS_OF_A_RACE * grounds.profile.wall_s).ceil())
            )
        });
        sentences.push(portrait(grounds.profile, grounds.setting));
        return undecided(sentences);
    };
    let Some(chosen) = grounds
        .candidates
        .iter()
        .find(|one| one.outcome == Outcome::Chosen)
    else {
        sentences.push("Nothing was decided: no plan could be measured.".to_owned());
        return undecided(sentences);
    };
    let serial = grounds.candidates.first();
    sentences.push(headline(chosen, serial, grounds));
    sentences.push(portrait(grounds.profile, grounds.setting));
    if chosen.plan != Plan::SERIAL {
        sentences.push(format!("What limits it now: {}.", chosen.limit));
    }
    sentences.extend(comparisons(chosen, grounds));
    if !choice.misses.is_empty() {
        let words: Vec<&str> = choice
            .misses
            .iter()
            .map(|miss| miss.words.as_str())
            .collect();
        sentences.insert(
            0,
            format!(
                "No plan meets the targets; {} fails least: {}.",
                chosen.plan.label(),
                words.join(", ")
            ),
        );
    } else if !grounds.targets.is_empty() {
        let words: Vec<&str> = grounds
            .targets
            .iter()
            .map(|target| target.text.as_str())
            .collect();
        sentences.push(format!("It meets {}.", words.join(", ")));
    }
    if chosen.errors > 0 {
        sentences.push(format!(
            "{} of its {} tasks raised an exception; they are counted as done.",
            chosen.errors, chosen.tasks
        ));
    }
    let doubts = confidence::doubts(&evidence(chosen, race, grounds));
    let confidence = if doubts.is_empty() {
        Confidence::High
    } else {
        let words: Vec<&str> = doubts.iter().map(|(_, words)| words.as_str()).collect();
        let mut advice: Vec<&str> = Vec::new();
        for (condition, _) in &doubts {
            if !advice.contains(&condition.advice) {
                advice.push(condition.advice);
            }
        }
        sentences.push(format!(
            "Confidence is low: {}. To be surer, {}.",
            words.join("; "),
            advice.join(", ")
        ));
        Confidence::Low
    };
    Decision {
        plan: Some(chosen.plan),
        reason: sentences.join(" "),
        confidence,
        doubts: doubts
            .iter()
            .map(|(condition, _)| condition.name.to_owned())
            .collect(),
        missed_targets: choice
            .misses
            .iter()
            .map(|miss| miss.words.clone())
            .collect(),
        code: Some(chosen.plan.code(short_name(grounds.function))),
    }
}

/// The function's name without its module.
fn short_name(function: &str) -> &str {
    function.rsplit(':').next().unwrap_or(function)
}

fn headline(chosen: &Candidate, serial: Option<&Candidate>, grounds: &Grounds<'_>) -> String {
    let measured = chosen.measured_per_s.map_or_else(String::new, rate);
    if chosen.plan == Plan::SERIAL {
        let best = grounds
            .candidates
            .iter()
            .filter(|one| one.plan != Plan::SERIAL && one.outcome != Outcome::Infeasible)
            .filter_map(|one| Some((one.plan.label(), one.speedup?)))
            .max_by(|one, other| one.1[0].total_cmp(&other.1[0]));
        return match best {
            Some((label, [times, low, high])) => format!(
                "Keep the plain loop: it does {measured}, and the best other plan, {label}, is {times:.2} times as fast as it ({low:.2} to {high:.2})."
            ),
            None => format!(
                "Keep the plain loop: it does {measured}, and no other plan could be measured."
            ),
        };
    }
    let speedup = match (chosen.speedup, serial.and_then(|one| one.measured_per_s)) {
        (Some([times, low, high]), Some(base)) => format!(
            " against the plain loop's {}; {}that is {times:.2} times as fast (95 % interval {low:.2} to {high:.2})",
            rate(base),
            match grounds.setting.count {
                Some(inputs) => format!(
                    "over these {} inputs, the start of its workers included, ",
                    count(inputs)
                ),
                None => String::new(),
            }
        ),
        (None, Some(base)) => format!(" against the plain loop's {}", rate(base)),
        _ => String::new(),
    };
    format!("Use {}: {measured}{speedup}.", chosen.plan.label())
}

/// How the other strategies did, one sentence each at most.
fn comparisons(chosen: &Candidate, grounds: &Grounds<'_>) -> Vec<String> {
    let mut seen = vec![chosen.plan.strategy(), Strategy::Serial];
    let mut sentences = Vec::new();
    for other in grounds.candidates {
        let strategy = other.plan.strategy();
        if seen.contains(&strategy) {
            continue;
        }
        seen.push(strategy);
        let label = other.plan.label();
        sentences.push(match other.outcome {
            Outcome::Infeasible => format!("{label} cannot run it: {}.", other.reason),
            Outcome::NotRaced => format!("{label} was not raced: {}.", other.reason),
            _ => format!(
                "{label} reached {}, bound by {}: {}.",
                other.measured_per_s.map_or_else(String::new, rate),
                other.limit,
                other.reason
            ),
        });
    }
    sentences
}

fn grounds_sentence(verdict: &Verdict) -> String {
    let mut text = verdict.grounds.join("; ");
    if let Some(first) = text.get(..1) {
        text.replace_range(..1, &first.to_uppercase());
    }
    text.push('.');
    text
}

/// What is known when the confidence is told.
fn evidence(chosen: &Candidate, race: &RaceAccount, grounds: &Grounds<'_>) -> Evidence {
    Evidence {
        noise: grounds.verdict.level,
        noise_grounds: grounds.verdict.grounds.clone(),
        overridden: grounds.verdict.level == Level::Refuse && grounds.ignored,
        finish: race.finish.clone(),
        budget_s: race.budget_s,
        certain: grounds.certain,
        blocks: chosen.blocks,
        warmed_up: race.warmed_up,
        rounds: race.rounds,
        disturbed_rounds: race.disturbed_rounds,
        contended: race.contended,
        drift: race.control_drift,
        sample: grounds.profile.count,
    }
}
