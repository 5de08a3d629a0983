//! The axes of a chart: scales, ticks and the frame that they are drawn in.

use treadle_core::choice::wording::number;

/// Room for a character of a chart's text in its units: DejaVu Sans in bold, the widest of the usual fonts, needs so much
/// on average; labels are laid out by it.
pub(super) const CHARACTER: f64 = 7.4;

/// The size of a chart: each is drawn for a screen and for a telephone, so that its text is never scaled small.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    /// The style class that shows it at the right width, and a prefix of its identifiers.
    pub(super) name: &'static str,
    /// Width in units of about a pixel.
    pub(super) width: f64,
    /// Height of a chart with two axes.
    pub(super) height: f64,
}

/// For screens and paper, and for telephones.
pub(super) const FRAMES: [Frame; 2] = [
    Frame {
        name: "wide",
        width: 680.0,
        height: 340.0,
    },
    Frame {
        name: "narrow",
        width: 340.0,
        height: 290.0,
    },
];

/// A range of numbers laid over a range of a chart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
    logarithmic: bool,
}

impl Scale {
    /// Equal steps for equal differences.
    pub(super) fn linear((low, high): (f64, f64), (start, end): (f64, f64)) -> Self {
        Self {
            low,
            high: if high > low { high } else { low + 1.0 },
            start,
            end,
            logarithmic: false,
        }
    }

    /// Equal steps for equal ratios; both ends are positive.
    pub(super) fn logarithmic((low, high): (f64, f64), (start, end): (f64, f64)) -> Self {
        Self {
            low,
            high: if high > low { high } else { low * 2.0 },
            start,
            end,
            logarithmic: true,
        }
    }

    /// Where a value is drawn; what is outside lies on the nearer end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let share = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.start + (self.end - self.start) * share
    }

    /// Round values within the range, at most about `most` of them.
    pub(super) fn ticks(&self, most: usize) -> Vec<f64> {
        if self.logarithmic {
            return self.logarithmic_ticks(most);
        }
        let rough = (self.high - self.low) / most.max(1) as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step >= rough * 0.999)
            .unwrap_or(rough);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|index| index as f64 * step).collect()
    }

    fn logarithmic_ticks(&self, most: usize) -> Vec<f64> {
        let (first, last) = (
            self.low.log10().floor() as i32,
            self.high.log10().ceil() as i32,
        );
        let within = |factors: &[f64], every: usize| -> Vec<f64> {
            (first..=last)
                .step_by(every)
                .flat_map(|exponent| {
                    factors
                        .iter()
                        .map(move |factor| factor * 10f64.powi(exponent))
                })
                .filter(|value| *value >= self.low * 0.999 && *value <= self.high * 1.001)
                .collect()
        };
        let choices = [
            within(&[1.0, 2.0, 5.0], 1),
            within(&[1.0, 3.0], 1),
            within(&[1.0], 1),
            within(&[1.0], 2),
            within(&[1.0], 3),
        ];
        let fitting = choices
            .iter()
            .find(|ticks| ticks.len() <= most && !ticks.is_empty());
        fitting.or(choices.first()).cloned().unwrap_or_default()
    }
}

/// A tick's label: round numbers without digits that say nothing.
pub(super) fn tick_words(value: f64) -> String {
    if value.abs() >= 999.5 {
        number(value)
    } else {
        let text = format!("{value:.4}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let linear = Scale::linear((0.0, 436.0), (0.0, 1.0));
        assert_eq!(linear.ticks(5), [0.0, 100.0, 200.0, 300.0, 400.0]);
        let wide = Scale::logarithmic((100.0, 60_000.0), (0.0, 1.0));
        assert_eq!(
            wide.ticks(6),
            [100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0]
        );
        assert_eq!(wide.ticks(3), [100.0, 1_000.0, 10_000.0]);
        let flat = Scale::linear((5.0, 5.0), (0.0, 1.0));
        assert!(flat.at(5.0).is_finite());
        for (low, high) in [(1e-7, 1e9), (3.0, 3.1), (0.004, 0.005)] {
            let ticks = Scale::logarithmic((low, high), (0.0, 1.0)).ticks(6);
            assert!(ticks.len() <= 7, "{low} {high}: {ticks:?}");
        }
    }

    #[test]
    fn ticks_read_well() {
        let words = [0.0, 0.5, 20.0, 1_000.0, 25_000.0].map(tick_words);
        assert_eq!(words, ["0", "0.5", "20", "1,000", "25,000"]);
    }
}
