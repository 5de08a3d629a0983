//! Layout: wrapped paragraphs, aligned tables, quoted commands.

/// Columns that a text takes: one a character, which holds for every character that we write.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().count()
}

/// Breaks a paragraph at spaces so that no line is longer than `width`, each with `indent` before it.
pub(crate) fn wrap(text: &str, width: usize, indent: &str) -> String {
    let room = width.saturating_sub(columns(indent)).max(20);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines
            .last_mut()
            .filter(|line| line.is_empty() || columns(line) + 1 + columns(word) <= room);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
        .iter()
        .map(|line| format!("{indent}{line}\n"))
        .collect()
}

/// Lines of a table: the first column to the left, the others to the right, two spaces between.
pub(crate) fn table(rows: &[Vec<String>]) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|column| {
            rows.iter()
                .filter_map(|row| Some(columns(row.get(column)?)))
                .max()
                .unwrap_or(0)
        })
        .collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| {
                    let space = " ".repeat(width - columns(cell));
                    if column == 0 {
                        format!("{cell}{space}")
                    } else {
                        format!("{space}{cell}")
                    }
                })
                .collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}

/// A command line that a shell reads back as these words.
pub(crate) fn shell(program: &str, words: &[String]) -> String {
    let mut line = program.to_owned();
    for word in words {
        let plain = !word.is_empty()
            && word
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || "-_./:=,+%@".contains(letter));
        line.push(' ');
        if plain {
            line.push_str(word);
        } else {
            line.push_str(&format!("'{}'", word.replace('\'', "'\\''")));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_wrap_and_tables_align() {
        assert_eq!(
            wrap("one two three four five six", 20, ""),
            "one two three four\nfive six\n"
        );
        let rows = [
            vec!["a".to_owned(), "1".to_owned()],
            vec!["bb".to_owned(), "22 µs".to_owned()],
        ];
        assert_eq!(table(&rows), ["a       1", "bb  22 µs"]);
    }

    #[test]
    fn commands_are_quoted_where_needed() {
        let words = ["compare", "a:f", "--items", "photos/*.jpg", "it's"].map(str::to_owned);
        assert_eq!(
            shell("treadle", &words),
            r"treadle compare a:f --items 'photos/*.jpg' 'it'\''s'"
        );
    }
}
