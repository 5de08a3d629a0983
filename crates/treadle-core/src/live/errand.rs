//! What only the interpreter can tell, fetched by a thread that may wait for its lock as long as it likes while nobody waits for the thread.
//!
//! *Guarantees*: at most one thread is on its way; who asks waits no longer than it said; [`Errand::stop`] returns when none is on its way
//! and none will be.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::lock;
use super::picture::{Lock, Pool, Stacks};

/// The stack of a thread that runs Python: formatting tracebacks took less than 100 KiB on CPython 3.10, which uses the most.
const STACK_BYTES: usize = 1 << 20;

/// What the interpreter told, and how long its lock was waited for.
#[derive(Debug)]
pub struct Told<T> {
    /// What it told.
    pub found: T,
    /// How long its lock was waited for; `None` when it has none.
    pub waited: Option<Duration>,
}

/// The interpreter, as this module needs it. Each call may wait for the interpreter's lock for ever.
pub trait Interpreter: Send + Sync {
    /// The pools that only it can tell; `None` when it is ending.
    fn pools(&self) -> Option<Told<Vec<Pool>>>;
    /// What the workers of its pools do, with stacks; `None` when it is ending.
    fn stacks(&self) -> Option<Told<Vec<Stacks>>>;
}

#[derive(Debug)]
struct State<T> {
    /// Since when a thread has been on its way.
    since: Option<Instant>,
    /// How many have come back.
    returns: u64,
    /// What the last one brought, when, and what the wait for the lock was.
    latest: Option<(T, Instant)>,
    waited: Option<Duration>,
    stopped: bool,
}

/// A question to the interpreter, and its last answer.
#[derive(Debug)]
pub(super) struct Errand<T> {
    state: Mutex<State<T>>,
    bell: Condvar,
}

impl<T> Default for Errand<T> {
    fn default() -> Self {
        Errand {
            state: Mutex::new(State {
                since: None,
                returns: 0,
                latest: None,
                waited: None,
                stopped: false,
            }),
            bell: Condvar::new(),
        }
    }
}

/// The answer as far as there is one.
pub(super) struct Answer<T> {
    pub(super) lock: Lock,
    /// The last answer, and its age unless it is of this very question.
    pub(super) latest: Option<(T, Option<Duration>)>,
}

impl<T: Clone + Send + 'static> Errand<T> {
    /// Asks, and waits for the answer no longer than `patience`; one that comes later is kept for the next who asks.
    pub(super) fn ask(
        self: &Arc<Self>,
        patience: Duration,
        question: impl FnOnce() -> Option<Told<T>> + Send + 'static,
    ) -> Answer<T> {
        let mut state = lock(&self.state);
        let returns = state.returns;
        if state.since.is_none() && !state.stopped {
            state.since = Some(Instant::now());
            let this = self.clone();
            let carried = treadle_shm::spawn_quiet_sized("treadle-ask", STACK_BYTES, move || {
                // Also after a panic, which the interpreter's side may raise, somebody has come back.
                let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(question));
                this.came_back(found.ok().flatten());
            });
            if carried.is_err() {
                state.since = None;
            }
        }
        let (state, _) = self
            .bell
            .wait_timeout_while(state, patience, |state| {
                state.since.is_some() && state.returns == returns
            })
            .unwrap_or_else(PoisonError::into_inner);
        let fresh = state.returns != returns;
        let lock = match (fresh, state.since) {
            (false, Some(since)) => Lock {
                exists: true,
                free: false,
                waited_s: since.elapsed().as_secs_f64(),
            },
            _ => Lock {
                exists: state.waited.is_some(),
                free: true,
                waited_s: state.waited.map_or(0.0, |waited| waited.as_secs_f64()),
            },
        };
        let latest = state
            .latest
            .as_ref()
            .map(|(found, at)| (found.clone(), (!fresh).then(|| at.elapsed())));
        Answer { lock, latest }
    }

    fn came_back(&self, told: Option<Told<T>>) {
        let mut state = lock(&self.state);
        state.since = None;
        state.returns += 1;
        if let Some(told) = told {
            state.waited = told.waited;
            state.latest = Some((told.found, Instant::now()));
        }
        drop(state);
        self.bell.notify_all();
    }

    /// Sends no more threads and waits for the one on its way. The caller must not hold the interpreter's lock.
    pub(super) fn stop(&self) {
        let mut state = lock(&self.state);
        state.stopped = true;
        drop(
            self.bell
                .wait_while(state, |state| state.since.is_some())
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn told(found: u32) -> Option<Told<u32>> {
        Some(Told {
            found,
            waited: Some(Duration::from_millis(3)),
        })
    }

    /// Long enough for any machine; reached only by a failure.
    const WATCHDOG: Duration = Duration::from_secs(60);

    #[test]
    fn an_answer_in_time_is_fresh() {
        let errand: Arc<Errand<u32>> = Arc::default();
        let answer = errand.ask(WATCHDOG, || told(7));
        assert!(answer.lock.free && answer.lock.exists);
        assert_eq!(answer.lock.waited_s, 0.003);
        assert_eq!(answer.latest, Some((7, None)));
        errand.stop();
        let answer = errand.ask(WATCHDOG, || told(8));
        assert!(
            matches!(answer.latest, Some((7, Some(_)))),
            "nobody is sent after the stop"
        );
    }

    #[test]
    fn who_asks_does_not_wait_for_a_lock_that_is_held() {
        let errand: Arc<Errand<u32>> = Arc::default();
        let (free, held) = mpsc::channel::<()>();
        let answer = errand.ask(Duration::ZERO, move || {
            held.recv().ok()?;
            told(1)
        });
        assert!(!answer.lock.free && answer.lock.exists);
        assert_eq!(answer.latest, None);
        // A second question sends nobody: the first is still on its way.
        let again = errand.ask(Duration::ZERO, || unreachable!("one at a time"));
        assert!(!again.lock.free && again.lock.waited_s >= answer.lock.waited_s);
        free.send(()).unwrap();
        errand.stop();
        let late = errand.ask(Duration::ZERO, || told(2));
        assert!(
            matches!(late.latest, Some((1, Some(_)))),
            "what came late is kept"
        );
    }

    #[test]
    fn a_panic_on_the_way_is_a_return() {
        let errand: Arc<Errand<u32>> = Arc::default();
        let answer = errand.ask(WATCHDOG, || panic!("on purpose"));
        assert!(answer.lock.free && answer.latest.is_none());
        assert_eq!(errand.ask(WATCHDOG, || told(4)).latest, Some((4, None)));
    }
}
