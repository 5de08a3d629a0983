//! Pressure and stolen time: how much tasks wait for the processor, and what the host takes away.

use std::fs;
use std::path::PathBuf;

use crate::cgroup;

/// One `some` line of a pressure file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pressure {
    /// Share of the last ten seconds in which some task waited, in percent.
    pub average_10: f64,
    /// Seconds in which some task waited, since the machine (or the group) started.
    pub total_s: f64,
}

/// Jiffies of all processors together from `/proc/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessorTimes {
    /// All accounted time: user, nice, system, idle, waiting for input and output, interrupts, stolen.
    pub all: u64,
    /// Time in which a processor had nothing to run.
    pub idle: u64,
    /// Time in which a processor had work and the hypervisor ran something else.
    pub stolen: u64,
}

/// The `some` line of a pressure text.
pub fn parse(text: &str) -> Option<Pressure> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let value = |key: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            .and_then(|number| number.parse::<f64>().ok())
    };
    Some(Pressure {
        average_10: value("avg10")?,
        total_s: value("total")? * 1e-6,
    })
}

/// The aggregate `cpu` line of a `/proc/stat` text.
pub fn parse_stat(text: &str) -> Option<ProcessorTimes> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // Guest time is already in user time, so only the first eight fields are summed.
    let fields: Vec<u64> = line
        .split_whitespace()
        .take(8)
        .map_while(|word| word.parse().ok())
        .collect();
    (fields.len() >= 4).then(|| ProcessorTimes {
        all: fields.iter().sum(),
        // Waiting for a disk is idleness too.
        idle: fields[3] + fields.get(4).copied().unwrap_or(0),
        stolen: fields.get(7).copied().unwrap_or(0),
    })
}

/// Processor pressure of the whole machine.
pub fn machine_cpu() -> Option<Pressure> {
    parse(&fs::read_to_string("/proc/pressure/cpu").ok()?)
}

/// Processor pressure of this process's own control group (version 2 only).
pub fn group_cpu() -> Option<Pressure> {
    let folder: PathBuf = cgroup::own().into_iter().find(|one| one.unified)?.folder;
    parse(&fs::read_to_string(folder.join("cpu.pressure")).ok()?)
}

/// Processor times since the machine started.
pub fn processor_times() -> Option<ProcessorTimes> {
    parse_stat(&fs::read_to_string("/proc/stat").ok()?)
}

/// Share of processor time stolen between two readings, 0 to 1; `None` when no time passed.
pub fn steal_share(before: ProcessorTimes, after: ProcessorTimes) -> Option<f64> {
    let all = after.all.checked_sub(before.all).filter(|all| *all > 0)?;
    Some(after.stolen.saturating_sub(before.stolen) as f64 / all as f64)
}

/// Share of the processors' time between two readings in which they ran something, 0 to 1; `None` when no time passed.
pub fn busy_share(before: ProcessorTimes, after: ProcessorTimes) -> Option<f64> {
    let all = after.all.checked_sub(before.all).filter(|all| *all > 0)?;
    Some((1.0 - after.idle.saturating_sub(before.idle) as f64 / all as f64).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_some_line_is_read() {
        let text = "some avg10=1.54 avg60=0.71 avg300=0.43 total=4852998\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        let pressure = parse(text).unwrap();
        assert_eq!(pressure.average_10, 1.54);
        assert!((pressure.total_s - 4.852_998).abs() < 1e-9);
        assert_eq!(parse("nothing"), None);
    }

    #[test]
    fn steal_is_a_share_of_all_time() {
        let before = parse_stat("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3 4\n").unwrap();
        let after = parse_stat("cpu  150 0 120 820 0 0 0 10 50 0\n").unwrap();
        assert_eq!(before.all, 1000);
        assert_eq!(steal_share(before, after), Some(0.1));
        assert_eq!(steal_share(before, before), None);
        assert_eq!(parse_stat("cpu  1 2\n"), None);
    }

    #[test]
    fn a_processor_that_waits_for_a_disk_is_idle() {
        let before = parse_stat("cpu  100 0 100 800 0 0 0 0 0 0\n").unwrap();
        let after = parse_stat("cpu  105 0 105 860 30 0 0 0 0 0\n").unwrap();
        let busy = busy_share(before, after).unwrap();
        assert!((busy - 0.1).abs() < 1e-9, "{busy}");
        assert_eq!(busy_share(before, before), None);
    }
}
