//! The script: the stretches of work that each unit (a task, or a chunk of tasks) goes through in its worker, in order.
//!
//! *Guarantees*: a script's stretches add up to the demands of its tasks and their hand-over.
//! *Assumes*: a task gives the lock up at even distances; native helpers work beside the caller first, and while it waits then.

use super::super::statistics::Random;
use super::demands::Task;
use super::route::Route;

/// Most stretches of lock-held time in one task: with more, each is shorter and the queue for the lock the same, for all tasks alike.
const MOST_PIECES: f64 = 8.0;
/// Stretches shorter than this are left out: a nanosecond is under every clock's resolution.
const NOTHING_S: f64 = 1e-9;

/// What a stretch needs while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// The interpreter lock and a core; may be interrupted.
    Held,
    /// The interpreter lock alone.
    Blocked,
    /// `width` cores.
    Free,
    /// Time; and `width` cores, for helpers that are waited for.
    Wait,
}

/// One stretch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stretch {
    /// What it needs.
    pub(super) need: Need,
    /// How long it takes when nothing is in its way.
    pub(super) seconds: f64,
    /// Cores that it keeps busy while it runs.
    pub(super) width: f64,
}

/// The stretches of all units.
#[derive(Debug, Clone, Default)]
pub(super) struct Script {
    stretches: Vec<Stretch>,
    ends: Vec<usize>,
}

impl Script {
    /// Each sampled task once, in random order; chunks are filled in that order, from the start again where needed.
    pub(super) fn new(route: &Route, locked: bool, random: &mut Random) -> Self {
        let tasks = &route.demands.tasks;
        let mut order: Vec<usize> = (0..tasks.len()).collect();
        random.shuffle(&mut order);
        let chunk = route.chunk.max(1) as usize;
        let units = tasks.len().div_ceil(chunk).max(1);
        // With fewer tasks than a chunk holds, the mean of the chunk is what matters.
        let mut script = Self::default();
        // Alone in its process and off the loop, a task has nobody to give the lock to.
        let alone = route.slots == 1 && !route.parent_inside;
        let mut next = order.iter().cycle();
        for _ in 0..units {
            let mut whole = Task::default();
            script.push(Need::Held, 0.5 * route.unit_s, 1.0);
            for _ in 0..chunk {
                let Some(task) = next.next().map(|index| &tasks[*index]) else {
                    break;
                };
                if alone {
                    whole.held += task.held + route.item_s;
                    whole.blocked += task.blocked;
                    whole.free += task.free;
                    whole.wait += task.wait;
                    whole.native += task.native;
                } else {
                    script.push(Need::Held, 0.5 * route.item_s, 1.0);
                    script.task(task, route.demands.releases, locked);
                    script.push(Need::Held, 0.5 * route.item_s, 1.0);
                }
            }
            if alone {
                script.task(&whole, 0.0, false);
            }
            script.push(Need::Held, 0.5 * route.unit_s, 1.0);
            script.end();
        }
        script
    }

    fn task(&mut self, task: &Task, releases: f64, locked: bool) {
        let gaps = task.free + task.wait;
        let gap_count = if gaps > NOTHING_S {
            releases.round().clamp(1.0, MOST_PIECES - 1.0)
        } else {
            0.0
        };
        // Helpers beside the caller's own computing widen it; the rest of their work falls into its waiting.
        let beside = task.native.min(task.free * 64.0);
        let beside = if task.wait > task.free { 0.0 } else { beside };
        let within = task.native - beside;
        let free_width = if task.free > NOTHING_S {
            1.0 + beside / task.free
        } else {
            1.0
        };
        let (wait_width, held_width) = if task.wait > NOTHING_S {
            (within / task.wait, 1.0)
        } else {
            (0.0, 1.0 + within / task.held.max(NOTHING_S))
        };
        if !locked || gap_count == 0.0 {
            self.push(Need::Held, task.held, held_width);
            self.push(Need::Blocked, task.blocked, 0.0);
            self.gap(task.free, free_width, task.wait, wait_width);
            return;
        }
        let pieces = gap_count + 1.0;
        for piece in 0..pieces as usize {
            self.push(Need::Held, task.held / pieces, held_width);
            self.push(Need::Blocked, task.blocked / pieces, 0.0);
            if (piece as f64) < gap_count {
                let share = 1.0 / gap_count;
                self.gap(task.free * share, free_width, task.wait * share, wait_width);
            }
        }
    }

    fn gap(&mut self, free: f64, free_width: f64, wait: f64, wait_width: f64) {
        self.push(Need::Free, free, free_width);
        self.push(Need::Wait, wait, wait_width);
    }

    fn push(&mut self, need: Need, seconds: f64, width: f64) {
        if seconds <= NOTHING_S {
            return;
        }
        let start = self.ends.last().copied().unwrap_or(0);
        if self.stretches.len() > start
            && let Some(last) = self.stretches.last_mut()
            && last.need == need
            && last.width == width
        {
            last.seconds += seconds;
            return;
        }
        self.stretches.push(Stretch {
            need,
            seconds,
            width,
        });
    }

    fn end(&mut self) {
        // Time must pass in every unit.
        if self.stretches.len() == self.ends.last().copied().unwrap_or(0) {
            self.stretches.push(Stretch {
                need: Need::Held,
                seconds: NOTHING_S,
                width: 1.0,
            });
        }
        self.ends.push(self.stretches.len());
    }

    /// How many units.
    pub(super) fn units(&self) -> usize {
        self.ends.len()
    }

    /// Stretches in a unit, on average.
    pub(super) fn length(&self) -> f64 {
        self.stretches.len() as f64 / self.ends.len().max(1) as f64
    }

    /// The stretches of unit `number`; after the last one the first comes again.
    pub(super) fn unit(&self, number: usize) -> &[Stretch] {
        let Some(unit) = number.checked_rem(self.ends.len()) else {
            return &[];
        };
        let start = if unit == 0 { 0 } else { self.ends[unit - 1] };
        &self.stretches[start..self.ends[unit]]
    }
}
