//! The watcher's side: which programs can be watched, and asking one of them.
//!
//! *Guarantees*: a socket is believed only when the kernel says that this user listens there (root believes all); every wait is bounded.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use super::picture::{Program, Stacks};
use super::protocol::{Ask, Unreadable, decode_reply, read_reply, write_request};

/// How long a program may take to answer: its own patience for the interpreter's lock is a fifth of a second, and the rest is for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The same for stacks: two seconds for the interpreter's lock, two for the workers of a pool that do not answer, and the rest for other pools
/// and for reading source lines.
pub const PATIENCE_FOR_STACKS: Duration = Duration::from_secs(15);

/// A program that can be watched, as its socket's name tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Found {
    /// Its user.
    pub uid: u32,
    /// Its process, as it sees itself.
    pub pid: u32,
    /// The socket's name.
    pub name: String,
}

/// A program's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its process as seen from here; 0 when it is in a container that cannot be seen into.
    pub pid: u32,
    /// The program.
    pub program: Program,
    /// What its workers do, when that was asked for.
    pub stacks: Vec<Stacks>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It has ended, or does not listen any more.
    #[error("it has ended")]
    Ended,
    /// It listens and says nothing.
    #[error(
        "it does not answer: it may be stopped (Ctrl-Z, SIGSTOP, a debugger), or the machine is overloaded"
    )]
    Silent,
    /// Somebody else listens under its name.
    #[error("user {uid} listens under its name, and is not believed")]
    Stranger {
        /// That user.
        uid: u32,
    },
    /// Its answer is of no use.
    #[error("{0}")]
    Unreadable(#[from] Unreadable),
    /// The connection failed otherwise.
    #[error("it cannot be asked: {0}")]
    Failed(String),
}

/// The programs whose sockets `/proc/net/unix` lists: those of every user in this network namespace.
///
/// # Errors
/// When the file cannot be read.
pub fn discover() -> io::Result<Vec<Found>> {
    // A name may hold any bytes.
    let bytes = fs::read("/proc/net/unix")?;
    Ok(parse(&String::from_utf8_lossy(&bytes)))
}

fn parse(text: &str) -> Vec<Found> {
    let listening = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // Num RefCount Protocol Flags Type St Inode Path; the flag marks a socket that accepts connections, and not one that was accepted.
        let flags = u32::from_str_radix(words.get(3)?, 16).ok()?;
        if flags & 0x1_0000 == 0 || words.len() != 8 {
            return None;
        }
        named(words[7].strip_prefix('@')?)
    };
    let found: BTreeSet<Found> = text.lines().filter_map(listening).collect();
    found.into_iter().collect()
}

fn named(name: &str) -> Option<Found> {
    let mut parts = name.strip_prefix("treadle-")?.split('-');
    let uid = parts.next()?.parse().ok()?;
    let pid = parts.next()?.parse().ok()?;
    if let Some(more) = parts.next() {
        more.parse::<u32>().ok()?;
    }
    parts.next().is_none().then(|| Found {
        uid,
        pid,
        name: name.to_owned(),
    })
}

/// Whether this process may watch that user's programs.
pub fn may_watch(uid: u32) -> bool {
    let own = rustix::process::geteuid().as_raw();
    own == uid || own == 0
}

/// The process that listens at a program's socket, as seen from here; `None` when nobody does, or it cannot be seen.
pub fn process_of(program: &Found) -> Option<u32> {
    let address = SocketAddr::from_abstract_name(&program.name).ok()?;
    let stream = UnixStream::connect_addr(&address).ok()?;
    let peer = treadle_probe::process::peer(stream.as_fd()).ok()?;
    (peer.pid != 0).then_some(peer.pid)
}

/// Asks a program.
///
/// # Errors
/// [`Trouble`], when there is no answer to be used.
pub fn ask(program: &Found, ask: Ask) -> Result<Answer, Trouble> {
    let patience = match ask {
        Ask::Pools => PATIENCE,
        Ask::Stacks => PATIENCE_FOR_STACKS,
    };
    let address = SocketAddr::from_abstract_name(&program.name).map_err(|error| failed(&error))?;
    let mut stream = UnixStream::connect_addr(&address).map_err(|error| failed(&error))?;
    let peer = treadle_probe::process::peer(stream.as_fd()).map_err(|error| failed(&error))?;
    if !may_watch(peer.uid) {
        return Err(Trouble::Stranger { uid: peer.uid });
    }
    stream
        .set_read_timeout(Some(patience))
        .and_then(|()| stream.set_write_timeout(Some(patience)))
        .and_then(|()| write_request(&mut stream, ask))
        .map_err(|error| failed(&error))?;
    let body = read_reply(&mut stream).map_err(|error| failed(&error))?;
    let reply = decode_reply(&body)?;
    Ok(Answer {
        pid: peer.pid,
        program: reply.program,
        stacks: reply.stacks,
    })
}

fn failed(error: &io::Error) -> Trouble {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused
        | Kind::ConnectionReset
        | Kind::BrokenPipe
        | Kind::UnexpectedEof => Trouble::Ended,
        Kind::WouldBlock | Kind::TimedOut => Trouble::Silent,
        Kind::InvalidData => Trouble::Unreadable(Unreadable::Garbage(error.to_string())),
        _ => Trouble::Failed(error.to_string()),
    }
}

/// Why a process is not among the programs that can be watched: what it is, and what to do.
pub fn explain(pid: u32, found: &[Found]) -> (String, String) {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
        return (
            format!("there is no process {pid}"),
            "`treadle top` without a number shows every program that can be watched".to_owned(),
        );
    };
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let command = field("Name:")
        .unwrap_or("?")
        .chars()
        .filter(|letter| !letter.is_control())
        .collect::<String>();
    let this = format!("process {pid} ({command})");
    if field("State:").is_some_and(|state| state.starts_with(['Z', 'X'])) {
        return (
            format!("{this} has ended"),
            "its parent has not fetched its exit code yet".to_owned(),
        );
    }
    // Real, effective, saved and file-system user.
    let uid = field("Uid:").and_then(|uids| uids.split_whitespace().nth(1)?.parse::<u32>().ok());
    if let Some(uid) = uid.filter(|uid| !may_watch(*uid)) {
        return (
            format!("{this} belongs to another user ({uid})"),
            "a program is shown to its own user and to root only".to_owned(),
        );
    }
    let network = |which: &str| fs::read_link(format!("/proc/{which}/ns/net")).ok();
    let (theirs, ours) = (network(&pid.to_string()), network("self"));
    if theirs.is_some() && theirs != ours {
        return (
            format!("{this} is in another network namespace, which is most likely a container"),
            format!(
                "run `treadle top` in there, or with nsenter: nsenter --target {pid} --net treadle top {pid}"
            ),
        );
    }
    if let Some(above) = treadle_probe::process::ancestors(pid)
        .into_iter()
        .find(|above| found.iter().any(|program| program.pid == *above))
    {
        return (
            format!("{this} has no pool of its own"),
            format!("it runs under {above}, which has: treadle top {above}"),
        );
    }
    // Another user's memory map would be unreadable, and other users were dealt with.
    let maps = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    let loaded = maps.windows(MARK.len()).any(|window| window == MARK);
    if loaded {
        (
            format!("{this} has treadle loaded, and tells nothing"),
            "a program can be watched from its first pool on, unless it was started with TREADLE_TOP=0 or has a treadle from before `treadle top`".to_owned(),
        )
    } else {
        (
            format!("{this} does not use treadle"),
            "`treadle top` shows programs that make a treadle.Executor".to_owned(),
        )
    }
}

/// How the extension's file is named in a map of memory.
const MARK: &[u8] = b"/treadle/_core.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_accept_are_found_and_others_are_not() {
        let text = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 1 @treadle-1000-42\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 2 @treadle-1000-42\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 3 @treadle-0-7-1\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 4 @treadle-0-x\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 5 @treadle-0-7-1-2\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 6 /treadle-0-9\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 7 @treadle-1000-43 more\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 8\n";
        let found: Vec<String> = parse(text).into_iter().map(|found| found.name).collect();
        assert_eq!(found, ["treadle-0-7-1", "treadle-1000-42"]);
        assert!(parse("\u{fffd}\nx y z\n").is_empty());
    }

    #[test]
    fn a_process_that_cannot_be_watched_is_told_apart() {
        let own = std::process::id();
        assert!(
            explain(own, &[]).0.ends_with("does not use treadle"),
            "{:?}",
            explain(own, &[])
        );
        // The largest number that a kernel gives a process is 2^22.
        assert_eq!(
            explain(1 << 23, &[]).0,
            format!("there is no process {}", 1 << 23)
        );
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let parent = Found {
            uid: 0,
            pid: own,
            name: String::new(),
        };
        let (what, next) = explain(child.id(), &[parent]);
        child.kill().unwrap();
        assert!(
            what.ends_with("has no pool of its own") && next.contains(&own.to_string()),
            "{what}: {next}"
        );
        while !explain(child.id(), &[]).0.ends_with("has ended") {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }

    #[test]
    fn nobody_at_the_socket_is_an_end() {
        let nobody = Found {
            uid: 0,
            pid: 1,
            name: format!("treadle-test-nobody-{}", std::process::id()),
        };
        assert_eq!(ask(&nobody, Ask::Pools), Err(Trouble::Ended));
    }

    /// A socket whose other end does what it likes with one connection.
    fn served(
        name: &str,
        serve: impl FnOnce(UnixStream) + Send + 'static,
    ) -> (Found, std::thread::JoinHandle<()>) {
        let name = format!("treadle-test-{name}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        let thread = std::thread::spawn(move || serve(listener.accept().unwrap().0));
        (
            Found {
                uid: 0,
                pid: 1,
                name,
            },
            thread,
        )
    }

    #[test]
    fn a_program_that_sends_garbage_or_goes_away_is_told() {
        use std::io::{Read, Write};
        let (garbage, thread) = served("garbage", |mut stream| {
            let mut line = [0; 64];
            let _ = stream.read(&mut line).unwrap();
            stream.write_all(&[5, 0, 0, 0]).unwrap();
            stream.write_all(b"\x1b[2J!").unwrap();
        });
        assert!(matches!(
            ask(&garbage, Ask::Pools),
            Err(Trouble::Unreadable(Unreadable::Garbage(_)))
        ));
        thread.join().unwrap();
        let (gone, thread) = served("gone", drop);
        assert_eq!(ask(&gone, Ask::Pools), Err(Trouble::Ended));
        thread.join().unwrap();
    }
}
