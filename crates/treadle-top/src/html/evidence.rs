//! The evidence: how sure the decision is and what would make it surer, the machine, and how to do it again.

use maud::{Markup, html};
use treadle_core::choice::comparison::{Comparison, Confidence};
use treadle_core::choice::wording::{bytes, count, number, percent, seconds};

use super::{Origin, chosen, data, optional};

/// How many counted blocks an interval needs before it can be believed, as the decision's own rule has it.
const BLOCKS: usize = 3;

/// What stands against the decision, each with what would remove it.
fn doubts(comparison: &Comparison) -> Vec<(String, String)> {
    let mut doubts = Vec::new();
    let machine = &comparison.machine;
    for grounds in &machine.noise_grounds {
        let remedy = "run it again when nothing else runs here, or on another machine";
        doubts.push((grounds.clone(), remedy.to_owned()));
    }
    if machine.noise_ignored {
        doubts.push((
            "the noise gate was overridden".to_owned(),
            "run it again without TREADLE_NOISE=ignore".to_owned(),
        ));
    }
    let Some(race) = &comparison.race else {
        doubts.push((
            "there was no race".to_owned(),
            if comparison.profile_only {
                "run it again without --profile-only".to_owned()
            } else {
                "what the reason above says comes first".to_owned()
            },
        ));
        return doubts;
    };
    let longer = format!(
        "give it more time: --budget {:.0}",
        (race.budget_s * 3.0).ceil()
    );
    if race.finish == "budget-spent" {
        doubts.push((
            format!(
                "the budget of {} was spent before the order was clear",
                seconds(race.budget_s)
            ),
            longer.clone(),
        ));
    }
    if race.finish == "nobody-left" {
        doubts.push((
            "every plan had to leave the race".to_owned(),
            "see their reasons under the candidates".to_owned(),
        ));
    }
    if let Some(one) = chosen(comparison).filter(|one| one.blocks < BLOCKS) {
        doubts.push((
            format!(
                "only {} counted block{} of the chosen plan fit into the budget",
                one.blocks,
                if one.blocks == 1 { "" } else { "s" }
            ),
            longer.clone(),
        ));
    }
    if !race.warmed_up {
        doubts.push((
            "tasks are too long for the budget to discard a warm-up".to_owned(),
            longer,
        ));
    }
    doubts
}

/// How sure, and what would raise it.
pub(super) fn confidence(comparison: &Comparison) -> Markup {
    let doubts = doubts(comparison);
    let level = match comparison.decision.confidence {
        Confidence::High => "High",
        Confidence::Low => "Low",
        Confidence::None => "None: nothing was decided",
    };
    html! {
        section aria-labelledby="confidence" {
            h2 #confidence { "Confidence" }
            p { strong { (level) } ". " (raced(comparison)) }
            @if !doubts.is_empty() {
                table.plain.doubts {
                    caption.hidden { "What lowers the confidence, and what would raise it" }
                    thead { tr { th scope="col" { "what lowers it" } th scope="col" { "what would raise it" } } }
                    tbody {
                        @for (what, remedy) in &doubts { tr { td { (what) } td { (remedy) } } }
                    }
                }
            }
        }
    }
}

fn raced(comparison: &Comparison) -> Markup {
    let Some(race) = &comparison.race else {
        return html! { "The rates are bounds from the profile; no race has confirmed them." };
    };
    let blocks: usize = comparison.candidates.iter().map(|one| one.blocks).sum();
    let tasks: u64 = comparison.candidates.iter().map(|one| one.tasks).sum();
    let plans = comparison
        .candidates
        .iter()
        .filter(|one| one.measured_per_s.is_some())
        .count();
    html! {
        (plans) @if plans == 1 { " plan" } @else { " plans" } " raced for " (data(race.elapsed_s, seconds)) " of " (data(race.budget_s, seconds))
        ": " (data(tasks as f64, |_| count(tasks))) " tasks in " (data(blocks as f64, |_| count(blocks as u64))) " counted blocks, in random order. "
        @match race.finish.as_str() {
            "leader-clear" => "It ended when the order was clear.",
            "equivalent" => "It ended when the leaders were known to be equally fast.",
            "budget-spent" => "The budget ended it.",
            "nobody-left" => "It ended because no plan was left.",
            other => { "It ended with: " (other) "." },
        }
    }
}

/// The machine and its noise.
pub(super) fn machine(comparison: &Comparison) -> Markup {
    let machine = &comparison.machine;
    let readings = &machine.readings;
    html! {
        section aria-labelledby="machine" {
            h2 #machine { "Machine and noise" }
            dl.facts {
                div { dt { "usable cores" } dd {
                    (data(machine.usable_cores, number))
                    @if let Some(affinity) = machine.affinity { ", " (affinity) " in the affinity mask" }
                    @if let Some(quota) = machine.quota { ", quota " (data(quota, number)) }
                    @if let Some(physical) = machine.physical_cores { ", " (physical) " physical" }
                } }
                div { dt { "Python" } dd {
                    (machine.implementation) " " (machine.python)
                    @if machine.gil { ", with an interpreter lock" } @else { ", without an interpreter lock" }
                } }
                @if let Some(cpu) = &machine.cpu { div { dt { "processor" } dd { (cpu) } } }
                @if let Some(kernel) = &machine.kernel { div { dt { "kernel" } dd { (kernel) } } }
                div { dt { "memory" } dd {
                    (optional(machine.memory_available_bytes.map(|size| size as f64), bytes)) " free of "
                    (optional(machine.memory_limit_bytes.map(|size| size as f64), bytes))
                } }
                div { dt { "noise" } dd {
                    strong { (machine.noise) }
                    @if machine.noise_ignored { ", the gate overridden by TREADLE_NOISE=ignore" }
                } }
                @for (name, value) in [
                    ("a processor was short before the start", readings.pressure_before),
                    ("of the usable cores a spin probe got", readings.cores_share),
                    ("the serial sample stood without a processor", readings.run_queue_share),
                    ("taken by the hypervisor", readings.steal_share),
                ] {
                    div { dt { (name) } dd { (optional(value, percent)) @if value.is_none() { " not measured" } } }
                }
            }
        }
    }
}

/// How to do it again.
pub(super) fn reproduce(comparison: &Comparison, origin: &Origin) -> Markup {
    let seed = comparison.race.as_ref().map(|race| race.seed);
    html! {
        section aria-labelledby="again" {
            h2 #again { "Do it again" }
            pre { code { (again(comparison, origin)) } }
            dl.facts {
                div { dt { "function" } dd {
                    code { (comparison.target) }
                    @if comparison.asynchronous { ", async" }
                    @if let Some(file) = &comparison.target_file { " in " code { (file) } }
                } }
                @if let Some(hash) = &comparison.source_hash { div { dt { "digest of its source" } dd { code { (hash) } } } }
                @if let Some(seed) = seed { div { dt { "seed of the order" } dd { code { (seed) } } } }
                div { dt { "treadle" } dd { (env!("CARGO_PKG_VERSION")) ", " (comparison.machine.implementation) " " (comparison.machine.python) } }
                div { dt { "date" } dd { (origin.date) } }
            }
        }
    }
}

/// The command, with the seed that repeats the order; for a program's own comparison, the call.
fn again(comparison: &Comparison, origin: &Origin) -> String {
    let seed = comparison.race.as_ref().map(|race| race.seed);
    match (&origin.command, seed) {
        (Some(command), Some(seed)) if !command.contains("--seed") => {
            format!("{command} --seed {seed}")
        }
        (Some(command), _) => command.clone(),
        (None, _) => {
            let name = comparison.target.rsplit(':').next().unwrap_or_default();
            let mut call = format!("treadle.compare({name}, items");
            if comparison.items.star {
                call.push_str(", star=True");
            }
            if let Some(race) = &comparison.race {
                call.push_str(&format!(", budget={}", race.budget_s));
            }
            if !comparison.targets.is_empty() {
                call.push_str(&format!(", targets=\"{}\"", comparison.targets.join(",")));
            }
            call + ")"
        }
    }
}
