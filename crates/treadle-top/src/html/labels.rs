//! Direct labels: finds a place beside what they name where they cover nothing.

use super::axis::CHARACTER;

/// Height of a line of text in a chart's units.
const LINE: f64 = 14.0;

/// A rectangle of a chart, y downwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

impl Area {
    /// A square around a point.
    pub(super) fn around(x: f64, y: f64, reach: f64) -> Self {
        Self {
            left: x - reach,
            top: y - reach,
            right: x + reach,
            bottom: y + reach,
        }
    }

    fn overlap(&self, other: &Self) -> f64 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        width.max(0.0) * height.max(0.0)
    }

    fn size(&self) -> f64 {
        (self.right - self.left) * (self.bottom - self.top)
    }
}

/// Places labels one after the other; what is placed first has the better choice.
#[derive(Debug)]
pub(super) struct Placer {
    bounds: Area,
    taken: Vec<Area>,
}

impl Placer {
    /// Labels stay within `bounds`.
    pub(super) fn new(bounds: Area) -> Self {
        Self {
            bounds,
            taken: Vec::new(),
        }
    }

    /// Something that labels should not cover.
    pub(super) fn avoid(&mut self, area: Area) {
        self.taken.push(area);
    }

    /// A line that labels should not cover.
    pub(super) fn avoid_line(&mut self, points: &[(f64, f64)]) {
        for pair in points.windows(2) {
            let [(x, y), (right, below)] = [pair[0], pair[1]];
            let steps = ((right - x).hypot(below - y) / 6.0).ceil().max(1.0);
            for step in 0..=steps as usize {
                let share = step as f64 / steps;
                self.taken.push(Area::around(
                    x + (right - x) * share,
                    y + (below - y) * share,
                    2.5,
                ));
            }
        }
    }

    /// The left end and the baseline of `text` beside one of the `anchors`, the earlier the better.
    pub(super) fn place(&mut self, text: &str, anchors: &[(f64, f64)]) -> (f64, f64) {
        let width = text.chars().count() as f64 * CHARACTER;
        let mut best: Option<(f64, Area)> = None;
        for (rank, (x, y)) in anchors.iter().enumerate() {
            for (turn, (left, middle)) in beside(*x, *y, width).into_iter().enumerate() {
                let left = left.clamp(
                    self.bounds.left,
                    (self.bounds.right - width).max(self.bounds.left),
                );
                let middle = middle.clamp(
                    self.bounds.top + LINE / 2.0,
                    self.bounds.bottom - LINE / 2.0,
                );
                let area = Area {
                    left,
                    top: middle - LINE / 2.0,
                    right: left + width,
                    bottom: middle + LINE / 2.0,
                };
                let covered: f64 = self.taken.iter().map(|other| area.overlap(other)).sum();
                // A later place costs as much as covering a hundredth of the label.
                let cost = covered / area.size() + 0.01 * (4 * rank + turn) as f64;
                if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    best = Some((cost, area));
                }
            }
        }
        let area = best.map_or(self.bounds, |(_, area)| area);
        self.taken.push(area);
        (area.left, area.bottom - 3.5)
    }
}

/// Places around a point: left end and middle of the text.
fn beside(x: f64, y: f64, width: f64) -> [(f64, f64); 8] {
    [
        (x - width / 2.0, y - 18.0),
        (x - width, y - 17.0),
        (x - width - 12.0, y),
        (x + 12.0, y),
        (x - width / 2.0, y + 18.0),
        (x - width, y + 17.0),
        (x - width / 2.0, y - 32.0),
        (x - width / 2.0, y + 32.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_cover_each_other() {
        let mut placer = Placer::new(Area {
            left: 0.0,
            top: 0.0,
            right: 300.0,
            bottom: 200.0,
        });
        placer.avoid_line(&[(0.0, 100.0), (300.0, 100.0)]);
        let places: Vec<(f64, f64)> = ["threads", "processes", "coroutines"]
            .iter()
            .map(|text| placer.place(text, &[(290.0, 100.0), (150.0, 100.0)]))
            .collect();
        for (index, one) in places.iter().enumerate() {
            assert!(one.0 >= 0.0 && one.0 < 300.0 && one.1 > 0.0 && one.1 < 200.0);
            for other in &places[index + 1..] {
                assert!(
                    (one.1 - other.1).abs() >= LINE || (one.0 - other.0).abs() > 40.0,
                    "{places:?}"
                );
            }
        }
    }
}
