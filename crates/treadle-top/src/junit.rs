//! The answers of a check as JUnit XML, in the form that continuous integration services read.
//!
//! One test case a decision: *overturned* and *stale* are failures (their `type` tells them apart), *inconclusive* is
//! skipped with its reason, *holds* passes. *Guarantees*: the text is well-formed whatever a message contains.

use treadle_core::choice::check::{Answer, Report, Verdict};

use crate::verdicts;

/// The document.
pub(crate) fn xml(report: &Report) -> String {
    let count = |verdicts: &[Verdict]| {
        report
            .decisions
            .iter()
            .filter(|one| verdicts.contains(&one.answer))
            .count()
    };
    let totals = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" time=\"{:.3}\"",
        report.decisions.len(),
        count(&[Verdict::Overturned, Verdict::Stale]),
        count(&[Verdict::Inconclusive]),
        report
            .decisions
            .iter()
            .map(|one| one.elapsed_s)
            .sum::<f64>()
    );
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"treadle check\" {totals}>\n  <testsuite name=\"treadle.decisions\" {totals}>\n"
    );
    for answer in &report.decisions {
        out.push_str(&case(answer));
    }
    if !report.remarks.is_empty() {
        out.push_str(&format!(
            "    <system-out>{}</system-out>\n",
            escaped(&report.remarks.join("\n"))
        ));
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

fn case(answer: &Answer) -> String {
    let mut out = format!(
        "    <testcase classname=\"treadle.decisions\" name=\"{}\" time=\"{:.3}\">\n",
        escaped(&answer.name),
        answer.elapsed_s
    );
    let message = escaped(&answer.why);
    let text = escaped(&verdicts::plain(answer));
    match answer.answer {
        Verdict::Holds => out.push_str(&format!("      <system-out>{text}</system-out>\n")),
        Verdict::Overturned | Verdict::Stale => out.push_str(&format!(
            "      <failure type=\"{}\" message=\"{message}\">{text}</failure>\n",
            answer.answer.name()
        )),
        Verdict::Inconclusive => {
            out.push_str(&format!(
                "      <skipped message=\"{message}\"/>\n      <system-out>{text}</system-out>\n"
            ));
        }
    }
    out.push_str("    </testcase>\n");
    out
}

/// Text that may stand in an element or an attribute; what XML 1.0 cannot hold becomes a replacement character.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(letter),
            control if control < ' ' || ('\u{fffe}'..='\u{ffff}').contains(&control) => {
                out.push('\u{fffd}');
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_breaks_the_document() {
        assert_eq!(
            escaped("a<b> & \"c\"\u{1b}[0m\n"),
            "a&lt;b&gt; &amp; &quot;c&quot;\u{fffd}[0m\n"
        );
    }
}
