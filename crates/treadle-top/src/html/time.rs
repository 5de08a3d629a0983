//! Where the time goes: the parts of a task's time as bars to one scale, and as a table.

use maud::{Markup, html};
use treadle_core::choice::comparison::Comparison;
use treadle_core::choice::profile::Profile;
use treadle_core::choice::split::Estimate;
use treadle_core::choice::wording::{percent, seconds};

use super::axis::{CHARACTER, FRAMES, Frame};
use super::{at, data, interval, patterns};

/// A part of the time, in seconds a task.
struct Part {
    /// The style class, and the name of its hatching.
    class: &'static str,
    name: &'static str,
    meaning: &'static str,
    mean_s: f64,
    ends_s: Option<(f64, f64)>,
}

impl Part {
    fn estimated(
        class: &'static str,
        name: &'static str,
        meaning: &'static str,
        found: Estimate,
    ) -> Self {
        Self {
            class,
            name,
            meaning,
            mean_s: found.mean_s,
            ends_s: Some((found.low_s, found.high_s)),
        }
    }

    fn known(
        class: &'static str,
        name: &'static str,
        meaning: &'static str,
        mean_s: Option<f64>,
    ) -> Option<Self> {
        mean_s.map(|mean_s| Self {
            class,
            name,
            meaning,
            mean_s,
            ends_s: None,
        })
    }
}

const WAITING: &str = "off the processor, nobody hindered: more at once hide it";
const QUEUE: &str = "others had the processor: the machine’s doing, not the function’s";

/// The parts of the time on the clock: they add up to it.
fn inside(profile: &Profile) -> Vec<Part> {
    if let Some(split) = &profile.split {
        let mut parts = vec![
            Part::estimated(
                "held",
                "CPU with the interpreter lock",
                "threads cannot share it",
                split.gil_cpu,
            ),
            Part::estimated(
                "blocked",
                "blocked with the lock",
                "no other thread runs Python meanwhile",
                split.gil_blocked,
            ),
            Part::estimated(
                "free",
                "CPU without the lock",
                "threads share it over the cores",
                split.free_cpu,
            ),
            Part::estimated("waiting", "waiting", WAITING, split.wait),
        ];
        if split.run_queue.mean_s > 0.0 {
            parts.push(Part::estimated(
                "queue",
                "ready, without a processor",
                QUEUE,
                split.run_queue,
            ));
        }
        return parts;
    }
    [
        Part::known(
            "cpu",
            "CPU",
            "with and without the interpreter lock together",
            Some(profile.thread_cpu_s),
        ),
        Part::known("waiting", "waiting", WAITING, Some(profile.wait_s)),
        Part::known(
            "queue",
            "ready, without a processor",
            QUEUE,
            profile.run_queue_s.filter(|delay| *delay > 0.0),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What comes on top of the time on the clock.
fn beside(profile: &Profile) -> Vec<Part> {
    let native = "CPU of helper threads";
    let meaning = "threads that the function starts, at the same time as it";
    let native = match &profile.split {
        Some(split) => Some(Part::estimated("native", native, meaning, split.native_cpu)),
        None => Part::known("native", native, meaning, Some(profile.native_cpu_s)),
    };
    let transfer = Part::known(
        "transfer",
        "pickling, both ways",
        "only where tasks run in other processes",
        profile.pickle_s,
    );
    [native.filter(|part| part.mean_s > 0.0), transfer]
        .into_iter()
        .flatten()
        .filter(|part| part.mean_s.is_finite())
        .collect()
}

/// The section with bars and table.
pub(super) fn section(comparison: &Comparison) -> Markup {
    let profile = &comparison.profile;
    let (inside, beside) = (inside(profile), beside(profile));
    html! {
        section aria-labelledby="time" {
            h2 #time { "Where the time of a task goes" }
            figure {
                @for frame in FRAMES { (bars(profile, &inside, &beside, frame)) }
            }
            table.plain {
                caption.hidden { "Where the time of a task goes" }
                thead {
                    tr {
                        th scope="col" { "part" }
                        th.number scope="col" { "a task" }
                        th.number scope="col" { "of its time" }
                        @if profile.split.is_some() { th.number scope="col" { "95 % interval" } }
                        th scope="col" { "what it means" }
                    }
                }
                tbody {
                    @for part in inside.iter().chain(&beside) { (row(profile, part)) }
                }
            }
            @match &profile.split {
                Some(split) => p.note {
                    "From " (data(split.samples as f64, |_| treadle_core::choice::wording::count(split.samples)))
                    " looks at the interpreter lock, " (data(split.rate_hz, |rate| format!("{rate:.0}")))
                    " a second, which cost " (data(split.overhead, percent)) " of one core."
                    @if let Some(releases) = split.releases_per_task {
                        " A task gave the lock up " (data(releases, treadle_core::choice::wording::number)) " times."
                    }
                },
                None if comparison.machine.gil => p.note {
                    "How much of the CPU time holds the interpreter lock: " strong { "not measured" } "."
                    @if let Some(pilot) = profile.pilot {
                        " Two threads together were " (data(pilot.speedup, treadle_core::choice::wording::number))
                        " times as fast as one (" (interval(pilot.interval[0], pilot.interval[1], treadle_core::choice::wording::number)) ")."
                    }
                },
                None => p.note { "This interpreter has no lock that tasks could hold." },
            }
        }
    }
}

fn row(profile: &Profile, part: &Part) -> Markup {
    html! {
        tr {
            th scope="row" {
                svg.swatch viewBox="0 0 16 16" aria-hidden="true" { (patterns::part(part.class, 0.5, 0.5, 15.0, 15.0)) }
                (part.name)
            }
            td.number data-label="a task" { (data(part.mean_s, seconds)) }
            td.number data-label="of its time" { (data(share(profile, part.mean_s), percent)) }
            @if profile.split.is_some() {
                td.number data-label="95 % interval" {
                    @if let Some((low, high)) = part.ends_s { (interval(low, high, seconds)) } @else { "–" }
                }
            }
            td.meaning { (part.meaning) }
        }
    }
}

fn share(profile: &Profile, part_s: f64) -> f64 {
    part_s / profile.wall_s.max(1e-12)
}

/// Bars to one scale: the time on the clock cut into its parts, then what comes on top.
fn bars(profile: &Profile, inside: &[Part], beside: &[Part], frame: Frame) -> Markup {
    let total: f64 = inside.iter().map(|part| part.mean_s.max(0.0)).sum();
    let longest = beside
        .iter()
        .map(|part| part.mean_s)
        .fold(total.max(profile.wall_s), f64::max)
        .max(1e-12);
    let unit = (frame.width - 2.0) / longest;
    let mut start = 1.0;
    let mut segments = Vec::new();
    for part in inside {
        let width = part.mean_s.max(0.0) * unit;
        segments.push((part, start, width));
        start += width;
    }
    let height = 66.0 + 44.0 * beside.len() as f64;
    let (title, told) = (
        format!("{}-time-title", frame.name),
        format!("{}-time-told", frame.name),
    );
    let words: Vec<String> = inside
        .iter()
        .chain(beside)
        .map(|part| {
            format!(
                "{} {} ({})",
                part.name,
                seconds(part.mean_s),
                percent(share(profile, part.mean_s))
            )
        })
        .collect();
    html! {
        svg class={ "chart " (frame.name) } viewBox={ "0 0 " (frame.width) " " (at(height)) } role="img" aria-labelledby={ (title) " " (told) } {
            title id=(title) { "Where the time of a task goes" }
            desc id=(told) { (words.join("; ")) "." }
            text.axis x="1" y="12" { "on the clock: " (seconds(profile.wall_s)) }
            @for (part, x, width) in &segments {
                @if *width > 0.0 {
                    g { title { (part.name) ": " (seconds(part.mean_s)) } (patterns::part(part.class, *x, 34.0, *width, 26.0)) }
                    @if let Some(text) = fitting(profile, part, *width) { text.label x=(at(*x + 1.0)) y="29" { (text) } }
                }
            }
            @for (index, part) in beside.iter().enumerate() {
                text.axis x="1" y=(at(82.0 + 44.0 * index as f64)) { "besides, " (part.name) ": " (seconds(part.mean_s)) }
                (patterns::part(part.class, 1.0, 88.0 + 44.0 * index as f64, (part.mean_s * unit).max(1.0), 14.0))
            }
        }
    }
}

/// The longest name of a segment that it has room for.
fn fitting(profile: &Profile, part: &Part, width: f64) -> Option<String> {
    let share = percent(share(profile, part.mean_s));
    [format!("{} {share}", part.name), share]
        .into_iter()
        .find(|text| text.chars().count() as f64 * CHARACTER + 4.0 <= width)
}
