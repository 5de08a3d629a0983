//! The sample: what the laboratory replies to `profile`, as the measuring protocol has it.

use serde::{Deserialize, Deserializer, Serialize};

use super::split::Tally;

/// A field that may be absent or null counts as its default.
fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// An exception that a task raised.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskError {
    /// Index of the input.
    #[serde(deserialize_with = "lenient")]
    pub index: u64,
    /// The exception's class.
    #[serde(rename = "type", deserialize_with = "lenient")]
    pub class: String,
    /// The exception's text.
    #[serde(deserialize_with = "lenient")]
    pub message: String,
    /// A short traceback of the user's code.
    #[serde(deserialize_with = "lenient")]
    pub traceback: String,
}

/// Why something cannot be pickled.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PickleFault {
    /// Where it sits, such as `args[0].session._lock`.
    #[serde(deserialize_with = "lenient")]
    pub path: String,
    /// The class of what cannot be pickled.
    #[serde(rename = "type", deserialize_with = "lenient")]
    pub class: String,
    /// What pickle said.
    #[serde(deserialize_with = "lenient")]
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// The faults of each thing that travels to or from a process; `None` is fine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PickleFaults {
    /// The function itself.
    pub function: Option<PickleFault>,
    /// An argument.
    pub argument: Option<PickleFault>,
    /// A result.
    pub result: Option<PickleFault>,
    /// An exception that the function raised.
    pub exception: Option<PickleFault>,
}

impl PickleFaults {
    /// The fault that keeps the function out of other processes, in words.
    pub fn obstacle(&self) -> Option<String> {
        [
            ("function", &self.function),
            ("argument", &self.argument),
            ("result", &self.result),
        ]
        .into_iter()
        .find_map(|(what, fault)| {
            let fault = fault.as_ref()?;
            let mut text = format!("the {what} cannot be pickled");
            if !fault.path.is_empty() {
                text.push_str(&format!(": {}", fault.path));
            }
            if !fault.class.is_empty() {
                text.push_str(&format!(" is a {}", fault.class));
            }
            if !fault.message.is_empty() {
                text.push_str(&format!(" ({})", fault.message));
            }
            if let Some(hint) = &fault.hint {
                text.push_str(&format!("; {hint}"));
            }
            Some(text)
        })
    }
}

/// Two threads against one over the same sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pilot {
    /// How many threads.
    pub threads: u32,
    /// Throughput relative to serial.
    pub speedup: f64,
    /// Its 95 % interval.
    pub interval: [f64; 2],
}

/// Seconds to start one worker; `None` where none could be started.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerStart {
    /// A process, until it has imported the function.
    pub process: Option<f64>,
    /// A thread.
    pub thread: Option<f64>,
    /// A sub-interpreter, until it has imported the function.
    pub interpreter: Option<f64>,
    /// Why no sub-interpreter could be started.
    pub interpreter_refused: Option<String>,
}

/// The laboratory's reply to `profile`: means per task in seconds and bytes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are the protocol's, named as there")]
pub struct Sample {
    #[serde(deserialize_with = "lenient")]
    pub count: u64,
    #[serde(deserialize_with = "lenient")]
    pub wall_s: f64,
    #[serde(deserialize_with = "lenient")]
    pub walls: Vec<f64>,
    #[serde(deserialize_with = "lenient")]
    pub measured_inputs: Vec<u64>,
    #[serde(deserialize_with = "lenient")]
    pub cpus: Vec<f64>,
    #[serde(deserialize_with = "lenient")]
    pub natives: Vec<f64>,
    #[serde(deserialize_with = "lenient")]
    pub queues: Vec<f64>,
    pub pauses: Option<f64>,
    pub tally: Option<Tally>,
    pub lock_absent: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub thread_cpu_s: f64,
    #[serde(deserialize_with = "lenient")]
    pub process_cpu_s: f64,
    pub run_queue_s: Option<f64>,
    #[serde(deserialize_with = "lenient")]
    pub errors: u64,
    pub first_error: Option<TaskError>,
    #[serde(deserialize_with = "lenient")]
    pub all_failed: bool,
    pub argument_bytes: Option<f64>,
    pub result_bytes: Option<f64>,
    pub argument_buffer_bytes: Option<f64>,
    pub result_buffer_bytes: Option<f64>,
    pub dumps_s: Option<f64>,
    pub loads_s: Option<f64>,
    pub argument_dumps_s: Option<f64>,
    pub argument_loads_s: Option<f64>,
    pub result_dumps_s: Option<f64>,
    pub result_loads_s: Option<f64>,
    #[serde(deserialize_with = "lenient")]
    pub pickle: PickleFaults,
    pub peak_rss_bytes: Option<f64>,
    pub rss_growth_bytes: Option<f64>,
    pub baseline_rss_bytes: Option<f64>,
    #[serde(deserialize_with = "lenient")]
    pub modules: Vec<String>,
    #[serde(deserialize_with = "lenient")]
    pub worker_start_s: WorkerStart,
    pub worker_rss_bytes: Option<f64>,
    pub pilot: Option<Pilot>,
    pub native_threads: Option<u32>,
    pub first_call_s: Option<f64>,
    #[serde(deserialize_with = "lenient")]
    pub used: Vec<u64>,
}

/// The laboratory's reply to `worker`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are the protocol's, named as there")]
pub struct WorkerCosts {
    #[serde(deserialize_with = "lenient")]
    pub worker_start_s: WorkerStart,
    pub worker_rss_bytes: Option<f64>,
}
