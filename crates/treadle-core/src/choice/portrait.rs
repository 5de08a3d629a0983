//! The portrait: what a task is like and where it was measured, in words and as lines of a report.

use treadle_probe::lock::Absent;

use super::model::Setting;
use super::profile::{Class, Profile};
use super::wording::{bytes, cores, percent, seconds};

/// What a task is like, in a sentence.
pub(super) fn portrait(profile: &Profile, setting: &Setting) -> String {
    let wall = seconds(profile.wall_s);
    let cpu = percent(profile.cpu_share());
    let waiting = percent((profile.wait_s / profile.wall_s.max(1e-12)).clamp(0.0, 1.0));
    let pilot = profile.pilot.map(|pilot| {
        format!(
            "two threads together were {:.2} times as fast as one ({:.2} to {:.2})",
            pilot.speedup, pilot.interval[0], pilot.interval[1]
        )
    });
    let mut text = match profile.class {
        Class::TooSmall => format!("A task takes {wall}, of the order of handing it to a worker"),
        Class::IoBound => format!("A task takes {wall} and waits for {waiting} of it"),
        Class::Mixed => {
            format!("A task takes {wall}: it computes for {cpu} of it and waits for {waiting}")
        }
        Class::TransferBound => format!(
            "A task takes {wall}, and pickling its arguments and result costs the parent {} of that again",
            percent(profile.parent_pickle_s() / profile.wall_s.max(1e-12))
        ),
        Class::CpuBoundReleasing => format!(
            "A task takes {wall} and computes for {cpu} of it, largely without the interpreter lock"
        ),
        Class::CpuBound => format!("A task takes {wall} and computes for {cpu} of it"),
    };
    if let Some(pilot) = pilot
        && !matches!(profile.class, Class::IoBound)
    {
        let tail = match profile.class {
            Class::CpuBound | Class::TransferBound if setting.gil && setting.pilot_trusted => {
                ", so the interpreter lock holds threads back"
            }
            _ => "",
        };
        text.push_str(&format!("; {pilot}{tail}"));
    }
    if let Some(split) = &profile.split
        && profile.class != Class::TooSmall
    {
        let held = split.gil_cpu.mean_s + split.gil_blocked.mean_s;
        let share = |seconds: f64| percent(seconds / profile.own_s().max(1e-12));
        if held > 0.05 * profile.own_s() {
            text.push_str(&format!(
                "; it holds the interpreter lock for {}, which threads cannot share",
                share(held)
            ));
        }
        if split.gil_blocked.mean_s > 0.05 * profile.own_s() {
            text.push_str(&format!(
                ", and is blocked in {} with the lock held",
                share(split.gil_blocked.mean_s)
            ));
        }
    }
    if profile.native_cpu_s > 0.1 * profile.wall_s {
        text.push_str(&format!(
            "; its helpers (threads, programs) add {} of CPU time a task",
            seconds(profile.native_cpu_s)
        ));
    }
    if let Some(delay) = profile
        .run_queue_s
        .filter(|delay| *delay > 0.05 * profile.wall_s)
    {
        text.push_str(&format!(
            "; the rest of it, {}, it stood waiting for a processor that others used",
            seconds(delay)
        ));
    }
    text.push('.');
    text
}

/// The profile as lines of a report: name, value, remark.
pub fn profile_lines(profile: &Profile) -> Vec<(&'static str, String)> {
    let optional = |value: Option<f64>, words: fn(f64) -> String| {
        value.map_or_else(|| "not measured".to_owned(), words)
    };
    vec![
        (
            "wall time",
            format!(
                "{} (median {}, 99 % under {})",
                seconds(profile.wall_s),
                seconds(profile.wall_p50_s),
                seconds(profile.wall_p99_s)
            ),
        ),
        (
            "CPU time",
            format!(
                "{} = {} of it",
                seconds(profile.cpu_s()),
                percent(profile.cpu_share())
            ),
        ),
        (
            "waiting",
            format!(
                "{} = {} of it",
                seconds(profile.wait_s),
                percent((profile.wait_s / profile.wall_s.max(1e-12)).clamp(0.0, 1.0))
            ),
        ),
        ("interpreter lock", {
            let share = if profile.split_absent.as_deref() == Some(Absent::NoLock.reason()) {
                "none in this build of Python"
            } else {
                "share not measured"
            };
            match (profile.gil_cpu_s, profile.pilot) {
                (Some(held), _) => format!("held for {} of CPU time", seconds(held)),
                (None, Some(pilot)) => format!(
                    "{share}; two threads ran {:.2} times as fast as one ({:.2} to {:.2})",
                    pilot.speedup, pilot.interval[0], pilot.interval[1]
                ),
                (None, None) => share.to_owned(),
            }
        }),
        (
            "arguments, result",
            format!(
                "{}, {}; pickling both {}",
                optional(profile.argument_bytes, bytes),
                optional(profile.result_bytes, bytes),
                optional(profile.pickle_s, seconds)
            ),
        ),
        (
            "memory",
            format!(
                "peak {}; a worker process {}",
                optional(profile.peak_rss_bytes, bytes),
                optional(profile.worker_rss_bytes, bytes)
            ),
        ),
        (
            "starting a worker",
            format!(
                "process {}, thread {}{}",
                optional(profile.worker_start_s.process, seconds),
                optional(profile.worker_start_s.thread, seconds),
                match (
                    profile.worker_start_s.interpreter,
                    &profile.worker_start_s.interpreter_refused
                ) {
                    (Some(start), _) => format!(", interpreter {}", seconds(start)),
                    (None, Some(why)) => format!(", interpreter not measured ({why})"),
                    (None, None) => String::new(),
                }
            ),
        ),
    ]
}

/// The machine in a line: cores and where they come from.
pub fn machine_line(machine: &super::comparison::Machine) -> String {
    let mut text = format!("{} usable cores", cores(machine.usable_cores));
    if let Some(quota) = machine.quota
        && quota <= machine.usable_cores + 1e-9
    {
        text.push_str(" (a CPU quota)");
    }
    if let Some(got) = machine.spin_cores {
        text.push_str(&format!(
            ", on which {} native {} got {got:.2}",
            machine.spin_threads,
            if machine.spin_threads == 1 {
                "thread"
            } else {
                "threads"
            }
        ));
        if let Some(after) = machine.spin_cores_after {
            text.push_str(&format!(" before the race and {after:.2} after it"));
        }
    }
    text.push_str(&format!(", {} {}", machine.implementation, machine.python));
    text.push_str(if machine.gil { " with" } else { " without" });
    text.push_str(&format!(" an interpreter lock, {}", machine.noise));
    if machine.noise_ignored {
        text.push_str(" (noise gate overridden by TREADLE_NOISE=ignore)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::profile::tests::sample;
    use super::*;

    #[test]
    fn a_build_without_the_lock_is_told_from_a_lock_that_was_not_watched() {
        let line = |why: &str| {
            let mut profile = Profile::from_sample(&sample(0.01, 0.01));
            profile.split_absent = Some(why.to_owned());
            let lines = profile_lines(&profile);
            let (_, told) = lines
                .iter()
                .find(|(name, _)| *name == "interpreter lock")
                .unwrap();
            told.clone()
        };
        assert!(line(Absent::NoLock.reason()).starts_with("none in this build of Python"));
        assert!(line(Absent::NotFound.reason()).starts_with("share not measured"));
    }
}
