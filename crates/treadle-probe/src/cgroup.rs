//! Control groups: the CPU quota and the memory limit of this process at every level, versions 1 and 2.
//!
//! A container may be limited by its own group or by any group above it, so each level up to the root that is
//! visible here is read, and the tightest counts.

use std::fs;
use std::path::{Path, PathBuf};

/// One mounted hierarchy and where this process stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Version 2 has one hierarchy for all controllers; version 1 one for each set of them.
    pub unified: bool,
    /// The controllers of a version 1 hierarchy, empty for version 2.
    pub controllers: Vec<String>,
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// This process's group, as a folder at or under `mount`.
    pub folder: PathBuf,
}

/// Memory bounds in force, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBound {
    /// The limit of one level.
    pub limit: u64,
    /// What that level may still use: the limit less the usage that cannot be reclaimed at once.
    pub available: u64,
}

/// The memberships told by the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
pub fn memberships(cgroup: &str, mountinfo: &str) -> Vec<Membership> {
    let mut found = Vec::new();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(names), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let unified = names.is_empty();
        let controllers: Vec<String> = names
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        if let Some((root, mount)) = mount_of(mountinfo, unified, &controllers) {
            // Inside a container the mount's root may be the group itself: then the path is relative to it.
            let below = path.strip_prefix(root.as_str()).unwrap_or(path);
            let folder = mount.join(below.trim_start_matches('/'));
            found.push(Membership {
                unified,
                controllers,
                mount,
                folder,
            });
        }
    }
    found
}

/// The root and the mount point of the hierarchy with these controllers.
fn mount_of(mountinfo: &str, unified: bool, controllers: &[String]) -> Option<(String, PathBuf)> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (kind, _source, options) = (after.next()?, after.next()?, after.next()?);
        let matches = if unified {
            kind == "cgroup2"
        } else {
            kind == "cgroup"
                && controllers
                    .iter()
                    .all(|name| options.split(',').any(|option| option == name))
        };
        if !matches {
            return None;
        }
        let mut fields = before.split(' ').skip(3);
        let root = fields.next()?.trim_end_matches('/').to_owned();
        Some((root, PathBuf::from(fields.next()?)))
    })
}

/// The folders from `folder` up to `mount`, both included.
fn levels(membership: &Membership) -> Vec<PathBuf> {
    membership
        .folder
        .ancestors()
        .take_while(|folder| folder.starts_with(&membership.mount))
        .map(Path::to_path_buf)
        .collect()
}

/// Cores that a `cpu.max` text allows; `None` for `max`.
pub fn parse_cpu_max(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let quota: f64 = words.next()?.parse().ok()?;
    let period: f64 = words
        .next()
        .map_or(Some(100_000.0), |word| word.parse().ok())?;
    (period > 0.0 && quota > 0.0).then(|| quota / period)
}

/// Cores that the two version 1 texts allow; `None` for a quota of -1.
pub fn parse_cfs(quota: &str, period: &str) -> Option<f64> {
    let quota: f64 = quota.trim().parse().ok()?;
    let period: f64 = period.trim().parse().ok()?;
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// The tightest CPU quota over all levels, in cores; `None` when there is none.
pub fn cpu_quota(memberships: &[Membership]) -> Option<f64> {
    let mut tightest: Option<f64> = None;
    for membership in memberships {
        let version_one_cpu = membership.controllers.iter().any(|name| name == "cpu");
        if !membership.unified && !version_one_cpu {
            continue;
        }
        for folder in levels(membership) {
            let quota = if membership.unified {
                fs::read_to_string(folder.join("cpu.max"))
                    .ok()
                    .and_then(|text| parse_cpu_max(&text))
            } else {
                match (
                    fs::read_to_string(folder.join("cpu.cfs_quota_us")),
                    fs::read_to_string(folder.join("cpu.cfs_period_us")),
                ) {
                    (Ok(quota), Ok(period)) => parse_cfs(&quota, &period),
                    _ => None,
                }
            };
            if let Some(quota) = quota {
                tightest = Some(tightest.map_or(quota, |seen| seen.min(quota)));
            }
        }
    }
    tightest
}

/// Bytes named by a limit file; `None` for `max` and for version 1's "no limit" (close to 2^63).
pub fn parse_bytes(text: &str) -> Option<u64> {
    let value: u64 = text.trim().parse().ok()?;
    (value < 1 << 60).then_some(value)
}

/// The value of `key` in a `memory.stat` text.
pub fn stat_value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// The level that leaves the least memory; `None` when no level has a limit.
pub fn memory_bound(memberships: &[Membership]) -> Option<MemoryBound> {
    let mut tightest: Option<MemoryBound> = None;
    for membership in memberships {
        let version_one_memory = membership.controllers.iter().any(|name| name == "memory");
        if !membership.unified && !version_one_memory {
            continue;
        }
        let (limit_file, usage_file, reclaimable) = if membership.unified {
            ("memory.max", "memory.current", "inactive_file")
        } else {
            (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        };
        for folder in levels(membership) {
            let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
            let Some(limit) = read(limit_file).and_then(|text| parse_bytes(&text)) else {
                continue;
            };
            let usage = read(usage_file)
                .and_then(|text| text.trim().parse::<u64>().ok())
                .unwrap_or(0);
            let cache = read("memory.stat")
                .and_then(|text| stat_value(&text, reclaimable))
                .unwrap_or(0);
            let available = limit.saturating_sub(usage.saturating_sub(cache));
            if tightest.is_none_or(|seen| available < seen.available) {
                tightest = Some(MemoryBound { limit, available });
            }
        }
    }
    tightest
}

/// The memberships of this process; empty where `/proc` does not tell.
pub fn own() -> Vec<Membership> {
    match (
        fs::read_to_string("/proc/self/cgroup"),
        fs::read_to_string("/proc/self/mountinfo"),
    ) {
        (Ok(cgroup), Ok(mountinfo)) => memberships(&cgroup, &mountinfo),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS_ONE: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn version_one_memberships_find_their_mounts() {
        let found = memberships("4:memory:/job/one\n2:cpu,cpuacct:/job\n0::/\n", MOUNTS_ONE);
        assert_eq!(found[0].folder, Path::new("/sys/fs/cgroup/memory/job/one"));
        assert_eq!(found[1].folder, Path::new("/sys/fs/cgroup/cpu,cpuacct/job"));
        assert!(found[2].unified);
        assert_eq!(
            levels(&found[0]),
            [
                "/sys/fs/cgroup/memory/job/one",
                "/sys/fs/cgroup/memory/job",
                "/sys/fs/cgroup/memory"
            ]
            .map(PathBuf::from)
        );
    }

    #[test]
    fn a_container_whose_mount_root_is_its_own_group() {
        let mounts = "40 30 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        let found = memberships("0::/docker/abc/inner\n", mounts);
        assert_eq!(found[0].folder, Path::new("/sys/fs/cgroup/inner"));
    }

    #[test]
    fn quotas_parse_in_both_versions() {
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1.5));
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(parse_cfs("-1\n", "100000\n"), None);
        assert_eq!(parse_cfs("50000\n", "100000\n"), Some(0.5));
        assert_eq!(parse_bytes("9223372036854771712\n"), None);
        assert_eq!(parse_bytes("max\n"), None);
        assert_eq!(parse_bytes("1073741824\n"), Some(1 << 30));
    }

    #[test]
    fn the_tightest_level_counts_even_when_it_is_the_parent() {
        let root = std::env::temp_dir().join(format!("treadle-probe-{}", std::process::id()));
        let inner = root.join("outer/inner");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("cpu.max"), "max 100000").unwrap();
        fs::write(root.join("outer/cpu.max"), "250000 100000").unwrap();
        fs::write(inner.join("memory.max"), "4096").unwrap();
        fs::write(inner.join("memory.current"), "3000").unwrap();
        fs::write(inner.join("memory.stat"), "anon 1\ninactive_file 1000\n").unwrap();
        let membership = Membership {
            unified: true,
            controllers: Vec::new(),
            mount: root.clone(),
            folder: inner,
        };
        let quota = cpu_quota(std::slice::from_ref(&membership));
        let memory = memory_bound(&[membership]);
        fs::remove_dir_all(root).unwrap();
        assert_eq!(quota, Some(2.5));
        assert_eq!(
            memory,
            Some(MemoryBound {
                limit: 4096,
                available: 2096
            })
        );
    }

    #[test]
    fn version_one_quotas_count_at_every_level_and_hybrids_take_the_tightest() {
        let root = std::env::temp_dir().join(format!("treadle-probe-one-{}", std::process::id()));
        let (cpu, unified) = (root.join("cpu,cpuacct"), root.join("unified"));
        let (inner, group) = (cpu.join("pod/container/job"), unified.join("pod/container"));
        fs::create_dir_all(&inner).unwrap();
        fs::create_dir_all(&group).unwrap();
        let cfs = |folder: &Path, quota: &str| {
            fs::write(folder.join("cpu.cfs_quota_us"), quota).unwrap();
            fs::write(folder.join("cpu.cfs_period_us"), "100000").unwrap();
        };
        cfs(&inner, "-1");
        cfs(&cpu.join("pod/container"), "400000");
        cfs(&cpu.join("pod"), "150000");
        let mounts = format!(
            "32 31 0:29 / {} rw - cgroup cgroup rw,cpu,cpuacct\n41 31 0:38 / {} rw - cgroup2 cgroup2 rw\n",
            cpu.display(),
            unified.display()
        );
        let texts = "2:cpu,cpuacct:/pod/container/job\n5:memory:/pod\n0::/pod/container\n";
        let members = memberships(texts, &mounts);
        let by_one = cpu_quota(&members);
        fs::write(unified.join("pod/cpu.max"), "120000 100000").unwrap();
        let by_both = cpu_quota(&members);
        // The whole hierarchy below the container's own root: what is above it cannot be seen.
        let own_root = format!(
            "32 31 0:29 /pod/container {} rw - cgroup cgroup rw,cpu,cpuacct\n",
            cpu.join("pod/container").display()
        );
        let within = cpu_quota(&memberships(
            "2:cpu,cpuacct:/pod/container/job\n",
            &own_root,
        ));
        fs::remove_dir_all(root).unwrap();
        assert_eq!(members.len(), 2, "the memory hierarchy is not mounted");
        assert_eq!((by_one, by_both, within), (Some(1.5), Some(1.2), Some(4.0)));
    }

    #[test]
    fn this_process_can_be_read() {
        let _ = (cpu_quota(&own()), memory_bound(&own()));
    }
}
