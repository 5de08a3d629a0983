//! The story of a comparison: load → profile → model → race → decide.
//!
//! *Guarantees*: the function runs only in processes of its own; when this returns, whatever it returns, none of them is
//! left. Time spent racing stays within the budget but for one block.
//! *Assumes*: the clock and the wish to stop are passed in.

use serde::Deserialize;
use serde_json::{Value, json};

use super::comparison::{Comparison, Curve, Items, Machine, SCHEMA};
use super::contenders;
use super::decide::{self, Measured, Target};
use super::driver;
use super::error::ChoiceError;
use super::field::Field;
use super::laboratory::{CallError, Laboratory, Launch, Surroundings};
use super::model::{self, Handover, LoopCost, Model, Prediction, Setting};
use super::noise::{self, Level, Readings};
use super::plan::Plan;
use super::profile::{Profile, Sample, TOO_SMALL_S};
use super::reason;
use super::request::Request;
use super::wording;

/// Share of the budget for the serial sample, and its ceiling in seconds: a few hundred tasks of a millisecond suffice for means.
const SAMPLE_SHARE: f64 = 0.15;
const SAMPLE_MOST_S: f64 = 3.0;
/// The same when the profile is all that is asked for.
const SAMPLE_ALONE_MOST_S: f64 = 10.0;
/// Most tasks in the sample: the 99th percentile then rests on ten of them.
const SAMPLE_MOST_COUNT: u64 = 1000;
/// Seconds beyond the budget that loading (imports, reading items) may take before it counts as hanging.
const LOAD_GRACE_S: f64 = 30.0;
/// The profile may take the whole budget before an input counts as hanging, and in any case this many seconds: besides the sample it
/// tries pickling, starts a worker of each kind and runs the pilot.
const PROFILE_LEAST_S: f64 = 5.0;
/// Seconds that tasks doing nothing run under each kind of plan, and that inputs run on a shared loop; and until they count as hanging.
const HANDOVER_S: f64 = 0.03;
const SHARED_LOOP_S: f64 = 0.3;
const HANDOVER_MOST_S: f64 = 10.0;
/// Tasks at a time on the shared loop: wake-ups are shared by then (6 µs of 130 are left), and few services mind.
const SHARED_LOOP_TASKS: u32 = 32;
/// The spin probe: several scheduler slices (3 to 10 ms), not noticed by a person.
const SPIN_S: f64 = 0.03;
/// Most threads of the spin probe; beyond, starting them takes longer than the probe.
const SPIN_MOST_THREADS: usize = 64;

/// Compares as the JSON object `request` asks (the fields of `Request`), heeding the environment; gives the comparison as JSON.
pub fn compare_json(
    request: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    observer: &mut dyn Observer,
    surroundings: Surroundings<'_>,
) -> Result<String, ChoiceError> {
    let mistake = |error: serde_json::Error| {
        ChoiceError::usage(
            format!("cannot read or write a comparison: {error}"),
            "this is a mistake in treadle",
        )
    };
    let mut request: Request = serde_json::from_str(request).map_err(mistake)?;
    request.heed(environment)?;
    serde_json::to_string(&compare(&request, observer, surroundings)?).map_err(mistake)
}

/// What is happening, for people who wait.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// The function and its inputs are being loaded.
    Loading,
    /// The serial sample is running.
    Profiling {
        /// Inputs that were found.
        count: u64,
    },
    /// The pool of a candidate is being started.
    Starting {
        /// The candidate.
        plan: Plan,
    },
    /// A block is about to run.
    Racing {
        /// Seconds since the race began.
        elapsed_s: f64,
        /// Seconds that it may take.
        budget_s: f64,
        /// The candidate whose block it is.
        plan: Plan,
        /// The fastest so far with its tasks per second.
        leader: Option<(Plan, f64)>,
    },
}

/// Is told what happens while a comparison runs.
pub trait Observer {
    /// Something began.
    fn progress(&mut self, progress: &Progress);
}

/// Tells nobody.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn progress(&mut self, _progress: &Progress) {}
}

/// What loading told.
#[derive(Debug, Clone, Deserialize)]
struct Loaded {
    target: String,
    #[serde(default)]
    file: Option<String>,
    #[serde(default)]
    source_hash: Option<String>,
    count: u64,
    spec: String,
    #[serde(rename = "async", default)]
    asynchronous: bool,
    #[serde(default)]
    items_truncated: bool,
    python: String,
    implementation: String,
    gil: bool,
}

/// Compares the plans for a function over its inputs.
pub fn compare(
    request: &Request,
    observer: &mut dyn Observer,
    surroundings: Surroundings<'_>,
) -> Result<Comparison, ChoiceError> {
    let targets = decide::parse_targets(request.targets.as_deref().unwrap_or(""))?;
    let wanted = request.plans.as_deref().map(Plan::parse_list).transpose()?;
    if !(request.budget_s > 0.0 && request.budget_s.is_finite()) {
        return Err(ChoiceError::usage(
            format!(
                "the budget is {} s, but a race needs time",
                request.budget_s
            ),
            "give --budget a number of seconds above 0, such as --budget 30",
        ));
    }
    let before = Before::read();
    let launch = Launch {
        command: request.command(),
    };

    observer.progress(&Progress::Loading);
    let mut laboratory = start(&launch)?;
    let loaded = load(&mut laboratory, request, surroundings)?;
    observer.progress(&Progress::Profiling {
        count: loaded.count,
    });
    let sample = profile(&mut laboratory, request, surroundings)?;
    let handover = handover(&mut laboratory, &loaded, surroundings);
    laboratory.leave(surroundings);
    if (surroundings.interrupted)() {
        return Err(ChoiceError::Interrupted);
    }
    let profile = Profile::from_sample(&sample);

    let mut readings = before.readings(&profile);
    let verdict = noise::judge(&readings, profile.cpu_share());
    let refused = verdict.level == Level::Refuse && !request.ignore_noise;
    let setting = Setting {
        cores: before.cores.cores,
        gil: loaded.gil,
        asynchronous: loaded.asynchronous,
        pilot_trusted: verdict.level == Level::Quiet,
        count: (!loaded.items_truncated).then_some(loaded.count),
        memory_available: before.memory.available.map(|bytes| bytes as f64),
        interpreters: model::has_interpreters(&loaded.implementation, &loaded.python),
        handover: handover.0,
        shared_loop: handover.1,
    };
    let model = Model::new(&profile, &setting);
    let curves = model.curves();
    let predictions: Vec<Prediction> = match &wanted {
        Some(plans) => std::iter::once(Plan::SERIAL)
            .chain(plans.iter().copied().filter(|plan| *plan != Plan::SERIAL))
            .map(|plan| model.predict(plan))
            .collect(),
        None => contenders::contenders(&curves, &model),
    };

    let mut field = Field::new(&predictions);
    let mut account = None;
    if !refused && !request.profile_only {
        let seed = request
            .seed
            .unwrap_or_else(|| (surroundings.clock)().to_bits());
        account = Some(driver::race(
            &mut field,
            request,
            &launch,
            &profile,
            &setting,
            seed,
            observer,
            surroundings,
        )?);
    }
    readings.steal_share = before.steal_since();
    let verdict = if refused {
        verdict
    } else {
        noise::judge(&readings, profile.cpu_share())
    };

    let measured: Vec<Measured> = field.measured();
    let choice = account
        .as_ref()
        .and_then(|_| decide::choose(&measured, &targets));
    let mut candidates = field.candidates(choice.as_ref(), &targets);
    if wanted.is_none() {
        for curve in &curves {
            candidates.extend(reason::unraced(curve, &candidates, &setting));
        }
    }
    // From here on nothing runs any more: what follows is arithmetic and words.
    let machine = before.machine(&loaded, request, readings, &verdict);
    let decision = reason::decision(&reason::Grounds {
        function: &loaded.target,
        profile: &profile,
        setting: &setting,
        candidates: &candidates,
        choice: choice.as_ref(),
        race: account.as_ref(),
        verdict: &verdict,
        ignored: request.ignore_noise,
        refused,
        profile_only: request.profile_only,
        targets: &targets,
    });
    Ok(Comparison {
        schema: SCHEMA,
        target: loaded.target,
        target_file: loaded.file,
        source_hash: loaded.source_hash,
        asynchronous: loaded.asynchronous,
        items: Items {
            count: loaded.count,
            spec: loaded.spec,
            truncated: loaded.items_truncated,
            star: request.star,
        },
        machine,
        profile,
        handover: handover.0,
        shared_loop: handover.1,
        candidates,
        curves: curves
            .iter()
            .filter(|curve| curve.points.iter().any(|one| one.infeasible.is_none()))
            .map(Curve::of)
            .collect(),
        race: account,
        targets: targets
            .iter()
            .map(|target: &Target| target.text.clone())
            .collect(),
        profile_only: request.profile_only,
        decision,
    })
}

/// Readings from before anything was started.
struct Before {
    cores: treadle_probe::UsableCores,
    memory: treadle_probe::memory::Memory,
    pressure: Option<f64>,
    spin: f64,
    times: Option<treadle_probe::pressure::ProcessorTimes>,
}

impl Before {
    fn read() -> Self {
        use treadle_probe::pressure;
        let cores = treadle_probe::usable_cores();
        // A control group's own pressure tells of neighbours in it; the machine's tells of all. The larger one holds.
        let pressure = [pressure::machine_cpu(), pressure::group_cpu()]
            .into_iter()
            .flatten()
            .map(|one| one.average_10 / 100.0)
            .reduce(f64::max);
        let threads = cores.parallel().min(SPIN_MOST_THREADS);
        let expected = (threads as f64).min(cores.cores);
        Self {
            cores,
            memory: treadle_probe::memory::memory(),
            pressure,
            times: pressure::processor_times(),
            spin: (treadle_probe::spin::cores(threads, SPIN_S) / expected).min(1.0),
        }
    }

    fn readings(&self, profile: &Profile) -> Readings {
        // Native threads of the function's own compete with it, so its delay then tells nothing about others; and a delay
        // around tasks of a few microseconds falls into the reading of the clocks.
        let alone = profile.native_cpu_s < 0.05 * profile.wall_s;
        Readings {
            pressure_before: self.pressure,
            cores_share: Some(self.spin),
            run_queue_share: profile
                .run_queue_s
                .filter(|_| alone && profile.wall_s >= TOO_SMALL_S)
                .map(|delay| (delay / profile.wall_s).min(1.0)),
            steal_share: self.steal_since(),
        }
    }

    fn steal_since(&self) -> Option<f64> {
        use treadle_probe::pressure::{processor_times, steal_share};
        steal_share(self.times?, processor_times()?)
    }

    fn machine(
        &self,
        loaded: &Loaded,
        request: &Request,
        readings: Readings,
        verdict: &noise::Verdict,
    ) -> Machine {
        Machine {
            usable_cores: self.cores.cores,
            affinity: self.cores.affinity,
            quota: self.cores.quota,
            physical_cores: self.cores.physical,
            python: loaded.python.clone(),
            implementation: loaded.implementation.clone(),
            gil: loaded.gil,
            noise: if verdict.level == Level::Quiet {
                "quiet"
            } else {
                "noisy"
            }
            .to_owned(),
            noise_grounds: verdict.grounds.clone(),
            readings,
            noise_ignored: request.ignore_noise,
            cpu: treadle_probe::machine::processor_model(),
            kernel: treadle_probe::machine::kernel(),
            memory_available_bytes: self.memory.available,
            memory_limit_bytes: self.memory.limit,
        }
    }
}

/// Starts a laboratory; a failure names the program.
pub(super) fn start(launch: &Launch) -> Result<Laboratory, ChoiceError> {
    Laboratory::start(launch).map_err(|error| {
        let program = launch.command.first().map_or("", String::as_str);
        ChoiceError::usage(
            format!("cannot start the measuring process `{program}`: {error}"),
            "is this the Python that treadle is installed in?",
        )
    })
}

/// The load request of every laboratory of a comparison.
pub(super) fn load_request(request: &Request) -> Value {
    json!({
        "do": "load",
        "target": request.target,
        "items": request.items,
        "pickled": request.pickled,
        "star": request.star,
        "limit": request.limit,
    })
}

fn load(
    laboratory: &mut Laboratory,
    request: &Request,
    surroundings: Surroundings<'_>,
) -> Result<Loaded, ChoiceError> {
    let timeout = request.budget_s + LOAD_GRACE_S;
    let reply = laboratory.call(&load_request(request), timeout, surroundings, &mut |_| {});
    let what = request.target.as_deref().unwrap_or("the function");
    match reply {
        Ok(value) => Loaded::deserialize(&value).map_err(|error| broken(&error.to_string())),
        Err(CallError::Refused(refusal)) => Err(ChoiceError::Usage {
            message: refusal.message,
            hint: refusal.hint,
            detail: refusal.detail,
        }),
        Err(CallError::Died { how, stderr, .. }) => Err(ChoiceError::Function {
            message: format!("loading {what} ended the measuring process with {how}"),
            hint: Some("what runs when the module is imported, or when the items are made, must not end the process".to_owned()),
            detail: some_text(stderr),
        }),
        Err(CallError::Late { after_s, stderr, .. }) => Err(ChoiceError::Function {
            message: format!("loading {what} and its items did not end within {}", wording::seconds(after_s)),
            hint: Some("move work out of the module's top level, or give a larger --budget".to_owned()),
            detail: some_text(stderr),
        }),
        Err(CallError::Interrupted) => Err(ChoiceError::Interrupted),
        Err(CallError::Broken(why)) => Err(broken(&why)),
    }
}

fn profile(
    laboratory: &mut Laboratory,
    request: &Request,
    surroundings: Surroundings<'_>,
) -> Result<Sample, ChoiceError> {
    let seconds = if request.profile_only {
        request.budget_s.min(SAMPLE_ALONE_MOST_S)
    } else {
        (request.budget_s * SAMPLE_SHARE).min(SAMPLE_MOST_S)
    };
    let asked = json!({"do": "profile", "max_seconds": seconds, "max_count": SAMPLE_MOST_COUNT});
    let timeout = request.budget_s.max(PROFILE_LEAST_S);
    let sample = match laboratory.call(&asked, timeout, surroundings, &mut |_| {}) {
        Ok(value) => Sample::deserialize(&value).map_err(|error| broken(&error.to_string()))?,
        Err(CallError::Refused(refusal)) => {
            return Err(ChoiceError::Function {
                message: refusal.message,
                hint: refusal.hint,
                detail: refusal.detail,
            });
        }
        Err(error) => {
            return Err(function_failure(
                error,
                "the serial sample",
                request.budget_s,
            ));
        }
    };
    if sample.all_failed {
        let (what, detail) = sample.first_error.map_or_else(
            || (String::new(), None),
            |error| {
                let text = format!(
                    ": input {} raised {}: {}",
                    error.index, error.class, error.message
                );
                (text, some_text(error.traceback))
            },
        );
        let tried = sample.count.max(sample.errors);
        return Err(ChoiceError::Function {
            message: format!("the function failed on every input that was tried ({tried}){what}"),
            hint: Some("check --items, and --star if an input holds several arguments".to_owned()),
            detail,
        });
    }
    Ok(sample)
}

/// What handing a task over costs, and a loop that many tasks share; what cannot be measured is left out, and the race shows it.
fn handover(
    laboratory: &mut Laboratory,
    loaded: &Loaded,
    surroundings: Surroundings<'_>,
) -> (Handover, Option<LoopCost>) {
    let mut ask = |asked: Value| {
        laboratory
            .call(&asked, HANDOVER_MOST_S, surroundings, &mut |_| {})
            .ok()
    };
    let shared = if loaded.asynchronous {
        ask(json!({"do": "loop", "concurrency": SHARED_LOOP_TASKS, "seconds": SHARED_LOOP_S}))
    } else {
        None
    };
    let costs = ask(json!({"do": "handover", "seconds": HANDOVER_S}));
    (
        costs
            .and_then(|reply| Handover::deserialize(reply).ok())
            .unwrap_or_default(),
        shared.and_then(|reply| Option::deserialize(reply).ok().flatten()),
    )
}

/// A crash or a hang of the function, told with its input.
pub(super) fn function_failure(error: CallError, during: &str, budget_s: f64) -> ChoiceError {
    let at = |input: Option<u64>| {
        input.map_or_else(
            || "the function".to_owned(),
            |index| format!("input {index}"),
        )
    };
    match error {
        CallError::Died {
            how, input, stderr, ..
        } => ChoiceError::Function {
            message: format!("{} ended the measuring process with {how}, during {during}", at(input)),
            hint: Some("a task must return or raise: os._exit, a crash in native code or a lack of memory takes its worker along".to_owned()),
            detail: some_text(stderr),
        },
        CallError::Late { after_s, input, stderr } => ChoiceError::Function {
            message: format!(
                "{} did not return within {}, during {during}",
                at(input),
                wording::seconds(after_s)
            ),
            hint: Some(format!(
                "if one task may take that long, give a --budget of several times its duration (it was {budget_s} s)"
            )),
            detail: some_text(stderr),
        },
        CallError::Refused(refusal) => ChoiceError::Function {
            message: refusal.message,
            hint: refusal.hint,
            detail: refusal.detail,
        },
        CallError::Interrupted => ChoiceError::Interrupted,
        CallError::Broken(why) => broken(&why),
    }
}

fn broken(why: &str) -> ChoiceError {
    ChoiceError::Function {
        message: format!(
            "the measuring process said something that is not the measuring protocol: {why}"
        ),
        hint: Some(
            "are treadle's Python files and its compiled part of the same version?".to_owned(),
        ),
        detail: None,
    }
}

fn some_text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
