//! The page: a comparison as one HTML file that needs nothing else, for a screen, a telephone or paper.
//!
//! *Guarantees*: no script, nothing from elsewhere (a policy in the page forbids both); every text of the comparison is escaped;
//! every number stands in a `data` element that carries it unrounded; a number that was not measured is said to be so.

mod axis;
mod candidates;
mod curves;
mod durations;
mod evidence;
mod labels;
mod patterns;
mod time;
mod verdict;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use treadle_core::choice::comparison::{Candidate, Comparison, Outcome};

/// The style sheet, part of every page.
const STYLE: &str = include_str!("style.css");

/// Where a page comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The command line that made the comparison; `None` when a program did.
    pub command: Option<String>,
    /// The day, as `YYYY-MM-DD`.
    pub date: String,
}

/// The page of `comparison`.
///
/// ```
/// # fn check(comparison: &treadle_core::choice::Comparison) {
/// let origin = treadle_top::html::Origin { command: None, date: treadle_top::html::today() };
/// assert!(treadle_top::html::page(comparison, &origin).starts_with("<!DOCTYPE html>"));
/// # }
/// ```
pub fn page(comparison: &Comparison, origin: &Origin) -> String {
    let headline = verdict::headline(comparison);
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content={ "treadle " (env!("CARGO_PKG_VERSION")) };
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { (comparison.target) ": " (headline) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (patterns::definitions())
                main {
                    (verdict::section(comparison, &headline))
                    (candidates::targets(comparison))
                    (curves::section(comparison))
                    (time::section(comparison))
                    (durations::section(&comparison.profile))
                    (candidates::section(comparison))
                    (evidence::confidence(comparison))
                    (evidence::machine(comparison))
                    (evidence::reproduce(comparison, origin))
                }
                footer {
                    p { "Written by treadle " (env!("CARGO_PKG_VERSION")) " on " (origin.date) "." }
                }
            }
        }
    };
    markup.into_string()
}

/// Today in Universal Time, for an [`Origin`].
pub fn today() -> String {
    crate::date::today()
}

/// The candidate that was chosen.
fn chosen(comparison: &Comparison) -> Option<&Candidate> {
    comparison
        .candidates
        .iter()
        .find(|one| one.outcome == Outcome::Chosen)
}

/// A number in words that carries its unrounded value; what is not finite is a dash.
fn data(value: f64, words: impl Fn(f64) -> String) -> Markup {
    html! {
        @if value.is_finite() { data value=(value) { (words(value)) } } @else { "–" }
    }
}

/// The same for a number that may not have been measured.
fn optional(value: Option<f64>, words: impl Fn(f64) -> String) -> Markup {
    match value {
        Some(value) => data(value, words),
        None => html! { span.absent title="not measured" { "–" } },
    }
}

/// `low to high`, with both values.
fn interval(low: f64, high: f64, words: impl Fn(f64) -> String) -> Markup {
    html! { (data(low, &words)) " to " (data(high, &words)) }
}

/// A coordinate: a tenth of a unit is finer than a screen.
fn at(value: f64) -> String {
    format!("{value:.1}")
}
