//! The decision: the simplest plan within five percent of the best that meets the targets.
//!
//! What the race was certain of is chosen; where it was not, the measured numbers decide and the confidence is low.
//!
//! *Guarantees*: a target that was not measured is not met. When no plan meets the targets, the one whose worst miss is
//! smallest is named, with its misses.

use super::plan::Plan;
use super::race::EQUIVALENT;
use super::target::{Quantity, Target};
use super::wording;

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

#[cfg(test)]
mod tests {
    use super::super::target::parse_targets;
    use super::*;

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
}
