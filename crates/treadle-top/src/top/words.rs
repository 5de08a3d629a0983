//! Short forms for a screen: ages, bars, texts cut to a width.

use ratatui::text::Span;
use treadle_core::choice::wording::number;

/// `42 ms`, `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`: a time that somebody waits.
pub(crate) fn age(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    if seconds < 0.0995 {
        format!("{} ms", digits(seconds * 1e3))
    } else if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else if whole < 60 {
        format!("{whole} s")
    } else if whole < 3600 {
        format!("{} min {} s", whole / 60, whole % 60)
    } else {
        format!("{} h {} min", whole / 3600, whole % 3600 / 60)
    }
}

/// A duration of a task, which may be of microseconds.
pub(crate) fn short(seconds: f64) -> String {
    if seconds < 1e-3 {
        format!("{:.0} µs", seconds * 1e6)
    } else {
        age(seconds)
    }
}

/// The same in six columns, for a table: `42ms`, `0.4s`, `12s`, `3m20s`, `2h05m`, `3d04h`.
pub(crate) fn narrow(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    if seconds < 0.0995 {
        format!("{}ms", digits(seconds * 1e3))
    } else if seconds < 9.95 {
        format!("{seconds:.1}s")
    } else if whole < 60 {
        format!("{whole}s")
    } else if whole < 3600 {
        format!("{}m{:02}s", whole / 60, whole % 60)
    } else if whole < 100 * 3600 {
        format!("{}h{:02}m", whole / 3600, whole % 3600 / 60)
    } else {
        format!("{}d{:02}h", whole / 86_400, whole % 86_400 / 3600)
    }
}

fn digits(value: f64) -> String {
    if value < 9.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// A number of tasks a second, three digits of it.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second == 0.0 {
        "0".to_owned()
    } else {
        number(per_second)
    }
}

/// Columns that a text takes on a terminal.
pub(crate) fn columns(text: &str) -> usize {
    Span::raw(text).width()
}

fn columns_of(letter: char) -> usize {
    columns(letter.encode_utf8(&mut [0; 4]))
}

/// The letters, in the order in which they come, that fit into so many columns, one of which is left for the mark of the cut.
fn fitting(letters: impl Iterator<Item = char>, most: usize) -> Vec<char> {
    let mut room = most.saturating_sub(1);
    letters
        .take_while(|letter| {
            let fits = columns_of(*letter) <= room;
            room = room.saturating_sub(columns_of(*letter));
            fits
        })
        .collect()
}

/// The text cut to so many columns, the cut shown.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if columns(text) <= most {
        return text.to_owned();
    }
    let mut kept: String = fitting(text.chars(), most).into_iter().collect();
    if most > 0 {
        kept.push('…');
    }
    kept
}

/// The end of the text that fits, the cut shown: of `package.module.function` the function matters most.
pub(crate) fn cut_front(text: &str, most: usize) -> String {
    if columns(text) <= most {
        return text.to_owned();
    }
    let kept: String = fitting(text.chars().rev(), most)
        .into_iter()
        .rev()
        .collect();
    if most > 0 { format!("…{kept}") } else { kept }
}

/// A function's name without the module that every script is.
pub(crate) fn own(function: &str) -> &str {
    let script = function.strip_prefix("__main__.");
    script
        .or_else(|| function.strip_prefix("__mp_main__."))
        .unwrap_or(function)
}

/// Cut and filled to so many columns, to the left.
pub(crate) fn left(text: &str, wide: usize) -> String {
    let text = cut(text, wide);
    let space = " ".repeat(wide.saturating_sub(columns(&text)));
    text + &space
}

/// Cut and filled to so many columns, to the right.
pub(crate) fn right(text: &str, wide: usize) -> String {
    let text = cut(text, wide);
    " ".repeat(wide.saturating_sub(columns(&text))) + &text
}

/// Counts as bars of eighths, the greatest as high as there is.
pub(crate) fn bars(counts: &[u64], most: usize) -> String {
    const EIGHTHS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = &counts[counts.len().saturating_sub(most)..];
    let greatest = shown.iter().copied().max().unwrap_or(0).max(1);
    shown
        .iter()
        .map(|count| match count {
            0 => EIGHTHS[0],
            count => EIGHTHS[((count.saturating_mul(7)).div_ceil(greatest) as usize).min(7)],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_well_at_every_size() {
        for (seconds, text) in [
            (0.0, "0.0 ms"),
            (0.042, "42 ms"),
            (0.42, "0.4 s"),
            (9.99, "10 s"),
            (59.7, "1 min 0 s"),
            (3725.0, "1 h 2 min"),
        ] {
            assert_eq!(age(seconds), text);
        }
        for (seconds, text) in [
            (0.0421, "42ms"),
            (3.24, "3.2s"),
            (200.0, "3m20s"),
            (7500.0, "2h05m"),
            (1e6, "11d13h"),
        ] {
            assert_eq!(narrow(seconds), text);
            assert!(columns(text) <= 6);
        }
        assert_eq!(
            (short(12e-6), short(0.0042), short(0.5)),
            ("12 µs".to_owned(), "4.2 ms".to_owned(), "0.5 s".to_owned())
        );
    }

    #[test]
    fn texts_fit_their_columns() {
        assert_eq!(left("abc", 5), "abc  ");
        assert_eq!(right("abcdef", 4), "abc…");
        assert_eq!(cut_front("package.module.function", 10), "….function");
        assert_eq!((cut("", 0), cut("abc", 0)), (String::new(), String::new()));
        assert_eq!(
            (left("日本語", 5), right("日本語", 7)),
            ("日本…".to_owned(), " 日本語".to_owned())
        );
        assert_eq!(cut_front("abc", 1), "…");
    }

    #[test]
    fn bars_are_relative_to_the_greatest() {
        assert_eq!(bars(&[0, 1, 4, 8], 10), "▁▂▅█");
        assert_eq!(bars(&[9, 9, 0, 0], 2), "▁▁");
        assert_eq!(bars(&[], 5), "");
    }
}
