//! The story of a comparison: load → profile → model → race → decide.
//!
//! *Guarantees*: the function runs only in processes of its own; when this returns, whatever it returns, none of them is
//! left. Time spent racing stays within the budget but for one block.
//! *Assumes*: the clock and the wish to stop are passed in.

use super::asking;
use super::comparison::{Comparison, Curve, Items, SCHEMA, Took};
use super::contenders::{self, Contender, HOPE_SHARE};
use super::decide::{self, Measured};
use super::driver::{self, Raced};
use super::error::ChoiceError;
use super::field::Field;
use super::gate::{Before, Pressing, alone};
use super::laboratory::Surroundings;
use super::model::{self, Handover, Model, Setting};
use super::noise::{self, CPU_SHARE_THAT_MATTERS, Level};
use super::plan::Plan;
use super::profile::{Profile, TOO_SMALL_S};
use super::reason;
use super::request::Request;
use super::sample::Sample;
use super::statistics;
use super::target::{Target, parse_targets};

/// Standard deviation over mean below which durations count as even: blocks then hold about the same whichever inputs they meet.
const EVEN: f64 = 0.1;

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

/// Compares the plans for a function over its inputs.
pub fn compare(
    request: &Request,
    observer: &mut dyn Observer,
    surroundings: Surroundings<'_>,
) -> Result<Comparison, ChoiceError> {
    let targets = parse_targets(request.targets.as_deref().unwrap_or(""))?;
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
    let mut watch = Watch::begin(surroundings);

    observer.progress(&Progress::Loading);
    let mut laboratory = asking::start(&launch)?;
    let loaded = asking::load(&mut laboratory, request, surroundings)?;
    let loading_s = watch.lap();
    observer.progress(&Progress::Profiling {
        count: loaded.count,
    });
    let mut sample = asking::profile(&mut laboratory, request, loaded.count, surroundings)?;
    let profile = Profile::from_sample(&sample);
    // Waiting does not get slower when others compute: the first two candidates load while the rest is measured.
    let waits = profile.cpu_share() < CPU_SHARE_THAT_MATTERS;
    let loading = if waits && !request.profile_only {
        driver::load_ahead(&launch, request)?
    } else {
        Vec::new()
    };
    let fingerprint = request
        .fingerprint
        .then(|| asking::fingerprint(&mut laboratory, request, surroundings))
        .transpose()?;
    let mut readings = before.readings(&profile);
    let verdict = noise::judge(&readings, profile.cpu_share());
    let refused = verdict.level == Level::Refuse && !request.ignore_noise;
    let mut setting = Setting {
        cores: before.cores.cores,
        gil: loaded.gil,
        asynchronous: loaded.asynchronous,
        pilot_trusted: verdict.level == Level::Quiet,
        count: (!loaded.items_truncated).then_some(loaded.count),
        memory_available: before.memory.available.map(|bytes| bytes as f64),
        interpreters: model::has_interpreters(&loaded.implementation, &loaded.python),
        handover: Handover::default(),
        shared_loop: None,
    };
    // The loop would run inputs a second time.
    if loaded.asynchronous && !request.once {
        setting.shared_loop = asking::shared_loop(&mut laboratory, &profile, surroundings);
    }
    // What cannot win need not be started to know what it would cost.
    let apart = match &wanted {
        _ if request.profile_only => true,
        Some(plans) => plans.iter().any(Plan::apart),
        None => Model::new(&profile, &setting).apart_may_win(HOPE_SHARE),
    };
    asking::worker(&mut laboratory, request, apart, &mut sample, surroundings)?;
    setting.handover = asking::handover(&mut laboratory, apart, surroundings);
    laboratory.dismiss();
    if (surroundings.interrupted)() {
        return Err(ChoiceError::Interrupted);
    }
    let profile = Profile::from_sample(&sample);
    let profiling_s = watch.lap();

    let model = Model::new(&profile, &setting);
    let curves = model.curves();
    let contenders: Vec<Contender> = match &wanted {
        Some(plans) => std::iter::once(Plan::SERIAL)
            .chain(plans.iter().copied().filter(|plan| *plan != Plan::SERIAL))
            .map(|plan| Contender::new(model.predict(plan)))
            .collect(),
        None => contenders::contenders(&curves, &model),
    };
    let predicting_s = watch.lap();

    let mut field = Field::new(contenders);
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
            efforts: if request.once {
                Vec::new()
            } else {
                efforts(&sample)
            },
            unused: request.once.then(|| unused(loaded.count, &sample.used)),
            loading,
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
    laboratory.leave(surroundings);
    let took = Took {
        loading_s,
        profiling_s,
        predicting_s,
        racing_s: account.is_some().then(|| watch.lap()),
    };
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
        took,
        handover: setting.handover,
        shared_loop: setting.shared_loop,
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

/// Laps of the clock.
struct Watch<'a> {
    clock: &'a dyn Fn() -> f64,
    last: f64,
}

impl<'a> Watch<'a> {
    fn begin(surroundings: Surroundings<'a>) -> Self {
        let clock = surroundings.clock;
        Self {
            clock,
            last: clock(),
        }
    }

    /// Seconds since the last lap.
    fn lap(&mut self) -> f64 {
        let now = (self.clock)();
        now - std::mem::replace(&mut self.last, now)
    }
}

/// The inputs that the sample did not run.
fn unused(count: u64, used: &[u64]) -> Vec<u64> {
    let used: std::collections::BTreeSet<u64> = used.iter().copied().collect();
    (0..count).filter(|input| !used.contains(input)).collect()
}

/// What each input of the sample takes, as a share of the mean; nothing where they hardly differ.
fn efforts(sample: &Sample) -> Vec<(u64, f64)> {
    let (inputs, walls) = (&sample.measured_inputs, &sample.walls);
    match statistics::mean(walls) {
        Some(mean) if inputs.len() == walls.len() && variation(walls) > EVEN => {
            let shares = walls.iter().map(|wall| wall / mean);
            inputs.iter().copied().zip(shares).collect()
        }
        _ => Vec::new(),
    }
}

/// Standard deviation over mean; 0 where it cannot be told.
fn variation(values: &[f64]) -> f64 {
    statistics::mean(values)
        .filter(|mean| *mean > 0.0)
        .map_or(0.0, |mean| statistics::deviation(values) / mean)
}
