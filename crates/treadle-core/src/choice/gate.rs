//! The readings of the noise gate, taken before, during and after a comparison.
//!
//! *Assumes*: `Before::read` is called before anything is started.

use super::asking::Loaded;
use super::comparison::Machine;
use super::noise::{self, Level, Readings};
use super::profile::{Profile, TOO_SMALL_S};
use super::request::Request;

/// The spin probe: several scheduler slices (3 to 10 ms), not noticed by a person.
const SPIN_S: f64 = 0.03;
/// How long the processors are watched after pressure: 30 ticks of the kernel's accounting each, so that the limit of 5 % is more than one
/// tick, and not noticed by a person.
const WATCH_S: f64 = 0.3;
/// Most threads of the spin probe; beyond, starting them takes longer than the probe.
const SPIN_MOST_THREADS: usize = 64;

/// Whether the function keeps to its thread: native threads of its own compete with it, and its delay then tells nothing about others.
pub(super) fn alone(profile: &Profile) -> bool {
    profile.native_cpu_s < 0.05 * profile.wall_s
}

/// The kernel's pressure total at the start of a race.
pub(super) struct Pressing(Option<(f64, f64)>);

impl Pressing {
    pub(super) fn begin() -> Self {
        Self(Self::read())
    }

    pub(super) fn read() -> Option<(f64, f64)> {
        let pressure = treadle_probe::pressure::machine_cpu()?;
        Some((pressure.total_s, treadle_probe::clock::monotonic()))
    }

    /// Share of the time since in which some task waited. The kernel sums up every two seconds, so a shorter race has none.
    pub(super) fn share(&self) -> Option<f64> {
        let ((total, at), (later, now)) = (self.0?, Self::read()?);
        (now - at >= 2.0).then(|| ((later - total) / (now - at)).clamp(0.0, 1.0))
    }
}

/// Share of the processors' time that others use while this process sleeps.
fn watched() -> Option<f64> {
    use treadle_probe::pressure::{busy_share, processor_times};
    let before = processor_times()?;
    std::thread::sleep(std::time::Duration::from_secs_f64(WATCH_S));
    busy_share(before, processor_times()?)
}

/// Readings from before anything was started.
pub(super) struct Before {
    pub(super) cores: treadle_probe::UsableCores,
    pub(super) memory: treadle_probe::memory::Memory,
    pressure: Option<f64>,
    busy: Option<f64>,
    spin: f64,
    times: Option<treadle_probe::pressure::ProcessorTimes>,
}

impl Before {
    pub(super) fn read() -> Self {
        use treadle_probe::pressure;
        let cores = treadle_probe::usable_cores();
        // A control group's own pressure tells of neighbours in it; the machine's tells of all. The larger one holds.
        let pressure = [pressure::machine_cpu(), pressure::group_cpu()]
            .into_iter()
            .flatten()
            .map(|one| one.average_10 / 100.0)
            .reduce(f64::max);
        let busy = pressure
            .filter(|pressure| noise::calls_for_a_watch(*pressure))
            .and_then(|_| watched());
        let mut before = Self {
            cores,
            memory: treadle_probe::memory::memory(),
            pressure,
            busy,
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
    pub(super) fn spin(&self) -> f64 {
        treadle_probe::spin::cores(self.spin_threads(), SPIN_S)
    }

    /// The same over what they should have got.
    pub(super) fn share(&self, spun: f64) -> f64 {
        (spun / (self.spin_threads() as f64).min(self.cores.cores)).min(1.0)
    }

    pub(super) fn readings(&self, profile: &Profile) -> Readings {
        // A delay around tasks of a few microseconds falls into the reading of the clocks.
        Readings {
            pressure_before: self.pressure,
            busy_before: self.busy,
            cores_share: Some(self.share(self.spin)),
            run_queue_share: profile
                .run_queue_s
                .filter(|_| alone(profile) && profile.wall_s >= TOO_SMALL_S)
                .map(|delay| (delay / profile.wall_s).min(1.0)),
            steal_share: self.steal_since(),
            ..Readings::default()
        }
    }

    pub(super) fn steal_since(&self) -> Option<f64> {
        use treadle_probe::pressure::{processor_times, steal_share};
        steal_share(self.times?, processor_times()?)
    }

    pub(super) fn machine(
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
