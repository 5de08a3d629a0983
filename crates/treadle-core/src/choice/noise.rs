//! The noise gate: was the machine quiet enough to tell plans apart?
//!
//! *Rule*. Readings are taken before, during and after the race, and none of them counts what our own race causes:
//! - before, pressure: the kernel's "some task waited for a processor" over the ten seconds before anything was started; it counts
//!   unless the processors were idle when they were watched afterwards: then it is the echo of work that has ended;
//! - before and after, cores: the share of the usable cores that a spin probe of a few hundredths of a second really got;
//! - before and during, delay: the share of the serial sample's time, and of the serial control's blocks (their median), runnable
//!   without a processor. One thread alone never waits on a quiet machine, so this is what others take from us (not used when the
//!   function starts native threads of its own, which compete with it);
//! - during, disturbance: the share of rounds that others disturbed (`disturbance`);
//! - over the whole command, steal: the share of processor time that the hypervisor gave to others.
//!
//! One reading over its first limit makes the machine noisy (low confidence). Over the second limit a plan is refused, when
//! two readings agree: pressure alone may be the echo of work that has just ended. That is judged before the race, which then does not
//! run, and again after it, which then cannot tell. A task that hardly uses the processor is raced all the same: waiting does not get
//! slower when others compute. The kernel's pressure during the race is reported, not judged: our own threads press too.

use serde::{Deserialize, Serialize};

/// Limits of research on the same kind of machine (diagnosis notes 3.5): below them, predictions held.
const PRESSURE_LOW: f64 = 0.05;
const STEAL_LOW: f64 = 0.02;
const CORES_LOW: f64 = 0.90;
/// What a machine that only keeps itself running uses of its processors; the same share as the pressure limit.
const BUSY_LOW: f64 = 0.05;
/// The same share as the pressure limit: both tell how long a runnable thread waits.
const DELAY_LOW: f64 = 0.05;
const REFUSE: f64 = 0.20;
/// A fifth of the rounds may be run again without harm; when it is more than half, there is no quiet to compare in.
const DISTURBED_LOW: f64 = 0.20;
const DISTURBED_REFUSE: f64 = 0.50;
/// Below this share of CPU time a factor of two in processor speed moves the throughput by at most a tenth.
pub const CPU_SHARE_THAT_MATTERS: f64 = 0.10;

/// What was read; `None` where the machine does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Readings {
    /// Share of the ten seconds before the start in which some task waited for a processor, 0 to 1.
    pub pressure_before: Option<f64>,
    /// Share of the processors' time that was used while nothing of ours ran; watched only after pressure over its limit.
    #[serde(default)]
    pub busy_before: Option<f64>,
    /// Cores that the spin probe got, over the cores it asked for.
    pub cores_share: Option<f64>,
    /// Share of the serial sample's wall time spent runnable without a processor.
    pub run_queue_share: Option<f64>,
    /// Share of processor time stolen by the hypervisor during the command.
    pub steal_share: Option<f64>,
    /// Median share of the serial control's blocks spent runnable without a processor.
    #[serde(default)]
    pub control_delay_share: Option<f64>,
    /// Share of the race's counted rounds that others disturbed.
    #[serde(default)]
    pub disturbed_share: Option<f64>,
    /// Cores that the spin probe got after the race, over the cores it asked for.
    #[serde(default)]
    pub cores_share_after: Option<f64>,
    /// Share of the race in which some task, ours or another, waited for a processor; not judged.
    #[serde(default)]
    pub pressure_during: Option<f64>,
}

/// How far the measurements can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every reading is under its limit.
    Quiet,
    /// Decide with low confidence.
    Noisy,
    /// Too noisy to decide.
    Refuse,
}

/// The verdict of the gate with its grounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// How far the measurements can be trusted.
    pub level: Level,
    /// The readings over their limits, in words.
    pub grounds: Vec<String>,
}

/// Whether pressure is so high that the processors are to be watched: is what caused it still there?
pub fn calls_for_a_watch(pressure: f64) -> bool {
    pressure > PRESSURE_LOW
}

/// Judges the readings for a task whose share of CPU time is `cpu_share`.
pub fn judge(readings: &Readings, cpu_share: f64) -> Verdict {
    let percent = super::wording::percent;
    let mut grounds = Vec::new();
    let mut strong = 0;
    let mut weak = 0;
    let mut weigh_up = |value: f64, low: f64, refuse: f64, words: String| {
        if value > low {
            grounds.push(words);
            weak += 1;
            if value > refuse {
                strong += 1;
            }
        }
    };
    if let Some(share) = readings.disturbed_share {
        weigh_up(
            share,
            DISTURBED_LOW,
            DISTURBED_REFUSE,
            format!("others disturbed {} of the rounds", percent(share)),
        );
    }
    let mut weigh = |value: f64, low: f64, words: String| weigh_up(value, low, REFUSE, words);
    if let Some(pressure) = readings.pressure_before
        && readings.busy_before.is_none_or(|busy| busy > BUSY_LOW)
    {
        weigh(
            pressure,
            PRESSURE_LOW,
            format!(
                "tasks waited for a processor {} of the ten seconds before the start",
                percent(pressure)
            ),
        );
    }
    if let Some(share) = readings.cores_share {
        weigh(
            1.0 - share,
            1.0 - CORES_LOW,
            format!(
                "a spin probe got only {} of the usable cores",
                percent(share)
            ),
        );
    }
    if let Some(delay) = readings.run_queue_share {
        weigh(
            delay,
            DELAY_LOW,
            format!(
                "the serial sample itself waited for a processor {} of its time",
                percent(delay)
            ),
        );
    }
    if let Some(delay) = readings.control_delay_share {
        weigh(
            delay,
            DELAY_LOW,
            format!(
                "the plain loop waited for a processor {} of the race",
                percent(delay)
            ),
        );
    }
    if let Some(share) = readings.cores_share_after {
        weigh(
            1.0 - share,
            1.0 - CORES_LOW,
            format!(
                "after the race a spin probe got only {} of the usable cores",
                percent(share)
            ),
        );
    }
    if let Some(steal) = readings.steal_share {
        weigh(
            steal,
            STEAL_LOW,
            format!(
                "the hypervisor took {} of the processor time",
                percent(steal)
            ),
        );
    }
    let level = if strong >= 1 && weak >= 2 && cpu_share >= CPU_SHARE_THAT_MATTERS {
        Level::Refuse
    } else if weak >= 1 {
        Level::Noisy
    } else {
        Level::Quiet
    };
    Verdict { level, grounds }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(pressure: f64, cores: f64, delay: f64, steal: f64) -> Readings {
        Readings {
            pressure_before: Some(pressure),
            cores_share: Some(cores),
            run_queue_share: Some(delay),
            steal_share: Some(steal),
            ..Readings::default()
        }
    }

    fn raced(delay: f64, disturbed: f64, cores_after: f64) -> Readings {
        Readings {
            control_delay_share: Some(delay),
            disturbed_share: Some(disturbed),
            cores_share_after: Some(cores_after),
            ..readings(0.01, 0.99, 0.0, 0.0)
        }
    }

    #[test]
    fn the_gate() {
        let cases = [
            // Before the race: pressure, cores, delay of the sample, steal.
            (readings(0.01, 0.99, 0.0, 0.0), Level::Quiet),
            (readings(0.06, 0.99, 0.0, 0.0), Level::Noisy),
            (readings(0.01, 0.85, 0.0, 0.0), Level::Noisy),
            (readings(0.01, 0.99, 0.06, 0.0), Level::Noisy),
            (readings(0.01, 0.99, 0.0, 0.03), Level::Noisy),
            // The echo of work that has ended: nothing else confirms it.
            (readings(0.60, 0.99, 0.0, 0.0), Level::Noisy),
            (readings(0.60, 0.70, 0.0, 0.0), Level::Refuse),
            (readings(0.01, 0.85, 0.30, 0.0), Level::Refuse),
            (readings(0.06, 0.99, 0.0, 0.30), Level::Refuse),
            // During and after it: delay of the control, disturbed rounds, cores.
            (raced(0.0, 0.0, 0.99), Level::Quiet),
            (raced(0.0, 0.15, 0.99), Level::Quiet),
            (raced(0.06, 0.0, 0.99), Level::Noisy),
            (raced(0.0, 0.30, 0.99), Level::Noisy),
            (raced(0.0, 0.0, 0.70), Level::Noisy),
            (raced(0.15, 0.40, 0.99), Level::Noisy),
            (raced(0.15, 0.60, 0.99), Level::Refuse),
            (raced(0.30, 0.30, 0.99), Level::Refuse),
            (raced(0.06, 0.0, 0.70), Level::Refuse),
        ];
        for (readings, level) in cases {
            let verdict = judge(&readings, 1.0);
            assert_eq!(verdict.level, level, "{readings:?}");
            assert_eq!(verdict.grounds.is_empty(), level == Level::Quiet);
        }
    }

    #[test]
    fn waiting_tasks_are_never_refused_and_silence_is_quiet() {
        assert_eq!(
            judge(&readings(0.6, 0.5, 0.3, 0.1), 0.05).level,
            Level::Noisy
        );
        assert_eq!(judge(&raced(0.6, 0.9, 0.3), 0.05).level, Level::Noisy);
        assert_eq!(judge(&Readings::default(), 1.0).level, Level::Quiet);
    }

    #[test]
    fn pressure_on_processors_that_idle_is_an_echo() {
        let echo = |busy| Readings {
            busy_before: Some(busy),
            ..readings(0.6, 0.99, 0.0, 0.0)
        };
        assert!(calls_for_a_watch(0.6) && !calls_for_a_watch(0.01));
        assert_eq!(judge(&echo(0.01), 1.0).level, Level::Quiet);
        assert_eq!(judge(&echo(0.5), 1.0).level, Level::Noisy);
    }

    #[test]
    fn pressure_of_our_own_making_is_not_judged() {
        let ours = Readings {
            pressure_during: Some(0.9),
            ..Readings::default()
        };
        assert_eq!(judge(&ours, 1.0).level, Level::Quiet);
    }
}
