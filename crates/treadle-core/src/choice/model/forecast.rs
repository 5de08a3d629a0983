//! The forecast: tasks per second of a plan and of a whole curve of sizes, with an interval.

use super::super::noise::CPU_SHARE_THAT_MATTERS;
use super::super::plan::{Plan, Strategy};
use super::super::profile::Profile;
use super::super::race::EQUIVALENT;
use super::super::statistics::{Random, deviation};
use super::super::wording;
use super::bounds;
use super::demands::{Demands, Reading};
use super::route::Route;
use super::script::Script;
use super::setting::{Form, Setting};
use super::simulation::{self, Course};

/// Sizes on the curve: about four a doubling below 16, two above, enough to see a knee within 25 %.
const SIZES: [u32; 24] = [
    1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100, 128, 192, 256, 384, 512, 768, 1000, 1500, 2000,
    3000, 4000,
];
/// Most threads that are tried: each takes a stack and a kernel task, and more seldom helps.
const MOST_THREADS: u32 = 256;
/// Most coroutines that are tried.
const MOST_COROUTINES: u32 = 1000;
/// Share of the free memory that worker processes may fill; the rest is for their data and for others.
const MEMORY_SHARE: f64 = 0.8;
/// Below this, what a task needed while it ran cannot be told from what the allocator keeps.
const LEAST_TASK_BYTES: f64 = 16.0 * 1024.0 * 1024.0;
/// Rounds of all workers that are counted at least, and that pass before: the queues have settled after two.
const COUNTED_ROUNDS: u64 = 4;
const SKIPPED_ROUNDS: u64 = 2;
/// Counted from [`MANY`] workers on, where a round holds enough tasks to tell.
const COUNTED_ROUNDS_OF_MANY: u64 = 2;
const MANY: u64 = 128;
/// From so many workers on, and while they bind at less than this share of every other bound, hardly a task queues for anything (with
/// so many servers half of a resource's capacity is seldom exceeded): the bound is the prediction.
const APART: u32 = 32;
const APART_SHARE: f64 = 0.5;
/// Units that a run counts at least and, the rounds aside, at most: the latter is about a millisecond's computing.
const LEAST_UNITS: u64 = 200;
const MOST_UNITS: u64 = 1000;
/// Stretches that a run may take for the units beyond its rounds; more pieces in a task mean fewer tasks.
const MOST_STRETCHES: f64 = 4000.0;
/// Runs over resampled tasks for an interval: their spread is then known within a quarter.
const RESAMPLES: usize = 10;
/// Student's factor for 95 % of a prediction with that many runs (nine degrees of freedom).
const STUDENT: f64 = 2.262;
/// The seed of every run: a prediction is a function of what was measured.
const SEED: u64 = 0x0074_7265_6164_6c65;

/// What one plan will do.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The plan.
    pub plan: Plan,
    /// Steady tasks per second.
    pub per_s: f64,
    /// Low end of its interval: few sampled inputs, and as much as possible under the interpreter lock.
    pub low_per_s: f64,
    /// High end of its interval.
    pub high_per_s: f64,
    /// What no schedule exceeds, as little as possible being under the interpreter lock.
    pub bound_per_s: f64,
    /// Tasks per second over the finite batch, start-up and stragglers included.
    pub batch_per_s: f64,
    /// What limits it, in words.
    pub limit: String,
    /// Why the plan cannot run at all.
    pub infeasible: Option<String>,
}

impl Prediction {
    /// Whether it may be raced.
    pub fn runs(&self) -> bool {
        self.infeasible.is_none()
    }

    /// The batch at the low end of the interval.
    pub fn batch_low_per_s(&self) -> f64 {
        self.batch_per_s * self.low_per_s / self.per_s.max(1e-12)
    }

    /// The batch at the high end of the interval.
    pub fn batch_high_per_s(&self) -> f64 {
        self.batch_per_s * self.high_per_s / self.per_s.max(1e-12)
    }
}

/// The sizes of one form.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The form.
    pub form: Form,
    /// In rising order of workers.
    pub points: Vec<Prediction>,
}

/// A smaller size is preferred when it promises this share of the best of its form (the decision's five percent).
pub(crate) const KNEE_SHARE: f64 = 0.95;

impl Curve {
    /// The smallest size that promises nearly as much as the best.
    pub fn knee(&self) -> Option<&Prediction> {
        self.points.get(knee(&self.points)?)
    }
}

fn knee(points: &[Prediction]) -> Option<usize> {
    let feasible = |one: &Prediction| one.infeasible.is_none() && one.plan.workers() > 1;
    let best = points
        .iter()
        .filter(|one| feasible(one))
        .map(|one| one.batch_per_s)
        .fold(0.0, f64::max);
    points
        .iter()
        .position(|one| feasible(one) && one.batch_per_s >= KNEE_SHARE * best)
}

/// What passes before the workers of a batch are there.
#[derive(Debug, Clone, Copy)]
struct Start {
    /// Seconds of each process.
    each_s: f64,
    /// Processes that start at the same time.
    abreast: f64,
    /// Seconds before anything is submitted.
    before_s: f64,
}

impl Default for Start {
    fn default() -> Self {
        Self {
            each_s: 0.0,
            abreast: 1.0,
            before_s: 0.0,
        }
    }
}

/// A profile in a setting, ready to predict.
#[derive(Debug)]
pub struct Model<'a> {
    profile: &'a Profile,
    setting: &'a Setting,
    likely: Demands,
    hopeful: Demands,
    wary: Demands,
}

impl<'a> Model<'a> {
    /// The model of tasks with this profile.
    pub fn new(profile: &'a Profile, setting: &'a Setting) -> Self {
        let demands = |reading| Demands::new(profile, setting, reading);
        Self {
            profile,
            setting,
            likely: demands(Reading::Likely),
            hopeful: demands(Reading::Hopeful),
            wary: demands(Reading::Wary),
        }
    }

    /// Whether it was measured what starting a process costs: where a plan that needs one could not win, it was not.
    pub fn knows_processes(&self) -> bool {
        self.profile.worker_start_s.process.is_some()
    }

    /// Whether tasks wait and compute enough for both to matter.
    pub fn mixed(&self) -> bool {
        let computes = self.profile.cpu_share();
        computes.min(1.0 - computes) >= CPU_SHARE_THAT_MATTERS
    }

    /// Whether it was measured what a loop costs that many tasks share.
    pub fn knows_shared_loop(&self) -> bool {
        self.setting.shared_loop.is_some()
    }

    /// The prediction of a plan, with its interval.
    pub fn predict(&self, plan: Plan) -> Prediction {
        self.sharpen(self.point(plan))
    }

    /// The prediction of a plan without an interval: its ends are the likely value.
    pub fn quick(&self, plan: Plan) -> Prediction {
        self.point(plan)
    }

    /// Every curve that makes sense for the function; its points have the interval of their knee.
    pub fn curves(&self) -> Vec<Curve> {
        Form::all(self.setting)
            .into_iter()
            .map(|form| self.curve(form))
            .collect()
    }

    /// The curve of one form: every size that the machine bears.
    pub fn curve(&self, form: Form) -> Curve {
        let mut points: Vec<Prediction> = self
            .sizes(form)
            .into_iter()
            .map(|(processes, size)| self.point(form.plan(processes, size)))
            .collect();
        if let Some(knee) = knee(&points) {
            let sharp = self.sharpen(points[knee].clone());
            let (low, high) = (
                sharp.low_per_s / sharp.per_s.max(1e-12),
                sharp.high_per_s / sharp.per_s.max(1e-12),
            );
            for point in &mut points {
                point.low_per_s = point.per_s * low;
                point.high_per_s = (point.per_s * high).min(point.bound_per_s.max(point.per_s));
            }
            points[knee] = sharp;
        }
        Curve { form, points }
    }

    /// Whether a plan whose workers are processes or interpreters may reach `share` of what one without them surely does: by its bounds
    /// alone, with nothing charged for starting and reaching its workers. Where it may not, neither need be measured.
    pub fn apart_may_win(&self, share: f64) -> bool {
        if self.profile.pickle.obstacle().is_some() {
            return false;
        }
        let forms = Form::all(self.setting);
        let (apart, inside): (Vec<Form>, Vec<Form>) =
            forms.into_iter().partition(|form| form.apart());
        let largest = |form: &Form| {
            self.sizes(*form)
                .last()
                .map(|(one, size)| form.plan(*one, *size))
        };
        let hoped = |plan: Plan| bounds::least(&bounds::bounds(plan, &self.hopeful, self.setting));
        let simple: Vec<Plan> = inside
            .iter()
            .filter_map(largest)
            .chain([Plan::SERIAL])
            .collect();
        let sure = simple
            .iter()
            .map(|plan| self.predict(*plan).batch_low_per_s())
            .fold(0.0, f64::max);
        // A mix is raced only where it does more than every simple plan; one that waits as much as threads do cannot.
        let beaten =
            simple.iter().map(|plan| hoped(*plan)).fold(0.0, f64::max) * (1.0 + EQUIVALENT);
        apart
            .iter()
            .flat_map(|form| {
                self.sizes(*form)
                    .into_iter()
                    .map(|(one, size)| form.plan(one, size))
            })
            .any(|plan| {
                let bound = hoped(plan);
                bound >= share * sure && (plan.strategy() != Strategy::Hybrid || bound > beaten)
            })
    }

    /// (processes, size) of the points of a form.
    fn sizes(&self, form: Form) -> Vec<(u32, u32)> {
        let cores = self.setting.cores;
        let whole = cores.ceil().max(1.0) as u32;
        // With a core busy c seconds a task that stays w seconds, w / c tasks keep it busy (Goetz); twice that shows the plateau.
        let mean = match form {
            Form::Coroutines | Form::ProcessesCoroutines => {
                self.likely.on_loop(self.setting, MOST_COROUTINES).mean
            }
            _ => self.likely.mean,
        };
        let cpu = mean.cpu().max(1e-7);
        let knee = (mean.wall() / cpu * cores).max(cores);
        let wanted = (2.0 * knee).ceil().clamp(2.0, 1e6) as u32;
        let (processes, most) = match form {
            Form::Threads => (1, wanted.min(MOST_THREADS)),
            Form::Coroutines => (1, wanted.min(MOST_COROUTINES)),
            Form::Processes | Form::Interpreters => {
                (1, wanted.min((4.0 * cores).ceil().max(4.0) as u32))
            }
            Form::ProcessesThreads => {
                // The fewest processes whose locks together serve as much as the cores (diagnosis notes 3.2).
                let locks = cores * (mean.held + mean.blocked) / cpu;
                let processes = (locks.ceil() as u32).clamp(2, whole.max(2));
                // Not more tasks at once than threads alone may have: that would be no merit of the processes.
                let most = MOST_THREADS / processes;
                (processes, wanted.div_ceil(processes).min(most.max(1)))
            }
            Form::ProcessesCoroutines => {
                let processes = whole.max(2);
                let most = MOST_COROUTINES / processes;
                (processes, wanted.div_ceil(processes).min(most.max(1)))
            }
        };
        let fewest = if form.strategy() == Strategy::Hybrid {
            2
        } else {
            1
        };
        let batch = self.setting.count.map_or(u32::MAX, |count| {
            u32::try_from(count).unwrap_or(u32::MAX).max(1)
        });
        let most = most.max(fewest).min((batch / processes).max(1));
        let mut sizes: Vec<u32> = SIZES
            .iter()
            .copied()
            .chain([whole])
            .filter(|size| (fewest..=most).contains(size))
            .collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes.into_iter().map(|size| (processes, size)).collect()
    }

    /// The prediction of a plan without an interval of its own: the ends are the likely value.
    fn point(&self, plan: Plan) -> Prediction {
        let bounds = bounds::bounds(plan, &self.likely, self.setting);
        let bound_per_s = bounds::least(&bounds::bounds(plan, &self.hopeful, self.setting));
        let route = Route::new(plan, &self.likely, self.setting);
        let per_s = if bounds::apart(&bounds, plan.workers(), APART, APART_SHARE) {
            bounds::least(&bounds)
        } else {
            self.steady(&route, SEED, MOST_UNITS)
                .min(bounds::least(&bounds))
        };
        let batch_per_s = self.batch(&route, per_s);
        Prediction {
            plan,
            per_s,
            low_per_s: per_s,
            high_per_s: per_s,
            bound_per_s: bound_per_s.max(per_s),
            batch_per_s,
            limit: bounds::limit(&bounds, per_s),
            infeasible: self.infeasible(plan),
        }
    }

    /// Gives a prediction its interval: runs over resampled tasks, around the hopeful and the wary reading.
    fn sharpen(&self, mut prediction: Prediction) -> Prediction {
        let plan = prediction.plan;
        let steady = |demands: &Demands, seed: u64| {
            let bound = bounds::least(&bounds::bounds(plan, demands, self.setting));
            self.steady(&Route::new(plan, demands, self.setting), seed, LEAST_UNITS)
                .min(bound)
        };
        let spread = if self.likely.tasks.len() < 2 {
            0.0
        } else {
            let mut random = Random::new(SEED);
            let logarithms: Vec<f64> = (0..RESAMPLES)
                .map(|_| {
                    let demands = self.likely.resampled(&mut random);
                    steady(&demands, random.bits()).max(1e-12).ln()
                })
                .collect();
            STUDENT * deviation(&logarithms)
        };
        let (high, low) = if self.hopeful == self.wary {
            (prediction.per_s, prediction.per_s)
        } else {
            (steady(&self.hopeful, SEED), steady(&self.wary, SEED))
        };
        prediction.low_per_s = low.min(prediction.per_s) * (-spread).exp();
        prediction.high_per_s = high.max(prediction.per_s) * spread.exp();
        prediction
    }

    /// Steady tasks per second along a route; beyond the rounds that must be, `most_units` are counted at most.
    fn steady(&self, route: &Route, seed: u64, most_units: u64) -> f64 {
        if route.workers() == 1 && route.submit_s == 0.0 {
            // A plain loop needs no events.
            return 1.0 / (route.demands.mean.wall() + route.worker_s()).max(1e-12);
        }
        let mut random = Random::new(seed);
        let script = Script::new(route, self.locked(route), &mut random);
        let workers = u64::from(route.workers());
        let most = (MOST_STRETCHES / script.length().max(1.0)) as u64;
        // Whole passes over the tasks, so that each counts as often as the others.
        let units = script.units() as u64;
        let wanted = units.clamp(LEAST_UNITS, most.clamp(LEAST_UNITS, most_units));
        let wanted = if units < wanted {
            units * (wanted / units)
        } else {
            wanted
        };
        // Tasks of one length end all together, a round of them at a time: only whole rounds tell their rate.
        let least = if workers < MANY {
            COUNTED_ROUNDS
        } else {
            COUNTED_ROUNDS_OF_MANY
        };
        let rounds = wanted.div_ceil(workers).max(least);
        let course = Course {
            cores: self.setting.cores,
            locked: self.locked(route),
            skipped: SKIPPED_ROUNDS * workers,
            counted: rounds * workers,
            finite: false,
            start_s: 0.0,
            abreast: 1.0,
        };
        simulation::run(route, &script, course).per_s * f64::from(route.chunk)
    }

    fn locked(&self, route: &Route) -> bool {
        self.setting.gil && (route.slots > 1 || route.parent_inside)
    }

    /// Seconds that a finite batch takes beyond its steady rate when its workers are there: they fill, and in the end they run out of
    /// tasks one after the other. 0 where its length is not known.
    pub fn end_s(&self, plan: Plan) -> f64 {
        let route = Route::new(plan, &self.likely, self.setting);
        let per_s = self.point(plan).per_s;
        match self.setting.count {
            Some(count) if per_s > 0.0 => (self.batch_s(&route, per_s, count, Start::default())
                - count as f64 / per_s)
                .max(0.0),
            _ => 0.0,
        }
    }

    /// Tasks per second over the whole batch, the start of its workers included.
    fn batch(&self, route: &Route, per_s: f64) -> f64 {
        let Some(count) = self.setting.count.map(|count| count.max(1)) else {
            return per_s;
        };
        if per_s <= 0.0 {
            return 0.0;
        }
        let starts = &self.profile.worker_start_s;
        let start = if route.submit_s == 0.0 {
            Start::default()
        } else if route.parent_inside {
            let threads = if route.on_loop { 1 } else { route.workers() };
            Start {
                before_s: starts.thread.unwrap_or(0.0) * f64::from(threads),
                ..Start::default()
            }
        } else {
            let one = match route.strategy {
                Strategy::Interpreters => starts.interpreter.or(starts.process),
                _ => starts.process,
            };
            Start {
                each_s: one.unwrap_or(0.0),
                abreast: self.setting.cores,
                before_s: 0.0,
            }
        };
        (count as f64 / self.batch_s(route, per_s, count, start)).min(per_s)
    }

    /// Seconds of a batch: its start and its end simulated, its middle at the steady rate.
    fn batch_s(&self, route: &Route, per_s: f64, count: u64, start: Start) -> f64 {
        let (count, workers) = (count as f64, route.workers());
        if workers == 1 && start.each_s == 0.0 {
            return start.before_s + count / per_s;
        }
        let units = (count / f64::from(route.chunk)).ceil();
        let ends = units.min(f64::from(workers) * 2.0 + 32.0) as u64;
        let script = Script::new(route, self.locked(route), &mut Random::new(SEED));
        let course = Course {
            cores: self.setting.cores,
            locked: self.locked(route),
            skipped: 0,
            counted: ends,
            finite: true,
            start_s: start.each_s,
            abreast: start.abreast,
        };
        let end_s = simulation::run(route, &script, course).end_s;
        let middle = (units - ends as f64).max(0.0) * f64::from(route.chunk);
        start.before_s + end_s + middle / per_s
    }

    /// Why so many tasks at once do not fit into the memory, if they do not.
    fn too_big(&self, plan: Plan) -> Option<String> {
        let each = self
            .profile
            .task_rss_bytes
            .filter(|bytes| *bytes >= LEAST_TASK_BYTES)?;
        let available = self.setting.memory_available?;
        let processes = plan.processes.map_or(0.0, f64::from);
        let kept = self.profile.worker_rss_bytes.unwrap_or(0.0)
            + self.profile.rss_growth_bytes.unwrap_or(0.0);
        let needed = f64::from(plan.workers()) * each + processes * kept;
        (plan.workers() > 1 && needed > available * MEMORY_SHARE).then(|| {
            format!(
                "memory: {} tasks at once that need {} each do not fit in {} of the {} that are free",
                plan.workers(),
                wording::bytes(each),
                wording::percent(MEMORY_SHARE),
                wording::bytes(available)
            )
        })
    }

    /// Why a plan cannot run this function at all.
    fn infeasible(&self, plan: Plan) -> Option<String> {
        if let Some(why) = self.too_big(plan) {
            return Some(why);
        }
        if plan.coroutines.is_some() && !self.setting.asynchronous {
            return Some(
                "the function is not an async function, so coroutines would run one after the other"
                    .to_owned(),
            );
        }
        let outer = plan.processes.or(plan.interpreters)?;
        if let Some(obstacle) = self.profile.pickle.obstacle() {
            return Some(obstacle);
        }
        if plan.interpreters.is_some() {
            // Interpreters share what a process holds; how much of it nobody has measured.
            let refused = self.profile.worker_start_s.interpreter_refused.as_ref()?;
            return Some(format!(
                "the function's module cannot be imported in a sub-interpreter: {refused}"
            ));
        }
        let each = self.profile.worker_rss_bytes?;
        let available = self.setting.memory_available?;
        let most = (available * MEMORY_SHARE / each.max(1.0)).floor();
        (f64::from(outer) > most).then(|| {
            format!(
                "memory: {outer} workers of {} each do not fit in {} of the {} that are free",
                wording::bytes(each),
                wording::percent(MEMORY_SHARE),
                wording::bytes(available)
            )
        })
    }
}
