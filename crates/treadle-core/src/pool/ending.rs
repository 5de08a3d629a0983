//! The end of a pool, and the next deadline before it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::deadlines::{DRAIN_LOOK, Kill, Why};
use super::processes::{Life, ProcessPool, Waited};
use super::{lock, nanoseconds};

/// Deadlines of tasks that have not begun are looked at no more often than this, however short they are: a look costs microseconds.
const FINEST_LOOK: Duration = Duration::from_millis(5);

impl ProcessPool {
    /// Takes no more tasks; when the last unfinished one has ended, the workers are asked to leave.
    pub fn begin_shutdown(&self) {
        if !self.is_mine() {
            return;
        }
        {
            let mut state = lock(&self.state);
            if state.life == Life::Open {
                state.life = if state.started {
                    Life::ShuttingDown
                } else {
                    Life::Ended
                };
            }
        }
        self.finish_shutdown_if_due();
        self.wake_collector();
    }

    pub(super) fn finish_shutdown_if_due(&self) {
        let mut state = lock(&self.state);
        if state.life != Life::ShuttingDown || self.unfinished.load(Ordering::SeqCst) > 0 {
            return;
        }
        let mut present = false;
        for (worker, seat) in (0u32..).zip(&mut state.seats) {
            if seat.tag != 0 {
                present = true;
                seat.asked_to_stop = true;
                self.request_stop(worker);
            }
        }
        if !present {
            state.life = Life::Ended;
            drop(state);
            self.board.ring_parent();
        }
    }

    /// Asks a worker to leave after what it has in hand.
    pub(super) fn request_stop(&self, worker: u32) {
        for lane in self.places.lanes_of(worker) {
            self.board.request_stop(lane);
        }
    }

    /// Sleeps until every worker of a pool that shuts down has left.
    pub fn wait_for_end(&self, deadline: Option<Instant>) -> Waited {
        let over = || lock(&self.state).life == Life::Ended;
        let nudges = self.nudges.load(Ordering::SeqCst);
        loop {
            if over() {
                return Waited::Done;
            }
            self.drain();
            match self.sleep(0, deadline, over) {
                Waited::Done if self.nudges.load(Ordering::SeqCst) != nudges && !over() => {
                    return Waited::Interrupted;
                }
                Waited::Done => {}
                other => return other,
            }
        }
    }

    /// Why the pool is broken, if it is.
    pub fn broken(&self) -> Option<Arc<str>> {
        lock(&self.state).broken.clone()
    }

    /// How soon a timed task can be over its time, or an interrupted one must be killed.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let due = |kill: &Kill| kill.again.map_or(kill.at, |(again, _)| kill.at.min(again));
        let mut next = state.kills.iter().map(due).min();
        if state.timed > 0 {
            let now = Instant::now();
            let now_ns = treadle_shm::monotonic_nanoseconds();
            // A timed task that begins later than now ends later than this.
            let mut soonest = now.checked_add(state.shortest_timeout.max(FINEST_LOOK));
            for place in self.places.all() {
                let id = self.board.current_task(place);
                let Some(timeout) = state.tasks.get(id).and_then(|task| task.options.timeout)
                else {
                    continue;
                };
                if state
                    .kills
                    .iter()
                    .any(|kill| kill.task == id && kill.why == Why::TimedOut)
                {
                    // Its worker is being killed: its end is what comes next.
                    continue;
                }
                let ran = now_ns.saturating_sub(self.board.task_started_at(place));
                let left = Duration::from_nanos(nanoseconds(timeout).saturating_sub(ran));
                soonest = soonest.min(now.checked_add(left)).or(soonest);
            }
            next = match (next, soonest) {
                (Some(first), Some(second)) => Some(first.min(second)),
                (first, second) => first.or(second),
            };
        }
        if state.seats.iter().any(|seat| !seat.overdue.is_empty()) {
            let look = Instant::now() + DRAIN_LOOK;
            next = Some(next.map_or(look, |next| next.min(look)));
        }
        next
    }
}
