//! Usable cores: what affinity, the quota of every control group and the hardware leave to this process.

use std::collections::BTreeSet;
use std::fs;

use crate::cgroup;

/// The cores that this process may use, and where the number comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UsableCores {
    /// The smaller of affinity and quota, in cores; fractional under a quota, at least 0.01.
    pub cores: f64,
    /// Logical processors that the scheduler may put this process on.
    pub affinity: Option<usize>,
    /// The tightest CPU quota of any control group above this process, in cores.
    pub quota: Option<f64>,
    /// Physical cores among the allowed logical processors (siblings of one core count once).
    pub physical: Option<usize>,
}

impl UsableCores {
    /// Combines the readings; without any the standard library's count decides.
    pub fn from_readings(
        affinity: Option<usize>,
        quota: Option<f64>,
        physical: Option<usize>,
        fallback: usize,
    ) -> Self {
        let processors = affinity.unwrap_or(fallback).max(1) as f64;
        Self {
            cores: quota
                .map_or(processors, |quota| quota.min(processors))
                .max(0.01),
            affinity,
            quota,
            physical,
        }
    }

    /// Whole threads that can run at once without sharing a physical core: what a spin probe may expect.
    pub fn parallel(&self) -> usize {
        let physical = self.physical.map_or(f64::INFINITY, |count| count as f64);
        (self.cores.min(physical).ceil() as usize).max(1)
    }
}

/// Reads the usable cores of this process now.
pub fn usable_cores() -> UsableCores {
    let allowed = allowed_processors();
    let physical = allowed.as_deref().and_then(physical_cores);
    UsableCores::from_readings(
        allowed.map(|list| list.len()),
        cgroup::cpu_quota(&cgroup::own()),
        physical,
        std::thread::available_parallelism().map_or(1, usize::from),
    )
}

/// The logical processors in this process's affinity mask.
fn allowed_processors() -> Option<Vec<usize>> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut allowed = parse_list(list.trim())?;
    // The mask may name processors that do not exist; those that are online limit it.
    if let Some(online) = fs::read_to_string("/sys/devices/system/cpu/online")
        .ok()
        .and_then(|text| parse_list(text.trim()))
    {
        allowed.retain(|processor| online.contains(processor));
    }
    (!allowed.is_empty()).then_some(allowed)
}

/// A kernel list such as `0-3,8`.
pub fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut processors = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        match part.split_once('-') {
            Some((first, last)) => {
                processors.extend(first.trim().parse::<usize>().ok()?..=last.trim().parse().ok()?);
            }
            None => processors.push(part.trim().parse().ok()?),
        }
    }
    Some(processors)
}

/// How many physical cores the given logical processors belong to.
fn physical_cores(processors: &[usize]) -> Option<usize> {
    let mut cores = BTreeSet::new();
    for processor in processors {
        let topology = format!("/sys/devices/system/cpu/cpu{processor}/topology");
        let read = |name: &str| fs::read_to_string(format!("{topology}/{name}")).ok();
        cores.insert((
            read("physical_package_id")?.trim().to_owned(),
            read("core_id")?.trim().to_owned(),
        ));
    }
    Some(cores.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_parse() {
        assert_eq!(parse_list("0-3,8"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(parse_list("5"), Some(vec![5]));
        assert_eq!(parse_list("x"), None);
    }

    #[test]
    fn the_quota_limits_and_the_sibling_does_not_count_for_the_probe() {
        let cores = UsableCores::from_readings(Some(8), Some(2.5), Some(4), 64);
        assert_eq!(cores.cores, 2.5);
        assert_eq!(cores.parallel(), 3);
        let cores = UsableCores::from_readings(Some(8), None, Some(4), 64);
        assert_eq!((cores.cores, cores.parallel()), (8.0, 4));
        assert_eq!(UsableCores::from_readings(None, None, None, 6).cores, 6.0);
    }

    #[test]
    fn this_machine_has_cores() {
        assert!(usable_cores().cores > 0.0);
    }
}
