//! The decision: the simplest plan within five percent of the best that meets the targets.
//!
//! What the race was certain of is chosen; where it was not, the measured numbers decide and the confidence is low. High confidence
//! is earned: `CONDITIONS` lists what must hold.
//!
//! *Guarantees*: a target that was not measured is not met. When no plan meets the targets, the one whose worst miss is
//! smallest is named, with its misses.

use super::error::ChoiceError;
use super::noise::Level;
use super::plan::Plan;
use super::race::{EQUIVALENT, LEAST_ROUNDS};
use super::wording;

/// A quantity that a target bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quantity {
    /// Tasks per second, at least.
    Throughput,
    /// A quantile of the seconds that a task takes in its worker, at most.
    Latency(f64),
    /// Peak bytes of all processes together, at most.
    Memory,
    /// Failed tasks, at most.
    Errors,
    /// Share of failed tasks, at most.
    ErrorShare,
    /// Cores in use, at most.
    Cores,
}

/// One requirement of the user.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// What is bounded.
    pub quantity: Quantity,
    /// The bound: tasks per second, seconds, bytes, tasks, a share, or cores.
    pub bound: f64,
    /// As the user wrote it, such as `p99=50ms`.
    pub text: String,
}

/// What was measured of one candidate; `None` was not measured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Measured {
    /// The plan.
    pub plan: Plan,
    /// Tasks per second, start-up charged to a finite batch: what plans are compared by.
    pub charged_per_s: Option<f64>,
    /// Steady tasks per second.
    pub steady_per_s: Option<f64>,
    /// Seconds of each task in its worker.
    pub latencies: Vec<f64>,
    /// Peak bytes of all processes together.
    pub peak_memory_bytes: Option<f64>,
    /// Failed tasks.
    pub errors: u64,
    /// Tasks, the failed ones included.
    pub tasks: u64,
    /// Cores in use.
    pub cpu_cores: Option<f64>,
    /// Whether the plan failed and may not be chosen.
    pub failed: bool,
}

/// A target that a plan does not meet.
#[derive(Debug, Clone, PartialEq)]
pub struct Miss {
    /// The target as the user wrote it.
    pub target: String,
    /// How far off: 0.25 is a quarter too slow, too big, too many; infinite when it was not measured.
    pub by: f64,
    /// The miss in words.
    pub words: String,
}

/// The outcome for the whole field.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Index of the chosen candidate, or of the one that fails least.
    pub index: usize,
    /// The fastest that meets the targets (or of all, when none does).
    pub fastest: usize,
    /// What the chosen one misses; empty when it meets every target.
    pub misses: Vec<Miss>,
}

const TARGET_HINT: &str =
    "targets look like --target 'throughput=200/s,p50=5ms,p99=50ms,memory=2GiB,errors=0,cpu=4'";

fn unreadable(part: &str, why: &str) -> ChoiceError {
    ChoiceError::usage(
        format!("cannot read the target `{part}`: {why}"),
        TARGET_HINT,
    )
}

/// Reads `throughput=200/s,p99=50ms,memory=2GiB,errors=0,cpu=4`.
pub fn parse_targets(text: &str) -> Result<Vec<Target>, ChoiceError> {
    let mut targets: Vec<Target> = Vec::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (name, value) = part
            .split_once('=')
            .ok_or_else(|| unreadable(part, "it has no `=`"))?;
        let (name, value) = (name.trim(), value.trim());
        let (quantity, bound) = match name {
            "throughput" => (Quantity::Throughput, rate(value)),
            "memory" => (Quantity::Memory, bytes(value)),
            "cpu" => (Quantity::Cores, value.parse().ok()),
            "errors" => match value.strip_suffix('%') {
                Some(share) => (
                    Quantity::ErrorShare,
                    share.trim().parse().ok().map(|share: f64| share / 100.0),
                ),
                None => (Quantity::Errors, value.parse().ok()),
            },
            _ => {
                let share = name
                    .strip_prefix('p')
                    .and_then(|digits| digits.parse::<f64>().ok())
                    .filter(|percent| (0.0..=100.0).contains(percent))
                    .ok_or_else(|| {
                        unreadable(part, &format!("`{name}` is not something that is measured"))
                    })?;
                (Quantity::Latency(share / 100.0), duration(value))
            }
        };
        let bound = bound
            .filter(|bound: &f64| bound.is_finite() && *bound >= 0.0)
            .ok_or_else(|| unreadable(part, &format!("`{value}` is not a quantity of it")))?;
        targets.push(Target {
            quantity,
            bound,
            text: format!("{name}={value}"),
        });
    }
    Ok(targets)
}

fn split_unit(text: &str) -> Option<(f64, &str)> {
    let end = text
        .find(|letter: char| !(letter.is_ascii_digit() || letter == '.'))
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim()))
}

fn rate(text: &str) -> Option<f64> {
    match split_unit(text)? {
        (value, "" | "/s") => Some(value),
        (value, "/min") => Some(value / 60.0),
        (value, "/h") => Some(value / 3600.0),
        _ => None,
    }
}

fn duration(text: &str) -> Option<f64> {
    match split_unit(text)? {
        (value, "s") => Some(value),
        (value, "ms") => Some(value * 1e-3),
        (value, "us" | "µs") => Some(value * 1e-6),
        (value, "min") => Some(value * 60.0),
        _ => None,
    }
}

fn bytes(text: &str) -> Option<f64> {
    let (value, unit) = split_unit(text)?;
    let factor = match unit {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some(value * factor)
}

/// How `measured` misses `target`; `None` when it meets it.
pub fn miss(measured: &Measured, target: &Target) -> Option<Miss> {
    let value = match target.quantity {
        Quantity::Throughput => measured.charged_per_s,
        Quantity::Latency(share) => super::statistics::quantile(&measured.latencies, share),
        Quantity::Memory => measured.peak_memory_bytes,
        Quantity::Errors => Some(measured.errors as f64),
        Quantity::ErrorShare => {
            (measured.tasks > 0).then(|| measured.errors as f64 / measured.tasks as f64)
        }
        Quantity::Cores => measured.cpu_cores,
    };
    let told = |by: f64, words: String| {
        Some(Miss {
            target: target.text.clone(),
            by,
            words,
        })
    };
    let Some(value) = value else {
        return told(f64::INFINITY, format!("{} was not measured", target.text));
    };
    let meets = if target.quantity == Quantity::Throughput {
        value >= target.bound
    } else {
        value <= target.bound
    };
    if meets {
        return None;
    }
    let (over, words) = match target.quantity {
        Quantity::Throughput => (
            target.bound / value.max(1e-12) - 1.0,
            format!(
                "{} instead of {}",
                wording::rate(value),
                wording::rate(target.bound)
            ),
        ),
        Quantity::Latency(_) => (
            value / target.bound.max(1e-12) - 1.0,
            format!(
                "{} instead of {}",
                wording::seconds(value),
                wording::seconds(target.bound)
            ),
        ),
        Quantity::Memory => (
            value / target.bound.max(1.0) - 1.0,
            format!(
                "{} instead of {}",
                wording::bytes(value),
                wording::bytes(target.bound)
            ),
        ),
        Quantity::Cores => (
            value / target.bound.max(1e-12) - 1.0,
            format!("{value:.2} cores instead of {:.2}", target.bound),
        ),
        Quantity::Errors => (
            (value - target.bound) / target.bound.max(1.0),
            format!(
                "{value:.0} of {} tasks failed instead of at most {:.0}",
                measured.tasks, target.bound
            ),
        ),
        Quantity::ErrorShare => (
            value / target.bound.max(1e-3) - 1.0,
            format!(
                "{} of tasks failed instead of {}",
                wording::percent(value),
                wording::percent(target.bound)
            ),
        ),
    };
    let amount = match target.quantity {
        Quantity::Throughput => {
            format!("missed by {}", wording::percent(1.0 - value / target.bound))
        }
        Quantity::Errors | Quantity::ErrorShare => "missed".to_owned(),
        _ => format!("missed by {}", wording::percent(over)),
    };
    told(over, format!("{} is {amount} ({words})", target.text))
}

/// Chooses among the measured: `winner` if the race was certain of one, else by the measured numbers; `None` when nothing was
/// measured.
pub fn choose_raced(
    field: &[Measured],
    targets: &[Target],
    winner: Option<usize>,
) -> Option<Choice> {
    let choice = choose(field, targets)?;
    let Some(winner) = winner.filter(|index| {
        field
            .get(*index)
            .is_some_and(|one| !one.failed && one.charged_per_s.is_some())
    }) else {
        return Some(choice);
    };
    let misses: Vec<Miss> = targets
        .iter()
        .filter_map(|target| miss(&field[winner], target))
        .collect();
    // Numbers that contradict the race's own verdict (a bound that is met by a hair) are told as they are.
    Some(if misses.is_empty() || !choice.misses.is_empty() {
        Choice {
            index: winner,
            fastest: choice.fastest,
            misses,
        }
    } else {
        choice
    })
}

/// Chooses among the measured by their numbers alone; `None` when nothing was measured.
pub fn choose(field: &[Measured], targets: &[Target]) -> Option<Choice> {
    let usable: Vec<usize> = (0..field.len())
        .filter(|index| !field[*index].failed && field[*index].charged_per_s.is_some())
        .collect();
    let rate = |index: usize| field[index].charged_per_s.unwrap_or(0.0);
    let misses = |index: usize| -> Vec<Miss> {
        targets
            .iter()
            .filter_map(|target| miss(&field[index], target))
            .collect()
    };
    let fastest_of = |indices: &[usize]| {
        indices
            .iter()
            .copied()
            .max_by(|one, other| rate(*one).total_cmp(&rate(*other)))
    };
    let meeting: Vec<usize> = usable
        .iter()
        .copied()
        .filter(|index| misses(*index).is_empty())
        .collect();
    if let Some(fastest) = fastest_of(&meeting) {
        let floor = rate(fastest) * (1.0 - EQUIVALENT);
        let index = meeting
            .into_iter()
            .filter(|index| rate(*index) >= floor)
            .min_by_key(|index| field[*index].plan.simplicity())?;
        return Some(Choice {
            index,
            fastest,
            misses: Vec::new(),
        });
    }
    let fastest = fastest_of(&usable)?;
    let worst = |index: usize| misses(index).iter().map(|miss| miss.by).fold(0.0, f64::max);
    let index = usable.into_iter().min_by(|one, other| {
        worst(*one).total_cmp(&worst(*other)).then(
            field[*one]
                .plan
                .simplicity()
                .cmp(&field[*other].plan.simplicity()),
        )
    })?;
    Some(Choice {
        index,
        fastest,
        misses: misses(index),
    })
}

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
pub const CONDITIONS: [Condition; 10] = [
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
            let told = ["budget-spent", "inputs-spent"].contains(&evidence.finish.as_str());
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
            (evidence.blocks < LEAST_ROUNDS).then(|| {
                format!(
                    "only {} counted blocks of it fit into the budget",
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
                .then(|| "tasks are too long for the budget to discard a warm-up".to_owned())
        },
        advice: MORE_TIME,
    },
    Condition {
        name: "three-samples",
        doubt: |evidence| {
            (evidence.sample < LEAST_SAMPLE)
                .then(|| format!("the profile rests on {} tasks", evidence.sample))
        },
        advice: MORE_TIME,
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
        let spoilt: [(&str, Spoil); 10] = [
            ("quiet-machine", |one| one.noise = Level::Noisy),
            ("gate-heeded", |one| one.overridden = true),
            ("undisturbed-rounds", |one| one.contended = true),
            ("steady-machine", |one| one.drift = Some(0.85)),
            ("budget-sufficed", |one| {
                one.finish = "budget-spent".to_owned();
                one.certain = false;
            }),
            ("inputs-sufficed", |one| {
                one.finish = "inputs-spent".to_owned();
                one.certain = false;
            }),
            ("certain-verdict", |one| one.certain = false),
            ("three-blocks", |one| one.blocks = 2),
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
                .collect();
            assert_eq!(found, [name]);
        }
    }

    #[test]
    fn the_race_s_winner_is_chosen_over_the_numbers() {
        // Ninety-six of a hundred may be within five percent; a race that is certain of the other knows better.
        let mut field = field();
        field[1].charged_per_s = Some(192.0);
        assert_eq!(choose_raced(&field, &[], None).unwrap().index, 1);
        assert_eq!(choose_raced(&field, &[], Some(2)).unwrap().index, 2);
        field[2].failed = true;
        assert_eq!(choose_raced(&field, &[], Some(2)).unwrap().index, 1);
    }

    fn measured(plan: Plan, per_s: f64, latency: f64) -> Measured {
        Measured {
            plan,
            charged_per_s: Some(per_s),
            steady_per_s: Some(per_s),
            latencies: vec![latency; 100],
            peak_memory_bytes: Some(1e9),
            errors: 0,
            tasks: 100,
            cpu_cores: Some(2.0),
            failed: false,
        }
    }

    fn field() -> Vec<Measured> {
        vec![
            measured(Plan::SERIAL, 100.0, 0.010),
            measured(Plan::threads(2), 195.0, 0.012),
            measured(Plan::processes(2), 200.0, 0.010),
        ]
    }

    #[test]
    fn the_simplest_within_five_percent() {
        let mut field = field();
        assert_eq!(choose(&field, &[]).unwrap().index, 1);
        field[1].charged_per_s = Some(180.0);
        assert_eq!(choose(&field, &[]).unwrap().index, 2);
        field[0].charged_per_s = Some(199.0);
        assert_eq!(choose(&field, &[]).unwrap().index, 0);
    }

    #[test]
    fn targets_come_first() {
        let targets = parse_targets("p99=11ms, throughput=150/s").unwrap();
        let choice = choose(&field(), &targets).unwrap();
        assert_eq!((choice.index, choice.misses.len()), (2, 0));
    }

    #[test]
    fn when_none_meets_them_the_least_miss_is_named() {
        let targets = parse_targets("throughput=400/s").unwrap();
        let choice = choose(&field(), &targets).unwrap();
        assert_eq!(choice.index, 2);
        assert_eq!(
            choice.misses[0].words,
            "throughput=400/s is missed by 50 % (200/s instead of 400/s)"
        );
        let targets = parse_targets("p50=8ms,memory=2GiB").unwrap();
        let choice = choose(&field(), &targets).unwrap();
        assert_eq!(
            choice.index, 0,
            "serial and processes miss alike, serial is simpler"
        );
        assert!(
            choice.misses[0]
                .words
                .starts_with("p50=8ms is missed by 25 %")
        );
    }

    #[test]
    fn the_failed_and_the_unmeasured_are_not_chosen() {
        let mut field = field();
        field[1].failed = true;
        field[2].charged_per_s = None;
        assert_eq!(choose(&field, &[]).unwrap().index, 0);
        field[0].failed = true;
        assert_eq!(choose(&field, &[]), None);
    }

    #[test]
    fn an_unmeasured_target_is_not_met() {
        let mut field = field();
        for one in &mut field {
            one.peak_memory_bytes = None;
        }
        let choice = choose(&field, &parse_targets("memory=2GiB").unwrap()).unwrap();
        assert_eq!(choice.misses[0].words, "memory=2GiB was not measured");
    }

    #[test]
    fn targets_parse_and_mistakes_are_usage_errors() {
        let targets =
            parse_targets("throughput=120/min,p99.9=2s,memory=2GiB,errors=1%,errors=3,cpu=1.5")
                .unwrap();
        let bounds: Vec<f64> = targets.iter().map(|target| target.bound).collect();
        assert_eq!(bounds, [2.0, 2.0, 2147483648.0, 0.01, 3.0, 1.5]);
        for wrong in [
            "p99",
            "p99=fast",
            "p101=1s",
            "speed=3",
            "throughput=-1/s",
            "memory=2 elephants",
            "p99=50",
        ] {
            assert_eq!(parse_targets(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
