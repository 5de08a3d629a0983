//! The profile: what one task costs, measured serially in a process of its own, and the class of the work.
//!
//! *Assumes*: the sample is spread over the inputs, its first call counted apart as warm-up.
//! Where the lock could be watched, the split says how the time divides. Where it could not, those fields are `None`, the profile
//! says why, and the pilot (two threads against one) tells only whether threads help.

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use super::sample::{PickleFaults, Pilot, Sample, TaskError, WorkerStart};
use super::split::{Calls, Split};

/// What kind of work a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// CPU time that threads do not share well, as far as measured.
    CpuBound,
    /// CPU time that two threads were measured to share.
    CpuBoundReleasing,
    /// Nearly all waiting.
    IoBound,
    /// Both waiting and CPU time.
    Mixed,
    /// Moving arguments and results costs as much as half the work.
    TransferBound,
    /// The work is of the order of handing it over.
    TooSmall,
}

impl Class {
    /// The class as it is written in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::CpuBound => "cpu-bound",
            Self::CpuBoundReleasing => "cpu-bound-releasing",
            Self::IoBound => "io-bound",
            Self::Mixed => "mixed",
            Self::TransferBound => "transfer-bound",
            Self::TooSmall => "too-small",
        }
    }
}

/// Below this a task costs less than ten hand-overs of about 5 µs, the upper end of what the native engine took when results
/// were read one by one (transport notes 3.4: 1.7 to 3.9 µs and decoding); ten is the usual rule for work worth handing over.
pub const TOO_SMALL_S: f64 = 50e-6;
/// With less CPU than this, a core serves at least five tasks at once: waiting decides.
const IO_BOUND_CPU_SHARE: f64 = 0.2;
/// With more waiting than this, a core has room for more than one task: both decide.
const MIXED_WAIT_SHARE: f64 = 0.2;
/// When the parent's share of serialisation reaches half of the work, no number of processes doubles the throughput.
const TRANSFER_SHARE: f64 = 0.5;
/// From half of the CPU time without the lock on, two threads can share the work to the full.
const RELEASING_SHARE: f64 = 0.5;
/// Where there is no split: two threads count as sharing the work when even the low end of their speed-up is above this: the order of half the
/// work outside the lock (Amdahl: a share of 1/3 outside gives at most 1.5, 1/5 gives 1.25).
const RELEASING_SPEEDUP: f64 = 1.25;

/// Means per task, in seconds and bytes; `None` is "not measured".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Tasks in the sample.
    pub count: u64,
    /// Tasks of the sample that raised.
    pub errors: u64,
    /// The first exception.
    pub first_error: Option<TaskError>,
    /// From call to return.
    pub wall_s: f64,
    /// Median, 99th percentile and maximum of the same.
    pub wall_p50_s: f64,
    /// 99th percentile.
    pub wall_p99_s: f64,
    /// The slowest task of the sample.
    pub wall_max_s: f64,
    /// From call to return of each task of the sample, in the order of the inputs; empty in records that do not have it.
    #[serde(default)]
    pub walls: Vec<f64>,
    /// CPU seconds of the calling thread for each of them, in the same order; empty where not measured.
    #[serde(default)]
    pub cpus: Vec<f64>,
    /// Where the time goes by the interpreter lock, with intervals.
    pub split: Option<Split>,
    /// Why there is no split.
    pub split_absent: Option<String>,
    /// How the durations are spread; empty in records that do not have it.
    #[serde(default)]
    pub histogram: Histogram,
    /// CPU time with the interpreter lock.
    pub gil_cpu_s: Option<f64>,
    /// Blocked with the interpreter lock.
    pub gil_blocked_s: Option<f64>,
    /// CPU time of the calling thread without the interpreter lock.
    pub free_cpu_s: Option<f64>,
    /// CPU time of the calling thread.
    pub thread_cpu_s: f64,
    /// CPU time of helper threads: the process's less the caller's and the sampler's.
    pub native_cpu_s: f64,
    /// Neither on a processor nor waiting for one, and not blocked with the lock as far as that is known.
    pub wait_s: f64,
    /// Runnable without a processor: the machine's doing, not the function's.
    pub run_queue_s: Option<f64>,
    /// Extra operating-system threads that were seen.
    pub native_threads: Option<u32>,
    /// The first call, warm-up included.
    pub first_call_s: Option<f64>,
    /// Pickled size of the arguments, buffers included.
    pub argument_bytes: Option<f64>,
    /// Pickled size of the result, buffers included.
    pub result_bytes: Option<f64>,
    /// Of these, what travels beside the stream of the pickle.
    pub argument_buffer_bytes: Option<f64>,
    /// Of these, what travels beside the stream of the pickle.
    pub result_buffer_bytes: Option<f64>,
    /// Pickling and unpickling of argument and result, all four together.
    pub pickle_s: Option<f64>,
    /// Pickling the arguments, in the parent.
    pub argument_dumps_s: Option<f64>,
    /// Unpickling the arguments, in the worker.
    pub argument_loads_s: Option<f64>,
    /// Pickling the result, in the worker.
    pub result_dumps_s: Option<f64>,
    /// Unpickling the result, in the parent.
    pub result_loads_s: Option<f64>,
    /// What cannot be pickled.
    pub pickle: PickleFaults,
    /// Highest resident memory of the measuring process.
    pub peak_rss_bytes: Option<f64>,
    /// How much of that the sample added.
    pub rss_growth_bytes: Option<f64>,
    /// How much of it one task needed while it ran, and gave back.
    #[serde(default)]
    pub task_rss_bytes: Option<f64>,
    /// Resident memory of one started worker process.
    pub worker_rss_bytes: Option<f64>,
    /// Seconds to start one worker.
    pub worker_start_s: WorkerStart,
    /// Two threads against one; only where there is no split.
    pub pilot: Option<Pilot>,
    /// The inputs that the sample ran; empty in records that do not have it.
    #[serde(default)]
    pub used: Vec<u64>,
    /// The class of the work.
    pub class: Class,
}

impl Profile {
    /// Turns the laboratory's sample into a profile.
    pub fn from_sample(sample: &Sample) -> Self {
        let run_queue = sample.run_queue_s.unwrap_or(0.0);
        let native_cpu_s = (sample.process_cpu_s - sample.thread_cpu_s).max(0.0);
        // Clocks tick apart: below a microsecond the difference is theirs.
        let native_cpu_s = if native_cpu_s < 1e-6 {
            0.0
        } else {
            native_cpu_s
        };
        let quantile =
            |share| super::statistics::quantile(&sample.walls, share).unwrap_or(sample.wall_s);
        let parts = [
            sample.argument_dumps_s,
            sample.argument_loads_s,
            sample.result_dumps_s,
            sample.result_loads_s,
        ];
        let pickle_s = match (sample.dumps_s, sample.loads_s) {
            (Some(dumps), Some(loads)) => Some(dumps + loads),
            _ => parts.iter().copied().sum::<Option<f64>>(),
        };
        let (split, split_absent) = split(sample);
        let mut profile = Self {
            count: sample.count,
            errors: sample.errors,
            first_error: sample.first_error.clone(),
            wall_s: sample.wall_s,
            wall_p50_s: quantile(0.5),
            wall_p99_s: quantile(0.99),
            wall_max_s: quantile(1.0),
            walls: sample.walls.clone(),
            cpus: sample.cpus.clone(),
            histogram: Histogram::of(&sample.walls),
            split,
            split_absent,
            gil_cpu_s: split.map(|split| split.gil_cpu.mean_s),
            gil_blocked_s: split.map(|split| split.gil_blocked.mean_s),
            free_cpu_s: split.map(|split| split.free_cpu.mean_s),
            thread_cpu_s: sample.thread_cpu_s,
            native_cpu_s,
            wait_s: split.map_or(
                (sample.wall_s - sample.thread_cpu_s - run_queue).max(0.0),
                |split| split.wait.mean_s,
            ),
            run_queue_s: sample.run_queue_s,
            native_threads: sample.native_threads,
            first_call_s: sample.first_call_s,
            argument_bytes: sample.argument_bytes,
            result_bytes: sample.result_bytes,
            argument_buffer_bytes: sample.argument_buffer_bytes,
            result_buffer_bytes: sample.result_buffer_bytes,
            pickle_s,
            argument_dumps_s: sample.argument_dumps_s,
            argument_loads_s: sample.argument_loads_s,
            result_dumps_s: sample.result_dumps_s,
            result_loads_s: sample.result_loads_s,
            pickle: sample.pickle.clone(),
            peak_rss_bytes: sample.peak_rss_bytes,
            rss_growth_bytes: sample.rss_growth_bytes,
            task_rss_bytes: sample.peak_rss_bytes.and_then(|peak| {
                Some((peak - sample.baseline_rss_bytes? - sample.rss_growth_bytes?).max(0.0))
            }),
            worker_rss_bytes: sample.worker_rss_bytes,
            worker_start_s: sample.worker_start_s.clone(),
            pilot: sample.pilot,
            used: sample.used.clone(),
            class: Class::TooSmall,
        };
        profile.class = profile.classify();
        profile
    }

    /// CPU seconds a task, native helpers included.
    pub fn cpu_s(&self) -> f64 {
        self.thread_cpu_s + self.native_cpu_s
    }

    /// Seconds a task that are its own: the wall time less what it stood in the machine's run queue.
    pub fn own_s(&self) -> f64 {
        (self.wall_s - self.run_queue_s.unwrap_or(0.0)).max(self.thread_cpu_s)
    }

    /// Share of its own time that is CPU time, at most 1 even with native helpers.
    pub fn cpu_share(&self) -> f64 {
        if self.own_s() > 0.0 {
            (self.cpu_s() / self.own_s()).min(1.0)
        } else {
            1.0
        }
    }

    /// Serialisation that the parent does for each task: arguments out, result in.
    pub fn parent_pickle_s(&self) -> f64 {
        self.argument_dumps_s.unwrap_or(0.0) + self.result_loads_s.unwrap_or(0.0)
    }

    fn classify(&self) -> Class {
        if self.own_s() < TOO_SMALL_S {
            return Class::TooSmall;
        }
        // Who sleeps with the lock keeps others from running Python: neither threads nor coroutines overlap that.
        let blocked = self.gil_blocked_s.unwrap_or(0.0);
        if self.cpu_share() < IO_BOUND_CPU_SHARE && blocked <= MIXED_WAIT_SHARE * self.own_s() {
            return Class::IoBound;
        }
        if self.parent_pickle_s() >= TRANSFER_SHARE * self.own_s() {
            return Class::TransferBound;
        }
        // A caller that waits for its own native helpers is not waiting for the outside.
        let outside = (self.wait_s + blocked - self.native_cpu_s).max(0.0);
        if outside > MIXED_WAIT_SHARE * self.own_s() {
            return Class::Mixed;
        }
        if let Some(free) = self.free_cpu_s {
            let releasing = free + self.native_cpu_s >= RELEASING_SHARE * self.cpu_s();
            return if releasing {
                Class::CpuBoundReleasing
            } else {
                Class::CpuBound
            };
        }
        match self.pilot {
            Some(pilot) if pilot.interval[0] >= RELEASING_SPEEDUP => Class::CpuBoundReleasing,
            _ => Class::CpuBound,
        }
    }
}

/// The split of a sample, or why there is none.
fn split(sample: &Sample) -> (Option<Split>, Option<String>) {
    let Some(tally) = &sample.tally else {
        return (None, sample.lock_absent.clone());
    };
    let calls = Calls {
        walls: &sample.walls,
        cpus: &sample.cpus,
        natives: &sample.natives,
        queues: &sample.queues,
        pauses: sample.pauses,
    };
    match Split::new(tally, calls) {
        Some(split) => (Some(split), None),
        None => {
            let seen = tally.samples();
            let why = if tally.late > seen {
                let late = tally.late;
                format!(
                    "the machine was too busy: {late} looks at the interpreter lock came late, {seen} in time"
                )
            } else {
                format!("the sample was too short: {seen} looks at the interpreter lock")
            };
            (None, Some(why))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::split::Tally;
    use super::*;

    /// A sample of a task with these seconds of wall and CPU time.
    pub(crate) fn sample(wall_s: f64, cpu_s: f64) -> Sample {
        Sample {
            count: 20,
            wall_s,
            walls: vec![wall_s; 20],
            thread_cpu_s: cpu_s,
            process_cpu_s: cpu_s,
            run_queue_s: Some(0.0),
            argument_bytes: Some(100.0),
            result_bytes: Some(100.0),
            argument_dumps_s: Some(2e-6),
            argument_loads_s: Some(2e-6),
            result_dumps_s: Some(2e-6),
            result_loads_s: Some(2e-6),
            worker_start_s: WorkerStart {
                process: Some(0.05),
                thread: Some(1e-4),
                ..WorkerStart::default()
            },
            worker_rss_bytes: Some(30e6),
            ..Sample::default()
        }
    }

    fn class(sample: &Sample) -> Class {
        Profile::from_sample(sample).class
    }

    #[test]
    fn classes_follow_the_measured_shares() {
        assert_eq!(class(&sample(0.01, 0.0001)), Class::IoBound);
        assert_eq!(class(&sample(0.01, 0.01)), Class::CpuBound);
        assert_eq!(class(&sample(0.01, 0.005)), Class::Mixed);
        assert_eq!(class(&sample(20e-6, 20e-6)), Class::TooSmall);
        let mut heavy = sample(0.01, 0.01);
        heavy.result_loads_s = Some(0.006);
        assert_eq!(class(&heavy), Class::TransferBound);
        let mut releasing = sample(0.01, 0.01);
        let pilot = |low: f64| {
            Some(Pilot {
                threads: 2,
                speedup: low + 0.05,
                interval: [low, low + 0.1],
            })
        };
        releasing.pilot = pilot(1.8);
        assert_eq!(class(&releasing), Class::CpuBoundReleasing);
        releasing.pilot = pilot(1.0);
        assert_eq!(class(&releasing), Class::CpuBound);
    }

    /// The sample with these counts of instants: held, blocked with the lock, free, waiting.
    fn watched(mut sample: Sample, [held, blocked, free, wait]: [u64; 4]) -> Sample {
        sample.cpus = vec![sample.thread_cpu_s; sample.walls.len()];
        sample.tally = Some(Tally {
            held_running: held,
            held_blocked: blocked,
            free_running: free,
            free_blocked: wait,
            watched_s: 0.01,
            ..Tally::default()
        });
        sample
    }

    #[test]
    fn the_split_decides_the_class_where_there_is_one() {
        let of = |wall: f64, cpu: f64, counts| class(&watched(sample(wall, cpu), counts));
        assert_eq!(of(0.01, 0.01, [900, 0, 100, 0]), Class::CpuBound);
        assert_eq!(of(0.01, 0.01, [100, 0, 900, 0]), Class::CpuBoundReleasing);
        assert_eq!(of(0.01, 0.0001, [10, 0, 0, 990]), Class::IoBound);
        assert_eq!(of(0.01, 0.005, [500, 0, 0, 500]), Class::Mixed);
        // Asleep with the lock: not what threads or coroutines overlap.
        assert_eq!(of(0.01, 0.0001, [10, 990, 0, 0]), Class::Mixed);
        // A pilot that a busy machine misled does not overrule the split.
        let mut misled = watched(sample(0.01, 0.01), [100, 0, 900, 0]);
        misled.pilot = Some(Pilot {
            threads: 2,
            speedup: 1.0,
            interval: [0.9, 1.1],
        });
        assert_eq!(class(&misled), Class::CpuBoundReleasing);
        // Helpers do the work and the caller waits for them.
        let mut helped = watched(sample(0.01, 0.001), [100, 0, 0, 900]);
        helped.process_cpu_s = 0.01;
        assert_eq!(class(&helped), Class::CpuBoundReleasing);
    }

    #[test]
    fn the_five_keys_add_up_to_the_clocks() {
        let profile = Profile::from_sample(&watched(sample(0.01, 0.006), [400, 100, 200, 300]));
        let sum = |keys: &[Option<f64>]| keys.iter().copied().sum::<Option<f64>>().unwrap();
        assert!((sum(&[profile.gil_cpu_s, profile.free_cpu_s]) - 0.006).abs() < 1e-12);
        assert!((sum(&[profile.gil_blocked_s, Some(profile.wait_s)]) - 0.004).abs() < 1e-12);
        assert_eq!(profile.split_absent, None);
    }

    #[test]
    fn an_absent_split_says_why() {
        let mut blind = sample(0.01, 0.01);
        blind.lock_absent = Some("no lock".to_owned());
        let profile = Profile::from_sample(&blind);
        assert_eq!(profile.split_absent.as_deref(), Some("no lock"));
        let short = Profile::from_sample(&watched(sample(0.01, 0.01), [9, 0, 0, 0]));
        assert!(short.split.is_none() && short.split_absent.unwrap().contains("9 looks"));
    }

    #[test]
    fn run_queue_time_is_not_waiting_and_helpers_are_apart() {
        let mut busy = sample(0.010, 0.006);
        busy.run_queue_s = Some(0.003);
        busy.process_cpu_s = 0.008;
        let profile = Profile::from_sample(&busy);
        assert!((profile.wait_s - 0.001).abs() < 1e-12);
        assert!((profile.native_cpu_s - 0.002).abs() < 1e-12);
        assert_eq!(profile.gil_cpu_s, None);
    }

    #[test]
    fn nulls_and_missing_fields_are_taken() {
        let sample: Sample = serde_json::from_str(
            r#"{"count": 1, "wall_s": 0.5, "walls": null, "argument_bytes": null, "pickle": {"argument":
               {"path": "args[0].lock", "type": "lock", "message": "cannot pickle", "hint": null}}, "new": 1}"#,
        )
        .unwrap();
        let profile = Profile::from_sample(&sample);
        assert_eq!(profile.wall_p99_s, 0.5);
        assert_eq!(profile.pickle_s, None);
        assert_eq!(
            profile.pickle.obstacle().unwrap(),
            "the argument cannot be pickled: args[0].lock is a lock (cannot pickle)"
        );
    }
}
