//! The verdict: one sentence, the line of code, the figures behind it, and the reason in full.

use maud::{Markup, html};
use treadle_core::choice::comparison::{Comparison, Confidence};
use treadle_core::choice::plan::Plan;
use treadle_core::choice::profile::Class;
use treadle_core::choice::wording::{bytes, count, number, percent, rate, seconds};

use super::{chosen, data, interval};

/// A plan as people say it: `8 threads`, `4 processes with 16 threads each`.
pub(super) fn plan_words(plan: &Plan) -> String {
    let of = |size: Option<u32>, one: &str, many: &str| {
        size.map(|size| format!("{size} {}", if size == 1 { one } else { many }))
    };
    let outer = of(plan.processes, "process", "processes")
        .or_else(|| of(plan.interpreters, "interpreter", "interpreters"));
    let inner = of(plan.threads, "thread", "threads")
        .or_else(|| of(plan.coroutines, "coroutine", "coroutines"));
    let mut words = match (outer, inner) {
        (Some(outer), Some(inner)) => format!("{outer} with {inner} each"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => "the plain loop".to_owned(),
    };
    if let Some(chunk) = plan.chunk {
        words.push_str(&format!(", {chunk} tasks at a time"));
    }
    words
}

/// The verdict in a few words.
pub(super) fn headline(comparison: &Comparison) -> String {
    let decision = &comparison.decision;
    match &decision.plan {
        Some(plan) if !decision.missed_targets.is_empty() => format!(
            "No plan meets the targets; {} comes nearest",
            plan_words(plan)
        ),
        Some(plan) if *plan == Plan::SERIAL => "Keep the plain loop".to_owned(),
        Some(plan) => format!("Use {}", plan_words(plan)),
        None if comparison.profile_only => {
            "Measured, not decided: no race was asked for".to_owned()
        }
        None if comparison.race.is_none() && comparison.machine.noise == "noisy" => {
            "Cannot tell: the machine is too noisy".to_owned()
        }
        None => "Nothing was decided".to_owned(),
    }
}

/// What a task does with its time, in a word and a sentence.
fn cause(comparison: &Comparison) -> Markup {
    let profile = &comparison.profile;
    let share = |part: f64| percent((part / profile.wall_s.max(1e-12)).clamp(0.0, 1.0));
    let does = match profile.class {
        Class::CpuBound => "it computes".to_owned(),
        Class::CpuBoundReleasing => "it computes, largely without the interpreter lock".to_owned(),
        Class::IoBound => format!("it waits for {} of that", share(profile.wait_s)),
        Class::Mixed => format!(
            "it computes for {} of that and waits for {}",
            percent(profile.cpu_share()),
            share(profile.wait_s)
        ),
        Class::TransferBound => "moving its arguments and result costs as much".to_owned(),
        Class::TooSmall => "handing it to a worker costs as much".to_owned(),
    };
    html! { "A task takes " (data(profile.wall_s, seconds)) "; " (does) "." }
}

/// The top of the page.
pub(super) fn section(comparison: &Comparison, headline: &str) -> Markup {
    let decision = &comparison.decision;
    let (sure, sure_class) = match decision.confidence {
        Confidence::High => ("✓ confidence high", "good"),
        Confidence::Low => ("! confidence low", "care"),
        Confidence::None => ("○ not decided", "open"),
    };
    let items = &comparison.items;
    html! {
        header {
            p.kicker { "How to run " code { (comparison.target) } }
            h1 { (headline) }
            p.lead { (lead(comparison)) }
            p.badges {
                span class={ "badge " (sure_class) } { (sure) }
                span.badge { (comparison.profile.class.name()) }
                span.badge {
                    (data(items.count as f64, |_| count(items.count)))
                    @if items.count == 1 { " input" } @else { " inputs" }
                    " of " code { (items.spec) }
                    @if items.truncated { ", the first of more" }
                }
            }
            @if let Some(code) = &decision.code {
                pre.use aria-label="the line of code to use" { code { (code) } }
            }
            (figures(comparison))
        }
        section aria-labelledby="why" {
            h2 #why { "Why" }
            p { (decision.reason) }
        }
    }
}

/// The sentence under the headline.
fn lead(comparison: &Comparison) -> Markup {
    let serial = comparison
        .candidates
        .iter()
        .find(|one| one.plan == Plan::SERIAL)
        .and_then(|one| one.measured_per_s);
    let Some((one, measured)) = chosen(comparison).and_then(|one| Some((one, one.measured_per_s?)))
    else {
        return html! { (cause(comparison)) " The curves below are predictions that no race has confirmed." };
    };
    html! {
        @if one.plan == Plan::SERIAL {
            "It does " (data(measured, rate)) ", and nothing else is worth its cost here. "
        } @else {
            (data(measured, rate))
            @if let Some(serial) = serial {
                " instead of the plain loop’s " (data(serial, rate))
                @if let Some([times, low, high]) = one.speedup {
                    ": " strong { (data(times, number)) " times as fast" }
                    " (95 % interval " (interval(low, high, number)) ")"
                }
            }
            ". "
        }
        (cause(comparison))
    }
}

/// The figures of the chosen plan.
fn figures(comparison: &Comparison) -> Markup {
    let Some(one) = chosen(comparison) else {
        return html! {};
    };
    html! {
        dl.figures {
            @if let Some(measured) = one.measured_per_s {
                div {
                    dt { "throughput" }
                    dd { (data(measured, rate)) }
                    @if let Some([low, high]) = one.interval_per_s {
                        dd.small { (interval(low, high, number)) }
                    }
                }
            }
            @if let Some(p50) = one.p50_s {
                div {
                    dt { "a task, in its worker" }
                    dd { (data(p50, seconds)) }
                    @if let Some(p99) = one.p99_s { dd.small { "99 % under " (data(p99, seconds)) } }
                }
            }
            @if let Some(cores) = one.cpu_cores {
                div {
                    dt { "cores in use" }
                    dd { (data(cores, number)) }
                    dd.small { "of " (data(comparison.machine.usable_cores, number)) " usable" }
                }
            }
            @if let Some(memory) = one.peak_memory_bytes {
                div {
                    dt { "peak memory" }
                    dd { (data(memory, bytes)) }
                    dd.small { "all processes" @if let Some(kind) = &one.memory_kind { ", " (kind) } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_said_as_people_say_them() {
        let mixed = Plan {
            threads: Some(16),
            ..Plan::processes(4)
        };
        let chunked = Plan {
            chunk: Some(8),
            ..Plan::processes(1)
        };
        let words =
            [Plan::SERIAL, Plan::coroutines(512), mixed, chunked].map(|plan| plan_words(&plan));
        assert_eq!(
            words,
            [
                "the plain loop",
                "512 coroutines",
                "4 processes with 16 threads each",
                "1 process, 8 tasks at a time"
            ]
        );
    }
}
