//! The route of a task under a plan: who hands it over, in which process and slot it runs, and what that costs beside it.
//!
//! *Assumes*: our pools' rules: processes take tasks below [`CHUNKED_BELOW_S`] in chunks of about [`CHUNK_S`], results in order;
//! all others one by one, with a task in each worker and 20 ms of work waiting.

use super::super::plan::{Plan, Strategy};
use super::demands::Demands;
use super::setting::{Cost, Setting};

/// How long a chunk takes (`CHUNK_SECONDS` of the executor's map).
const CHUNK_S: f64 = 0.002;
/// Tasks shorter than this go to processes in chunks (`CHUNKED_BELOW_S` of the laboratory's trial).
const CHUNKED_BELOW_S: f64 = 0.005;
/// Most tasks in a chunk (`MOST_ITEMS` of the executor's map).
const MOST_ITEMS: u32 = 4096;
/// With a known number of inputs, chunks leave so many for each worker (`SHARES` of the executor's map).
const SHARES: f64 = 4.0;
/// Tasks or chunks in flight for each worker, one by one and in chunks (the trial's window, `AHEAD` of the executor's map).
const WINDOW: u32 = 1;
const CHUNK_WINDOW: u32 = 4;

/// A plan as the simulation runs it.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// Processes (or interpreters) that hold workers, each with a lock of its own.
    pub(super) processes: u32,
    /// Tasks at once in each.
    pub(super) slots: u32,
    /// What a slot is called.
    pub(super) noun: &'static str,
    /// Whether the slots of a process share one thread.
    pub(super) on_loop: bool,
    /// Whether the parent is a thread of the workers' process, under the same lock.
    pub(super) parent_inside: bool,
    /// Tasks that travel together.
    pub(super) chunk: u32,
    /// Whether results are taken in order.
    pub(super) ordered: bool,
    /// Units (tasks or chunks) in flight for each worker.
    pub(super) window: u32,
    /// The tasks, as they are under this plan.
    pub(super) demands: Demands,
    /// The parent's CPU seconds for each unit on its way out, and on its way back.
    pub(super) submit_s: f64,
    /// See `submit_s`.
    pub(super) book_s: f64,
    /// The worker's CPU seconds before and after each unit, hand-over only.
    pub(super) unit_s: f64,
    /// The worker's CPU seconds for each task beside the task itself.
    pub(super) item_s: f64,
}

impl Route {
    /// The route of tasks with these demands.
    pub(super) fn new(plan: Plan, demands: &Demands, setting: &Setting) -> Self {
        let strategy = plan.strategy();
        let outer = plan.processes.or(plan.interpreters);
        let coroutines = plan.coroutines;
        let demands = match coroutines {
            Some(coroutines) => demands.on_loop(setting, coroutines),
            None => demands.clone(),
        };
        let cost = setting.handover.cost(strategy);
        let apart = outer.is_some();
        let mapped = apart
            && coroutines.is_none()
            && !setting.asynchronous
            && (demands.mean.wall() < CHUNKED_BELOW_S || plan.chunk.is_some());
        let item = if mapped {
            setting.handover.item()
        } else {
            Cost::default()
        };
        let transfer = if apart {
            demands.transfer
        } else {
            Default::default()
        };
        let each = demands.mean.wall() + item.worker_s + transfer.worker();
        let chunk = match plan.chunk {
            Some(chunk) if mapped => chunk,
            _ if mapped => {
                let even = setting.count.map_or(f64::INFINITY, |count| {
                    (count as f64 / (SHARES * f64::from(plan.workers()))).ceil()
                });
                (CHUNK_S / each.max(1e-9))
                    .min(even)
                    .clamp(1.0, f64::from(MOST_ITEMS))
                    .round() as u32
            }
            _ => 1,
        };
        let items = f64::from(chunk);
        let serial = strategy == Strategy::Serial;
        Self {
            processes: outer.unwrap_or(1),
            slots: plan.threads.or(coroutines).unwrap_or(1),
            noun: match strategy {
                Strategy::Serial => "loop",
                Strategy::Threads => "threads",
                Strategy::Coroutines => "coroutines",
                Strategy::Processes | Strategy::Interpreters | Strategy::Hybrid => "workers",
            },
            on_loop: coroutines.is_some(),
            parent_inside: !apart && !serial,
            chunk,
            ordered: mapped,
            window: if mapped { CHUNK_WINDOW } else { WINDOW },
            submit_s: 0.5 * cost.parent_s + items * (transfer.out + 0.5 * item.parent_s),
            book_s: 0.5 * cost.parent_s + items * (transfer.back + 0.5 * item.parent_s),
            unit_s: cost.worker_s,
            item_s: transfer.worker()
                + item.worker_s
                + if serial {
                    setting.handover.serial_s.unwrap_or(0.0)
                } else {
                    0.0
                },
            demands,
        }
    }

    /// The parent's CPU seconds a task.
    pub(super) fn parent_s(&self) -> f64 {
        (self.submit_s + self.book_s) / f64::from(self.chunk)
    }

    /// The worker's CPU seconds a task, beside the task itself.
    pub(super) fn worker_s(&self) -> f64 {
        self.item_s + self.unit_s / f64::from(self.chunk)
    }

    /// Workers in all.
    pub(super) fn workers(&self) -> u32 {
        self.processes.saturating_mul(self.slots)
    }
}
