//! The setting: what the machine, the interpreter and our own hand-over allow, the function aside.

use serde::{Deserialize, Serialize};

use super::super::plan::{Plan, Strategy};

/// Hand-over of one task in seconds of CPU, where the laboratory measured none: the native engine's prototype took 1.0 to 2.6 µs a
/// task (transport notes 3.4), an event loop 8 µs (CPython 3.11, two virtual cores).
const THREAD: Cost = Cost::both(1e-6);
const COROUTINE: Cost = Cost::both(4e-6);
const PROCESS: Cost = Cost::both(2e-6);
/// The share of one item of a chunk where none was measured: a call and its place in a list.
const CHUNKED: Cost = Cost::both(0.3e-6);

/// CPU seconds that one task costs beyond itself.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// In the thread that submits and collects.
    pub parent_s: f64,
    /// In the worker.
    pub worker_s: f64,
}

impl Cost {
    const fn both(each_s: f64) -> Self {
        Self {
            parent_s: each_s,
            worker_s: each_s,
        }
    }
}

/// What a loop's thread computes for a task when many tasks share the loop.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LoopCost {
    /// Tasks that were in flight together.
    pub concurrency: u32,
    /// CPU seconds a task.
    pub cpu_s: f64,
    /// Tasks that it rests on.
    pub count: u64,
}

/// What handing a task over costs, measured with tasks that do nothing; `None` was not measured.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Handover {
    /// The plain loop around a call, seconds.
    pub serial_s: Option<f64>,
    /// To a thread of this process.
    pub threads: Option<Cost>,
    /// To a coroutine on a loop of this process.
    pub coroutines: Option<Cost>,
    /// To a process, each task by itself.
    pub processes: Option<Cost>,
    /// To a process, as one of many in a chunk.
    pub chunked: Option<Cost>,
}

impl Handover {
    /// The cost of one submission under `strategy`.
    pub fn cost(&self, strategy: Strategy) -> Cost {
        match strategy {
            Strategy::Serial => Cost::default(),
            Strategy::Threads => self.threads.unwrap_or(THREAD),
            Strategy::Coroutines => self.coroutines.unwrap_or(COROUTINE),
            Strategy::Processes | Strategy::Interpreters | Strategy::Hybrid => {
                self.processes.unwrap_or(PROCESS)
            }
        }
    }

    /// The cost of one more item in a chunk.
    pub fn item(&self) -> Cost {
        self.chunked.unwrap_or(CHUNKED)
    }
}

/// What the machine, the interpreter and our own hand-over allow.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Usable cores.
    pub cores: f64,
    /// Whether an interpreter lock serialises threads.
    pub gil: bool,
    /// Whether the function is an async function.
    pub asynchronous: bool,
    /// Whether the interpreter has sub-interpreters with a lock each for programs to use (3.14 on).
    pub interpreters: bool,
    /// Whether the machine was quiet enough for a slow pilot to speak against threads.
    pub pilot_trusted: bool,
    /// Tasks in the batch; `None` when the items were only a part of it, so that start-up is not charged.
    pub count: Option<u64>,
    /// Memory that may still be used, in bytes.
    pub memory_available: Option<f64>,
    /// What handing a task over costs here.
    pub handover: Handover,
    /// What a task costs a loop that many share; `None` where it was not measured.
    pub shared_loop: Option<LoopCost>,
}

/// Whether programs can use sub-interpreters with a lock each (`concurrent.interpreters`, CPython 3.14), by the version's numbers.
pub fn has_interpreters(implementation: &str, version: &str) -> bool {
    let mut numbers = version
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next(), numbers.next());
    implementation == "cpython" && version >= (Some(3), Some(14))
}

/// A way to run tasks whose sizes make a curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Threads of this process.
    Threads,
    /// Coroutines on one loop.
    Coroutines,
    /// Worker processes.
    Processes,
    /// Sub-interpreters.
    Interpreters,
    /// Threads inside processes.
    ProcessesThreads,
    /// A loop inside each process.
    ProcessesCoroutines,
}

/// Predicted, and not raced: the executor of this version does not run them. A form that it learns to run leaves this list.
const NOT_RUN_YET: [Form; 1] = [Form::Interpreters];

impl Form {
    /// The forms that make sense for a function.
    pub fn all(setting: &Setting) -> Vec<Self> {
        let mut forms = if setting.asynchronous {
            vec![Self::Coroutines, Self::Threads, Self::Processes]
        } else {
            vec![Self::Threads, Self::Processes]
        };
        if setting.interpreters {
            forms.push(Self::Interpreters);
        }
        forms.push(if setting.asynchronous {
            Self::ProcessesCoroutines
        } else {
            Self::ProcessesThreads
        });
        forms
    }

    /// The form of a plan; `None` for a plain loop, and for what no version will run.
    pub fn of(plan: Plan) -> Option<Self> {
        match (
            plan.threads.is_some(),
            plan.processes.is_some(),
            plan.coroutines.is_some(),
            plan.interpreters.is_some(),
        ) {
            (true, false, false, false) => Some(Self::Threads),
            (false, false, true, false) => Some(Self::Coroutines),
            (false, true, false, false) => Some(Self::Processes),
            (false, false, false, true) => Some(Self::Interpreters),
            (true, true, false, false) => Some(Self::ProcessesThreads),
            (false, true, true, false) => Some(Self::ProcessesCoroutines),
            _ => None,
        }
    }

    /// The strategy that it belongs to.
    pub fn strategy(self) -> Strategy {
        match self {
            Self::Threads => Strategy::Threads,
            Self::Coroutines => Strategy::Coroutines,
            Self::Processes => Strategy::Processes,
            Self::Interpreters => Strategy::Interpreters,
            Self::ProcessesThreads | Self::ProcessesCoroutines => Strategy::Hybrid,
        }
    }

    /// Whether its workers are processes or interpreters, so that they have a start of their own and tasks are pickled.
    pub fn apart(self) -> bool {
        !matches!(self, Self::Threads | Self::Coroutines)
    }

    /// Whether this version's executor runs it.
    pub fn runs(self) -> bool {
        !NOT_RUN_YET.contains(&self)
    }

    /// The plan of `size`: workers, or workers in each of `processes` processes for a hybrid.
    pub fn plan(self, processes: u32, size: u32) -> Plan {
        match self {
            Self::Threads => Plan::threads(size),
            Self::Coroutines => Plan::coroutines(size),
            Self::Processes => Plan::processes(size),
            Self::Interpreters => Plan {
                interpreters: Some(size),
                ..Plan::SERIAL
            },
            Self::ProcessesThreads => Plan {
                threads: Some(size),
                ..Plan::processes(processes)
            },
            Self::ProcessesCoroutines => Plan {
                coroutines: Some(size),
                ..Plan::processes(processes)
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_come_with_3_14() {
        for (version, there) in [
            ("3.14.0", true),
            ("3.15.0a1", true),
            ("4.0.1", true),
            ("3.13.9", false),
        ] {
            assert_eq!(has_interpreters("cpython", version), there, "{version}");
        }
        assert!(!has_interpreters("pypy", "3.14.0"));
        assert!(!has_interpreters("cpython", ""));
    }
}
