//! `_core.ThreadPool`: the queue of a pool of threads and the loop that each thread runs.
//!
//! A thread takes one job at a time while it holds the interpreter's lock and gives the lock up only to sleep; the switch interval then batches
//! submissions and runs by itself.

use std::cell::RefCell;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PyTuple};
use treadle_core::live::desk::Source as Shown;
use treadle_core::live::picture::{self, Pool, Worker};
use treadle_core::pool::cell::Phase;
use treadle_core::pool::forks;
use treadle_core::pool::meter::Histogram;
use treadle_core::pool::threads::{Found, Queue};

use crate::future::{FutureBase, Local, Source, lock, new_future};
use crate::names::name_of;
use crate::pickling;
use crate::processes::histogram;

/// What a forked child is told that uses its parent's pool.
const FORKED: &str = "this executor was made before this process was forked, and its threads are not in this process\n\n\
     hint: make an executor of its own in the forked process";

struct Job {
    function: Py<PyAny>,
    arguments: Py<PyTuple>,
    keywords: Option<Py<PyDict>>,
    future: Py<FutureBase>,
    retries: u32,
    timeout: Option<f64>,
    submitted: Instant,
}

/// One thread's job at this moment.
struct Running {
    thread: u64,
    since: Instant,
    future: Py<FutureBase>,
    /// The time that it may take in seconds, and the function, to name it when it takes longer.
    timeout: Option<(f64, Py<PyAny>)>,
    overdue: bool,
    /// What is called.
    name: &'static str,
}

/// A thread that works for the pool.
struct Member {
    /// Which thread of its pool, counted from 0.
    number: u64,
    /// As Python numbers it, and as the system does.
    ident: u64,
    native: u32,
    /// Jobs that it has taken from the queue and ended.
    done: AtomicU64,
}

#[derive(Default)]
struct Counts {
    submitted: u64,
    done: u64,
    retried: u64,
    timed_out: u64,
    /// From submission to start, and from there to the end.
    wait: Histogram,
    duration: Histogram,
}

/// Bounds, counts and sum.
type Meter = (Vec<f64>, Vec<u64>, f64);

/// The queue and the meters of a pool of threads.
#[pyclass(frozen, module = "treadle._core")]
pub(crate) struct ThreadPool {
    inner: Arc<Inner>,
}

/// What a pool is made of. A watcher looks at it without the interpreter's lock: no lock in here is held while that one is waited for.
pub(crate) struct Inner {
    queue: Queue<Job>,
    running: Mutex<Vec<Running>>,
    counts: Mutex<Counts>,
    members: Mutex<Vec<Arc<Member>>>,
    /// How many threads have ever worked for it.
    joined: AtomicU64,
    /// How many forks lay before the process that made it: a forked child has the queue and none of the threads.
    forks: u32,
}

impl Deref for ThreadPool {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl Shown for Inner {
    fn look(&self, pool: &mut Pool) -> bool {
        if self.forks != forks() {
            return false;
        }
        let members = lock(&self.members).clone();
        let closed = self.queue.is_closed();
        if closed && members.is_empty() {
            return false;
        }
        pool.queued = self.queue.len() as u64;
        pool.oldest_s = self
            .queue
            .with_first(|job| job.submitted.elapsed().as_secs_f64());
        pool.closing = closed;
        {
            let counts = lock(&self.counts);
            pool.submitted = counts.submitted;
            pool.completed = counts.done;
            pool.retried = counts.retried;
            pool.timed_out = counts.timed_out;
            pool.wait = Some(picture::Histogram::from(&counts.wait));
            pool.duration = Some(picture::Histogram::from(&counts.duration));
        }
        pool.workers = members.iter().map(|member| self.worker(member)).collect();
        let busy = |worker: &&Worker| worker.state != "idle";
        pool.running = pool.workers.iter().filter(busy).count() as u64;
        true
    }

    fn stacks(&self) -> Option<picture::Stacks> {
        None
    }
}

impl Inner {
    fn worker(&self, member: &Member) -> Worker {
        let used = treadle_probe::process::usage_of_thread(member.native);
        let mut worker = Worker {
            worker: member.number,
            ident: u64::from(member.native),
            state: "idle".to_owned(),
            tasks: Some(member.done.load(Ordering::Relaxed)),
            cpu_s: used.map(|used| used.cpu_s),
            ..Worker::default()
        };
        let running = lock(&self.running);
        // The last one: it may wait for one that it runs inside.
        if let Some(mine) = running
            .iter()
            .rfind(|running| running.thread == member.ident)
        {
            let state = if mine.overdue { "overdue" } else { "busy" };
            worker.state = state.to_owned();
            worker.function = Some(mine.name.to_owned());
            worker.running_s = mine.since.elapsed().as_secs_f64();
        }
        worker
    }

    fn join(&self, ident: u64) -> Arc<Member> {
        let member = Arc::new(Member {
            number: self.joined.fetch_add(1, Ordering::Relaxed),
            ident,
            native: rustix::thread::gettid()
                .as_raw_nonzero()
                .get()
                .unsigned_abs(),
            done: AtomicU64::new(0),
        });
        lock(&self.members).push(member.clone());
        member
    }

    fn leave(&self, member: &Arc<Member>) {
        lock(&self.members).retain(|other| !Arc::ptr_eq(other, member));
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn raised(py: Python<'_>, error: PyErr) -> Py<PyAny> {
    error.into_value(py).into_any()
}

impl ThreadPool {
    /// What a watcher looks at.
    pub(crate) fn inner(&self) -> Arc<Inner> {
        self.inner.clone()
    }

    /// Runs one job on this thread. True when its time-out had struck meanwhile, and another thread works in this one's place.
    fn run(&self, py: Python<'_>, thread: u64, job: Job) -> PyResult<bool> {
        let future = job.future.bind(py);
        let Some(local) = future.get().local() else {
            return Ok(false);
        };
        if !local.cell.start() {
            return Ok(false);
        }
        let name = name_of(job.function.bind(py));
        let began = Instant::now();
        lock(&self.running).push(Running {
            thread,
            since: began,
            future: job.future.clone_ref(py),
            timeout: job
                .timeout
                .map(|seconds| (seconds, job.function.clone_ref(py))),
            overdue: false,
            name,
        });
        let mut retries = job.retries;
        let outcome = loop {
            match call(py, &job) {
                Ok(value) => break Ok(value),
                Err(error) if retries > 0 && may_run_again(py, &error)? => {
                    retries -= 1;
                    lock(&self.counts).retried += 1;
                    let mut running = lock(&self.running);
                    match running.iter_mut().rfind(|running| running.thread == thread) {
                        Some(mine) if !mine.overdue => mine.since = Instant::now(),
                        _ => break Err(raised(py, error)),
                    }
                }
                Err(error) => break Err(raised(py, error)),
            }
        };
        let mine = {
            let mut running = lock(&self.running);
            // The last one: a job that waits for a job of its own pool runs that one inside.
            let place = running.iter().rposition(|running| running.thread == thread);
            place.map(|place| running.remove(place))
        };
        {
            let mut counts = lock(&self.counts);
            counts.done += 1;
            counts.wait.add(nanoseconds(began - job.submitted));
            counts.duration.add(nanoseconds(began.elapsed()));
        }
        FutureBase::finish_local(future, outcome)?;
        Ok(mine.is_some_and(|mine| mine.overdue))
    }
}

thread_local! {
    /// The pool for which this thread works, and the thread's number in Python.
    static WORKING: RefCell<Option<(Py<ThreadPool>, u64)>> = const { RefCell::new(None) };
}

/// While it lives, this thread works for a pool.
struct Working {
    pool: Arc<Inner>,
    member: Arc<Member>,
}

impl Working {
    fn begin(pool: &Bound<'_, ThreadPool>, thread: u64) -> Working {
        WORKING.replace(Some((pool.clone().unbind(), thread)));
        let pool = pool.get().inner();
        let member = pool.join(thread);
        Working { pool, member }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.pool.leave(&self.member);
        drop(WORKING.take());
    }
}

/// A worker is about to sleep until this future ends: if its job still waits in the worker's own pool, the job runs here and now. So a job
/// that waits for another of its pool does not wait for ever for a worker that is waiting itself. Only the awaited job is run: any other could
/// wait for something that this thread holds.
pub(crate) fn run_awaited(py: Python<'_>, future: &Bound<'_, FutureBase>) -> PyResult<()> {
    let working = WORKING.with_borrow(|working| {
        working
            .as_ref()
            .map(|(pool, thread)| (pool.clone_ref(py), *thread))
    });
    let Some((pool, thread)) = working else {
        return Ok(());
    };
    let pool = pool.get();
    match pool.queue.take_where(|job| job.future.is(future)) {
        Some(job) => pool.run(py, thread, job).map(drop),
        None => Ok(()),
    }
}

/// Runs the job of this future here and now if it waits in the pool for which this thread works; see [`run_awaited`]. False when the thread works
/// for no pool.
#[pyfunction]
pub(crate) fn run_if_waiting(py: Python<'_>, future: &Bound<'_, FutureBase>) -> PyResult<bool> {
    let works = WORKING.with_borrow(Option::is_some);
    if works {
        run_awaited(py, future)?;
    }
    Ok(works)
}

/// The waiters of a future, handed to a thread of a pool, which is about to wait for the future in the standard library's `wait` or
/// `as_completed`: it is to run the job itself then, if the job waits in its own pool. Any other thread gets the list itself.
pub(crate) fn waiters_of<'py>(
    future: &Bound<'py, FutureBase>,
    list: Bound<'py, PyList>,
) -> PyResult<Bound<'py, PyAny>> {
    let works = WORKING.with_borrow(Option::is_some);
    if !works || future.get().local().is_none() || future.get().phase() != Phase::Pending {
        return Ok(list.into_any());
    }
    let waiters = HelpedWaiters {
        list: list.unbind(),
        future: future.clone().unbind(),
    };
    Ok(Bound::new(future.py(), waiters)?.into_any())
}

/// What the standard library's functions see of a future's waiters in a thread of a pool: they add one and remove it.
#[pyclass(frozen, module = "treadle._core")]
pub(crate) struct HelpedWaiters {
    list: Py<PyList>,
    future: Py<FutureBase>,
}

#[pymethods]
impl HelpedWaiters {
    fn append(&self, waiter: Bound<'_, PyAny>) -> PyResult<()> {
        let py = waiter.py();
        pickling::payload(py, "help_while_waiting")?.call1((&waiter, &self.future))?;
        self.list.bind(py).append(waiter)
    }

    fn remove(&self, waiter: Bound<'_, PyAny>) -> PyResult<()> {
        self.list
            .bind(waiter.py())
            .call_method1("remove", (waiter,))
            .map(drop)
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.list.bind(py).len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.list.bind(py).try_iter()
    }
}

/// Whether a call that raised this is tried again: not when it was interrupted, or when it asked the program to end.
fn may_run_again(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    pickling::payload(py, "may_run_again")?
        .call1((error.value(py),))?
        .extract()
}

fn call(py: Python<'_>, job: &Job) -> PyResult<Py<PyAny>> {
    let result = job.function.bind(py).call(
        job.arguments.bind(py),
        job.keywords.as_ref().map(|keywords| keywords.bind(py)),
    )?;
    if is_coroutine(&result) {
        return Ok(pickling::payload(py, "run_coroutine")?
            .call1((result,))?
            .unbind());
    }
    Ok(result.unbind())
}

/// Whether a call returned a coroutine that has to be awaited.
pub(crate) fn is_coroutine(value: &Bound<'_, PyAny>) -> bool {
    static COROUTINE: pyo3::sync::PyOnceLock<Py<PyAny>> = pyo3::sync::PyOnceLock::new();
    let py = value.py();
    let class = COROUTINE.get_or_try_init(py, || {
        Ok::<_, PyErr>(
            PyModule::import(py, "types")?
                .getattr("CoroutineType")?
                .unbind(),
        )
    });
    class.is_ok_and(|class| value.get_type().is(class.bind(py)))
}

#[pymethods]
impl ThreadPool {
    #[new]
    fn new() -> ThreadPool {
        ThreadPool {
            inner: Arc::new(Inner {
                queue: Queue::default(),
                running: Mutex::default(),
                counts: Mutex::default(),
                members: Mutex::default(),
                joined: AtomicU64::new(0),
                forks: forks(),
            }),
        }
    }

    /// Submits `function(*arguments, **keywords)`; returns the future and how many threads sleep. `None` when the pool is closed.
    #[pyo3(signature = (function, arguments, keywords, timeout, retries))]
    pub(crate) fn submit<'py>(
        &self,
        py: Python<'py>,
        function: Py<PyAny>,
        arguments: Py<PyTuple>,
        keywords: Option<Py<PyDict>>,
        timeout: Option<f64>,
        retries: u32,
    ) -> PyResult<Option<(Bound<'py, FutureBase>, usize)>> {
        if self.forks != forks() {
            let error = pickling::payload(py, "forked")?.call1((FORKED,))?;
            return Err(PyErr::from_value(error));
        }
        let future = new_future(py, Source::Local(Local::default()))?;
        let job = Job {
            function,
            arguments,
            keywords,
            future: future.clone().unbind(),
            retries,
            timeout,
            submitted: Instant::now(),
        };
        match self.queue.put(job) {
            Ok(idle) => {
                lock(&self.counts).submitted += 1;
                Ok(Some((future, idle)))
            }
            Err(_) => Ok(None),
        }
    }

    /// Runs jobs until the pool is closed and empty (true), or until a job of this thread was replaced because its time was over (false).
    fn work(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let (this, py) = (slf.get(), slf.py());
        let thread = PyModule::import(py, "_thread")?
            .call_method0("get_ident")?
            .extract()?;
        let working = Working::begin(slf, thread);
        loop {
            match this.queue.take_now() {
                Found::Job(job) => {
                    let replaced = this.run(py, thread, job)?;
                    working.member.done.fetch_add(1, Ordering::Relaxed);
                    if replaced {
                        return Ok(false);
                    }
                }
                Found::Closed => return Ok(true),
                Found::Empty => {
                    py.detach(|| this.queue.sleep(None));
                }
            }
        }
    }

    /// Takes no more jobs.
    fn close(&self) {
        // In a forked child a thread that is not there may hold the queue's lock.
        if self.forks == forks() {
            self.queue.close();
        }
    }

    /// Cancels every job that waits; returns how many.
    fn cancel_all(&self, py: Python<'_>) -> PyResult<usize> {
        let jobs = self.queue.take_all();
        for job in &jobs {
            job.future.bind(py).call_method0("cancel")?;
        }
        Ok(jobs.len())
    }

    /// Ends every job that waits with this exception.
    fn fail_all(&self, py: Python<'_>, error: Bound<'_, PyBaseException>) -> PyResult<()> {
        for job in self.queue.take_all() {
            FutureBase::finish_local(job.future.bind(py), Err(error.clone().into_any().unbind()))?;
        }
        Ok(())
    }

    /// Ends the futures of jobs that are over their time. Returns the threads to replace and the seconds to the next deadline.
    fn expire(&self, py: Python<'_>) -> PyResult<(Vec<u64>, Option<f64>)> {
        let mut struck = Vec::new();
        let mut next: Option<Duration> = None;
        {
            let now = Instant::now();
            for running in lock(&self.running)
                .iter_mut()
                .filter(|running| !running.overdue)
            {
                let Some((limit, function)) = &running.timeout else {
                    continue;
                };
                let ran = now.duration_since(running.since);
                let limit_duration = Duration::try_from_secs_f64(*limit).unwrap_or(Duration::MAX);
                if ran >= limit_duration {
                    running.overdue = true;
                    struck.push((
                        running.thread,
                        *limit,
                        function.clone_ref(py),
                        running.future.clone_ref(py),
                    ));
                } else {
                    let left = limit_duration - ran;
                    next = Some(next.map_or(left, |next| next.min(left)));
                }
            }
        }
        let mut threads = Vec::new();
        for (thread, limit, function, future) in struck {
            threads.push(thread);
            lock(&self.counts).timed_out += 1;
            let error =
                pickling::payload(py, "thread_timed_out")?.call1((limit, thread, function))?;
            FutureBase::finish_local(future.bind(py), Err(error.unbind()))?;
        }
        Ok((threads, next.map(|next| next.as_secs_f64())))
    }

    /// `(thread, seconds)` of every job that runs now; a job over its time is told by a negative number.
    fn running(&self) -> Vec<(u64, f64)> {
        let now = Instant::now();
        lock(&self.running)
            .iter()
            .map(|running| {
                let seconds = now.duration_since(running.since).as_secs_f64();
                (
                    running.thread,
                    if running.overdue { -seconds } else { seconds },
                )
            })
            .collect()
    }

    /// The thread that runs this future's job.
    fn thread_of(&self, future: &Bound<'_, FutureBase>) -> Option<u64> {
        lock(&self.running)
            .iter()
            .find(|running| running.future.is(future))
            .map(|running| running.thread)
    }

    /// `(age of the oldest waiting job in seconds, histogram from submission to start, histogram from start to end)`.
    fn meters(&self) -> (Option<f64>, Meter, Meter) {
        let oldest = self
            .queue
            .with_first(|job| job.submitted.elapsed().as_secs_f64());
        let counts = lock(&self.counts);
        (oldest, histogram(&counts.wait), histogram(&counts.duration))
    }

    /// `(submitted, done, retried, timed out, waiting)`.
    fn counts(&self) -> (u64, u64, u64, u64, usize) {
        let waiting = self.queue.len();
        let counts = lock(&self.counts);
        (
            counts.submitted,
            counts.done,
            counts.retried,
            counts.timed_out,
            waiting,
        )
    }
}
