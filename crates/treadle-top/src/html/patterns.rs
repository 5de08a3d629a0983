//! How things look apart without colour: dashes and marks of strategies, hatching of the parts of time.

use maud::{Markup, html};

use super::at;

/// How the curve and the marks of a strategy are drawn; the style sheet gives the colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// The style class.
    pub(super) class: &'static str,
    mark: Mark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Circle,
    Square,
    Up,
    Diamond,
    Down,
    Plus,
}

/// The look of the strategy of this name; all mixes share one.
pub(super) fn look(strategy: &str) -> Look {
    let (class, mark) = match strategy {
        "serial" => ("serial", Mark::Plus),
        "threads" => ("threads", Mark::Circle),
        "processes" => ("processes", Mark::Square),
        "coroutines" => ("coroutines", Mark::Up),
        "interpreters" => ("interpreters", Mark::Diamond),
        _ => ("hybrid", Mark::Down),
    };
    Look { class, mark }
}

/// The mark of a strategy around a point.
pub(super) fn mark(look: Look, x: f64, y: f64) -> Markup {
    let corners: &[(f64, f64)] = match look.mark {
        Mark::Circle => {
            return html! { circle class={ "mark " (look.class) } cx=(at(x)) cy=(at(y)) r="4.5" {} };
        }
        Mark::Square => &[(-4.2, -4.2), (4.2, -4.2), (4.2, 4.2), (-4.2, 4.2)],
        Mark::Up => &[(0.0, -5.6), (5.3, 4.0), (-5.3, 4.0)],
        Mark::Down => &[(0.0, 5.6), (5.3, -4.0), (-5.3, -4.0)],
        Mark::Diamond => &[(0.0, -5.8), (5.8, 0.0), (0.0, 5.8), (-5.8, 0.0)],
        Mark::Plus => &[
            (-1.8, -5.4),
            (1.8, -5.4),
            (1.8, -1.8),
            (5.4, -1.8),
            (5.4, 1.8),
            (1.8, 1.8),
            (1.8, 5.4),
            (-1.8, 5.4),
            (-1.8, 1.8),
            (-5.4, 1.8),
            (-5.4, -1.8),
            (-1.8, -1.8),
        ],
    };
    let points: Vec<String> = corners
        .iter()
        .map(|(right, down)| format!("{},{}", at(x + right), at(y + down)))
        .collect();
    html! { polygon class={ "mark " (look.class) } points=(points.join(" ")) {} }
}

/// The hatching of all parts, which every chart of the page refers to.
pub(super) fn definitions() -> Markup {
    let hatch = |name: &str, size: u32, path: &str| {
        html! {
            pattern id={ "hatch-" (name) } width=(size) height=(size) patternUnits="userSpaceOnUse" {
                path class="hatch" d=(path) {}
            }
        }
    };
    html! {
        svg.definitions width="0" height="0" aria-hidden="true" focusable="false" {
            defs {
                (hatch("blocked", 8, "M0,0 L8,8 M8,0 L0,8"))
                (hatch("free", 8, "M-2,2 L2,-2 M0,8 L8,0 M6,10 L10,6"))
                (hatch("waiting", 8, "M3,3 h2 v2 h-2 z"))
                (hatch("queue", 6, "M3,0 V6"))
                (hatch("native", 8, "M-2,6 L2,10 M0,0 L8,8 M6,-2 L10,2"))
                (hatch("transfer", 6, "M0,3 H6"))
            }
        }
    }
}

/// A rectangle in the colour and hatching of a part.
pub(super) fn part(class: &str, x: f64, y: f64, width: f64, height: f64) -> Markup {
    html! {
        rect class={ "part " (class) } x=(at(x)) y=(at(y)) width=(at(width)) height=(at(height)) {}
        @if class != "held" && class != "cpu" {
            rect class="part-hatch" fill={ "url(#hatch-" (class) ")" } x=(at(x)) y=(at(y)) width=(at(width)) height=(at(height)) {}
        }
    }
}
