//! The one thread that starts workers, sees them die, and keeps deadlines.
//!
//! ```text
//! pools ── orders ──► supervisor ── spawn ──► zygote ── fork ──► worker
//!   ▲                     │  ▲                  │                  │
//!   └── gone, expired ────┘  └──── exited ◄─────┘      pidfd ◄─────┘
//! ```
//!
//! It owns the zygotes and the descriptors of the workers, so that no lock guards them. It never takes the interpreter's lock.
//!
//! *Guarantees*: a worker's pool hears of its death once, after the kernel has ended it. A zygote that dies takes its workers with it, and
//! each of their pools hears so.
//! *Assumes* Linux 5.4 (pidfd).

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal};

use super::lock;
use super::outcome::Ending;
use super::processes::ProcessPool;
use super::zygote::{Launch, Message, Zygote, is_gone};

/// How long a dead worker's exit status is waited for, once its pidfd says that it is gone. The zygote answers within about a
/// millisecond; past this the status is reported as unknown.
const STATUS_PATIENCE: Duration = Duration::from_millis(500);

/// How long a zygote without workers is kept for the next pool.
const IDLE_ZYGOTE: Duration = Duration::from_secs(300);

/// One worker to start.
pub(super) struct SpawnRequest {
    pub(super) pool: Weak<ProcessPool>,
    pub(super) worker: u32,
    pub(super) launch: Arc<Launch>,
    pub(super) fields: Vec<Vec<u8>>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// What pools ask of the supervisor.
pub(super) enum Order {
    /// Have a zygote for workers that will be asked for.
    Prepare(Arc<Launch>),
    Spawn(u64, SpawnRequest),
    Signal {
        tag: u64,
        signal: Signal,
    },
    /// Look at this pool's deadlines from now on.
    Watch(Weak<ProcessPool>),
    /// A deadline may have come closer.
    Look,
}

struct Worker {
    pool: Weak<ProcessPool>,
    index: u32,
    zygote: u32,
    pid: Option<i32>,
    pidfd: Option<OwnedFd>,
    gone_at: Option<Instant>,
    /// A signal that was ordered before the process existed.
    pending_signal: Option<Signal>,
}

/// The way to the supervisor's thread.
#[derive(Clone)]
pub(super) struct Supervisor {
    bell: Arc<OwnedFd>,
    orders: Arc<Mutex<Vec<Order>>>,
    process: u32,
}

static SUPERVISOR: Mutex<Option<Supervisor>> = Mutex::new(None);

impl Supervisor {
    /// The supervisor of this process; started at the first call, and again in a forked child.
    pub(super) fn of_this_process() -> io::Result<Supervisor> {
        let mut slot = SUPERVISOR.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(supervisor) = slot
            .as_ref()
            .filter(|supervisor| supervisor.process == std::process::id())
        {
            return Ok(supervisor.clone());
        }
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let supervisor = Supervisor {
            bell: Arc::new(bell),
            orders: Arc::default(),
            process: std::process::id(),
        };
        let for_thread = supervisor.clone();
        treadle_shm::spawn_quiet("treadle-watch", move || Watch::new(for_thread).run())?;
        *slot = Some(supervisor.clone());
        Ok(supervisor)
    }

    pub(super) fn order(&self, order: Order) {
        if self.process != std::process::id() {
            return;
        }
        lock(&self.orders).push(order);
        // A full counter is already a rung bell.
        let _ = rustix::io::write(&*self.bell, &1u64.to_ne_bytes());
    }
}

struct Watch {
    supervisor: Supervisor,
    zygotes: HashMap<u32, (Zygote, Instant)>,
    workers: HashMap<u64, Worker>,
    statuses: HashMap<i32, Ending>,
    pools: Vec<Weak<ProcessPool>>,
}

impl Watch {
    fn new(supervisor: Supervisor) -> Watch {
        Watch {
            supervisor,
            zygotes: HashMap::new(),
            workers: HashMap::new(),
            statuses: HashMap::new(),
            pools: Vec::new(),
        }
    }

    fn run(mut self) {
        loop {
            self.sleep();
            let orders = std::mem::take(&mut *lock(&self.supervisor.orders));
            for order in orders {
                self.obey(order);
            }
            self.read_zygotes();
            self.bury();
            self.pools.retain(|pool| pool.strong_count() > 0);
            let now = Instant::now();
            for pool in self.pools.iter().filter_map(Weak::upgrade) {
                pool.expire(now);
            }
            self.dismiss(now);
        }
    }

    /// Ends the zygotes that no pool has used for a while.
    fn dismiss(&mut self, now: Instant) {
        let workers = &self.workers;
        self.zygotes.retain(|id, (_, used)| {
            if workers.values().any(|worker| worker.zygote == *id) {
                *used = now;
            }
            now.duration_since(*used) <= IDLE_ZYGOTE
        });
    }

    fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self
            .pools
            .iter()
            .filter_map(Weak::upgrade)
            .filter_map(|pool| pool.next_deadline());
        let burials = self
            .workers
            .values()
            .filter_map(|worker| worker.gone_at)
            .map(|gone| gone + STATUS_PATIENCE);
        // One with workers has no deadline: it is unused from the last one's end on.
        let idle = self
            .zygotes
            .iter()
            .filter(|(id, _)| !self.workers.values().any(|worker| worker.zygote == **id))
            .map(|(_, (_, used))| *used + IDLE_ZYGOTE + Duration::from_secs(1));
        deadlines.chain(burials).chain(idle).min()
    }

    fn sleep(&mut self) {
        let timeout = self.next_deadline().map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        let mut descriptors = vec![PollFd::new(&*self.supervisor.bell, PollFlags::IN)];
        descriptors.extend(
            self.zygotes
                .values()
                .map(|(zygote, _)| PollFd::from_borrowed_fd(zygote.socket(), PollFlags::IN)),
        );
        let watched: Vec<u64> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.pidfd.is_some() && worker.gone_at.is_none())
            .map(|(tag, _)| *tag)
            .collect();
        for tag in &watched {
            if let Some(pidfd) = self
                .workers
                .get(tag)
                .and_then(|worker| worker.pidfd.as_ref())
            {
                descriptors.push(PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN));
            }
        }
        // An interrupted or failed poll looks at everything, which is right too.
        let _ = rustix::event::poll(&mut descriptors, timeout.as_ref());
        let first_worker = descriptors.len() - watched.len();
        let gone: Vec<u64> = watched
            .iter()
            .zip(&descriptors[first_worker..])
            .filter(|(_, descriptor)| descriptor.revents().intersects(PollFlags::IN))
            .map(|(tag, _)| *tag)
            .collect();
        drop(descriptors);
        let now = Instant::now();
        for tag in gone {
            if let Some(worker) = self.workers.get_mut(&tag) {
                worker.gone_at = Some(now);
            }
        }
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.supervisor.bell, &mut count);
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Look => {}
            Order::Watch(pool) => self.pools.push(pool),
            // What keeps it from starting is told to the first worker that needs it.
            Order::Prepare(launch) => drop(self.zygote_for(&launch)),
            Order::Signal { tag, signal } => {
                if let Some(worker) = self.workers.get_mut(&tag) {
                    match (&worker.pidfd, worker.pid.and_then(pid_of)) {
                        // It may have died meanwhile, which is what the signal was for, or will be seen.
                        (Some(pidfd), _) => {
                            let _ = rustix::process::pidfd_send_signal(pidfd, signal);
                        }
                        // No descriptor was left for a pidfd. The zygote says when it has reaped the process; until then the
                        // number is this worker's.
                        (None, Some(process)) => {
                            if worker.gone_at.is_none() {
                                let _ = rustix::process::kill_process(process, signal);
                            }
                        }
                        (None, None) => worker.pending_signal = Some(signal),
                    }
                }
            }
            Order::Spawn(tag, request) => {
                if let Err(error) = self.spawn(tag, &request)
                    && let Some(pool) = request.pool.upgrade()
                {
                    pool.break_down(&format!(
                        "a worker process could not be started: {error}\n\nhint: `{}` must run this program's interpreter, and the limits on \
                         processes and descriptors (ulimit -u, ulimit -n) must leave room for the workers",
                        request.launch.program
                    ));
                    pool.worker_absent(request.worker);
                }
            }
        }
    }

    /// The zygote of this launch, started if there is none.
    fn zygote_for(&mut self, launch: &Launch) -> io::Result<u32> {
        let now = Instant::now();
        let known = self
            .zygotes
            .iter_mut()
            .find(|(_, (zygote, _))| zygote.launch == *launch);
        if let Some((id, (_, used))) = known {
            *used = now;
            return Ok(*id);
        }
        let zygote = Zygote::start(launch)?;
        let id = zygote.pid();
        self.zygotes.insert(id, (zygote, now));
        Ok(id)
    }

    fn spawn(&mut self, tag: u64, request: &SpawnRequest) -> io::Result<()> {
        let id = self.zygote_for(&request.launch)?;
        let Some((zygote, _)) = self.zygotes.get_mut(&id) else {
            return Ok(());
        };
        // Entered first: a zygote that dies now must be seen to take this worker along.
        self.workers.insert(
            tag,
            Worker {
                pool: request.pool.clone(),
                index: request.worker,
                zygote: id,
                pid: None,
                pidfd: None,
                gone_at: None,
                pending_signal: None,
            },
        );
        let descriptors: Vec<_> = request.descriptors.iter().map(AsFd::as_fd).collect();
        match zygote.spawn(tag, &request.fields, &descriptors) {
            // The zygote is gone; its socket says so next.
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => {
                self.workers.remove(&tag);
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    fn read_zygotes(&mut self) {
        let ids: Vec<u32> = self.zygotes.keys().copied().collect();
        for id in ids {
            while let Some(message) = self
                .zygotes
                .get_mut(&id)
                .and_then(|(zygote, _)| zygote.receive())
            {
                match message {
                    Message::Ready => {}
                    Message::Failed(text) => {
                        for worker in self.workers.values().filter(|worker| worker.zygote == id) {
                            if let Some(pool) = worker.pool.upgrade() {
                                pool.break_down(&text);
                            }
                        }
                        // It serves nobody; who asks from now on gets another try, and its text.
                        self.zygote_gone(id);
                        break;
                    }
                    Message::Spawned { tag, pid, pidfd } => {
                        if let Some(worker) = self.workers.get_mut(&tag) {
                            worker.pid = Some(pid);
                            match (worker.pending_signal.take(), &pidfd, pid_of(pid)) {
                                (Some(signal), Some(pidfd), _) => {
                                    let _ = rustix::process::pidfd_send_signal(pidfd, signal);
                                }
                                (Some(signal), None, Some(process)) => {
                                    let _ = rustix::process::kill_process(process, signal);
                                }
                                _ => {}
                            }
                            worker.pidfd = pidfd;
                            if let Some(pool) = worker.pool.upgrade() {
                                pool.worker_spawned(worker.index, tag, pid);
                            }
                        }
                    }
                    Message::Exited { pid, ending } => {
                        // Without a pidfd (too many descriptors) this is how the death is seen.
                        if let Some(worker) = self
                            .workers
                            .values_mut()
                            .find(|worker| worker.pid == Some(pid) && worker.pidfd.is_none())
                        {
                            worker.gone_at = Some(Instant::now());
                        }
                        self.statuses.insert(pid, ending);
                    }
                    Message::Gone => {
                        self.zygote_gone(id);
                        break;
                    }
                }
            }
        }
    }

    /// A zygote is gone: its workers are being killed by the kernel. Those that never existed are gone at once.
    fn zygote_gone(&mut self, id: u32) {
        self.zygotes.remove(&id);
        let now = Instant::now();
        for worker in self
            .workers
            .values_mut()
            .filter(|worker| worker.zygote == id)
        {
            match (worker.pid, &worker.pidfd) {
                (Some(pid), Some(_)) => {
                    self.statuses
                        .entry(pid)
                        .or_insert(Ending::Signalled(Signal::KILL.as_raw()));
                }
                _ => worker.gone_at = Some(now - STATUS_PATIENCE),
            }
        }
    }

    fn bury(&mut self) {
        let now = Instant::now();
        let dead: Vec<u64> = self
            .workers
            .iter()
            .filter(|(_, worker)| {
                let Some(gone_at) = worker.gone_at else {
                    return false;
                };
                worker
                    .pid
                    .is_none_or(|pid| self.statuses.contains_key(&pid))
                    || now >= gone_at + STATUS_PATIENCE
            })
            .map(|(tag, _)| *tag)
            .collect();
        for tag in dead {
            let Some(worker) = self.workers.remove(&tag) else {
                continue;
            };
            let ending = worker
                .pid
                .and_then(|pid| self.statuses.remove(&pid))
                .unwrap_or(Ending::Unknown);
            if let Some(pool) = worker.pool.upgrade() {
                pool.worker_gone(worker.index, tag, worker.pid.unwrap_or(0), ending);
            }
        }
        if self.workers.is_empty() {
            self.statuses.clear();
        }
    }
}

/// The signal that ends a worker which does not have to be asked.
pub(super) const KILL: Signal = Signal::KILL;

/// The pid as the kernel's type, when it is one.
pub(super) fn pid_of(raw: i32) -> Option<Pid> {
    Pid::from_raw(raw)
}
