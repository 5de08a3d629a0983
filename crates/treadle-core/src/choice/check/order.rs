//! Level 3: the order of a new race: is the recorded plan still first, or equivalent to the first?
//!
//! *Guarantees*: what is tested is the order with the equivalence margin of five percent, never a time.

use super::super::comparison::{Candidate, Comparison, Outcome};
use super::super::plan::Plan;
use super::super::race::EQUIVALENT;
use super::super::wording;

/// What a race says of the recorded plan.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// First, or equivalent to the first and the simplest such.
    Kept(String),
    /// Another plan is better.
    Lost {
        /// That plan.
        rival: Plan,
        /// By how much, in words.
        words: String,
    },
    /// It cannot be told.
    Unclear(String),
}

/// Judges the race of `comparison` for `plan`.
pub fn order(plan: Plan, comparison: &Comparison) -> Order {
    let find = |plan: Plan| comparison.candidates.iter().find(|one| one.plan == plan);
    let Some(own) = find(plan) else {
        return Order::Unclear(format!("{} was not raced", plan.label()));
    };
    let Some(winner) = comparison.decision.plan else {
        return Order::Unclear(comparison.decision.reason.clone());
    };
    if own.outcome == Outcome::Infeasible {
        return Order::Lost {
            rival: winner,
            words: format!("{} cannot run it any more: {}", plan.label(), own.reason),
        };
    }
    let Some(rate) = own.batch_per_s else {
        return Order::Unclear(format!("{} was not measured: {}", plan.label(), own.reason));
    };
    if winner == plan {
        return Order::Kept(format!(
            "{} won the race again with {}: {}",
            plan.label(),
            wording::rate(rate),
            own.reason
        ));
    }
    let Some(rival) = find(winner) else {
        return Order::Unclear(format!("{} was not raced", winner.label()));
    };
    let [low, times, high] = times(rival, own);
    let told = format!(
        "{} has {times:.2} times the throughput of {} ({low:.2} to {high:.2})",
        winner.label(),
        plan.label()
    );
    let simpler = winner.strategy() < plan.strategy();
    let sized = winner.strategy() == plan.strategy();
    if low > 1.0 + EQUIVALENT || own.outcome == Outcome::Slower && low > 1.0 {
        Order::Lost {
            rival: winner,
            words: told,
        }
    } else if simpler && low >= 1.0 - EQUIVALENT {
        Order::Lost {
            rival: winner,
            words: format!("{told}, and it is simpler"),
        }
    } else if times <= 1.0 + EQUIVALENT && (sized || !simpler) {
        // The sizes of one strategy within the margin are one choice.
        Order::Kept(format!("{told}, which is equivalent"))
    } else {
        Order::Unclear(format!(
            "{told}: too close to tell in {} of racing",
            wording::seconds(comparison.race.as_ref().map_or(0.0, |race| race.elapsed_s))
        ))
    }
}

/// One candidate's rate over the other's: as low as their intervals allow, central, as high.
fn times(one: &Candidate, other: &Candidate) -> [f64; 3] {
    let least = f64::MIN_POSITIVE;
    let central = one.batch_per_s.unwrap_or(0.0) / other.batch_per_s.unwrap_or(least).max(least);
    let spread = |candidate: &Candidate| match (candidate.measured_per_s, candidate.interval_per_s)
    {
        (Some(rate), Some([low, high])) if rate > 0.0 => [low / rate, high / rate],
        _ => [0.0, f64::INFINITY],
    };
    let ([low, high], [below, above]) = (spread(one), spread(other));
    [
        central * low / above.max(least),
        central,
        central * high / below.max(least),
    ]
}
