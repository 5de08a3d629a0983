//! Memory: what the machine and the control groups leave, and what a process occupies.

use std::fs;

use crate::cgroup;

/// Memory that processes may still take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// The smaller of the machine's memory and the tightest group limit, in bytes.
    pub limit: Option<u64>,
    /// What may still be used before the machine swaps or the group is killed, in bytes.
    pub available: Option<u64>,
}

/// Bytes of a `Name:   123 kB` line.
pub fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kilobytes: u64 = rest.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

fn smaller(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Reads the machine's memory and the group limits now.
pub fn memory() -> Memory {
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let bound = cgroup::memory_bound(&cgroup::own());
    Memory {
        limit: smaller(field(&machine, "MemTotal"), bound.map(|bound| bound.limit)),
        available: smaller(
            field(&machine, "MemAvailable"),
            bound.map(|bound| bound.available),
        ),
    }
}

/// Resident bytes of a process (shared pages counted whole).
pub fn resident(process: u32) -> Option<u64> {
    field(
        &fs::read_to_string(format!("/proc/{process}/status")).ok()?,
        "VmRSS",
    )
}

/// Proportional bytes of a process (each shared page divided by its users).
pub fn proportional(process: u32) -> Option<u64> {
    field(
        &fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?,
        "Pss",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_kilobytes() {
        let text =
            "MemTotal:       16384 kB\nMemAvailable:    8 kB\nPss:   332 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(field(text, "MemAvailable"), Some(8192));
        assert_eq!(field(text, "Pss"), Some(332 * 1024));
        assert_eq!(field(text, "Swap"), None);
    }

    #[test]
    fn this_process_has_pages() {
        if cfg!(target_os = "linux") {
            assert!(resident(std::process::id()).unwrap() > 0);
        }
        assert_eq!(resident(u32::MAX), None);
    }
}
