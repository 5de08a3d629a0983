//! The report: what was measured, predicted, raced and decided, as text for a terminal.

use treadle_core::choice::comparison::{Candidate, Comparison, Confidence, Outcome};
use treadle_core::choice::plan::Plan;
use treadle_core::choice::reason::{machine_line, profile_lines};
use treadle_core::choice::wording::{bytes, count, number, rate, seconds};

use crate::{layout, plot};

/// The whole report in lines of at most `width` columns, but for the line of code, which stays whole.
pub(crate) fn text(comparison: &Comparison, width: usize) -> String {
    let mut out = String::new();
    out.push_str(&layout::wrap(
        &format!(
            "{} over {} ({} input{}{})",
            comparison.target,
            comparison.items.spec,
            count(comparison.items.count),
            if comparison.items.count == 1 { "" } else { "s" },
            if comparison.items.truncated {
                ", the first of more"
            } else {
                ""
            }
        ),
        width,
        "",
    ));
    out.push_str(&layout::wrap(&machine_line(&comparison.machine), width, ""));
    out.push_str(&profile(comparison, width));
    out.push_str(&candidates(comparison, width));
    let plot = plot::lines(comparison, width - 2);
    if !plot.is_empty() {
        out.push_str("\nThroughput against size\n");
        for line in plot {
            out.push_str(&format!("  {line}\n"));
        }
    }
    let confidence = match comparison.decision.confidence {
        Confidence::High => "confidence high",
        Confidence::Low => "confidence low",
        Confidence::None => "none",
    };
    out.push_str(&format!("\nDecision ({confidence})\n"));
    out.push_str(&layout::wrap(&comparison.decision.reason, width, "  "));
    if let Some(code) = &comparison.decision.code {
        out.push_str(&format!("\nUse it\n  {code}\n"));
    }
    out
}

fn profile(comparison: &Comparison, width: usize) -> String {
    let profile = &comparison.profile;
    let failed = if profile.errors > 0 {
        format!(", {} of them raised", profile.errors)
    } else {
        String::new()
    };
    let mut out = format!(
        "\nWhat a task costs: {} ({} run serially{failed})\n",
        profile.class.name(),
        profile.count
    );
    for (what, measured) in profile_lines(profile) {
        let text = layout::wrap(&measured, width, &" ".repeat(22));
        out.push_str(&format!("  {what:<20}{}", &text[22..]));
    }
    if let Some(error) = &profile.first_error {
        let text = format!(
            "first exception: input {}, {}: {}",
            error.index, error.class, error.message
        );
        out.push_str(&layout::wrap(&text, width, "  "));
    }
    out
}

fn candidates(comparison: &Comparison, width: usize) -> String {
    let head = [
        "  plan",
        "predicted",
        "measured",
        "95 % interval",
        "x serial",
        "p50",
        "p99",
        "cores",
        "memory",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(comparison.candidates.iter().map(row));
    let mut lines = layout::table(&rows);
    // A narrow terminal does without the columns that decide least.
    for name in ["cores", "p50", "95 % interval", "memory"] {
        let fits = lines.iter().all(|line| layout::columns(line) <= width);
        let Some(column) = rows[0]
            .iter()
            .position(|head| head == name)
            .filter(|_| !fits)
        else {
            continue;
        };
        for row in &mut rows {
            row.remove(column);
        }
        lines = layout::table(&rows);
    }
    let mut out = format!("\nCandidates\n{}\n", lines[0]);
    for (candidate, line) in comparison.candidates.iter().zip(&lines[1..]) {
        let outcome = match candidate.outcome {
            Outcome::Chosen => "chosen",
            Outcome::Equivalent => "equivalent",
            Outcome::Slower => "slower",
            Outcome::NotRaced => "not raced",
            Outcome::Infeasible => "infeasible",
        };
        let mut remark = format!("{outcome}: {}", candidate.reason);
        if candidate.outcome != Outcome::Infeasible && candidate.plan != Plan::SERIAL {
            remark.push_str(&format!("; limit: {}", candidate.limit));
        }
        if candidate.errors > 0 {
            remark.push_str(&format!(
                "; {} of {} tasks raised",
                candidate.errors, candidate.tasks
            ));
        }
        out.push_str(&format!(
            "{line}\n{}",
            layout::wrap(&remark, width, "      ")
        ));
    }
    if let Some(sentence) = comparison.prediction_sentence() {
        out.push_str(&layout::wrap(&sentence, width, "  "));
    }
    out
}

fn row(candidate: &Candidate) -> Vec<String> {
    let dash = || "-".to_owned();
    let mark = if candidate.outcome == Outcome::Chosen {
        "* "
    } else {
        "  "
    };
    vec![
        format!("{mark}{}", candidate.plan.label()),
        rate(candidate.predicted_per_s),
        candidate.measured_per_s.map_or_else(dash, rate),
        candidate.interval_per_s.map_or_else(dash, |[low, high]| {
            format!("{} to {}", number(low), number(high))
        }),
        match candidate.speedup {
            Some([times, ..]) => format!("{times:.2}"),
            None if candidate.plan == Plan::SERIAL && candidate.measured_per_s.is_some() => {
                "1".to_owned()
            }
            None => dash(),
        },
        candidate.p50_s.map_or_else(dash, seconds),
        candidate.p99_s.map_or_else(dash, seconds),
        candidate
            .cpu_cores
            .map_or_else(dash, |cores| format!("{cores:.2}")),
        candidate.peak_memory_bytes.map_or_else(dash, bytes),
    ]
}
