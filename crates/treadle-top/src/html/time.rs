//! Where the time goes: the parts of a task's time as bars to one scale, and as a table.

use maud::{Markup, html};
use treadle_core::choice::comparison::Comparison;
use treadle_core::choice::profile::Profile;
use treadle_core::choice::split::Estimate;
use treadle_core::choice::wording::{count, number, percent, seconds};

use super::axis::{CHARACTER, FRAMES, Frame};
use super::{at, data, interval, patterns};

/// What a part of the time is.
struct Kind {
    /// The style class, and the name of its hatching.
    class: &'static str,
    /// The name above the bar, where there is little room.
    short: &'static str,
    name: &'static str,
    meaning: &'static str,
}

const HELD: Kind = Kind {
    class: "held",
    short: "lock held",
    name: "CPU with the interpreter lock",
    meaning: "threads cannot share it",
};
const BLOCKED: Kind = Kind {
    class: "blocked",
    short: "blocked",
    name: "blocked with the lock",
    meaning: "no other thread runs Python meanwhile",
};
const FREE: Kind = Kind {
    class: "free",
    short: "lock-free",
    name: "CPU without the lock",
    meaning: "threads share it over the cores",
};
const CPU: Kind = Kind {
    class: "cpu",
    short: "CPU",
    name: "CPU",
    meaning: "with and without the interpreter lock together",
};
const WAITING: Kind = Kind {
    class: "waiting",
    short: "waiting",
    name: "waiting",
    meaning: "off the processor, nobody hindered: more at once hide it",
};
const QUEUE: Kind = Kind {
    class: "queue",
    short: "ready",
    name: "ready, without a processor",
    meaning: "others had the processor: the machine’s doing, not the function’s",
};
const NATIVE: Kind = Kind {
    class: "native",
    short: "helpers",
    name: "CPU of helpers",
    meaning: "threads and programs that the function starts, at the same time as it",
};
const TRANSFER: Kind = Kind {
    class: "transfer",
    short: "pickling",
    name: "pickling, both ways",
    meaning: "only where tasks run in other processes",
};

/// A part of the time, in seconds a task.
struct Part {
    kind: &'static Kind,
    mean_s: f64,
    ends_s: Option<(f64, f64)>,
}

impl Part {
    fn estimated(kind: &'static Kind, found: Estimate) -> Self {
        Self {
            kind,
            mean_s: found.mean_s,
            ends_s: Some((found.low_s, found.high_s)),
        }
    }

    fn known(kind: &'static Kind, mean_s: f64) -> Self {
        Self {
            kind,
            mean_s,
            ends_s: None,
        }
    }

    /// Its length in a drawing: what is no number has none.
    fn drawn_s(&self) -> f64 {
        if self.mean_s.is_finite() {
            self.mean_s.max(0.0)
        } else {
            0.0
        }
    }
}

/// The parts of the time on the clock: they add up to it.
fn inside(profile: &Profile) -> Vec<Part> {
    let mut parts = match &profile.split {
        Some(split) => vec![
            Part::estimated(&HELD, split.gil_cpu),
            Part::estimated(&BLOCKED, split.gil_blocked),
            Part::estimated(&FREE, split.free_cpu),
            Part::estimated(&WAITING, split.wait),
            Part::estimated(&QUEUE, split.run_queue),
        ],
        None => vec![
            Part::known(&CPU, profile.thread_cpu_s),
            Part::known(&WAITING, profile.wait_s),
            Part::known(&QUEUE, profile.run_queue_s.unwrap_or(0.0)),
        ],
    };
    parts.retain(|part| part.kind.class != QUEUE.class || part.drawn_s() > 0.0);
    parts
}

/// What comes on top of the time on the clock.
fn beside(profile: &Profile) -> Vec<Part> {
    let native = match &profile.split {
        Some(split) => Part::estimated(&NATIVE, split.native_cpu),
        None => Part::known(&NATIVE, profile.native_cpu_s),
    };
    let transfer = profile
        .pickle_s
        .map(|pickle_s| Part::known(&TRANSFER, pickle_s));
    std::iter::once(native)
        .chain(transfer)
        .filter(|part| part.drawn_s() > 0.0)
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
                        th.number scope="col" { "a task" @if profile.split.is_some() { " (95 %)" } }
                        th.number scope="col" { "of its time" }
                        th.meaning scope="col" { "what it means" }
                    }
                }
                tbody {
                    @for part in inside.iter().chain(&beside) { (row(profile, part)) }
                }
            }
            @match &profile.split {
                Some(split) => p.note {
                    "From " (data(split.samples as f64, |_| count(split.samples)))
                    " looks at the interpreter lock, " (data(split.rate_hz, |rate| count(rate.round() as u64)))
                    " a second, which cost " (data(split.overhead, percent)) " of one core."
                    @if split.late > 0 {
                        " " (data(split.late as f64, |_| count(split.late))) " more came late, for the machine was busy."
                    }
                    @if let Some(releases) = split.releases_per_task.filter(|releases| *releases >= 0.5) {
                        " A task gave the lock up about " (data(releases, number)) " times."
                    }
                },
                None if comparison.machine.gil => p.note {
                    "How much of the CPU time holds the interpreter lock: " strong { "not measured" }
                    @if let Some(why) = &profile.split_absent { ": " (why) }
                    "."
                    @if let Some(pilot) = profile.pilot {
                        " Two threads together were " (data(pilot.speedup, number))
                        " times as fast as one (" (interval(pilot.interval[0], pilot.interval[1], number)) ")."
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
                svg.swatch viewBox="0 0 16 16" aria-hidden="true" { (patterns::part(part.kind.class, 0.5, 0.5, 15.0, 15.0)) }
                (part.kind.name)
            }
            td.number {
                (data(part.mean_s, seconds))
                @if let Some((low, high)) = part.ends_s { " " span.small { (interval(low, high, seconds)) } }
            }
            td.number { (data(share(profile, part.mean_s), percent)) }
            td.meaning { (part.kind.meaning) }
        }
    }
}

fn share(profile: &Profile, part_s: f64) -> f64 {
    part_s / profile.wall_s.max(1e-12)
}

/// Bars to one scale: the time on the clock cut into its parts, then what comes on top.
fn bars(profile: &Profile, inside: &[Part], beside: &[Part], frame: Frame) -> Markup {
    let total: f64 = inside.iter().map(Part::drawn_s).sum();
    let longest = beside.iter().map(Part::drawn_s).fold(total, f64::max);
    let unit = (frame.width - 2.0) / longest.max(1e-12);
    let mut start = 1.0;
    let mut segments = Vec::new();
    for part in inside {
        let width = part.drawn_s() * unit;
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
        .filter(|part| part.mean_s.is_finite())
        .map(|part| {
            format!(
                "{} {} ({})",
                part.kind.name,
                seconds(part.mean_s),
                percent(share(profile, part.mean_s))
            )
        })
        .collect();
    html! {
        svg class={ "chart " (frame.name) } viewBox={ "0 0 " (frame.width) " " (at(height)) } role="img" aria-labelledby={ (title) " " (told) } {
            title id=(title) { "Where the time of a task goes" }
            desc id=(told) { (words.join("; ")) "." }
            text.axis x="1" y="12" { "on the clock: " (seconds(total)) }
            @for (part, x, width) in &segments {
                @if *width > 0.0 {
                    g { title { (part.kind.name) ": " (seconds(part.mean_s)) } (patterns::part(part.kind.class, *x, 34.0, *width, 26.0)) }
                    @if let Some(text) = fitting(profile, part, *width) { text.label x=(at(*x + 1.0)) y="29" { (text) } }
                }
            }
            @for (index, part) in beside.iter().enumerate() {
                text.axis x="1" y=(at(82.0 + 44.0 * index as f64)) { "besides, " (part.kind.name) ": " (seconds(part.mean_s)) }
                (patterns::part(part.kind.class, 1.0, 88.0 + 44.0 * index as f64, (part.drawn_s() * unit).max(1.0), 14.0))
            }
        }
    }
}

/// The longest name of a segment that it has room for.
fn fitting(profile: &Profile, part: &Part, width: f64) -> Option<String> {
    let share = percent(share(profile, part.mean_s));
    let (name, short) = (part.kind.name, part.kind.short);
    [
        format!("{name} {share}"),
        format!("{short} {share}"),
        short.to_owned(),
        share,
    ]
    .into_iter()
    .find(|text| text.chars().count() as f64 * CHARACTER + 4.0 <= width)
}
