//! The split: where the time of a task goes, from samples of the interpreter lock and exact clocks.
//!
//! Two things are known exactly: the CPU time of the calling thread and how long it stood runnable. The rest of the wall time it
//! was off the processor. Only how these totals divide is sampled: CPU time by "was the lock held", the rest by the same
//! question. So an error of sampling moves time between two neighbours and never changes a sum.
//!
//! *Guarantees*: `gil_cpu + free_cpu` is the CPU time of the calls, `gil_blocked + wait` the rest of their wall time less the run
//! queue; every mean lies within its interval.
//!
//! The interval of a part joins two uncertainties: of its share (Wilson's interval for the counts) and of the total that it is a
//! share of (Student's, over the tasks of the sample).
//!
//! *Assumes*: the instants of the samples are random and independent of the function (exponential gaps), so that the counts are
//! binomial; the tasks of the sample stand for the others.

use serde::{Deserialize, Serialize};

use super::statistics::deviation;

/// What the sampler counted within the calls of the sample, as the laboratory sends it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Instants at which the calling thread held the lock and ran.
    pub held_running: u64,
    /// Instants at which it held the lock and had no processor to run on.
    pub held_ready: u64,
    /// Instants at which it held the lock and slept.
    pub held_blocked: u64,
    /// Instants at which it ran without the lock.
    pub free_running: u64,
    /// Instants at which it had no processor to run on, without the lock.
    pub free_ready: u64,
    /// Instants at which it slept without the lock.
    pub free_blocked: u64,
    /// Mean sampling rate in instants a second.
    pub rate_hz: f64,
    /// Instants that came too late to be random and were not used: the machine was too busy to wake the sampler.
    pub late: u64,
    /// Seconds during which the lock was watched without a gap, while the thread ran or slept.
    pub watched_s: f64,
    /// How often the calling thread was seen to give the lock up during these.
    pub watched_releases: u64,
    /// How often one instant found the lock held and the next one of the same call did not.
    pub lasting_releases: u64,
    /// CPU seconds of the sampler itself.
    pub sampler_cpu_s: f64,
    /// Seconds that it ran.
    pub elapsed_s: f64,
}

impl Tally {
    /// All instants within calls.
    pub fn samples(&self) -> u64 {
        self.held_running
            + self.held_ready
            + self.held_blocked
            + self.free_running
            + self.free_ready
            + self.free_blocked
    }

    /// The instants that divide CPU time, with the lock and without it, where `busy` is the share of CPU time in wall time.
    ///
    /// Those at which the thread ran. But a sampler that shares the one processor of the thread never sees it run: what it has
    /// pushed aside is ready. Elsewhere ready is mostly a thread that was woken and waits for its turn, without the lock
    /// however much it computes with it.
    fn running(&self, busy: f64) -> (u64, u64) {
        let seen = (self.held_running + self.free_running) as f64;
        if seen >= SEEN_RUNNING * busy * self.samples() as f64 {
            (self.held_running, self.free_running)
        } else {
            (
                self.held_running + self.held_ready,
                self.free_running + self.free_ready,
            )
        }
    }
}

/// A sampler that sees the thread run at less than this part of the instants at which the clock says that it ran shares its
/// processor.
const SEEN_RUNNING: f64 = 0.25;

/// A mean per task in seconds with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean_s: f64,
    /// Lower end.
    pub low_s: f64,
    /// Upper end.
    pub high_s: f64,
}

/// Where the time of a task goes; means per task.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// Instants that it rests on.
    pub samples: u64,
    /// Further instants that came too late to be used, because the machine was busy.
    #[serde(default)]
    pub late: u64,
    /// Sampling rate in instants a second.
    pub rate_hz: f64,
    /// CPU time of the calling thread with the interpreter lock: what threads cannot share.
    pub gil_cpu: Estimate,
    /// Blocked while holding the lock: nobody else can run Python meanwhile.
    pub gil_blocked: Estimate,
    /// CPU time of the calling thread without the lock: what threads share over the cores.
    pub free_cpu: Estimate,
    /// Blocked without the lock.
    pub wait: Estimate,
    /// CPU time of other threads that the function keeps busy.
    pub native_cpu: Estimate,
    /// Runnable without a processor: the machine's doing, not the function's.
    pub run_queue: Estimate,
    /// How often a call gave the lock up; absent where the samples do not tell.
    pub releases_per_task: Option<f64>,
    /// CPU time of the sampler as a share of the time that it ran.
    pub overhead: f64,
}

/// What was read exactly around each call of the sample, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Calls<'a> {
    /// From call to return.
    pub walls: &'a [f64],
    /// CPU time of the calling thread.
    pub cpus: &'a [f64],
    /// CPU time of other threads meanwhile; empty if it was not read.
    pub natives: &'a [f64],
    /// Runnable without a processor; empty if it was not read.
    pub queues: &'a [f64],
    /// How often a call gave its processor up by itself, in the mean; absent if it was not read.
    pub pauses: Option<f64>,
}

/// Fewer instants than this tell no share: with 20 alike the other kind may still be a sixth (Wilson, 95 %).
pub const LEAST_SAMPLES: u64 = 20;
/// Releases seen under watch from which on their rate is known to about 60 % (Poisson, 95 %), and counts alone.
const WATCHED_ENOUGH: u64 = 10;

impl Split {
    /// The split of the calls by the tally; absent where too few instants fell into calls.
    pub fn new(tally: &Tally, calls: Calls<'_>) -> Option<Self> {
        let count = calls.walls.len();
        if tally.samples() < LEAST_SAMPLES || count == 0 || calls.cpus.len() != count {
            return None;
        }
        let queue = |index: usize| calls.queues.get(index).copied().unwrap_or(0.0);
        let idle: Vec<f64> = (0..count)
            .map(|index| (calls.walls[index] - calls.cpus[index] - queue(index)).max(0.0))
            .collect();
        let (cpu, idle) = (Total::of(calls.cpus), Total::of(&idle));
        let busy = calls.cpus.iter().sum::<f64>() / calls.walls.iter().sum::<f64>().max(1e-12);
        let (with, without) = tally.running(busy);
        let held = Share::of(with, without, 1.0);
        let blocked = Share::of(tally.held_blocked, tally.free_blocked, 0.0);
        Some(Self {
            samples: tally.samples(),
            late: tally.late,
            rate_hz: tally.rate_hz,
            gil_cpu: cpu.part(held),
            gil_blocked: idle.part(blocked),
            free_cpu: cpu.part(held.rest()),
            wait: idle.part(blocked.rest()),
            native_cpu: Total::of(calls.natives).part(Share::ALL),
            run_queue: Total::of(calls.queues).part(Share::ALL),
            releases_per_task: releases(tally, calls, blocked.rest().mean),
            overhead: if tally.elapsed_s > 0.0 {
                tally.sampler_cpu_s / tally.elapsed_s
            } else {
                0.0
            },
        })
    }

    /// The parts with their names, in the order of a report: with the lock first, the machine's doing last.
    pub fn parts(&self) -> [(&'static str, Estimate); 6] {
        [
            ("computing, lock held", self.gil_cpu),
            ("blocked, lock held", self.gil_blocked),
            ("computing, lock free", self.free_cpu),
            ("waiting, lock free", self.wait),
            ("helpers", self.native_cpu),
            ("no processor free", self.run_queue),
        ]
    }
}

/// How often a call gave the lock up.
///
/// Three counts, each blind to something: releases seen under watch are all, but of a hundredth of the time; a release that
/// lasts is seen by the next instant; one that sleeps gives up the processor, which the kernel counts. Many under watch are
/// believed; of few, the largest count is.
fn releases(tally: &Tally, calls: Calls<'_>, waits_free: f64) -> Option<f64> {
    if tally.watched_s <= 0.0 && calls.pauses.is_none() {
        return None;
    }
    let count = calls.walls.len() as f64;
    let total: f64 = calls.walls.iter().sum();
    let own = (total - calls.queues.iter().sum::<f64>()).max(0.0) / count;
    let watched = tally.watched_releases as f64 / tally.watched_s.max(1e-9) * own;
    let slept = calls.pauses.unwrap_or(0.0) * waits_free;
    if tally.watched_releases >= WATCHED_ENOUGH {
        return Some(watched.max(slept));
    }
    Some(
        watched
            .max(slept)
            .max(tally.lasting_releases as f64 / count),
    )
}

/// A mean over the tasks and half of its 95 % interval.
#[derive(Debug, Clone, Copy)]
struct Total {
    mean: f64,
    half: f64,
}

impl Total {
    fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count.max(1.0);
        if values.len() < 2 {
            return Self { mean, half: 0.0 };
        }
        Self {
            mean,
            half: student(values.len() - 1) * deviation(values) / count.sqrt(),
        }
    }

    /// A share of it.
    fn part(self, share: Share) -> Estimate {
        let spread = self.half * share.mean;
        let end = |difference: f64| (self.mean * difference).hypot(spread);
        let mean_s = self.mean * share.mean;
        Estimate {
            mean_s,
            low_s: (mean_s - end(share.mean - share.low)).max(0.0),
            high_s: mean_s + end(share.high - share.mean),
        }
    }
}

/// A share with its 95 % interval.
#[derive(Debug, Clone, Copy)]
struct Share {
    mean: f64,
    low: f64,
    high: f64,
}

impl Share {
    const ALL: Self = Self {
        mean: 1.0,
        low: 1.0,
        high: 1.0,
    };

    /// `these` of both together; `unknown` is taken for the mean where there are none.
    fn of(these: u64, others: u64, unknown: f64) -> Self {
        let count = (these + others) as f64;
        if count == 0.0 {
            return Self {
                mean: unknown,
                low: 0.0,
                high: 1.0,
            };
        }
        let (mean, square) = (these as f64 / count, NORMAL * NORMAL);
        let centre = (mean + square / (2.0 * count)) / (1.0 + square / count);
        let half = NORMAL / (1.0 + square / count)
            * (mean * (1.0 - mean) / count + square / (4.0 * count * count)).sqrt();
        Self {
            mean,
            low: (centre - half).clamp(0.0, mean),
            high: (centre + half).clamp(mean, 1.0),
        }
    }

    fn rest(self) -> Self {
        Self {
            mean: 1.0 - self.mean,
            low: 1.0 - self.high,
            high: 1.0 - self.low,
        }
    }
}

/// Two-sided 95 % of the normal distribution.
const NORMAL: f64 = 1.96;

/// Two-sided 95 % of Student's distribution; beyond ten degrees of freedom within 0.5 % of the truth.
fn student(freedom: usize) -> f64 {
    const FEW: [f64; 10] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    ];
    FEW.get(freedom.saturating_sub(1))
        .copied()
        .unwrap_or(NORMAL + 2.5 / freedom as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(held: u64, blocked: u64, free: u64, wait: u64) -> Tally {
        Tally {
            held_running: held,
            held_blocked: blocked,
            free_running: free,
            free_blocked: wait,
            rate_hz: 1000.0,
            watched_s: 0.01,
            elapsed_s: 2.0,
            sampler_cpu_s: 0.05,
            ..Tally::default()
        }
    }

    fn calls<'a>(walls: &'a [f64], cpus: &'a [f64], queues: &'a [f64]) -> Calls<'a> {
        Calls {
            walls,
            cpus,
            natives: &[],
            queues,
            pauses: None,
        }
    }

    #[test]
    fn totals_stay_exact_and_only_their_division_is_sampled() {
        let (walls, cpus) = ([0.03; 50], [0.02; 50]);
        let split = Split::new(
            &tally(1000, 0, 1000, 1000),
            calls(&walls, &cpus, &[0.0; 50]),
        )
        .unwrap();
        assert!((split.gil_cpu.mean_s - 0.01).abs() < 1e-12);
        assert!((split.gil_cpu.mean_s + split.free_cpu.mean_s - 0.02).abs() < 1e-12);
        assert!((split.wait.mean_s - 0.01).abs() < 1e-12);
        // Binomial: 1.96 × sqrt(0.25 / 2000) of 20 ms.
        assert!((split.gil_cpu.high_s - 0.01 - 0.000_438).abs() < 1e-5);
        assert!((0.01 - split.gil_cpu.low_s - 0.000_438).abs() < 1e-5);
        assert_eq!(split.samples, 3000);
        assert!((split.overhead - 0.025).abs() < 1e-12);
    }

    #[test]
    fn time_in_the_run_queue_is_nobodys_waiting() {
        // Preempted while holding the lock: the instants say "ready to run", the kernel says how long.
        let (walls, cpus, queues) = ([0.03; 9], [0.01; 9], [0.02; 9]);
        let split = Split::new(&tally(300, 3, 0, 0), calls(&walls, &cpus, &queues)).unwrap();
        assert!(split.gil_blocked.mean_s < 1e-9 && split.wait.mean_s < 1e-9);
        assert!((split.run_queue.mean_s - 0.02).abs() < 1e-12);
        assert!((split.gil_cpu.mean_s - 0.01).abs() < 1e-12);
    }

    #[test]
    fn who_waits_for_a_turn_after_a_sleep_does_not_compute_without_the_lock() {
        let (walls, cpus, queues) = ([0.03; 9], [0.01; 9], [0.01; 9]);
        let counted = Tally {
            free_ready: 330,
            ..tally(320, 0, 0, 340)
        };
        let split = Split::new(&counted, calls(&walls, &cpus, &queues)).unwrap();
        assert!((split.gil_cpu.mean_s - 0.01).abs() < 1e-12);
        // On one processor the sampler sees nobody run but itself.
        let alone = Tally {
            held_ready: 450,
            free_ready: 150,
            ..tally(3, 0, 0, 400)
        };
        let split = Split::new(&alone, calls(&walls, &cpus, &queues)).unwrap();
        assert!((split.gil_cpu.mean_s - 0.0075).abs() < 1e-4);
    }

    #[test]
    fn what_was_never_seen_has_an_interval_all_the_same() {
        let split = Split::new(&tally(100, 0, 0, 0), calls(&[0.01], &[0.01], &[])).unwrap();
        assert_eq!((split.free_cpu.mean_s, split.free_cpu.low_s), (0.0, 0.0));
        assert!(split.free_cpu.high_s > 0.0002 && split.free_cpu.high_s < 0.0006);
        assert!(Split::new(&tally(19, 0, 0, 0), calls(&[0.01], &[0.01], &[])).is_none());
        assert!(Split::new(&tally(100, 0, 0, 0), calls(&[], &[], &[])).is_none());
    }

    #[test]
    fn tasks_that_differ_widen_the_interval() {
        let alike = [0.01; 10];
        let unlike: Vec<f64> = (0..10)
            .map(|index| 0.002 * f64::from(index) + 0.001)
            .collect();
        let counted = tally(2000, 0, 0, 0);
        let narrow = Split::new(&counted, calls(&alike, &alike, &[]))
            .unwrap()
            .gil_cpu;
        let wide = Split::new(&counted, calls(&unlike, &unlike, &[]))
            .unwrap()
            .gil_cpu;
        assert!((wide.mean_s - narrow.mean_s).abs() < 1e-9);
        assert!(wide.high_s - wide.low_s > 50.0 * (narrow.high_s - narrow.low_s));
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        // 400 samples of 500 instants each from a known share of 0.3.
        let mut random = super::super::statistics::Random::new(11);
        let mut inside = 0;
        for _ in 0..400 {
            let held = (0..500).filter(|_| random.below(10) < 3).count() as u64;
            let split = Split::new(&tally(held, 0, 500 - held, 0), calls(&[1.0], &[1.0], &[]));
            let found = split.unwrap().gil_cpu;
            inside += u32::from(found.low_s <= 0.3 && 0.3 <= found.high_s);
        }
        assert!((370..=392).contains(&inside), "{inside} of 400");
    }

    #[test]
    fn releases_come_from_whichever_count_can_see_them() {
        let walls = [0.1; 20];
        let with = |watched: u64, lasting: u64, pauses: f64| {
            let counted = Tally {
                watched_releases: watched,
                lasting_releases: lasting,
                ..tally(0, 0, 100, 900)
            };
            let given = Calls {
                pauses: Some(pauses),
                ..calls(&walls, &[0.01; 20], &[])
            };
            Split::new(&counted, given)
                .unwrap()
                .releases_per_task
                .unwrap()
        };
        // 50 in 10 ms under watch, so 500 in a call of 100 ms.
        assert!((with(50, 3, 2.0) - 500.0).abs() < 1e-9);
        assert!((with(0, 60, 2.0) - 3.0).abs() < 1e-9);
        assert!((with(0, 3, 20.0) - 20.0).abs() < 1e-9);
    }
}
