//! Disturbance: what others took from a block, and the rate that the block would have had without them.
//!
//! *Rule*. A block is disturbed when
//! - the serial control, which alone never waits on a quiet machine, stood in the run queue for over 5 % of it; or
//! - the hypervisor took over 2 % of the processor time; or
//! - others computed for over 10 % of the processor time while under 10 % was idle (with two clock ticks of grace, for that
//!   is how finely the kernel counts): they cannot have been beside us, so they were in our way.
//!
//! *Fair rate*. Who has more runnable threads gets more of a contended processor, which says nothing about a quiet one. With
//! `r` threads runnable on average (processor time and run-queue time over wall time), a plan would have run its processor
//! time on `min(r, cores)` cores at once; the time beyond that was taken by others. For one runnable thread, as in a plain loop and in
//! threads that take turns at the interpreter lock, that gives back exactly the time in the run queue. But a thread that waits for the
//! lock wakes every few milliseconds to ask for it, and stands in the run queue as well, so that such threads look as if they could
//! compute at the same time: a plan is given no more cores than the profile proves that it can keep busy.
//!
//! *Assumes*: the fair rate is used only in races that were disturbed, for where a plan's own threads come in bursts it is too high.

use serde::{Deserialize, Serialize};

/// Share of a serial block in the run queue that counts as disturbed; the gate's limit for pressure (diagnosis notes 3.5).
pub const DELAY: f64 = 0.05;
/// Share of processor time that the hypervisor may take (diagnosis notes 3.5).
pub const STEAL: f64 = 0.02;
/// Share of processor time that others may take, and that must be idle otherwise: the gate's limit for the spin probe.
const OTHERS: f64 = 0.10;
/// Two ticks of the kernel's clock of 100 Hz, in which it counts processor time.
const GRACE_S: f64 = 0.02;

/// What was read around a block, in seconds; `None` where the machine does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Load {
    /// Wall time.
    pub wall_s: f64,
    /// Processor time of all the plan's processes.
    pub cpu_s: Option<f64>,
    /// Time that their threads stood in the run queue.
    pub delay_s: Option<f64>,
    /// Processor time that the machine has in that time.
    pub capacity_s: Option<f64>,
    /// Processor time that anybody used.
    pub busy_s: Option<f64>,
    /// Processor time that the hypervisor gave to others.
    pub stolen_s: Option<f64>,
}

impl Load {
    /// Share of the wall time in the run queue, of a plan with one thread.
    pub fn delay_share(&self) -> Option<f64> {
        (self.wall_s > 0.0)
            .then(|| self.delay_s.map(|delay| (delay / self.wall_s).min(1.0)))
            .flatten()
    }

    /// Share of the machine's processor time that others used.
    pub fn others_share(&self) -> Option<f64> {
        let capacity = self.capacity_s.filter(|capacity| *capacity > 0.0)?;
        Some(((self.busy_s? - self.cpu_s?) / capacity).clamp(0.0, 1.0))
    }

    /// Whether others disturbed the block; `control` says that it ran one thread of ours alone.
    pub fn disturbed(&self, control: bool) -> bool {
        let delayed = control
            && self.delay_share().is_some_and(|share| share > DELAY)
            // Below a clock tick a single interrupt would count.
            && self.delay_s.is_some_and(|delay| delay > 0.5 * GRACE_S);
        let Some(capacity) = self.capacity_s.filter(|capacity| *capacity > 0.0) else {
            return delayed;
        };
        let stolen = self.stolen_s.unwrap_or(0.0);
        let crowded = match (self.busy_s, self.cpu_s) {
            (Some(busy), Some(own)) => {
                let idle = capacity - busy - stolen;
                // Who hardly computes is in nobody's way.
                own > OTHERS * self.wall_s
                    && busy - own > OTHERS * capacity + GRACE_S
                    && idle < OTHERS * capacity + GRACE_S
            }
            _ => false,
        };
        delayed || crowded || stolen > STEAL * capacity + GRACE_S
    }

    /// The seconds that the block would have needed without others, for a plan that keeps at most `parallelism` of `cores` usable
    /// cores busy.
    pub fn needed_s(&self, cores: f64, parallelism: f64) -> f64 {
        let (Some(cpu), Some(delay)) = (self.cpu_s, self.delay_s) else {
            return self.wall_s;
        };
        if self.wall_s <= 0.0 || cpu <= 0.0 {
            return self.wall_s;
        }
        let runnable = (cpu + delay) / self.wall_s;
        let needed = if runnable <= 1.0 {
            self.wall_s - delay
        } else {
            cpu / runnable.min(cores.max(1.0))
        };
        needed
            .max(cpu / parallelism.max(1.0))
            .clamp(0.01 * self.wall_s, self.wall_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(cpu_s: f64, delay_s: f64, busy_s: f64, stolen_s: f64) -> Load {
        Load {
            wall_s: 1.0,
            cpu_s: Some(cpu_s),
            delay_s: Some(delay_s),
            capacity_s: Some(2.0),
            busy_s: Some(busy_s),
            stolen_s: Some(stolen_s),
        }
    }

    #[test]
    fn what_disturbs() {
        let cases = [
            ("quiet", load(1.0, 0.0, 1.02, 0.0), true, false),
            ("beside us", load(1.0, 0.0, 1.7, 0.0), true, false),
            ("in our way", load(0.8, 0.02, 1.95, 0.0), true, true),
            ("the control waited", load(0.9, 0.1, 1.5, 0.0), true, true),
            (
                "our own threads waited",
                load(2.0, 1.0, 2.0, 0.0),
                false,
                false,
            ),
            ("stolen", load(1.0, 0.0, 1.0, 0.1), false, true),
            (
                "a sleeping plan beside a full machine",
                load(0.02, 0.01, 2.0, 0.0),
                true,
                false,
            ),
        ];
        for (name, load, control, disturbed) in cases {
            assert_eq!(load.disturbed(control), disturbed, "{name}");
        }
        assert!(
            !Load::default().disturbed(true),
            "what is not told does not disturb"
        );
    }

    #[test]
    fn short_blocks_are_not_judged_by_single_ticks() {
        let short = Load {
            wall_s: 0.05,
            cpu_s: Some(0.05),
            delay_s: Some(0.004),
            capacity_s: Some(0.1),
            busy_s: Some(0.08),
            stolen_s: Some(0.01),
        };
        assert!(!short.disturbed(true));
    }

    #[test]
    fn what_a_plan_would_have_needed() {
        let close = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-9, "{found}");
        let free = f64::INFINITY;
        // One thread that stood in the run queue for a third of its time, and two that take turns at the lock.
        close(load(0.66, 0.34, 2.0, 0.0).needed_s(2.0, free), 0.66);
        close(load(0.8, 0.2, 2.0, 0.0).needed_s(2.0, 1.0), 0.8);
        // The one without the lock wakes every few milliseconds to ask for it, and stands in the run queue as well.
        close(load(0.5, 0.9, 2.0, 0.0).needed_s(2.0, 1.0), 0.5);
        // Two processes that got half of two cores.
        close(load(1.0, 1.0, 2.0, 0.0).needed_s(2.0, free), 0.5);
        // Sixty-four threads of ours on two cores wait for each other, which nobody else has to answer for.
        close(load(2.0, 62.0, 2.0, 0.0).needed_s(2.0, free), 1.0);
        // A task that mostly sleeps.
        close(load(0.01, 0.02, 2.0, 0.0).needed_s(2.0, free), 0.98);
        close(Load::default().needed_s(2.0, free), 0.0);
    }
}
