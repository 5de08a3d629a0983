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
use super::driver::{self, Raced};
use super::error::ChoiceError;
use super::field::Field;
use super::fingerprint::{self, Asked, Fingerprint};
use super::laboratory::{CallError, Laboratory, Launch, Surroundings};
use super::model::{self, Handover, LoopCost, Model, Prediction, Setting};
use super::noise::{self, Level, Readings};
use super::plan::Plan;
use super::profile::{Profile, Sample, TOO_SMALL_S};
use super::reason;
use super::request::Request;
use super::statistics;
use super::wording;

/// Share of the budget for the serial sample, and its ceiling in seconds: a few hundred tasks of a millisecond suffice for means.
const SAMPLE_SHARE: f64 = 0.15;
const SAMPLE_MOST_S: f64 = 3.0;
/// The sample before a race may end after so many seconds if it holds so many tasks by then: the race measures again what they say, and
/// twenty tasks tell a mean within half of their spread.
const SAMPLE_ENOUGH_S: f64 = 0.4;
const SAMPLE_ENOUGH_COUNT: u64 = 20;
/// When no input may be run twice, the sample takes one in so many, but no fewer than the least: most are left for the race.
const SAMPLE_ONCE: u64 = 5;
const SAMPLE_ONCE_LEAST: u64 = 3;
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
    /// A recorded decision is about to be checked.
    Checking {
        /// Its name.
        name: String,
    },
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
    let launch = request.launch();

    observer.progress(&Progress::Loading);
    let mut laboratory = start(&launch)?;
    let loaded = load(&mut laboratory, request, surroundings)?;
    observer.progress(&Progress::Profiling {
        count: loaded.count,
    });
    let sample = profile(&mut laboratory, request, loaded.count, surroundings)?;
    let fingerprint = request
        .fingerprint
        .then(|| fingerprint(&mut laboratory, request, surroundings))
        .transpose()?;
    let handover = handover(&mut laboratory, request, &loaded, surroundings);
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
    let mut winner = None;
    let mut left_out = None;
    let mut spin_after = None;
    if !refused && !request.profile_only {
        let seed = request
            .seed
            .unwrap_or_else(|| (surroundings.clock)().to_bits());
        let pressing = Pressing::begin();
        let terms = driver::Terms {
            request,
            launch: &launch,
            profile: &profile,
            setting: &setting,
            targets: &targets,
            control_alone: alone(&profile),
            variation: variation(&sample.walls),
            unused: request.once.then(|| unused(loaded.count, &sample.used)),
            seed,
        };
        match driver::race(&mut field, terms, observer, surroundings)? {
            Raced::Ran(race, certain) => {
                spin_after = Some(before.spin());
                readings.cores_share_after = spin_after.map(|cores| before.share(cores));
                readings.pressure_during = pressing.share();
                readings.control_delay_share = race
                    .control_delay
                    .filter(|_| alone(&profile) && profile.wall_s >= TOO_SMALL_S);
                readings.disturbed_share =
                    (race.rounds > 0).then(|| race.disturbed_rounds as f64 / race.rounds as f64);
                winner = certain;
                account = Some(*race);
            }
            Raced::LeftOut(why) => left_out = Some(why),
        }
    }
    readings.steal_share = before.steal_since();
    let verdict = if refused {
        verdict
    } else {
        noise::judge(&readings, profile.cpu_share())
    };
    // What the race brought on a machine that proved too noisy is shown, but it decides nothing.
    let cannot_tell = account.is_some() && verdict.level == Level::Refuse && !request.ignore_noise;

    let measured: Vec<Measured> = field.measured();
    let choice = account
        .as_ref()
        .filter(|_| !cannot_tell)
        .and_then(|_| decide::choose_raced(&measured, &targets, winner));
    let mut candidates = field.candidates(choice.as_ref(), &targets);
    if wanted.is_none() {
        for curve in &curves {
            candidates.extend(reason::unraced(curve, &candidates, &setting));
        }
    }
    // From here on nothing runs any more: what follows is arithmetic and words.
    let machine = before.machine(&loaded, request, readings, &verdict, spin_after);
    let decision = reason::decision(&reason::Grounds {
        function: &loaded.target,
        profile: &profile,
        setting: &setting,
        candidates: &candidates,
        choice: choice.as_ref(),
        race: account.as_ref(),
        verdict: &verdict,
        ignored: request.ignore_noise,
        certain: choice
            .as_ref()
            .is_some_and(|choice| winner == Some(choice.index)),
        refused,
        cannot_tell,
        left_out: left_out.as_deref(),
        profile_only: request.profile_only,
        targets: &targets,
    });
    Ok(Comparison {
        schema: SCHEMA,
        target: loaded.target,
        target_file: loaded.file,
        source_hash: loaded.source_hash,
        fingerprint,
        asynchronous: loaded.asynchronous,
        items: Items {
            count: loaded.count,
            spec: loaded.spec,
            truncated: loaded.items_truncated,
            star: request.star,
            once: request.once,
            limit: request.limit,
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

/// The inputs that the sample did not run.
fn unused(count: u64, used: &[u64]) -> Vec<u64> {
    let used: std::collections::BTreeSet<u64> = used.iter().copied().collect();
    (0..count).filter(|input| !used.contains(input)).collect()
}

/// Standard deviation over mean; 0 where it cannot be told.
fn variation(values: &[f64]) -> f64 {
    let Some(mean) = statistics::mean(values).filter(|mean| *mean > 0.0 && values.len() > 1) else {
        return 0.0;
    };
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt() / mean
}

/// Whether the function keeps to its thread: native threads of its own compete with it, and its delay then tells nothing about others.
fn alone(profile: &Profile) -> bool {
    profile.native_cpu_s < 0.05 * profile.wall_s
}

/// The kernel's pressure total at the start of a race.
struct Pressing(Option<(f64, f64)>);

impl Pressing {
    fn begin() -> Self {
        Self(Self::read())
    }

    fn read() -> Option<(f64, f64)> {
        let pressure = treadle_probe::pressure::machine_cpu()?;
        Some((pressure.total_s, treadle_probe::clock::monotonic()))
    }

    /// Share of the time since in which some task waited. The kernel sums up every two seconds, so a shorter race has none.
    fn share(&self) -> Option<f64> {
        let ((total, at), (later, now)) = (self.0?, Self::read()?);
        (now - at >= 2.0).then(|| ((later - total) / (now - at)).clamp(0.0, 1.0))
    }
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
        let mut before = Self {
            cores,
            memory: treadle_probe::memory::memory(),
            pressure,
            times: pressure::processor_times(),
            spin: 0.0,
        };
        before.spin = before.spin();
        before
    }

    fn spin_threads(&self) -> usize {
        self.cores.parallel().min(SPIN_MOST_THREADS)
    }

    /// Cores' worth that as many native threads get now.
    fn spin(&self) -> f64 {
        treadle_probe::spin::cores(self.spin_threads(), SPIN_S)
    }

    /// The same over what they should have got.
    fn share(&self, spun: f64) -> f64 {
        (spun / (self.spin_threads() as f64).min(self.cores.cores)).min(1.0)
    }

    fn readings(&self, profile: &Profile) -> Readings {
        // A delay around tasks of a few microseconds falls into the reading of the clocks.
        Readings {
            pressure_before: self.pressure,
            cores_share: Some(self.share(self.spin)),
            run_queue_share: profile
                .run_queue_s
                .filter(|_| alone(profile) && profile.wall_s >= TOO_SMALL_S)
                .map(|delay| (delay / profile.wall_s).min(1.0)),
            steal_share: self.steal_since(),
            ..Readings::default()
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
        spin_after: Option<f64>,
    ) -> Machine {
        Machine {
            usable_cores: self.cores.cores,
            affinity: self.cores.affinity,
            quota: self.cores.quota,
            physical_cores: self.cores.physical,
            spin_threads: self.spin_threads(),
            spin_cores: Some(self.spin),
            spin_cores_after: spin_after,
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
        "once": request.once,
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
    count: u64,
    surroundings: Surroundings<'_>,
) -> Result<Sample, ChoiceError> {
    let seconds = if request.profile_only {
        request.budget_s.min(SAMPLE_ALONE_MOST_S)
    } else {
        (request.budget_s * SAMPLE_SHARE).min(SAMPLE_MOST_S)
    };
    let most = if request.once {
        (count / SAMPLE_ONCE).clamp(SAMPLE_ONCE_LEAST, SAMPLE_MOST_COUNT)
    } else {
        SAMPLE_MOST_COUNT
    };
    let mut asked = json!({
        "do": "profile", "max_seconds": seconds, "max_count": most, "once": request.once,
    });
    if !request.profile_only {
        asked["enough_seconds"] = json!(SAMPLE_ENOUGH_S);
        asked["enough_count"] = json!(SAMPLE_ENOUGH_COUNT);
    }
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

/// The fingerprint of the function that is loaded.
fn fingerprint(
    laboratory: &mut Laboratory,
    request: &Request,
    surroundings: Surroundings<'_>,
) -> Result<Fingerprint, ChoiceError> {
    let asked = fingerprint::ask(
        laboratory,
        request.target.as_deref(),
        request.items.as_deref(),
        None,
        surroundings,
    )?;
    match asked {
        Asked::Found(found) => Ok(*found),
        Asked::Refused(refusal) => Err(ChoiceError::Usage {
            message: refusal.message,
            hint: refusal.hint,
            detail: refusal.detail,
        }),
    }
}

/// What handing a task over costs, and a loop that many tasks share; what cannot be measured is left out, and the race shows it.
fn handover(
    laboratory: &mut Laboratory,
    request: &Request,
    loaded: &Loaded,
    surroundings: Surroundings<'_>,
) -> (Handover, Option<LoopCost>) {
    let mut ask = |asked: Value| {
        laboratory
            .call(&asked, HANDOVER_MOST_S, surroundings, &mut |_| {})
            .ok()
    };
    // The loop would run inputs a second time.
    let shared = if loaded.asynchronous && !request.once {
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

pub(super) fn broken(why: &str) -> ChoiceError {
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
