//! Throughput against size: predicted curves, measured points with their intervals, names beside them.

use maud::{Markup, html};
use treadle_core::choice::comparison::{Candidate, Comparison, Outcome};
use treadle_core::choice::plan::Plan;
use treadle_core::choice::wording::{number, rate};

use super::axis::{CHARACTER, FRAMES, Frame, Scale, tick_words};
use super::labels::{Area, Placer};
use super::verdict::plan_words;
use super::{at, patterns};

/// From this ratio between the highest and the lowest rate on, equal ratios are drawn as equal steps: on even steps the
/// lower one would stand within the thickness of two lines above zero.
const LOGARITHMIC_FROM: f64 = 20.0;

/// What is drawn.
struct Drawing<'a> {
    curves: Vec<(&'a str, Vec<(u32, f64)>)>,
    measured: Vec<(&'a Candidate, f64)>,
}

/// The section; with nothing to draw it says why.
pub(super) fn section(comparison: &Comparison) -> Markup {
    let usable = |rate: f64| rate.is_finite() && rate > 0.0;
    let drawing = Drawing {
        curves: comparison
            .curves
            .iter()
            .map(|curve| {
                let points = curve.points.iter().filter(|point| usable(point.1));
                (curve.strategy.as_str(), points.copied().collect())
            })
            .filter(|(_, points): &(_, Vec<_>)| !points.is_empty())
            .collect(),
        measured: comparison
            .candidates
            .iter()
            .filter_map(|one| Some((one, one.measured_per_s.filter(|rate| usable(*rate))?)))
            .collect(),
    };
    let sizes = drawing
        .curves
        .iter()
        .flat_map(|(_, points)| points.iter().map(|point| point.0))
        .chain(drawing.measured.iter().map(|(one, _)| one.plan.workers()));
    let widest = sizes.max().unwrap_or(0);
    html! {
        section aria-labelledby="curves" {
            h2 #curves { "Throughput against size" }
            @if widest < 2 {
                p.absent { "There is no curve to draw: no plan with more than one worker was predicted or measured." }
            } @else {
                figure {
                    @for frame in FRAMES { (chart(&drawing, widest, frame)) }
                    figcaption { (caption(&drawing)) }
                }
            }
        }
    }
}

fn caption(drawing: &Drawing<'_>) -> Markup {
    html! {
        "Lines: predicted. "
        @if drawing.measured.is_empty() {
            "Nothing was raced, so nothing is measured here."
        } @else {
            "Marks: measured, with 95 % intervals. "
            @if drawing.measured.iter().any(|(one, _)| one.outcome == Outcome::Chosen) { "The ring is the chosen plan. " }
            @if drawing.measured.iter().any(|(one, _)| one.plan == Plan::SERIAL) { "The dotted level is the plain loop." }
        }
    }
}

/// The lowest and the highest rate of curves, points and intervals.
fn range(drawing: &Drawing<'_>) -> (f64, f64) {
    let rates = drawing
        .curves
        .iter()
        .flat_map(|(_, points)| points.iter().map(|point| point.1))
        .chain(drawing.measured.iter().map(|one| one.1))
        .chain(
            drawing
                .measured
                .iter()
                .filter_map(|(one, _)| one.interval_per_s)
                .flatten(),
        )
        .filter(|rate| rate.is_finite() && *rate > 0.0);
    rates.fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), rate| {
        (low.min(rate), high.max(rate))
    })
}

fn chart(drawing: &Drawing<'_>, widest: u32, frame: Frame) -> Markup {
    let (low, high) = range(drawing);
    let logarithmic = high / low >= LOGARITHMIC_FROM;
    let (top, bottom) = (26.0, frame.height - 38.0);
    let y = if logarithmic {
        Scale::logarithmic((low * 0.75, high * 1.3), (bottom, top))
    } else {
        Scale::linear((0.0, high * 1.1), (bottom, top))
    };
    let ticks = y.ticks(6);
    let digits = ticks.iter().map(|tick| tick_words(*tick).chars().count());
    let left = 10.0 + digits.max().unwrap_or(1) as f64 * CHARACTER;
    let right = frame.width - 8.0;
    let x = Scale::logarithmic((1.0, f64::from(widest)), (left + 14.0, right - 14.0));
    let placed = |size: u32, rate: f64| (x.at(f64::from(size.max(1))), y.at(rate));

    let lines: Vec<(&str, Vec<(f64, f64)>)> = drawing
        .curves
        .iter()
        .map(|(name, points)| {
            let line = points.iter().map(|(size, rate)| placed(*size, *rate));
            (*name, line.collect())
        })
        .collect();
    let mut placer = Placer::new(Area {
        left: left + 4.0,
        top: top + 1.0,
        right,
        bottom: bottom - 1.0,
    });
    for (_, line) in &lines {
        placer.avoid_line(line);
    }
    for (one, rate) in &drawing.measured {
        let (x, at) = placed(one.plan.workers(), *rate);
        let reach = if one.outcome == Outcome::Chosen {
            11.0
        } else {
            7.0
        };
        placer.avoid(Area::around(x, at, reach));
        if let Some([low, high]) = one.interval_per_s {
            placer.avoid_line(&[(x, y.at(high)), (x, y.at(low))]);
        }
    }
    let title = format!("{}-curves-title", frame.name);
    let told = format!("{}-curves-told", frame.name);
    html! {
        svg class={ "chart " (frame.name) } viewBox={ "0 0 " (frame.width) " " (frame.height) } role="img" aria-labelledby={ (title) " " (told) } {
            title id=(title) { "Tasks a second against workers at once" }
            desc id=(told) { (description(drawing)) }
            @for tick in &ticks {
                line.grid x1=(at(left)) x2=(at(right)) y1=(at(y.at(*tick))) y2=(at(y.at(*tick))) {}
                text.tick x=(at(left - 6.0)) y=(at(y.at(*tick) + 4.0)) text-anchor="end" { (tick_words(*tick)) }
            }
            text.axis x="2" y="12" { "tasks a second" @if logarithmic { " (equal steps are equal ratios)" } }
            line.base x1=(at(left)) x2=(at(right)) y1=(at(bottom)) y2=(at(bottom)) {}
            @for size in sizes(widest, right - left) {
                line.base x1=(at(x.at(f64::from(size)))) x2=(at(x.at(f64::from(size)))) y1=(at(bottom)) y2=(at(bottom + 4.0)) {}
                text.tick x=(at(x.at(f64::from(size)))) y=(at(bottom + 17.0)) text-anchor="middle" { (size) }
            }
            text.axis x=(at(right)) y=(at(frame.height - 5.0)) text-anchor="end" { "workers at once" }
            @if let Some((one, rate)) = drawing.measured.iter().find(|(one, _)| one.plan == Plan::SERIAL) {
                line.level x1=(at(left)) x2=(at(right)) y1=(at(y.at(*rate))) y2=(at(y.at(*rate))) {
                    title { (point_words(one, *rate)) }
                }
            }
            @for (name, line) in &lines {
                polyline class={ "curve " (patterns::look(name).class) } points=(path(line)) { title { (name) ", predicted" } }
            }
            @for (one, rate) in &drawing.measured {
                (point(one, *rate, placed(one.plan.workers(), *rate), &y))
            }
            (names(drawing, &lines, &placed, &mut placer))
        }
    }
}

/// Labels: the chosen plan and the plain loop first, then each curve near its end.
fn names(
    drawing: &Drawing<'_>,
    lines: &[(&str, Vec<(f64, f64)>)],
    placed: &dyn Fn(u32, f64) -> (f64, f64),
    placer: &mut Placer,
) -> Markup {
    let mut labels: Vec<(&str, String, (f64, f64))> = Vec::new();
    for (one, measured) in &drawing.measured {
        let chosen = one.outcome == Outcome::Chosen;
        if chosen || one.plan == Plan::SERIAL {
            let text = format!("{}: {}", plan_words(&one.plan), rate(*measured));
            let place = placer.place(&text, &[placed(one.plan.workers(), *measured)]);
            labels.push((if chosen { "name chosen" } else { "name" }, text, place));
        }
    }
    for (name, line) in lines {
        let anchors: Vec<(f64, f64)> = [1.0, 0.75, 0.5, 0.25]
            .iter()
            .filter_map(|share| along(line, *share))
            .collect();
        let place = placer.place(name, &anchors);
        labels.push((patterns::look(name).class, (*name).to_owned(), place));
    }
    html! {
        @for (class, text, (x, y)) in labels {
            text class={ "label " (class) } x=(at(x)) y=(at(y)) { (text) }
        }
    }
}

/// The point of a line at a share of its width.
fn along(line: &[(f64, f64)], share: f64) -> Option<(f64, f64)> {
    let (first, last) = (line.first()?, line.last()?);
    let x = first.0 + (last.0 - first.0) * share;
    let between = line.windows(2).find(|pair| pair[1].0 >= x);
    let Some([from, to]) = between.map(|pair| [pair[0], pair[1]]) else {
        return Some(*last);
    };
    let part = if to.0 > from.0 {
        (x - from.0) / (to.0 - from.0)
    } else {
        0.0
    };
    Some((x, from.1 + (to.1 - from.1) * part))
}

fn point(one: &Candidate, rate: f64, (x, middle): (f64, f64), y: &Scale) -> Markup {
    let look = patterns::look(one.plan.strategy().name());
    html! {
        g {
            title { (point_words(one, rate)) }
            @if let Some([low, high]) = one.interval_per_s.filter(|ends| ends.iter().all(|end| end.is_finite())) {
                path class={ "whisker " (look.class) } d={
                    "M" (at(x - 4.0)) "," (at(y.at(high))) " h8 m-4,0 V" (at(y.at(low))) " m-4,0 h8"
                } {}
            }
            (patterns::mark(look, x, middle))
            @if one.outcome == Outcome::Chosen { circle.ring cx=(at(x)) cy=(at(middle)) r="9.5" {} }
        }
    }
}

fn point_words(one: &Candidate, measured: f64) -> String {
    let interval = one.interval_per_s.map_or_else(String::new, |[low, high]| {
        format!(" ({} to {})", number(low), number(high))
    });
    format!("{}: {}{interval}", plan_words(&one.plan), rate(measured))
}

/// The drawing in words.
fn description(drawing: &Drawing<'_>) -> String {
    let mut words = Vec::new();
    if !drawing.measured.is_empty() {
        let points = drawing.measured.iter();
        let points: Vec<String> = points.map(|(one, rate)| point_words(one, *rate)).collect();
        words.push(format!("Measured: {}.", points.join("; ")));
    }
    for (name, points) in &drawing.curves {
        let best = points.iter().max_by(|one, other| one.1.total_cmp(&other.1));
        if let Some((size, highest)) = best {
            words.push(format!(
                "Predicted for {name}: at best {}, at {size}.",
                rate(*highest)
            ));
        }
    }
    words.join(" ")
}

/// Powers of two that have room for their labels.
fn sizes(widest: u32, room: f64) -> Vec<u32> {
    let doublings = f64::from(widest).log2();
    let mut every = 1;
    while room / doublings * f64::from(every) < 36.0 && every < 8 {
        every += 1;
    }
    (0..=doublings as u32)
        .step_by(every as usize)
        .map(|exponent| 1 << exponent)
        .collect()
}

fn path(line: &[(f64, f64)]) -> String {
    let points: Vec<String> = line
        .iter()
        .map(|(x, y)| format!("{},{}", at(*x), at(*y)))
        .collect();
    points.join(" ")
}
