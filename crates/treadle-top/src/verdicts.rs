//! The answers of a check as text: what changed, why the answer follows, what to do.

use treadle_core::choice::check::{Answer, Report, Verdict};

use crate::layout;

/// All answers, and a closing line where there are several, in lines of at most `width` columns.
pub(crate) fn text(report: &Report, width: usize) -> String {
    let mut out = String::new();
    for answer in &report.decisions {
        out.push_str(&one(answer, width));
    }
    if report.decisions.len() > 1 {
        let counts: Vec<String> = [
            Verdict::Holds,
            Verdict::Stale,
            Verdict::Overturned,
            Verdict::Inconclusive,
        ]
        .into_iter()
        .filter_map(|verdict| {
            let count = report
                .decisions
                .iter()
                .filter(|one| one.answer == verdict)
                .count();
            (count > 0).then(|| format!("{count} {}", verdict.name()))
        })
        .collect();
        out.push_str(&format!("{}\n", counts.join(", ")));
    }
    for remark in &report.remarks {
        out.push_str(&layout::wrap(&format!("warning: {remark}"), width, ""));
    }
    out
}

fn one(answer: &Answer, width: usize) -> String {
    let mut out = layout::wrap(
        &format!(
            "{}: {} ({}, {})",
            answer.name,
            answer.answer.name(),
            answer.plan.label(),
            answer.level.words()
        ),
        width,
        "",
    );
    let mut line = |head: &str, words: &str| {
        let text = layout::wrap(words, width, &" ".repeat(11));
        out.push_str(&format!("  {head:<9}{}", &text[11..]));
    };
    let (weighing, remarks): (Vec<_>, Vec<_>) =
        answer.changes.iter().partition(|change| change.weighs);
    for (place, change) in weighing.iter().enumerate() {
        line(if place == 0 { "changed" } else { "" }, &change.words);
    }
    for (place, change) in remarks.iter().enumerate() {
        line(if place == 0 { "noted" } else { "" }, &change.words);
    }
    line("why", &answer.why);
    if answer.answer != Verdict::Holds || answer.next != "nothing" {
        line("do", &answer.next);
    }
    if let Some(detail) = &answer.detail {
        out.push('\n');
        for line in detail.trim_end().lines() {
            out.push_str(&format!("    {line}\n"));
        }
    }
    out
}

/// One answer as plain lines, for formats that hold text.
pub(crate) fn plain(answer: &Answer) -> String {
    one(answer, 160)
}
