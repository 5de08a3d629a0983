//! Processes: their time on the run queue, their descendants, their environment.

use std::fs;

/// A thread's scheduling account from a `schedstat` text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunQueue {
    /// Seconds on a processor.
    pub ran_s: f64,
    /// Seconds runnable without a processor.
    pub waited_s: f64,
}

/// Parses the text of `/proc/<pid>/task/<tid>/schedstat`.
pub fn parse_schedstat(text: &str) -> Option<RunQueue> {
    let mut words = text.split_whitespace().map(str::parse::<u64>);
    Some(RunQueue {
        ran_s: words.next()?.ok()? as f64 * 1e-9,
        waited_s: words.next()?.ok()? as f64 * 1e-9,
    })
}

/// The calling thread's scheduling account.
pub fn own_run_queue() -> Option<RunQueue> {
    parse_schedstat(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

/// The scheduling account of the thread that opened it, kept open so that a reading costs one call of the kernel.
#[derive(Debug)]
pub struct RunQueueFile(fs::File);

impl RunQueueFile {
    /// That of the calling thread; `None` where the kernel does not tell.
    pub fn own() -> Option<Self> {
        let file = Self(fs::File::open("/proc/thread-self/schedstat").ok()?);
        file.read().map(|_| file)
    }

    fn read(&self) -> Option<RunQueue> {
        let mut text = [0; 96];
        let read = rustix::io::pread(&self.0, &mut text[..], 0).ok()?;
        parse_schedstat(std::str::from_utf8(&text[..read]).ok()?)
    }

    /// Seconds that the thread has stood runnable without a processor.
    pub fn waited_s(&self) -> f64 {
        self.read().map_or(0.0, |account| account.waited_s)
    }
}

/// How often the calling thread gave its processor up by itself, to sleep or to wait; 0 where the system does not count it.
#[cfg(target_os = "linux")]
pub fn pauses() -> u64 {
    // SAFETY: all numbers, for which zeros are valid; the kernel fills it in.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid for writing.
    let refused = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) } != 0;
    if refused { 0 } else { usage.ru_nvcsw as u64 }
}

/// How often the calling thread gave its processor up by itself, to sleep or to wait; 0 where the system does not count it.
#[cfg(not(target_os = "linux"))]
pub fn pauses() -> u64 {
    0
}

/// Parent of a process from the text of `/proc/<pid>/stat`; the name may hold spaces and parentheses.
pub fn parse_parent(text: &str) -> Option<u32> {
    let (_, after_name) = text.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

/// State letter of a process from the text of `/proc/<pid>/stat` (`Z` is a zombie: it has ended).
pub fn parse_state(text: &str) -> Option<char> {
    let (_, after_name) = text.rsplit_once(')')?;
    after_name.split_whitespace().next()?.chars().next()
}

/// What a process or a thread has used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// CPU seconds since its start.
    pub cpu_s: f64,
    /// Resident bytes of its process.
    pub memory_bytes: u64,
}

/// Parses the text of `/proc/<pid>/stat` with the kernel's ticks a second and bytes a page.
pub fn parse_usage(text: &str, ticks: f64, page: u64) -> Option<Usage> {
    let (_, after_name) = text.rsplit_once(')')?;
    let words: Vec<&str> = after_name.split_whitespace().collect();
    // Fields 14, 15 and 24 of proc(5); what follows the name begins with the third.
    let number = |field: usize| words.get(field - 3)?.parse::<u64>().ok();
    Some(Usage {
        cpu_s: (number(14)? + number(15)?) as f64 / ticks,
        memory_bytes: number(24)?.saturating_mul(page),
    })
}

fn usage(path: &str) -> Option<Usage> {
    let text = fs::read(path).ok()?;
    let page = rustix::param::page_size() as u64;
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    parse_usage(&String::from_utf8_lossy(&text), ticks, page)
}

/// What a process has used, all its threads together; `None` when it is gone.
pub fn usage_of(process: u32) -> Option<Usage> {
    usage(&format!("/proc/{process}/stat"))
}

/// What a thread of this process has used; the memory is the process's.
pub fn usage_of_thread(thread: u32) -> Option<Usage> {
    usage(&format!("/proc/self/task/{thread}/stat"))
}

/// The processes above this one, its parent first.
pub fn ancestors(process: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut at = process;
    while let Some(parent) = fs::read_to_string(format!("/proc/{at}/stat"))
        .ok()
        .and_then(|text| parse_parent(&text))
        .filter(|parent| *parent != 0 && !found.contains(parent))
    {
        found.push(parent);
        at = parent;
    }
    found
}

/// Who is at the other end of a Unix socket, as the kernel saw it when the connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process; 0 when it is in a container that cannot be seen into from here.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
}

/// Who is at the other end of a connected Unix socket; for the end that connected, who listens there.
///
/// Not through `rustix`, whose process id cannot be the 0 of a process that is not seen from here.
///
/// # Errors
/// When it is no such socket.
#[cfg(target_os = "linux")]
pub fn peer(socket: std::os::fd::BorrowedFd<'_>) -> std::io::Result<Peer> {
    use std::os::fd::AsRawFd;

    let mut found = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `found` and `length` are valid for writing, and `length` says how long `found` is.
    let refused = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut length,
        )
    } != 0;
    if refused {
        return Err(std::io::Error::last_os_error());
    }
    Ok(Peer {
        pid: u32::try_from(found.pid).unwrap_or(0),
        uid: found.uid,
    })
}

/// The process ids that `/proc` lists.
fn listed() -> Vec<u32> {
    fs::read_dir("/proc").map_or_else(
        |_| Vec::new(),
        |entries| {
            entries
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .collect()
        },
    )
}

/// Living processes whose environment, as it was when they started, holds exactly this `NAME=value`.
///
/// Finds descendants even after their parent died and they left its process group.
pub fn with_environment(assignment: &str) -> Vec<u32> {
    listed()
        .into_iter()
        .filter(|process| {
            let living = fs::read_to_string(format!("/proc/{process}/stat"))
                .ok()
                .and_then(|text| parse_state(&text))
                .is_some_and(|state| state != 'Z' && state != 'X');
            living
                && fs::read(format!("/proc/{process}/environ")).is_ok_and(|bytes| {
                    bytes
                        .split(|byte| *byte == 0)
                        .any(|entry| entry == assignment.as_bytes())
                })
        })
        .collect()
}

/// Processes below `ancestor`, children before their children; zombies are not listed.
pub fn descendants(ancestor: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = listed()
        .into_iter()
        .filter_map(|process| {
            let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            (parse_state(&text)? != 'Z').then_some((process, parse_parent(&text)?))
        })
        .collect();
    let mut found = vec![ancestor];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(process, _)| *process),
        );
        next += 1;
    }
    found.split_off(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_confuse() {
        let text = "12 (a (b) c) S 7 12 12 0 -1";
        assert_eq!(parse_parent(text), Some(7));
        assert_eq!(parse_state(text), Some('S'));
        assert_eq!(parse_parent("nothing"), None);
    }

    #[test]
    fn schedstat_is_in_nanoseconds() {
        let account = parse_schedstat("1500000000 250000000 42\n").unwrap();
        assert_eq!((account.ran_s, account.waited_s), (1.5, 0.25));
        assert_eq!(parse_schedstat("x"), None);
    }

    #[test]
    fn a_sleep_is_a_pause_and_the_run_queue_is_read_through_one_file() {
        if !cfg!(target_os = "linux") {
            return;
        }
        let before = pauses();
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(pauses() > before);
        let file = RunQueueFile::own().unwrap();
        assert!(file.waited_s() <= own_run_queue().unwrap().waited_s);
    }

    #[test]
    fn the_fields_of_stat_are_counted_behind_the_name() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 10 0 0 0 250 50 0 0 20 0 1 0 900 1000000 3 18446744073709551615";
        let found = parse_usage(text, 100.0, 4096).unwrap();
        assert_eq!((found.cpu_s, found.memory_bytes), (3.0, 3 * 4096));
        assert_eq!(parse_usage("7 (a) S 1", 100.0, 4096), None);
        if cfg!(target_os = "linux") {
            assert!(usage_of(std::process::id()).unwrap().memory_bytes > 0);
            let parent = std::os::unix::process::parent_id();
            assert_eq!(ancestors(std::process::id()).first(), Some(&parent));
        }
    }

    #[test]
    fn the_other_end_of_a_socket_is_known() {
        if !cfg!(target_os = "linux") {
            return;
        }
        use std::os::fd::AsFd;
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let found = peer(one.as_fd()).unwrap();
        let user = rustix::process::geteuid().as_raw();
        assert_eq!((found.pid, found.uid), (std::process::id(), user));
        assert!(peer(std::fs::File::open("/dev/null").unwrap().as_fd()).is_err());
    }

    #[test]
    fn a_child_is_found_by_parent_and_by_environment() {
        if !cfg!(target_os = "linux") {
            return;
        }
        let value = format!("probe-{}", std::process::id());
        let mut child = std::process::Command::new("cat")
            .env("TREADLE_PROBE_TEST", &value)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let by_parent = descendants(std::process::id());
        // `spawn` returns once the new program is in place, so its environment can be read.
        let by_environment = with_environment(&format!("TREADLE_PROBE_TEST={value}"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(by_parent.contains(&child.id()));
        assert_eq!(by_environment, [child.id()]);
    }
}
