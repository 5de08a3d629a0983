//! The split: where the time of a task goes, from samples of the interpreter lock and exact clocks.
//!
//! Two things are known exactly: the CPU time of the calling thread and how long it stood runnable. The rest of the wall time it
//! was off the processor. Only how these totals divide is sampled: CPU time by "was the lock held", the rest by the same
//! question. So an error of sampling moves time between two neighbours and never changes a sum.
//!
//! *Guarantees*: `gil_cpu + free_cpu` is the CPU time of the calls, `gil_blocked + wait` the rest of their wall time less the run
//! queue; every mean lies within its interval.
//! *Assumes*: the instants of the samples are random and independent of the function (exponential gaps), so that the counts are
//! binomial; the tasks of the sample stand for the others.

use serde::{Deserialize, Serialize};

/// What the sampler counted within the calls of the sample, as the laboratory sends it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Instants at which the calling thread held the lock and ran, or was ready to.
    pub held_running: u64,
    /// Instants at which it held the lock and slept.
    pub held_blocked: u64,
    /// Instants at which it ran, or was ready to, without the lock.
    pub free_running: u64,
    /// Instants at which it slept without the lock.
    pub free_blocked: u64,
    /// Mean sampling rate in instants a second.
    pub rate_hz: f64,
    /// Instants that came later than one mean gap: the machine was too busy to wake the sampler.
    pub late: u64,
    /// Seconds during which the lock was watched without a gap.
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
        self.held_running + self.held_blocked + self.free_running + self.free_blocked
    }
}

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
