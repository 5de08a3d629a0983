//! The report: what was measured, predicted, raced and decided, as text for a terminal.

use treadle_core::choice::comparison::{Candidate, Comparison, Confidence, Outcome};
use treadle_core::choice::plan::Plan;
use treadle_core::choice::portrait::{machine_line, profile_lines};
use treadle_core::choice::profile::Profile;
use treadle_core::choice::wording::{bytes, count, number, percent, rate, seconds};

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
    out.push_str(&whereabouts(&comparison.profile, width));
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

/// A part of which not even the upper end reaches this share of the time is left out.
const NOTHING: f64 = 0.005;

/// Where the time of a task goes, each part with the margin that the samples leave; or why that is not known.
fn whereabouts(profile: &Profile, width: usize) -> String {
    let Some(split) = &profile.split else {
        let why = profile
            .split_absent
            .as_deref()
            .unwrap_or("the interpreter lock was not watched");
        let instead = if profile.pilot.is_some() {
            " Two threads were tried against one instead."
        } else {
            ""
        };
        let text =
            format!("How it divides by the interpreter lock was not measured: {why}.{instead}");
        return format!(
            "\nWhere the time goes\n{}",
            layout::wrap(&text, width, "  ")
        );
    };
    let own = profile.own_s().max(1e-12);
    let rows: Vec<Vec<String>> = split
        .parts()
        .iter()
        .filter(|(_, part)| part.high_s >= NOTHING * own)
        .map(|(name, part)| {
            vec![
                format!("  {name}"),
                seconds(part.mean_s),
                percent(part.mean_s / own),
                format!(
                    "{} to {}",
                    percent(part.low_s / own),
                    percent(part.high_s / own)
                ),
            ]
        })
        .collect();
    let mut out = format!(
        "\nWhere the time goes: {} looks at the interpreter lock, 95 % margins\n",
        count(split.samples)
    );
    for line in layout::table(&rows) {
        out.push_str(&format!("{line}\n"));
    }
    let mut remarks = Vec::new();
    if let Some(releases) = split.releases_per_task.filter(|releases| *releases >= 0.5) {
        remarks.push(format!(
            "it gives the lock up about {} times a task",
            number(releases)
        ));
    }
    if profile.run_queue_s.is_none() {
        remarks.push("this system does not tell how long it waited for a processor".to_owned());
    }
    if split.late > 0 {
        remarks.push(format!(
            "{} more looks came late, for the machine was busy",
            count(split.late)
        ));
    }
    remarks.push(format!(
        "looking cost {} of another core",
        percent(split.overhead)
    ));
    out.push_str(&layout::wrap(
        &format!("{}.", remarks.join("; ")),
        width,
        "  ",
    ));
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

#[cfg(test)]
mod tests {
    use treadle_core::choice::sample::Sample;
    use treadle_core::choice::split::Tally;

    use super::*;

    fn sampled(tally: Option<Tally>, absent: Option<&str>) -> Profile {
        Profile::from_sample(&Sample {
            count: 50,
            wall_s: 0.01,
            walls: vec![0.01; 50],
            cpus: vec![0.006; 50],
            thread_cpu_s: 0.006,
            process_cpu_s: 0.006,
            run_queue_s: Some(0.0),
            tally,
            lock_absent: absent.map(str::to_owned),
            ..Sample::default()
        })
    }

    #[test]
    fn each_part_is_told_with_its_margin() {
        let tally = Tally {
            held_running: 600,
            free_running: 600,
            free_blocked: 800,
            late: 300,
            watched_s: 0.02,
            watched_releases: 40,
            sampler_cpu_s: 0.06,
            elapsed_s: 2.0,
            ..Tally::default()
        };
        let text = whereabouts(&sampled(Some(tally), None), 80);
        for part in [
            "2,000 looks at the interpreter lock",
            "computing, lock held",
            "3.00 ms",
            "28 % to 32 %",
            "waiting, lock free",
            "gives the lock up about 20.0 times a task",
            "300 more looks came late",
            "looking cost 3 % of another core",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        // What is surely nothing is not told.
        assert!(!text.contains("helpers") && !text.contains("blocked, lock held"));
        assert!(text.lines().all(|line| layout::columns(line) <= 80));
    }

    #[test]
    fn what_could_not_be_measured_says_why() {
        let text = whereabouts(&sampled(None, Some("this build has no lock")), 200);
        assert!(
            text.contains("was not measured: this build has no lock."),
            "{text}"
        );
        assert!(!text.contains("Two threads"));
    }
}
