//! The bounds: what a plan cannot exceed, each with its name.
//!
//! Operational laws (Denning and Buzen; Lazowska et al.): each resource serves at most one over its demand, and n workers at most n
//! over the time that a task stays in one. The smallest is the bound, and its name is the explanation.
//!
//! *Guarantees*: with demands as given, no schedule does more.

use super::super::plan::Plan;
use super::super::wording;
use super::demands::Demands;
use super::route::Route;
use super::setting::Setting;

/// Bounds within this factor of the smallest bind together: closer than a race can tell.
const TOGETHER: f64 = 1.05;

/// Tasks per second that one resource allows, and its name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bound {
    /// Tasks per second at most.
    pub(super) per_s: f64,
    /// The resource, in words.
    pub(super) name: String,
}

/// The bounds of a plan; later ones say more where they fall together: that all cores are busy, rather than all workers.
pub(super) fn bounds(plan: Plan, demands: &Demands, setting: &Setting) -> Vec<Bound> {
    let route = Route::new(plan, demands, setting);
    let mean = route.demands.mean;
    let mut bounds = Vec::new();
    let mut push = |per_s: f64, name: String| bounds.push(Bound { per_s, name });
    let workers = f64::from(plan.workers());
    let inside = route.worker_s() + mean.wall();
    let own = demands.mean;
    push(
        workers / inside.max(1e-12),
        if plan == Plan::SERIAL {
            "one task at a time".to_owned()
        } else if own.wait + own.blocked > 0.5 * own.wall() {
            format!("waiting: {} tasks at once", plan.workers())
        } else {
            format!("{} {}, one task each", plan.workers(), route.noun)
        },
    );
    let all_cpu = mean.cpu() + route.worker_s() + route.parent_s();
    push(
        setting.cores / all_cpu.max(1e-12),
        format!(
            "the {} usable {}",
            wording::cores(setting.cores),
            if setting.cores > 1.0 { "cores" } else { "core" }
        ),
    );
    let processes = f64::from(route.processes);
    let parent_inside = if route.parent_inside {
        route.parent_s()
    } else {
        0.0
    };
    let inner_lock = mean.held + mean.blocked + route.worker_s() + parent_inside;
    if setting.gil && route.slots > 1 {
        push(
            processes / inner_lock.max(1e-12),
            if route.processes > 1 {
                format!("the interpreter locks of {} processes", route.processes)
            } else {
                "the interpreter lock".to_owned()
            },
        );
    }
    if route.on_loop {
        let turn = mean.held + mean.blocked + mean.free + route.worker_s();
        push(
            processes / turn.max(1e-12),
            if route.processes > 1 {
                format!("the event loops of {} processes", route.processes)
            } else {
                "the one thread of the event loop".to_owned()
            },
        );
    }
    if !route.parent_inside && plan != Plan::SERIAL {
        push(
            1.0 / route.parent_s().max(1e-12),
            if demands.transfer.parent() > 0.5 * route.parent_s() {
                "the parent's serialisation".to_owned()
            } else {
                "the parent, which hands out one task after the other".to_owned()
            },
        );
    }
    bounds
}

/// The smallest bound.
pub(super) fn least(bounds: &[Bound]) -> f64 {
    bounds
        .iter()
        .map(|bound| bound.per_s)
        .fold(f64::INFINITY, f64::min)
}

/// Whether the workers, `many` at least, bind alone: at less than `share` of every other bound.
pub(super) fn apart(bounds: &[Bound], workers: u32, many: u32, share: f64) -> bool {
    let Some((inside, others)) = bounds.split_first() else {
        return false;
    };
    let next = least(others);
    workers >= many && inside.per_s < share * next
}

/// What binds, in words; and, where `predicted` stays well below every bound, what tasks queue for besides.
pub(super) fn limit(bounds: &[Bound], predicted: f64) -> String {
    /// Below this share of the bound, resources get into each other's way: more than the race's five percent, twice.
    const QUEUEING: f64 = 0.85;
    /// A resource with four times the capacity is idle too often to be queued for much.
    const NEAR: f64 = 4.0;
    let least = least(bounds);
    let binding = bounds
        .iter()
        .rev()
        .find(|bound| bound.per_s <= least * TOGETHER);
    let Some(binding) = binding else {
        return String::new();
    };
    // The first bound is the workers themselves, whom nobody queues for once they are at work.
    let next = bounds
        .iter()
        .skip(1)
        .filter(|bound| bound.name != binding.name)
        .min_by(|one, other| one.per_s.total_cmp(&other.per_s));
    match next {
        Some(next) if predicted < QUEUEING * least && next.per_s < NEAR * least => {
            format!("{}, and queueing for {}", binding.name, next.name)
        }
        _ => binding.name.clone(),
    }
}
