//! The candidates: what was predicted, what was measured, what became of each and why; and the targets.

use maud::{Markup, html};
use treadle_core::choice::comparison::{Candidate, Comparison, Outcome};
use treadle_core::choice::plan::Plan;
use treadle_core::choice::wording::{bytes, count, number, rate, seconds};

use super::{chosen, data, interval, optional, patterns};

/// The targets, each met or missed by the chosen plan; nothing when none was given.
pub(super) fn targets(comparison: &Comparison) -> Markup {
    if comparison.targets.is_empty() {
        return html! {};
    }
    let judged = chosen(comparison).is_some();
    let miss = |target: &str| {
        comparison.decision.missed_targets.iter().find(|words| {
            words
                .strip_prefix(target)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', ':']))
        })
    };
    html! {
        section aria-labelledby="targets" {
            h2 #targets { "Targets" }
            ul.targets {
                @for target in &comparison.targets {
                    @match (judged, miss(target)) {
                        (false, _) => li { span.badge.open { "○ not judged" } " " code { (target) } },
                        (true, Some(words)) => li { span.badge.bad { "✗ missed" } " " (words) },
                        (true, None) => li { span.badge.good { "✓ met" } " " code { (target) } },
                    }
                }
            }
        }
    }
}

/// The table of all candidates.
pub(super) fn section(comparison: &Comparison) -> Markup {
    html! {
        section aria-labelledby="candidates" {
            h2 #candidates { "Candidates" }
            @if comparison.candidates.is_empty() {
                p.absent { "There is no candidate: no plan could be predicted." }
            } @else {
                // The roles keep it a table for those who hear it where the style sheet turns rows into cards.
                table.candidates role="table" {
                    caption.hidden { "Candidates with prediction, measurement, outcome and reason" }
                    thead role="rowgroup" {
                        tr role="row" {
                            th scope="col" role="columnheader" { "plan" }
                            @for name in ["predicted", "measured", "× serial", "p50", "p99", "cores", "memory"] {
                                th.number scope="col" role="columnheader" { (name) }
                            }
                        }
                    }
                    @for one in &comparison.candidates { (rows(one)) }
                }
                p.note { "Rates are tasks a second; the interval under a prediction is the model’s own, that under a measurement 95 %; × serial counts the start of the workers; p50 and p99 are of a task in its worker."
                    @if let Some(sentence) = comparison.prediction_sentence() { " " (sentence) }
                }
            }
        }
    }
}

fn rows(one: &Candidate) -> Markup {
    let (word, class) = match one.outcome {
        Outcome::Chosen => ("✓ chosen", "good"),
        Outcome::Equivalent => ("= equivalent", "good"),
        Outcome::Slower => ("↓ slower", "plain"),
        Outcome::NotRaced => ("○ not raced", "open"),
        Outcome::Infeasible => ("✗ infeasible", "bad"),
    };
    let look = patterns::look(one.plan.strategy().name());
    html! {
        tbody role="rowgroup" class=(if one.outcome == Outcome::Chosen { "one chosen" } else { "one" }) {
            tr.numbers role="row" {
                th scope="row" role="rowheader" {
                    svg.swatch viewBox="0 0 16 16" aria-hidden="true" { (patterns::mark(look, 8.0, 8.0)) }
                    code { (one.plan.label()) }
                }
                td.number role="cell" data-label="predicted" {
                    (data(one.predicted_per_s, rate))
                    @if let Some(high) = one.predicted_high_per_s.filter(|high| *high > one.predicted_low_per_s) {
                        " " span.small { (interval(one.predicted_low_per_s, high, number)) }
                    }
                }
                td.number.lacking[one.measured_per_s.is_none()] role="cell" data-label="measured" {
                    (optional(one.measured_per_s, rate))
                    @if let Some([low, high]) = one.interval_per_s {
                        " " span.small { (interval(low, high, number)) }
                    }
                }
                td.number.lacking[one.speedup.is_none()] role="cell" data-label="× serial" {
                    @match one.speedup {
                        Some([times, low, high]) => {
                            (data(times, number)) " " span.small { (interval(low, high, number)) }
                        },
                        None if one.plan == Plan::SERIAL && one.measured_per_s.is_some() => "1",
                        None => (optional(None, number)),
                    }
                }
                td.number.lacking[one.p50_s.is_none()] role="cell" data-label="p50" { (optional(one.p50_s, seconds)) }
                td.number.lacking[one.p99_s.is_none()] role="cell" data-label="p99" { (optional(one.p99_s, seconds)) }
                td.number.lacking[one.cpu_cores.is_none()] role="cell" data-label="cores" { (optional(one.cpu_cores, number)) }
                td.number.lacking[one.peak_memory_bytes.is_none()] role="cell" data-label="memory" { (optional(one.peak_memory_bytes, bytes)) }
            }
            tr.words role="row" {
                td colspan="8" role="cell" {
                    span class={ "badge " (class) } { (word) } " " (one.reason) "."
                    @if one.outcome != Outcome::Infeasible && one.plan != Plan::SERIAL {
                        " " span.limit { "Limit: " (one.limit) "." }
                    }
                    @if one.errors > 0 {
                        " " strong { (data(one.errors as f64, |_| count(one.errors))) " of " (data(one.tasks as f64, |_| count(one.tasks))) " tasks raised." }
                    }
                }
            }
        }
    }
}
