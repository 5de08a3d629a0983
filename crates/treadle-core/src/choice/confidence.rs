//! The confidence: high is earned, and `CONDITIONS` lists what must hold for it.

use super::noise::Level;
use super::race::LEAST_ROUNDS;
use super::wording;

/// What is known when the confidence is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The noise gate's verdict over all its readings, and its grounds.
    pub noise: Level,
    /// The readings over their limits, in words.
    pub noise_grounds: Vec<String>,
    /// Whether the gate would have refused, but was overridden.
    pub overridden: bool,
    /// How the race ended, as in JSON.
    pub finish: String,
    /// What the race was given, in seconds.
    pub budget_s: f64,
    /// Whether the race was certain of the plan that was chosen.
    pub certain: bool,
    /// Blocks of the chosen plan that count.
    pub blocks: usize,
    /// Whether a warm-up was discarded.
    pub warmed_up: bool,
    /// Counted rounds.
    pub rounds: usize,
    /// Those of them that others disturbed.
    pub disturbed_rounds: usize,
    /// Whether fair rates were compared, since most rounds were disturbed.
    pub contended: bool,
    /// The control's speed in the later half of the race over that in the earlier half.
    pub drift: Option<f64>,
    /// Tasks in the serial sample.
    pub sample: u64,
}

/// A condition of high confidence.
#[derive(Debug, Clone, Copy)]
pub struct Condition {
    /// Its name in JSON.
    pub name: &'static str,
    /// Why it does not hold, in words; `None` when it holds.
    pub doubt: fn(&Evidence) -> Option<String>,
    /// What to do about it.
    pub advice: &'static str,
}

/// The machine may change its speed by so much between the halves of a race: twice the smallest gain worth having, for medians of few
/// blocks scatter.
const DRIFT: f64 = 0.10;
/// Tasks of the sample: with two, a single hiccup is half of the profile.
const LEAST_SAMPLE: u64 = 3;
const MORE_TIME: &str = "give a larger --budget";
const QUIET: &str = "run it again when nothing else runs";

/// What must hold for high confidence: each, or the confidence is low.
pub const CONDITIONS: [Condition; 11] = [
    Condition {
        name: "quiet-machine",
        doubt: |evidence| {
            (evidence.noise != Level::Quiet).then(|| {
                format!(
                    "the machine was noisy ({})",
                    evidence.noise_grounds.join(", ")
                )
            })
        },
        advice: QUIET,
    },
    Condition {
        name: "gate-heeded",
        doubt: |evidence| {
            evidence
                .overridden
                .then(|| "it would have been refused, but TREADLE_NOISE=ignore is set".to_owned())
        },
        advice: "unset TREADLE_NOISE",
    },
    Condition {
        name: "undisturbed-rounds",
        doubt: |evidence| {
            evidence.contended.then(|| {
                format!(
                    "others disturbed {} of {} rounds, so plans were compared with what was taken from them given back",
                    evidence.disturbed_rounds, evidence.rounds
                )
            })
        },
        advice: QUIET,
    },
    Condition {
        name: "steady-machine",
        doubt: |evidence| {
            evidence
                .drift
                .filter(|drift| drift.ln().abs() > (1.0 + DRIFT).ln())
                .map(|drift| {
                    format!(
                        "the plain loop ran at {} of its speed in the later half of the race",
                        wording::percent(drift)
                    )
                })
        },
        advice: QUIET,
    },
    Condition {
        name: "budget-sufficed",
        doubt: |evidence| {
            (evidence.finish == "budget-spent").then(|| {
                format!(
                    "the budget of {} was spent before the order was clear",
                    wording::seconds(evidence.budget_s)
                )
            })
        },
        advice: MORE_TIME,
    },
    Condition {
        name: "size-clear",
        doubt: |evidence| {
            (evidence.finish == "strategy-clear")
                .then(|| "the strategy was clear, which of its sizes is best was not".to_owned())
        },
        advice: "name the sizes with --plans, which gives them the whole budget",
    },
    Condition {
        name: "inputs-sufficed",
        doubt: |evidence| {
            (evidence.finish == "inputs-spent").then(|| {
                "the inputs that may be run once were spent before the order was clear".to_owned()
            })
        },
        advice: "give more inputs",
    },
    Condition {
        name: "certain-verdict",
        doubt: |evidence| {
            let told = ["budget-spent", "inputs-spent", "strategy-clear"]
                .contains(&evidence.finish.as_str());
            (!evidence.certain && !told).then(|| match evidence.finish.as_str() {
                "targets-missed" => "no plan meets the targets".to_owned(),
                "nobody-left" => "every plan had to leave the race".to_owned(),
                _ => "the plan that won the race could not be chosen".to_owned(),
            })
        },
        advice: "see the candidates' reasons",
    },
    Condition {
        name: "three-blocks",
        doubt: |evidence| {
            // What the race was certain of after two is as far apart as no spread explains.
            (evidence.blocks < LEAST_ROUNDS && !evidence.certain).then(|| {
                format!(
                    "only {} of its blocks fit into the budget and counted",
                    evidence.blocks
                )
            })
        },
        advice: MORE_TIME,
    },
    Condition {
        name: "warmed-up",
        doubt: |evidence| {
            (!evidence.warmed_up)
                .then(|| "the budget was too short to discard a warm-up".to_owned())
        },
        advice: MORE_TIME,
    },
    Condition {
        name: "three-samples",
        doubt: |evidence| {
            (evidence.sample < LEAST_SAMPLE).then(|| match evidence.sample {
                1 => "the profile rests on one task".to_owned(),
                count => format!("the profile rests on {count} tasks"),
            })
        },
        advice: "give more inputs, if these were all",
    },
];

/// The conditions of high confidence that do not hold, with why.
pub fn doubts(evidence: &Evidence) -> Vec<(&'static Condition, String)> {
    CONDITIONS
        .iter()
        .filter_map(|condition| Some((condition, (condition.doubt)(evidence)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn earned() -> Evidence {
        Evidence {
            noise: Level::Quiet,
            noise_grounds: Vec::new(),
            overridden: false,
            finish: "leader-clear".to_owned(),
            budget_s: 30.0,
            certain: true,
            blocks: 3,
            warmed_up: true,
            rounds: 3,
            disturbed_rounds: 0,
            contended: false,
            drift: Some(1.02),
            sample: 20,
        }
    }

    #[test]
    fn high_confidence_needs_every_condition() {
        assert!(doubts(&earned()).is_empty());
        type Spoil = fn(&mut Evidence);
        let spoilt: [(&str, Spoil); 11] = [
            ("quiet-machine", |one| one.noise = Level::Noisy),
            ("gate-heeded", |one| one.overridden = true),
            ("undisturbed-rounds", |one| one.contended = true),
            ("steady-machine", |one| one.drift = Some(0.85)),
            ("budget-sufficed", |one| {
                one.finish = "budget-spent".to_owned();
                one.certain = false;
            }),
            ("size-clear", |one| {
                one.finish = "strategy-clear".to_owned();
                one.certain = false;
            }),
            ("inputs-sufficed", |one| {
                one.finish = "inputs-spent".to_owned();
                one.certain = false;
            }),
            ("certain-verdict", |one| one.certain = false),
            ("three-blocks", |one| {
                one.blocks = 2;
                one.certain = false;
            }),
            ("warmed-up", |one| one.warmed_up = false),
            ("three-samples", |one| one.sample = 2),
        ];
        assert_eq!(
            spoilt.map(|(name, _)| name),
            CONDITIONS.map(|condition| condition.name),
            "each condition is tried"
        );
        for (name, spoil) in spoilt {
            let mut evidence = earned();
            spoil(&mut evidence);
            let found: Vec<&str> = doubts(&evidence)
                .into_iter()
                .map(|(condition, _)| condition.name)
                .filter(|found| name != "three-blocks" || *found != "certain-verdict")
                .collect();
            assert_eq!(found, [name]);
        }
    }
}
