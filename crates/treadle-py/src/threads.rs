//! `_core.ThreadPool`: the queue of a pool of threads and the loop that each thread runs.
//!
//! A thread takes one job at a time while it holds the interpreter's lock and gives the lock up only to sleep; the switch interval then batches
//! submissions and runs by itself.

use std::cell::RefCell;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PyTuple};
use treadle_core::live::desk::Source as Shown;
use treadle_core::live::picture::{self, Pool, Worker};
use treadle_core::pool::cell::Phase;
use treadle_core::pool::forks;
use treadle_core::pool::threads::{Found, Queue, Refused};
use treadle_shm::monotonic_nanoseconds;

use crate::future::{FutureBase, Local, Source, new_future};
use crate::names::{self, name_of};
use crate::outcome::no_memory;
use crate::pickling;
use crate::station::{Crew, Seen, Station};
use crate::task_meters::{self, TimesTold};

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
    submitted_ns: u64,
}

/// The queue and the meters of a pool of threads.
#[pyclass(frozen, module = "treadle._core")]
pub(crate) struct ThreadPool {
    inner: Arc<Inner>,
}

/// What a pool is made of. A watcher looks at it without the interpreter's lock: no lock in here is held while that one is waited for.
pub(crate) struct Inner {
    queue: Queue<Job>,
    crew: Crew,
    timed_out: AtomicU64,
    /// As many threads live as are planned: nobody needs to be asked for one more.
    complete: AtomicBool,
    /// How many forks lay before the process that made it: a forked child has the queue and none of the threads.
    forks: u32,
    /// Whether times are counted; off only to measure what that costs.
    metered: bool,
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
        let seen = self.crew.look();
        let closed = self.queue.is_closed();
        if closed && seen.is_empty() {
            return false;
        }
        let totals = self.crew.totals();
        let now_ns = monotonic_nanoseconds();
        pool.submitted = self.queue.entered();
        pool.completed = totals.done;
        pool.retried = totals.retried;
        pool.timed_out = self.timed_out.load(Ordering::Relaxed);
        pool.queued = self.queue.len() as u64;
        pool.oldest_s = self
            .queue
            .with_first(|job| now_ns.saturating_sub(job.submitted_ns) as f64 / 1e9);
        pool.closing = closed;
        let (wait, duration) = self.crew.times();
        pool.wait = Some(picture::Histogram::from(&wait));
        pool.duration = Some(picture::Histogram::from(&duration));
        pool.workers = seen.iter().map(|seen| worker(seen, now_ns)).collect();
        pool.running = seen.iter().filter(|seen| seen.job.is_some()).count() as u64;
        // The counts are read one after the other, while tasks end.
        let others = pool.completed + pool.queued + pool.running;
        pool.cancelled = pool.submitted.saturating_sub(others);
        true
    }

    fn stacks(&self) -> Option<picture::Stacks> {
        None
    }
}

fn worker(seen: &Seen, now_ns: u64) -> Worker {
    let used = treadle_probe::process::usage_of_thread(seen.native);
    let state = match &seen.job {
        None => "idle",
        Some(job) if job.overdue => "overdue",
        Some(_) => "busy",
    };
    Worker {
        worker: seen.number,
        ident: u64::from(seen.native),
        state: state.to_owned(),
        function: seen
            .job
            .as_ref()
            .map(|job| names::text(job.name).to_owned()),
        running_s: seen
            .job
            .as_ref()
            .map_or(0.0, |job| now_ns.saturating_sub(job.since_ns) as f64 / 1e9),
        tasks: Some(seen.done),
        cpu_s: used.map(|used| used.cpu_s),
        ..Worker::default()
    }
}

/// How a job ended for its thread.
#[derive(Default)]
struct Ran {
    /// Its time-out had struck meanwhile, and another thread works in this one's place.
    overdue: bool,
    /// When it ended, if nothing that takes time has happened since: the next job begins then.
    ended_ns: Option<u64>,
}

fn raised(py: Python<'_>, error: PyErr) -> Py<PyAny> {
    error.into_value(py).into_any()
}

impl ThreadPool {
    /// What a watcher looks at.
    pub(crate) fn inner(&self) -> Arc<Inner> {
        Arc::clone(&self.inner)
    }

    /// Runs one job on this thread, from `began_ns` on if that is known.
    fn run(
        &self,
        py: Python<'_>,
        station: &Station,
        job: Job,
        began_ns: Option<u64>,
    ) -> PyResult<Ran> {
        let Job {
            function,
            arguments,
            keywords,
            future,
            mut retries,
            timeout,
            submitted_ns,
        } = job;
        let future = future.bind(py);
        let Some(local) = future.get().local() else {
            return Ok(Ran::default());
        };
        if !local.cell.start() {
            return Ok(Ran::default());
        }
        let began_ns = match began_ns {
            Some(began_ns) if self.metered => began_ns,
            _ if timeout.is_some() => monotonic_nanoseconds(),
            _ => self.clock(),
        };
        let wait_ns = began_ns.saturating_sub(submitted_ns);
        let limit = timeout.map(|seconds| (seconds, &function));
        let name = name_of(function.bind(py));
        let place = station.begin(future, name, limit, began_ns);
        let outcome = loop {
            let error = match call(py, &function, &arguments, keywords.as_ref()) {
                Ok(value) => break Ok(value),
                Err(error) => error,
            };
            if retries == 0 {
                break Err(raised(py, error));
            }
            match may_run_again(py, &error) {
                Ok(true) => retries -= 1,
                Ok(false) => break Err(raised(py, error)),
                Err(second) => break Err(raised(py, second)),
            }
            if !station.again(place, monotonic_nanoseconds()) {
                break Err(raised(py, error));
            }
        };
        let times = self
            .metered
            .then(|| self.times_of(station, function.bind(py)));
        // What it was called with goes before the clock is read: the next job shall not pay for it.
        drop((function, arguments, keywords));
        let ended_ns = self.clock();
        let duration_ns = ended_ns.saturating_sub(began_ns);
        let overdue = station.end(place, times.map(|times| (times, wait_ns, duration_ns)));
        let told = FutureBase::end_local(future, outcome)?;
        Ok(Ran {
            overdue,
            ended_ns: (!told).then_some(ended_ns),
        })
    }

    /// Where this thread counts the times of a function.
    fn times_of(&self, station: &Station, function: &Bound<'_, PyAny>) -> usize {
        let key = task_meters::key(function);
        if let Some(place) = station.times_of(key) {
            return place;
        }
        let place = match self.crew.function(key) {
            Some(place) => place,
            None => self.crew.enter_function(task_meters::named(function)),
        };
        station.learn(key, place);
        place
    }

    /// The time, for the meters; nothing where there are none.
    fn clock(&self) -> u64 {
        if self.metered {
            monotonic_nanoseconds()
        } else {
            0
        }
    }
}

thread_local! {
    /// The pool for which this thread works, and its place there.
    static WORKING: RefCell<Option<(Py<ThreadPool>, Arc<Station>)>> = const { RefCell::new(None) };
}

/// While it lives, this thread works for a pool.
struct Working<'py> {
    pool: Bound<'py, ThreadPool>,
    station: Arc<Station>,
}

impl<'py> Working<'py> {
    fn begin(pool: &Bound<'py, ThreadPool>, thread: u64) -> Working<'py> {
        let station = pool.get().crew.enter(thread);
        WORKING.replace(Some((pool.clone().unbind(), Arc::clone(&station))));
        Working {
            pool: pool.clone(),
            station,
        }
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        drop(WORKING.take());
        self.pool.get().crew.leave(&self.station);
    }
}

/// A worker is about to sleep until this future ends: if its job still waits in the worker's own pool, the job runs here and now. So a job
/// that waits for another of its pool does not wait for ever for a worker that is waiting itself. Only the awaited job is run: any other could
/// wait for something that this thread holds.
pub(crate) fn run_awaited(py: Python<'_>, future: &Bound<'_, FutureBase>) -> PyResult<()> {
    let working = WORKING.with_borrow(|working| {
        working
            .as_ref()
            .map(|(pool, station)| (pool.clone_ref(py), Arc::clone(station)))
    });
    let Some((pool, station)) = working else {
        return Ok(());
    };
    let pool = pool.get();
    match pool.queue.take_where(|job| job.future.is(future)) {
        Some(job) => pool.run(py, &station, job, None).map(drop),
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
        PyModule::import(py, "treadle._helping")?
            .call_method1("help_while_waiting", (&waiter, &self.future))?;
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
    pickling::outcome(py, "may_run_again")?
        .call1((error.value(py),))?
        .extract()
}

fn call(
    py: Python<'_>,
    function: &Py<PyAny>,
    arguments: &Py<PyTuple>,
    keywords: Option<&Py<PyDict>>,
) -> PyResult<Py<PyAny>> {
    let keywords = keywords.map(|keywords| keywords.bind(py));
    let result = function.bind(py).call(arguments.bind(py), keywords)?;
    if is_coroutine(&result) {
        return Ok(pickling::run_coroutine(result)?.unbind());
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
    #[pyo3(signature = (metered=true))]
    fn new(metered: bool) -> ThreadPool {
        ThreadPool {
            inner: Arc::new(Inner {
                queue: Queue::default(),
                crew: Crew::default(),
                timed_out: AtomicU64::new(0),
                complete: AtomicBool::new(false),
                forks: forks(),
                metered,
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
            submitted_ns: self.clock(),
        };
        match self.queue.put(job) {
            Ok(idle) => Ok(Some((future, idle))),
            Err(Refused::Closed(_)) => Ok(None),
            Err(Refused::NoMemory(_)) => Err(no_memory()),
        }
    }

    /// Says whether as many threads live as are planned.
    fn set_complete(&self, complete: bool) {
        self.complete.store(complete, Ordering::Relaxed);
    }

    /// Runs jobs until the pool is closed and empty (true), or until a job of this thread was replaced because its time was over (false).
    fn work(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let (this, py) = (slf.get(), slf.py());
        let thread = PyModule::import(py, "_thread")?
            .call_method0("get_ident")?
            .extract()?;
        let working = Working::begin(slf, thread);
        let mut began_ns = None;
        loop {
            match this.queue.take_now() {
                Found::Job(job) => {
                    let ran = this.run(py, &working.station, job, began_ns)?;
                    if ran.overdue {
                        return Ok(false);
                    }
                    began_ns = ran.ended_ns;
                }
                Found::Closed => return Ok(true),
                Found::Empty => {
                    py.detach(|| this.queue.sleep(None));
                    began_ns = None;
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
        let (struck, next_ns) = self.crew.strike(py, monotonic_nanoseconds());
        let mut threads = Vec::new();
        for job in struck {
            threads.push(job.thread);
            self.timed_out.fetch_add(1, Ordering::Relaxed);
            let error = pickling::payload(py, "thread_timed_out")?.call1((
                job.limit_s,
                job.thread,
                job.function,
            ))?;
            FutureBase::finish_local(job.future.bind(py), Err(error.unbind()))?;
        }
        Ok((threads, next_ns.map(|next_ns| next_ns as f64 / 1e9)))
    }

    /// `(thread, seconds)` of every job that runs now; a job over its time is told by a negative number.
    fn running(&self) -> Vec<(u64, f64)> {
        let running = self.crew.running();
        let now_ns = monotonic_nanoseconds();
        running
            .into_iter()
            .map(|(thread, since_ns, overdue)| {
                let seconds = now_ns.saturating_sub(since_ns) as f64 / 1e9;
                (thread, if overdue { -seconds } else { seconds })
            })
            .collect()
    }

    /// The thread that runs this future's job.
    fn thread_of(&self, future: &Bound<'_, FutureBase>) -> Option<u64> {
        self.crew.thread_of(future)
    }

    /// The age of the oldest waiting job in seconds, and of every function that has ended jobs `(name, histogram from submission to start,
    /// histogram from start to end)`.
    fn meters(&self) -> (Option<f64>, Vec<TimesTold>) {
        let oldest = self.queue.with_first(|job| {
            monotonic_nanoseconds().saturating_sub(job.submitted_ns) as f64 / 1e9
        });
        (oldest, self.crew.functions())
    }

    /// `(submitted, done, retried, timed out, waiting)`.
    fn counts(&self) -> (u64, u64, u64, u64, usize) {
        let waiting = self.queue.len();
        let totals = self.crew.totals();
        (
            self.queue.entered(),
            totals.done,
            totals.retried,
            self.timed_out.load(Ordering::Relaxed),
            waiting,
        )
    }
}

impl ThreadPool {
    /// Whether a submission that found so many idle threads asks for one more.
    pub(crate) fn wants_thread(&self, idle: usize) -> bool {
        idle == 0 && !self.complete.load(Ordering::Relaxed)
    }
}
