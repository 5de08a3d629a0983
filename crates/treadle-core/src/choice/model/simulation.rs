//! The simulation: recorded tasks replayed through locks, cores, loops and the parent, event by event.
//!
//! ```text
//! parent: submit ─► queue ─► slot: stretch, stretch, … ─► parent: book
//!                             │ Held     its process's lock, then a core
//!                             │ Free     a core (or several, with native helpers)
//!                             │ Wait     time
//! ```
//!
//! *Rules*: cores are shared equally by all stretches that compute, never more than one each. Whoever finds the lock taken queues in
//! order; a holder that others queue for is told to drop it 5 ms after it took it or after the first of them came, whichever is
//! later, and goes to the end of the queue; it drops it by itself before it waits or computes without it. The slots of a loop take
//! turns on one thread, in the order in which they became ready. The parent submits while its window has room, books when it has not,
//! and sleeps when there is nothing to book.
//!
//! *Guarantees*: the same seed gives the same numbers on every machine; no stretch runs faster than alone.
//! *Assumes*: waking up and switching take no time beyond what the hand-over's cost holds.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::route::Route;
use super::script::{Need, Script, Stretch};

/// After so long a thread asks the lock's holder to drop it (`sys.getswitchinterval`, CPython's default).
pub(super) const SWITCH_INTERVAL_S: f64 = 0.005;
/// Work that the trial keeps waiting beyond its window, in seconds at the present rate (`QUEUED_S` of the laboratory's trial).
const QUEUED_S: f64 = 0.02;
/// Fewest tasks that it keeps waiting (`QUEUED` of the laboratory's trial).
const QUEUED: f64 = 2.0;
/// Events after which a run ends as it stands: a hundred times what the longest of ours takes.
const MOST_EVENTS: u64 = 5_000_000;

/// How long a run is and what it starts with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    /// Usable cores.
    pub(super) cores: f64,
    /// Whether there is an interpreter lock.
    pub(super) locked: bool,
    /// Units that end before counting begins.
    pub(super) skipped: u64,
    /// Units that are counted.
    pub(super) counted: u64,
    /// Whether the supply ends with the counted ones (a batch), or goes on beyond them.
    pub(super) finite: bool,
    /// Seconds until process k (from 0) is there: `(k / abreast + 1) * start_s`.
    pub(super) start_s: f64,
    /// Processes that start at the same time.
    pub(super) abreast: f64,
}

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outcome {
    /// Counted units per second.
    pub(super) per_s: f64,
    /// Seconds from the start until the last unit was booked.
    pub(super) end_s: f64,
}

const PARENT: usize = 0;

/// Where an actor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing to do.
    Idle,
    /// In a queue.
    Queued,
    /// In a stretch.
    Running,
}

/// What the parent is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errand {
    Submit,
    Book,
}

/// The parent or one slot.
#[derive(Debug, Clone)]
struct Actor {
    process: usize,
    state: State,
    unit: u64,
    next: usize,
    stretch: Stretch,
    /// Virtual end of a stretch that computes.
    end: f64,
    generation: u32,
    has_lock: bool,
    has_turn: bool,
}

/// A queue for something that one at a time may have.
#[derive(Debug, Clone, Default)]
struct Turnstile {
    holder: Option<usize>,
    queue: VecDeque<usize>,
    generation: u32,
    asked: bool,
}

/// An entry of a heap: time (positive floats order as their bits do), then what happens.
type Entry = Reverse<(u64, u32, u32)>;

fn key(time: f64) -> u64 {
    time.max(0.0).to_bits()
}

struct Simulation<'a> {
    route: &'a Route,
    script: &'a Script,
    course: Course,
    now: f64,
    virtual_now: f64,
    load: f64,
    actors: Vec<Actor>,
    locks: Vec<Turnstile>,
    loops: Vec<Turnstile>,
    computing: BinaryHeap<Entry>,
    timed: BinaryHeap<Entry>,
    alarms: BinaryHeap<Entry>,
    idle: Vec<usize>,
    errand: Errand,
    submitted: u64,
    taken: u64,
    completed: u64,
    booked: u64,
    ended: VecDeque<bool>,
    mark: f64,
    last: f64,
}

/// Runs the units of `script` along `route`.
pub(super) fn run(route: &Route, script: &Script, course: Course) -> Outcome {
    let workers = route.workers() as usize;
    let own_process = route.processes as usize;
    let parent_process = if route.parent_inside { 0 } else { own_process };
    let blank = Actor {
        process: 0,
        state: State::Idle,
        unit: 0,
        next: 0,
        stretch: Stretch {
            need: Need::Wait,
            seconds: 0.0,
            width: 0.0,
        },
        end: 0.0,
        generation: 0,
        has_lock: false,
        has_turn: false,
    };
    let mut actors = vec![
        Actor {
            process: parent_process,
            ..blank.clone()
        };
        1
    ];
    actors.extend((0..workers).map(|worker| Actor {
        process: worker / route.slots.max(1) as usize,
        ..blank.clone()
    }));
    let mut simulation = Simulation {
        route,
        script,
        course,
        now: 0.0,
        virtual_now: 0.0,
        load: 0.0,
        actors,
        locks: vec![Turnstile::default(); own_process + 1],
        loops: vec![Turnstile::default(); own_process],
        computing: BinaryHeap::with_capacity(workers + 1),
        timed: BinaryHeap::with_capacity(workers + 1),
        alarms: BinaryHeap::new(),
        idle: Vec::with_capacity(workers),
        errand: Errand::Submit,
        submitted: 0,
        taken: 0,
        completed: 0,
        booked: 0,
        ended: VecDeque::new(),
        mark: 0.0,
        last: 0.0,
    };
    simulation.play()
}

impl Simulation<'_> {
    fn play(&mut self) -> Outcome {
        for worker in (1..self.actors.len()).rev() {
            let process = self.actors[worker].process as f64;
            let start = self.course.start_s;
            if start > 0.0 {
                let wave = (process / self.course.abreast.max(1.0)).floor() + 1.0;
                self.begin(
                    worker,
                    Stretch {
                        need: Need::Wait,
                        seconds: start * wave,
                        width: 0.0,
                    },
                );
                self.actors[worker].unit = u64::MAX;
            } else {
                self.idle.push(worker);
            }
        }
        self.errands();
        let goal = self.course.skipped + self.course.counted;
        let mut events = 0;
        while events < MOST_EVENTS {
            events += 1;
            if self.course.finite {
                if self.booked >= goal {
                    break;
                }
            } else if self.completed >= goal {
                break;
            }
            if !self.step() {
                break;
            }
        }
        let (counted, span) = if self.course.finite {
            (self.booked as f64, self.now)
        } else {
            (
                self.completed.saturating_sub(self.course.skipped) as f64,
                self.last - self.mark,
            )
        };
        Outcome {
            per_s: if span > 0.0 { counted / span } else { 0.0 },
            end_s: self.now,
        }
    }

    /// The next event; false when there is none.
    fn step(&mut self) -> bool {
        let speed = if self.load > self.course.cores {
            self.course.cores / self.load
        } else {
            1.0
        };
        self.forget_stale();
        let computed = self.computing.peek().map(|Reverse((bits, ..))| {
            self.now + (f64::from_bits(*bits) - self.virtual_now).max(0.0) / speed
        });
        let timed = self
            .timed
            .peek()
            .map(|Reverse((bits, ..))| f64::from_bits(*bits));
        let alarm = self
            .alarms
            .peek()
            .map(|Reverse((bits, ..))| f64::from_bits(*bits));
        let least = |one: Option<f64>, others: [Option<f64>; 2]| {
            one.filter(|time| others.iter().flatten().all(|other| time <= other))
        };
        if let Some(time) = least(computed, [timed, alarm]) {
            self.move_to(time, speed);
            if let Some(Reverse((bits, actor, _))) = self.computing.pop() {
                self.virtual_now = self.virtual_now.max(f64::from_bits(bits));
                let actor = actor as usize;
                self.load -= self.actors[actor].stretch.width;
                if self.computing.is_empty() {
                    self.load = 0.0;
                }
                self.finish(actor);
            }
        } else if let Some(time) = least(timed, [computed, alarm]) {
            self.move_to(time, speed);
            if let Some(Reverse((_, actor, _))) = self.timed.pop() {
                self.finish(actor as usize);
            }
        } else if let Some(time) = alarm {
            self.move_to(time, speed);
            if let Some(Reverse((_, lock, generation))) = self.alarms.pop() {
                self.alarm(lock as usize, generation);
            }
        } else {
            return false;
        }
        true
    }

    /// Interrupted stretches stay in the heap until they come up.
    fn forget_stale(&mut self) {
        while let Some(Reverse((_, actor, generation))) = self.computing.peek() {
            if self.actors[*actor as usize].generation == *generation {
                break;
            }
            self.computing.pop();
        }
    }

    fn move_to(&mut self, time: f64, speed: f64) {
        let time = time.max(self.now);
        self.virtual_now += (time - self.now) * speed;
        self.now = time;
    }

    fn begin(&mut self, actor: usize, stretch: Stretch) {
        let virtual_now = self.virtual_now;
        let one = &mut self.actors[actor];
        one.stretch = stretch;
        one.state = State::Running;
        one.generation = one.generation.wrapping_add(1);
        let entry = |time: f64, generation: u32| Reverse((key(time), actor as u32, generation));
        if stretch.width > 0.0 {
            one.end = virtual_now + stretch.seconds;
            self.load += stretch.width;
            self.computing.push(entry(one.end, one.generation));
        } else {
            self.timed
                .push(entry(self.now + stretch.seconds, one.generation));
        }
    }

    /// A stretch ended.
    fn finish(&mut self, actor: usize) {
        if actor == PARENT {
            match self.errand {
                Errand::Submit => {
                    self.submitted += 1;
                    if let Some(worker) = self.idle.pop() {
                        self.fetch(worker);
                    }
                }
                Errand::Book => {
                    self.booked += 1;
                    if self.route.ordered {
                        self.ended.pop_front();
                    }
                }
            }
            self.errands();
        } else if self.actors[actor].unit == u64::MAX {
            // It has started.
            self.actors[actor].state = State::Idle;
            self.fetch(actor);
        } else {
            self.actors[actor].next += 1;
            self.proceed(actor);
        }
    }

    /// The worker takes the next unit, or idles.
    fn fetch(&mut self, worker: usize) {
        if self.taken < self.submitted {
            self.actors[worker].unit = self.taken;
            self.actors[worker].next = 0;
            self.taken += 1;
            if self.route.ordered {
                self.ended.push_back(false);
            }
            self.proceed(worker);
        } else {
            self.release_turn(worker);
            self.release_lock(worker);
            self.actors[worker].state = State::Idle;
            self.idle.push(worker);
        }
    }

    /// The worker goes into its next stretch, or into a queue for what that needs.
    fn proceed(&mut self, worker: usize) {
        let (unit, next) = (self.actors[worker].unit, self.actors[worker].next);
        let Some(stretch) = self.script.unit(unit as usize).get(next).copied() else {
            self.complete(worker);
            return;
        };
        self.enter(worker, stretch);
    }

    fn enter(&mut self, actor: usize, stretch: Stretch) {
        let slot = actor != PARENT;
        self.actors[actor].stretch = stretch;
        if stretch.need == Need::Wait {
            self.release_turn(actor);
            self.release_lock(actor);
        } else {
            if slot && self.route.on_loop && !self.take_turn(actor) {
                return;
            }
            if stretch.need == Need::Free {
                self.release_lock(actor);
            } else if self.course.locked && !self.take_lock(actor) {
                return;
            }
        }
        self.begin(actor, stretch);
    }

    fn complete(&mut self, worker: usize) {
        self.completed += 1;
        if self.completed == self.course.skipped {
            self.mark = self.now;
        }
        self.last = self.now;
        if self.route.ordered {
            let place = self.actors[worker].unit - self.booked;
            if let Some(ended) = self.ended.get_mut(place as usize) {
                *ended = true;
            }
        }
        if self.actors[PARENT].state == State::Idle {
            self.errands();
        }
        // Ready coroutines come first; the next task begins at the end of their queue.
        self.release_turn(worker);
        self.fetch(worker);
    }

    /// The parent's next errand, or sleep.
    fn errands(&mut self) {
        let workers = f64::from(self.route.workers());
        let in_flight = self.submitted - self.booked;
        let rate = if self.now > 0.0 {
            self.booked as f64 / self.now
        } else {
            0.0
        };
        let ahead = if self.route.ordered {
            0.0
        } else {
            (rate * QUEUED_S).max(QUEUED)
        };
        let window = f64::from(self.route.window) * workers + ahead;
        let supply =
            !self.course.finite || self.submitted < self.course.skipped + self.course.counted;
        let ready = if self.route.ordered {
            self.ended.front() == Some(&true)
        } else {
            self.completed > self.booked
        };
        let (errand, seconds) = if supply && (in_flight as f64) < window {
            (Errand::Submit, self.route.submit_s)
        } else if ready {
            (Errand::Book, self.route.book_s)
        } else {
            self.release_lock(PARENT);
            self.actors[PARENT].state = State::Idle;
            return;
        };
        self.errand = errand;
        self.enter(
            PARENT,
            Stretch {
                need: Need::Held,
                seconds,
                width: 1.0,
            },
        );
    }

    /// Whether the actor has its process's lock; if not, it queues.
    fn take_lock(&mut self, actor: usize) -> bool {
        let process = self.actors[actor].process;
        if self.actors[actor].has_lock {
            if !self.locks[process].asked {
                return true;
            }
            // It was asked to drop the lock while it could not.
            self.release_lock(actor);
        }
        let lock = &mut self.locks[process];
        if lock.holder.is_none() {
            lock.holder = Some(actor);
            lock.generation = lock.generation.wrapping_add(1);
            lock.asked = false;
            self.actors[actor].has_lock = true;
            return true;
        }
        if lock.queue.is_empty() {
            self.alarms.push(Reverse((
                key(self.now + SWITCH_INTERVAL_S),
                process as u32,
                lock.generation,
            )));
        }
        lock.queue.push_back(actor);
        self.actors[actor].state = State::Queued;
        false
    }

    fn release_lock(&mut self, actor: usize) {
        if !self.actors[actor].has_lock {
            return;
        }
        self.actors[actor].has_lock = false;
        let process = self.actors[actor].process;
        let lock = &mut self.locks[process];
        lock.asked = false;
        lock.generation = lock.generation.wrapping_add(1);
        lock.holder = lock.queue.pop_front();
        let Some(next) = lock.holder else { return };
        if !lock.queue.is_empty() {
            self.alarms.push(Reverse((
                key(self.now + SWITCH_INTERVAL_S),
                process as u32,
                lock.generation,
            )));
        }
        self.actors[next].has_lock = true;
        self.resume(next);
    }

    /// An actor that queued has what it queued for: it goes on with the stretch that needs it.
    fn resume(&mut self, actor: usize) {
        self.enter(actor, self.actors[actor].stretch);
    }

    /// Someone has queued for the lock for an interval.
    fn alarm(&mut self, process: usize, generation: u32) {
        let lock = &self.locks[process];
        if lock.generation != generation || lock.queue.is_empty() {
            return;
        }
        let Some(holder) = lock.holder else { return };
        if self.actors[holder].stretch.need != Need::Held
            || self.actors[holder].state != State::Running
        {
            self.locks[process].asked = true;
            return;
        }
        let virtual_now = self.virtual_now;
        let one = &mut self.actors[holder];
        let left = (one.end - virtual_now).max(0.0);
        one.generation = one.generation.wrapping_add(1);
        one.state = State::Queued;
        one.stretch.seconds = left;
        self.load -= one.stretch.width;
        // It queues behind the others, so that one of them has the lock before it.
        self.locks[process].queue.push_back(holder);
        self.release_lock(holder);
    }

    /// Whether the actor is the one that runs on its loop; if not, it queues.
    fn take_turn(&mut self, actor: usize) -> bool {
        if self.actors[actor].has_turn {
            return true;
        }
        let turn = &mut self.loops[self.actors[actor].process];
        if turn.holder.is_none() {
            turn.holder = Some(actor);
            self.actors[actor].has_turn = true;
            return true;
        }
        turn.queue.push_back(actor);
        self.actors[actor].state = State::Queued;
        false
    }

    /// Gives the turn to the next; as they share a thread, the lock goes along.
    fn release_turn(&mut self, actor: usize) {
        if !self.actors[actor].has_turn {
            return;
        }
        self.actors[actor].has_turn = false;
        let process = self.actors[actor].process;
        let turn = &mut self.loops[process];
        turn.holder = turn.queue.pop_front();
        let Some(next) = turn.holder else { return };
        self.actors[next].has_turn = true;
        if std::mem::take(&mut self.actors[actor].has_lock) {
            self.locks[process].holder = Some(next);
            self.actors[next].has_lock = true;
        }
        self.resume(next);
    }
}
