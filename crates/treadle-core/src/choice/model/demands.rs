//! The demands: what one task takes of each resource, for each sampled input by itself, so that skew is kept.
//!
//! *Guarantees*: the means over the tasks are the profile's. Where the split of CPU time was not sampled, three readings of the
//! same profile differ in how much of it is under the interpreter lock, as far as the pilot allows.
//! *Assumes*: the shares of the split hold for every input alike; lengths differ, as sampled.

use super::super::profile::Profile;
use super::super::split::Estimate;
use super::super::statistics::Random;
use super::setting::Setting;

/// A pilot whose high end is below this saw threads give nothing: at least most CPU time was under the lock.
const LOCKED_SPEEDUP: f64 = 1.25;
/// Of what such a pilot puts under the lock, this share at least is taken as certain; the rest may be the pilot's own threads.
const CERTAIN_SHARE: f64 = 0.8;

/// Which reading of an uncertain profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// As little as possible under the interpreter lock.
    Hopeful,
    /// The most likely.
    Likely,
    /// As much as possible under the interpreter lock.
    Wary,
}

/// Seconds of one task.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Task {
    /// CPU with the interpreter lock.
    pub(super) held: f64,
    /// Blocked with the interpreter lock.
    pub(super) blocked: f64,
    /// CPU of the caller without it.
    pub(super) free: f64,
    /// Blocked without it.
    pub(super) wait: f64,
    /// CPU of native helper threads.
    pub(super) native: f64,
}

impl Task {
    /// From call to return, alone on an idle machine.
    pub(super) fn wall(&self) -> f64 {
        self.held + self.blocked + self.free + self.wait
    }

    /// CPU of the calling thread.
    pub(super) fn own_cpu(&self) -> f64 {
        self.held + self.free
    }

    /// CPU of all threads.
    pub(super) fn cpu(&self) -> f64 {
        self.held + self.free + self.native
    }
}

/// Seconds of serialisation a task.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Transfer {
    /// Pickling the arguments, in the parent.
    pub(super) out: f64,
    /// Unpickling the result, in the parent.
    pub(super) back: f64,
    /// Unpickling the arguments, in the worker.
    pub(super) worker_in: f64,
    /// Pickling the result, in the worker.
    pub(super) worker_out: f64,
}

impl Transfer {
    /// The parent's part.
    pub(super) fn parent(&self) -> f64 {
        self.out + self.back
    }

    /// The worker's part.
    pub(super) fn worker(&self) -> f64 {
        self.worker_in + self.worker_out
    }
}

/// What tasks take.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Demands {
    /// One for each sampled input.
    pub(super) tasks: Vec<Task>,
    /// Their mean.
    pub(super) mean: Task,
    /// How often a task gives the interpreter lock up and takes it again.
    pub(super) releases: f64,
    /// Serialisation, for plans that need it.
    pub(super) transfer: Transfer,
}

/// Seconds of CPU time a task that are under the interpreter lock, at most.
pub(crate) fn most_under_lock(profile: &Profile, setting: &Setting) -> f64 {
    Demands::new(profile, setting, Reading::Wary).mean.held
}

impl Demands {
    /// The demands of a profile.
    pub(super) fn new(profile: &Profile, setting: &Setting, reading: Reading) -> Self {
        let (held, blocked) = lock_shares(profile, setting, reading);
        let off = (profile.wall_s - profile.thread_cpu_s).max(0.0);
        // What it stood in the machine's run queue is not its own.
        let own = if off > 0.0 {
            (1.0 - profile.run_queue_s.unwrap_or(0.0) / off).clamp(0.0, 1.0)
        } else {
            0.0
        };
        let native = profile.native_cpu_s / profile.wall_s.max(1e-12);
        let alone = [profile.wall_s];
        let walls: &[f64] = if profile.walls.is_empty() {
            &alone
        } else {
            &profile.walls
        };
        let tasks: Vec<Task> = walls
            .iter()
            .enumerate()
            .map(|(index, wall)| {
                let cpu = match profile.cpus.get(index) {
                    Some(cpu) if profile.cpus.len() == walls.len() => *cpu,
                    _ => profile.thread_cpu_s / profile.wall_s.max(1e-12) * wall,
                };
                let off = (wall - cpu).max(0.0) * own;
                Task {
                    held: cpu * held,
                    blocked: off * blocked,
                    free: cpu * (1.0 - held),
                    wait: off * (1.0 - blocked),
                    native: native * wall,
                }
            })
            .collect();
        let gaps = profile
            .split
            .and_then(|split| split.releases_per_task)
            .unwrap_or(1.0);
        Self::of(
            tasks,
            gaps,
            Transfer {
                out: profile.argument_dumps_s.unwrap_or(0.0),
                back: profile.result_loads_s.unwrap_or(0.0),
                worker_in: profile.argument_loads_s.unwrap_or(0.0),
                worker_out: profile.result_dumps_s.unwrap_or(0.0),
            },
        )
    }

    /// Demands of these tasks.
    pub(super) fn of(tasks: Vec<Task>, releases: f64, transfer: Transfer) -> Self {
        let mean = mean(&tasks);
        Self {
            tasks,
            mean,
            releases,
            transfer,
        }
    }

    /// As many tasks, drawn with replacement.
    pub(super) fn resampled(&self, random: &mut Random) -> Self {
        let tasks = (0..self.tasks.len())
            .map(|_| self.tasks[random.below(self.tasks.len())])
            .collect();
        Self::of(tasks, self.releases, self.transfer)
    }

    /// The same tasks on a loop that `coroutines` of them share: each costs the loop's thread what was measured there.
    pub(super) fn on_loop(&self, setting: &Setting, coroutines: u32) -> Self {
        let alone = self.mean.own_cpu();
        let Some(shared) = setting.shared_loop else {
            return self.clone();
        };
        let many = f64::from(shared.concurrency);
        if alone <= 0.0 || many <= 1.0 {
            return self.clone();
        }
        // A part of the cost is the loop's turn, which those that are ready together share: shared + turn / coroutines.
        let turn = ((alone - shared.cpu_s) * many / (many - 1.0)).max(0.0);
        let cost = shared.cpu_s + turn * (1.0 / f64::from(coroutines.max(1)) - 1.0 / many);
        let scale = (cost / alone).max(0.0);
        let tasks = self
            .tasks
            .iter()
            .map(|task| Task {
                held: task.held * scale,
                free: task.free * scale,
                ..*task
            })
            .collect();
        Self::of(tasks, self.releases, self.transfer)
    }
}

fn mean(tasks: &[Task]) -> Task {
    let count = tasks.len().max(1) as f64;
    let sum = |part: fn(&Task) -> f64| tasks.iter().map(part).sum::<f64>() / count;
    Task {
        held: sum(|task| task.held),
        blocked: sum(|task| task.blocked),
        free: sum(|task| task.free),
        wait: sum(|task| task.wait),
        native: sum(|task| task.native),
    }
}

/// Share of the caller's CPU time, and share of its blocked time, that are under the interpreter lock.
fn lock_shares(profile: &Profile, setting: &Setting, reading: Reading) -> (f64, f64) {
    if !setting.gil {
        return (0.0, 0.0);
    }
    if let Some(split) = profile.split {
        let end = |one: Estimate| match reading {
            Reading::Hopeful => one.low_s,
            Reading::Likely => one.mean_s,
            Reading::Wary => one.high_s,
        };
        let share = |part: Estimate, rest: Estimate| {
            let whole = part.mean_s + rest.mean_s;
            if whole > 0.0 {
                (end(part) / whole).clamp(0.0, 1.0)
            } else {
                0.0
            }
        };
        return (
            share(split.gil_cpu, split.free_cpu),
            // Nobody was ever seen asleep with the lock: a share below what looks can tell is not feared, for it would make
            // half of a waiting task's cost.
            if split.gil_blocked.mean_s > 0.0 {
                share(split.gil_blocked, split.wait)
            } else {
                0.0
            },
        );
    }
    let all = profile.thread_cpu_s.max(1e-12);
    let (least, likely, most) = pilot_demand(profile, setting);
    let held = match reading {
        Reading::Hopeful => least,
        Reading::Likely => likely,
        Reading::Wary => most,
    };
    (held / all, 0.0)
}

/// Seconds of CPU time a task that are under the interpreter lock, as the pilot has it: at least, likely, at most.
fn pilot_demand(profile: &Profile, setting: &Setting) -> (f64, f64, f64) {
    let all = profile.thread_cpu_s;
    match profile.pilot {
        Some(pilot) if pilot.interval[0] > 0.0 && setting.cores >= 1.5 => {
            // Throughput seen in the pilot cannot exceed one over the demand on the lock.
            let most = (profile.own_s() / pilot.interval[0]).min(all);
            let least = if setting.pilot_trusted && pilot.interval[1] < LOCKED_SPEEDUP {
                (profile.own_s() / pilot.interval[1].max(1.0)).min(all) * CERTAIN_SHARE
            } else {
                0.0
            };
            // Two threads on two cores at full speed tell nothing of the lock; held back, they show its demand.
            let speedup = pilot.speedup.max(1.0);
            let likely = if speedup < 2.0 * LOCKED_SPEEDUP / 1.5 {
                profile.own_s() / speedup
            } else {
                0.5 * profile.own_s() * (2.0 - speedup).max(0.0)
            };
            let least = least.min(most);
            (least, likely.clamp(least, most), most)
        }
        // Nobody looked. Where the pilot was not worth while, the CPU time is small, and mostly the interpreter's own.
        _ => (0.0, all, all),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::profile::tests::sample;
    use super::super::super::split::Split;
    use super::super::setting::LoopCost;
    use super::super::tests::{piloted, setting};
    use super::*;

    fn close(one: f64, other: f64) {
        assert!(
            (one - other).abs() <= 1e-9 + 1e-6 * other.abs(),
            "{one} is not {other}"
        );
    }

    fn estimate(mean_s: f64) -> Estimate {
        Estimate {
            mean_s,
            low_s: 0.9 * mean_s,
            high_s: 1.1 * mean_s,
        }
    }

    #[test]
    fn skew_is_kept_and_the_split_shares_each_task() {
        let mut sample = sample(0.002, 0.001);
        sample.walls = vec![0.001, 0.001, 0.004];
        sample.cpus = vec![0.0005, 0.0005, 0.002];
        let mut profile = Profile::from_sample(&sample);
        profile.split = Some(Split {
            samples: 1000,
            rate_hz: 1000.0,
            gil_cpu: estimate(0.00075),
            free_cpu: estimate(0.00025),
            gil_blocked: estimate(0.0002),
            wait: estimate(0.0008),
            native_cpu: estimate(0.0),
            run_queue: estimate(0.0),
            releases_per_task: Some(3.0),
            overhead: 0.0,
            late: 0,
        });
        let demands = Demands::new(&profile, &setting(4.0), Reading::Likely);
        assert_eq!(demands.releases, 3.0);
        close(demands.tasks[2].held, 0.0015);
        close(demands.tasks[2].free, 0.0005);
        close(demands.tasks[2].blocked, 0.0004);
        close(demands.mean.wall(), 0.002);
        let wary = Demands::new(&profile, &setting(4.0), Reading::Wary);
        close(wary.mean.held, 0.000825);
        close(wary.mean.own_cpu(), demands.mean.own_cpu());
    }

    #[test]
    fn the_pilot_stands_in_for_the_split() {
        let profile = piloted(0.01, 0.01, 0.95, 1.02);
        let held = |reading| Demands::new(&profile, &setting(4.0), reading).mean.held;
        assert!(held(Reading::Hopeful) > 0.007);
        close(held(Reading::Likely), 0.01);
        close(held(Reading::Wary), 0.01);
        let releasing = piloted(0.01, 0.01, 1.9, 2.0);
        let held = |reading| Demands::new(&releasing, &setting(4.0), reading).mean.held;
        close(held(Reading::Hopeful), 0.0);
        assert!(held(Reading::Likely) < 0.001);
        assert!(held(Reading::Wary) < 0.0053);
    }

    #[test]
    fn a_pilot_on_a_noisy_machine_does_not_speak_against_threads() {
        let profile = piloted(0.01, 0.01, 0.55, 1.02);
        let mut setting = setting(2.0);
        let held = |setting: &Setting| Demands::new(&profile, setting, Reading::Hopeful).mean.held;
        assert!(held(&setting) > 0.0);
        setting.pilot_trusted = false;
        assert_eq!(held(&setting), 0.0);
    }

    #[test]
    fn run_queue_time_is_left_out() {
        let mut busy = sample(0.010, 0.006);
        busy.run_queue_s = Some(0.003);
        let demands = Demands::new(&Profile::from_sample(&busy), &setting(2.0), Reading::Likely);
        close(demands.mean.wall(), 0.007);
    }

    #[test]
    fn a_shared_loop_costs_what_was_measured_there() {
        let mut setting = setting(2.0);
        setting.shared_loop = Some(LoopCost {
            concurrency: 32,
            cpu_s: 30e-6,
            count: 100,
        });
        let profile = Profile::from_sample(&sample(0.02, 150e-6));
        let demands = Demands::new(&profile, &setting, Reading::Likely);
        close(demands.on_loop(&setting, 32).mean.own_cpu(), 30e-6);
        close(demands.on_loop(&setting, 1).mean.own_cpu(), 150e-6);
        let many = demands.on_loop(&setting, 1000).mean.own_cpu();
        assert!((25e-6..30e-6).contains(&many), "{many}");
    }
}
