//! The evidence: how sure the decision is and what would make it surer, the machine, and how to do it again.

use maud::{Markup, html};
use treadle_core::choice::comparison::{Candidate, Comparison, Confidence, RaceAccount};
use treadle_core::choice::confidence::{self, Evidence};
use treadle_core::choice::noise::Level;
use treadle_core::choice::wording::{bytes, count, number, percent, seconds};

use super::{Origin, chosen, data, optional};

/// What stands against the decision, each with what would remove it: the decision's own conditions where one was made.
fn doubts(comparison: &Comparison) -> Vec<(String, String)> {
    let machine = &comparison.machine;
    let raced = comparison.race.as_ref();
    if let Some((race, chosen)) = raced.and_then(|race| Some((race, chosen(comparison)?))) {
        return confidence::doubts(&evidence(comparison, race, chosen))
            .into_iter()
            .map(|(condition, doubt)| (doubt, condition.advice.to_owned()))
            .collect();
    }
    let mut doubts: Vec<(String, String)> = machine
        .noise_grounds
        .iter()
        .map(|grounds| {
            let remedy = "run it again when nothing else runs here, or on another machine";
            (grounds.clone(), remedy.to_owned())
        })
        .collect();
    doubts.push(if raced.is_some() {
        (
            "no plan came through the race".to_owned(),
            "see their reasons under the candidates".to_owned(),
        )
    } else if comparison.profile_only {
        (
            "there was no race".to_owned(),
            "run it again without --profile-only".to_owned(),
        )
    } else {
        (
            "there was no race".to_owned(),
            "what the reason above says comes first".to_owned(),
        )
    });
    doubts
}

/// What was known when the confidence was told, as far as the comparison keeps it.
fn evidence(comparison: &Comparison, race: &RaceAccount, chosen: &Candidate) -> Evidence {
    let (machine, doubts) = (&comparison.machine, &comparison.decision.doubts);
    let doubted = |name: &str| doubts.iter().any(|doubt| doubt == name);
    Evidence {
        noise: if machine.noise == "quiet" {
            Level::Quiet
        } else {
            Level::Noisy
        },
        noise_grounds: machine.noise_grounds.clone(),
        overridden: doubted("gate-heeded"),
        finish: race.finish.clone(),
        budget_s: race.budget_s,
        certain: !doubted("certain-verdict"),
        blocks: chosen.blocks,
        warmed_up: race.warmed_up,
        rounds: race.rounds,
        disturbed_rounds: race.disturbed_rounds,
        contended: race.contended,
        drift: race.control_drift,
        sample: comparison.profile.count,
    }
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
        return html! { "The rates are predictions from the profile; no race has confirmed them." };
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
            "strategy-clear" => "It ended when only sizes of one strategy were left and had had their share of the time.",
            "budget-spent" => "The budget ended it.",
            "targets-missed" => "It ended when no plan could meet the targets any more.",
            "inputs-spent" => "It ended with the inputs, none of which was to be run twice.",
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
                @if let Some(busy) = readings.busy_before {
                    div { dt { "the processors were used when watched after pressure" } dd { (data(busy, percent)) } }
                }
                @for (name, value) in [
                    ("a processor was short before the start", readings.pressure_before),
                    ("of the usable cores a spin probe got", readings.cores_share),
                    ("of the usable cores it got after the race", readings.cores_share_after),
                    ("the serial sample stood without a processor", readings.run_queue_share),
                    ("the plain loop stood without a processor in the race", readings.control_delay_share),
                    ("rounds of the race that others disturbed", readings.disturbed_share),
                    ("a processor was short during the race, our plans included", readings.pressure_during),
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
