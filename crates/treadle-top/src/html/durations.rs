//! How long tasks take: the distribution of the sample's times, or its quantiles alone.

use maud::{Markup, html};
use treadle_core::choice::profile::Profile;
use treadle_core::choice::wording::{count, seconds};

use super::axis::{CHARACTER, FRAMES, Frame, Scale, tick_words};
use super::labels::{Area, Placer};
use super::{at, data};

/// Fewer tasks than this make no shape.
const ENOUGH: usize = 8;
/// The square-root rule gives as many bars as this at 400 tasks; more would be noise at the sample's usual size.
const MOST_BARS: usize = 20;
/// From this ratio of the slowest to the fastest task on, bars have equal ratios: on even steps, one slow task would
/// squeeze all others into one bar.
const LOGARITHMIC_FROM: f64 = 8.0;

/// The section.
pub(super) fn section(profile: &Profile) -> Markup {
    let mut walls: Vec<f64> = profile
        .walls
        .iter()
        .copied()
        .filter(|wall| wall.is_finite() && *wall > 0.0)
        .collect();
    walls.sort_by(f64::total_cmp);
    html! {
        section aria-labelledby="durations" {
            h2 #durations { "How long tasks take" }
            @if walls.len() >= ENOUGH {
                figure {
                    @for frame in FRAMES { (chart(profile, &walls, frame)) }
                }
            }
            p.note {
                "Half of the tasks take less than " (data(profile.wall_p50_s, seconds))
                ", 99 % less than " (data(profile.wall_p99_s, seconds))
                ", the slowest took " (data(profile.wall_max_s, seconds))
                " (" (data(profile.count as f64, |_| count(profile.count))) " run one after the other"
                @if profile.errors > 0 { ", " (data(profile.errors as f64, |_| count(profile.errors))) " of them raised" }
                ")."
                @if let Some(first) = profile.first_call_s { " The very first call took " (data(first, seconds)) "." }
            }
            @if let Some(error) = &profile.first_error {
                p.note { "First exception: input " (error.index) ", " code { (error.class) } ": " (error.message) }
            }
        }
    }
}

fn chart(profile: &Profile, walls: &[f64], frame: Frame) -> Markup {
    let (fastest, slowest) = (walls[0], walls[walls.len() - 1]);
    let logarithmic = slowest / fastest >= LOGARITHMIC_FROM;
    let (left, right) = (1.0, frame.width - 1.0);
    let (top, bottom, height) = (40.0, 150.0, 186.0);
    let x = if logarithmic {
        Scale::logarithmic((fastest, slowest * 1.000_001), (left, right))
    } else {
        Scale::linear((fastest, slowest.max(fastest * 1.000_001)), (left, right))
    };
    let bars = ((walls.len() as f64).sqrt().ceil() as usize).clamp(4, MOST_BARS);
    let width = (right - left) / bars as f64;
    let mut counts = vec![0u32; bars];
    for wall in walls {
        counts[(((x.at(*wall) - left) / width) as usize).min(bars - 1)] += 1;
    }
    let highest = counts.iter().copied().max().unwrap_or(1).max(1);
    let unit = (bottom - top) / f64::from(highest);
    let (title, told) = (
        format!("{}-durations-title", frame.name),
        format!("{}-durations-told", frame.name),
    );
    let mut placer = Placer::new(Area {
        left,
        top: 0.0,
        right,
        bottom: 34.0,
    });
    let quantiles =
        [("median", profile.wall_p50_s), ("99 %", profile.wall_p99_s)].map(|(name, value)| {
            let text = format!("{name} {}", seconds(value));
            let place = placer.place(&text, &[(x.at(value), 26.0), (x.at(value), 12.0)]);
            (text, x.at(value), place)
        });
    let (divisor, unit_name) = time_unit(slowest);
    let ticks = if logarithmic {
        Scale::logarithmic((fastest / divisor, slowest / divisor), (left, right))
    } else {
        Scale::linear((fastest / divisor, slowest / divisor), (left, right))
    };
    html! {
        svg class={ "chart " (frame.name) } viewBox={ "0 0 " (frame.width) " " (height) } role="img" aria-labelledby={ (title) " " (told) } {
            title id=(title) { "How many tasks took how long" }
            desc id=(told) {
                (count(walls.len() as u64)) " tasks, from " (seconds(fastest)) " to " (seconds(slowest))
                "; median " (seconds(profile.wall_p50_s)) ", 99 % under " (seconds(profile.wall_p99_s)) "."
            }
            @for (index, number) in counts.iter().enumerate() {
                @if *number > 0 {
                    rect.bar x=(at(left + width * index as f64 + 0.5)) width=(at(width - 1.0))
                        y=(at(bottom - f64::from(*number) * unit)) height=(at(f64::from(*number) * unit)) {
                        title { (number) " tasks" }
                    }
                }
            }
            line.base x1=(at(left)) x2=(at(right)) y1=(at(bottom)) y2=(at(bottom)) {}
            @for tick in ticks.ticks((frame.width / 70.0) as usize) {
                line.base x1=(at(ticks.at(tick))) x2=(at(ticks.at(tick))) y1=(at(bottom)) y2=(at(bottom + 4.0)) {}
                text.tick x=(at(inward(ticks.at(tick), &tick_words(tick), frame))) y=(at(bottom + 17.0)) text-anchor="middle" { (tick_words(tick)) }
            }
            text.axis x=(at(right)) y=(at(height - 3.0)) text-anchor="end" {
                (unit_name) " a task" @if logarithmic { " (equal steps are equal ratios)" }
            }
            @for (text, middle, (x, y)) in &quantiles {
                line.quantile x1=(at(*middle)) x2=(at(*middle)) y1=(at(y + 3.0)) y2=(at(bottom)) {}
                text.label x=(at(*x)) y=(at(*y)) { (text) }
            }
        }
    }
}

/// The middle of a tick's label, moved in from the edges as far as it needs.
fn inward(middle: f64, text: &str, frame: Frame) -> f64 {
    let half = text.chars().count() as f64 * CHARACTER / 2.0 + 1.0;
    middle.clamp(half, frame.width - half)
}

/// The unit in which the slowest task is at least one.
fn time_unit(slowest_s: f64) -> (f64, &'static str) {
    if slowest_s >= 1.0 {
        (1.0, "seconds")
    } else if slowest_s >= 1e-3 {
        (1e-3, "milliseconds")
    } else {
        (1e-6, "microseconds")
    }
}
