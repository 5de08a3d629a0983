//! The plot: throughput against size in plain characters, predictions as small letters, measurements as capitals.

use treadle_core::choice::comparison::Comparison;
use treadle_core::choice::plan::Strategy;
use treadle_core::choice::wording::number;

use crate::layout::wrap;

/// Rows of the plot: enough to tell a tenth of the range apart, few enough for a small terminal.
const ROWS: usize = 12;

/// The letter of a strategy.
fn letter(strategy: Strategy) -> char {
    match strategy {
        Strategy::Serial => 's',
        Strategy::Threads => 't',
        Strategy::Coroutines => 'c',
        Strategy::Processes => 'p',
        Strategy::Interpreters => 'i',
        Strategy::Hybrid => 'h',
    }
}

/// Lines of the plot of all curves and measured points; empty when there is nothing to show.
pub(crate) fn lines(comparison: &Comparison, width: usize) -> Vec<String> {
    let measured: Vec<(Strategy, u32, f64)> = comparison
        .candidates
        .iter()
        .filter_map(|one| Some((one.plan.strategy(), one.plan.workers(), one.measured_per_s?)))
        .collect();
    let curves: Vec<(Strategy, Vec<(u32, f64)>)> = comparison
        .curves
        .iter()
        .filter_map(|curve| {
            let strategy = [
                Strategy::Threads,
                Strategy::Coroutines,
                Strategy::Processes,
                Strategy::Interpreters,
            ]
            .into_iter()
            .find(|one| one.name() == curve.strategy)?;
            Some((strategy, curve.points.clone()))
        })
        .collect();
    let sizes = curves
        .iter()
        .flat_map(|(_, points)| points.iter().map(|point| point.0))
        .chain(measured.iter().map(|one| one.1));
    let rates = curves
        .iter()
        .flat_map(|(_, points)| points.iter().map(|point| point.1))
        .chain(measured.iter().map(|one| one.2));
    let (widest, highest) = (sizes.max().unwrap_or(1), rates.fold(0.0, f64::max));
    if widest < 2 || highest <= 0.0 {
        return Vec::new();
    }
    let labels: Vec<String> = (0..=ROWS)
        .map(|row| {
            if row == ROWS {
                "0".to_owned()
            } else if row % 4 == 0 {
                format!("{}/s", number(highest * (ROWS - row) as f64 / ROWS as f64))
            } else {
                String::new()
            }
        })
        .collect();
    let margin = labels
        .iter()
        .map(|label| label.chars().count())
        .max()
        .unwrap_or(0);
    let columns = width.saturating_sub(margin + 4).clamp(20, 72);
    let span = f64::from(widest).ln();
    let column_of =
        |size: u32| ((f64::from(size.max(1)).ln() / span) * (columns - 1) as f64).round() as usize;
    let row_of = |rate: f64| {
        ROWS - ((rate / highest) * ROWS as f64)
            .round()
            .clamp(0.0, ROWS as f64) as usize
    };

    let mut grid = vec![vec![' '; columns]; ROWS + 1];
    for (strategy, points) in &curves {
        for (column, rate) in interpolated(points, columns, span) {
            let cell = &mut grid[row_of(rate)][column];
            // Where two predictions fall together, both names matter less than that they do.
            *cell = if *cell == ' ' || *cell == letter(*strategy) {
                letter(*strategy)
            } else {
                '='
            };
        }
    }
    for (strategy, size, rate) in &measured {
        grid[row_of(*rate)][column_of(*size)] = letter(*strategy).to_ascii_uppercase();
    }
    let mut lines: Vec<String> = grid
        .iter()
        .zip(&labels)
        .map(|(row, label)| {
            let cells: String = row.iter().collect();
            format!("{label:>margin$} |{}", cells.trim_end())
        })
        .collect();
    lines.push(format!("{:>margin$} +{}", "", "-".repeat(columns)));
    lines.push(format!(
        "{:>margin$}  {}",
        "",
        axis(widest, columns, &column_of)
    ));
    let mut legend: Vec<String> = curves
        .iter()
        .map(|(strategy, _)| format!("{} {}", letter(*strategy), strategy.name()))
        .collect();
    legend.push("= several".to_owned());
    let told = format!(
        "workers; small letters predicted ({}), capitals measured (S serial)",
        legend.join(", ")
    );
    let indent = " ".repeat(margin + 2);
    lines.extend(wrap(&told, width, &indent).lines().map(str::to_owned));
    lines
}

/// The predicted rate in every column that a curve covers, by straight lines between its sizes.
fn interpolated(points: &[(u32, f64)], columns: usize, span: f64) -> Vec<(usize, f64)> {
    let place = |size: u32| f64::from(size.max(1)).ln() / span * (columns - 1) as f64;
    (0..columns)
        .filter_map(|column| {
            let at = column as f64;
            if let [only] = points {
                return (place(only.0).round() as usize == column).then_some((column, only.1));
            }
            points.windows(2).find_map(|pair| {
                let (left, right) = (place(pair[0].0), place(pair[1].0));
                if right <= left || at < left.floor() || at > right.ceil() {
                    return None;
                }
                let share = ((at - left) / (right - left)).clamp(0.0, 1.0);
                Some((column, pair[0].1 + (pair[1].1 - pair[0].1) * share))
            })
        })
        .collect()
}

/// Sizes under the plot, where they do not touch.
fn axis(widest: u32, columns: usize, column_of: &dyn Fn(u32) -> usize) -> String {
    let mut line = vec![' '; columns + 6];
    let mut free_from = 0;
    for size in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
        .into_iter()
        .filter(|size| *size < widest)
        .chain([widest])
    {
        let text = size.to_string();
        let start = column_of(size);
        if start < free_from || start + text.len() > line.len() {
            continue;
        }
        for (offset, digit) in text.chars().enumerate() {
            line[start + offset] = digit;
        }
        free_from = start + text.len() + 1;
    }
    line.into_iter().collect::<String>().trim_end().to_owned()
}
