//! The desk: where a program answers who watches it.
//!
//! One thread sleeps at the socket. Each request gets a thread of its own for the milliseconds that it takes, so that one who is slow keeps
//! nobody waiting. The desk opens with the program's first pool.
//!
//! *Guarantees*: no thread is awake while nobody asks; a request is answered within [`PATIENCE`] and what reading the pools takes, whoever
//! holds the interpreter's lock; a forked child has no desk, and closes what it inherited of its parent's.
//! *Assumes*: [`open`], [`describe`] and [`leave_in_child`] are called by threads that hold the interpreter's lock, as does who forks, so that
//! nobody is in the midst of them when the program forks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::errand::Errand;
pub use super::errand::{Interpreter, Told};
use super::lock;
use super::picture::{Pool, Program, Stacks};
use super::protocol::{Ask, PROTOCOL, Reply, read_request, write_reply};

/// How long a request waits for the interpreter's lock. A lock that threads hand on is had within some switch intervals of 5 ms; 40 of them
/// are not reached by a program that only computes with a few threads.
pub const PATIENCE: Duration = Duration::from_millis(200);
/// The same for stacks, which somebody waits for who wants them.
const PATIENCE_FOR_STACKS: Duration = Duration::from_secs(2);
/// How long the other side may take to say what it wants, and to take the reply.
const SILENCE: Duration = Duration::from_secs(2);
/// Requests that are answered at the same time; more watchers than that are turned away until their next look.
const MOST_AT_ONCE: usize = 8;
/// Names that are tried: the plain one can be taken by another container that shares the network, or by another user.
const NAMES: u32 = 10;

/// A pool that the engine can look at without the interpreter's lock.
pub trait Source: Send + Sync {
    /// Fills in what the pool looks like; false when it has ended.
    fn look(&self, pool: &mut Pool) -> bool;
    /// What its workers do, with stacks, if that can be had without the interpreter's lock.
    fn stacks(&self) -> Option<Stacks>;
}

struct Entry {
    /// What does not change.
    described: Pool,
    source: Weak<dyn Source>,
}

struct Desk {
    listener: UnixListener,
    forks: u32,
    version: String,
    interpreter: Arc<dyn Interpreter>,
    entries: Mutex<Vec<Entry>>,
    pools: Arc<Errand<Vec<Pool>>>,
    stacks: Arc<Errand<Vec<Stacks>>>,
    at_once: AtomicUsize,
    told_cpu_ns: AtomicU64,
    closed: AtomicBool,
}

/// The program's desk. Taken by threads that hold the interpreter's lock, and by none of the desk's own.
static DESK: Mutex<Option<Arc<Desk>>> = Mutex::new(None);
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// The name of a program's socket; `more` counts on when the plain one is taken.
fn name(uid: u32, pid: u32, more: u32) -> String {
    match more {
        0 => format!("treadle-{uid}-{pid}"),
        _ => format!("treadle-{uid}-{pid}-{more}"),
    }
}

fn bind() -> io::Result<UnixListener> {
    let (uid, pid) = (rustix::process::geteuid().as_raw(), std::process::id());
    let mut last = io::ErrorKind::AddrInUse.into();
    for more in 0..NAMES {
        let address = SocketAddr::from_abstract_name(name(uid, pid, more))?;
        match UnixListener::bind_addr(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            other => return other,
        }
    }
    Err(last)
}

/// A number for a pool of this program, counted from 1.
pub fn next_number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// Opens the desk, unless it is open.
///
/// # Errors
/// When there can be no socket or no thread; the program's pools work without.
pub fn open(version: &str, interpreter: impl FnOnce() -> Arc<dyn Interpreter>) -> io::Result<()> {
    let mut slot = lock(&DESK);
    if slot
        .as_ref()
        .is_some_and(|desk| desk.forks == crate::pool::forks())
    {
        return Ok(());
    }
    let desk = Arc::new(Desk {
        listener: bind()?,
        forks: crate::pool::forks(),
        version: version.to_owned(),
        interpreter: interpreter(),
        entries: Mutex::default(),
        pools: Arc::default(),
        stacks: Arc::default(),
        at_once: AtomicUsize::new(0),
        told_cpu_ns: AtomicU64::new(0),
        closed: AtomicBool::new(false),
    });
    let for_thread = desk.clone();
    treadle_shm::spawn_quiet("treadle-desk", move || for_thread.listen())?;
    *slot = Some(desk);
    Ok(())
}

/// Has a pool told from now on, until it ends or is dropped. `described` holds what does not change.
pub fn describe(described: Pool, source: Weak<dyn Source>) {
    if let Some(desk) = lock(&DESK).as_ref() {
        let mut entries = lock(&desk.entries);
        entries.retain(|entry| entry.source.strong_count() > 0);
        entries.push(Entry { described, source });
    }
}

/// Closes the desk for good, before the interpreter ends: when this returns, nothing asks it any more. The caller must not hold the interpreter's
/// lock, for which somebody may wait who asks.
pub fn close() {
    let Some(desk) = lock(&DESK).clone() else {
        return;
    };
    if desk.forks != crate::pool::forks() {
        return;
    }
    desk.closed.store(true, Ordering::SeqCst);
    // Wakes the thread that sleeps there.
    let _ = rustix::net::shutdown(&desk.listener, rustix::net::Shutdown::Both);
    desk.pools.stop();
    desk.stacks.stop();
}

/// Called in a forked child: forgets the parent's desk, and returns its socket, which the child must close. Nothing else uses it there.
pub fn leave_in_child() -> Option<RawFd> {
    // No thread of the parent was at it when the program forked; if one was all the same, the socket stays open.
    let desk = DESK.try_lock().ok()?.take()?;
    let socket = desk.listener.as_raw_fd();
    // Its locks may be held by threads that are not there.
    std::mem::forget(desk);
    Some(socket)
}

impl Desk {
    fn listen(self: Arc<Self>) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.receive(stream),
                Err(_) if self.closed.load(Ordering::SeqCst) => return,
                Err(error) if is_passing(&error) => {}
                // No descriptor is left: whoever asks is told by his own clock, and the program may close some.
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
            if self.closed.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    fn receive(self: &Arc<Self>, stream: UnixStream) {
        // Who is turned away sees the end of the connection.
        if !may_read(&stream) {
            return;
        }
        if self.at_once.fetch_add(1, Ordering::SeqCst) >= MOST_AT_ONCE {
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        let this = self.clone();
        let carried = treadle_shm::spawn_quiet("treadle-tell", move || {
            // A watcher that goes away is no trouble of this program's.
            let _ = this.serve(&stream);
            this.note_cost();
            this.at_once.fetch_sub(1, Ordering::SeqCst);
        });
        if carried.is_err() {
            self.at_once.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn note_cost(&self) {
        let spent = clock_gettime(ClockId::ThreadCPUTime);
        let nanoseconds =
            (spent.tv_sec as u64).saturating_mul(1_000_000_000) + spent.tv_nsec as u64;
        self.told_cpu_ns.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn serve(&self, mut stream: &UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let request = read_request(&mut stream)?;
        let mut reply = Reply {
            protocol: PROTOCOL,
            program: Program {
                treadle: self.version.clone(),
                ..Program::default()
            },
            ..Reply::default()
        };
        // A request of another protocol gets the number and the version, which every protocol has, and no more.
        if request.protocol == PROTOCOL {
            self.fill(&mut reply.program);
            if request.ask == Ask::Stacks {
                reply.stacks = self.fill_stacks(&mut reply.program);
            }
        }
        write_reply(&mut stream, &reply)
    }

    fn fill(&self, program: &mut Program) {
        let used = treadle_probe::process::usage_of(std::process::id());
        program.pid = std::process::id();
        program.command = command_line();
        program.usable_cores = treadle_probe::usable_cores().cores;
        program.cpu_s = used.map_or(0.0, |used| used.cpu_s);
        program.memory_bytes = used.map_or(0, |used| used.memory_bytes);
        program.told_cpu_s = self.told_cpu_ns.load(Ordering::Relaxed) as f64 / 1e9;
        let interpreter = self.interpreter.clone();
        let answer = self.pools.ask(PATIENCE, move || interpreter.pools());
        program.lock = answer.lock;
        let (told, age) = answer.latest.unwrap_or_default();
        program.pools = self.engine_pools();
        program.pools.extend(told.into_iter().map(|pool| Pool {
            told_s_ago: age.map(|age| age.as_secs_f64()),
            ..pool
        }));
        program.pools.sort_by_key(|pool| pool.number);
    }

    /// The pools of the engine, as they are now.
    fn engine_pools(&self) -> Vec<Pool> {
        self.living()
            .into_iter()
            .filter_map(|(mut pool, source)| source.look(&mut pool).then_some(pool))
            .collect()
    }

    fn living(&self) -> Vec<(Pool, Arc<dyn Source>)> {
        // A pool that is dropped here was dropped by the program meanwhile; never under the lock.
        lock(&self.entries)
            .iter()
            .filter_map(|entry| Some((entry.described.clone(), entry.source.upgrade()?)))
            .collect()
    }

    fn fill_stacks(&self, program: &mut Program) -> Vec<Stacks> {
        let mut found: Vec<Stacks> = self
            .living()
            .into_iter()
            .filter_map(|(pool, source)| {
                let stacks = source.stacks()?;
                Some(Stacks {
                    pool: pool.number,
                    ..stacks
                })
            })
            .collect();
        let interpreter = self.interpreter.clone();
        let answer = self
            .stacks
            .ask(PATIENCE_FOR_STACKS, move || interpreter.stacks());
        // What an earlier question brought is of an earlier time: stacks are told fresh or not at all.
        match answer.latest {
            Some((told, None)) => {
                found.extend(told);
                program.lock = answer.lock;
            }
            _ if !answer.lock.free => program.lock = answer.lock,
            _ => {}
        }
        found
    }
}

/// Whether the other side is of this user, or root.
fn may_read(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    treadle_probe::process::peer(stream.as_fd()).is_ok_and(|peer| peer.uid == own || peer.uid == 0)
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted | io::ErrorKind::WouldBlock
    )
}

fn command_line() -> Vec<String> {
    let bytes = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .take(20)
        .map(|word| String::from_utf8_lossy(word).chars().take(300).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::asking::{Found, Trouble, ask, discover};
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// An interpreter whose lock is free when the test says so.
    struct Slow(Mutex<Receiver<()>>);

    impl Interpreter for Slow {
        fn pools(&self) -> Option<Told<Vec<Pool>>> {
            lock(&self.0).recv().ok()?;
            let pool = Pool {
                number: 9,
                name: "loop".to_owned(),
                ..Pool::default()
            };
            Some(Told {
                found: vec![pool],
                waited: Some(Duration::ZERO),
            })
        }

        fn stacks(&self) -> Option<Told<Vec<Stacks>>> {
            None
        }
    }

    struct Fixed(AtomicBool);

    impl Source for Fixed {
        fn look(&self, pool: &mut Pool) -> bool {
            pool.queued = 5;
            !self.0.load(Ordering::SeqCst)
        }

        fn stacks(&self) -> Option<Stacks> {
            Some(Stacks {
                pool: 0,
                text: "here\n".to_owned(),
            })
        }
    }

    fn told(name: &Found) -> Vec<(u64, Option<bool>)> {
        let program = ask(name, Ask::Pools).unwrap().program;
        let stale = |pool: &Pool| pool.told_s_ago.map(|age| age >= 0.0);
        program
            .pools
            .iter()
            .map(|pool| (pool.number, stale(pool)))
            .collect()
    }

    /// One test, because a process has one desk.
    #[test]
    fn a_desk_answers_while_the_lock_is_held_and_is_gone_when_closed() {
        let (free, held): (Sender<()>, _) = channel();
        let interpreter = || -> Arc<dyn Interpreter> { Arc::new(Slow(Mutex::new(held))) };
        open("1.2.3", interpreter).unwrap();
        open("again", || unreachable!("it is open")).unwrap();
        let own = std::process::id();
        let name = discover()
            .unwrap()
            .into_iter()
            .find(|found| found.pid == own)
            .unwrap();
        let pool = Arc::new(Fixed(AtomicBool::new(false)));
        let weak: Weak<Fixed> = Arc::downgrade(&pool);
        let described = Pool {
            number: 3,
            ..Pool::default()
        };
        describe(described, weak);

        let answer = ask(&name, Ask::Pools).unwrap();
        assert_eq!(
            (answer.pid, answer.program.treadle.as_str()),
            (own, "1.2.3")
        );
        assert!(!answer.program.lock.free, "nobody has freed the lock");
        assert_eq!(answer.program.pools.len(), 1);
        assert_eq!(answer.program.pools[0].queued, 5);
        let stacks = ask(&name, Ask::Stacks).unwrap().stacks;
        assert_eq!((stacks[0].pool, stacks[0].text.as_str()), (3, "here\n"));

        // A question that finds the lock free is told afresh, and one that does not what was told before.
        while told(&name) != [(3, None), (9, None)] {
            free.send(()).unwrap();
        }
        while told(&name) != [(3, None), (9, Some(true))] {}

        pool.0.store(true, Ordering::SeqCst);
        assert_eq!(told(&name), [(9, Some(true))], "an ended pool is not told");
        // Whoever closes has nobody on the way left: here the lock is freed by the sender's end.
        drop(free);
        close();
        assert_eq!(ask(&name, Ask::Pools), Err(Trouble::Ended));
    }
}
