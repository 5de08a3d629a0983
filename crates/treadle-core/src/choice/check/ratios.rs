//! Level 1: the ratios of a serial profile against the recorded ones, for ratios travel between machines and times do not.
//!
//! *Guarantees*: a ratio has moved only when it is out of its band and, where both sides have intervals, those are apart.

use serde::Serialize;

use super::super::profile::Profile;
use super::super::wording;

/// A share has moved when it differs by ten points. Serial samples of one function differ by less (the probe's own error is
/// 3 points, of which two sides make 6), and ten points of CPU time move the knee of a plan by a tenth of the cores.
const SHARE_BAND: f64 = 0.10;
/// Bytes have moved when they differ by a factor of two: pickling costs follow size, and half or double of them shows.
const BYTES_FACTOR: f64 = 2.0;
/// Below this many bytes a payload costs what an empty one costs (transport notes 3.4).
const BYTES_FLOOR: f64 = 1024.0;
/// On the same machine a task's time has moved when it differs by a factor of two; what it changes is the share of start-up
/// and hand-over, which the ranking weighs.
const TIME_FACTOR: f64 = 2.0;

/// One ratio on both sides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    /// What it is of.
    pub name: String,
    /// In the record.
    pub before: f64,
    /// Now.
    pub now: f64,
    /// Whether it has moved.
    pub moved: bool,
    /// Both in words.
    pub words: String,
}

/// The ratios of both profiles; `alike` says whether absolute times may be compared.
pub fn ratios(before: &Profile, now: &Profile, alike: bool) -> Vec<Ratio> {
    let mut found = Vec::new();
    let mut share = |name: &str, before: f64, now: f64, apart: bool| {
        found.push(Ratio {
            name: name.to_owned(),
            before,
            now,
            moved: apart && (now - before).abs() > SHARE_BAND,
            words: format!(
                "{name}: {} in the record, {} now",
                wording::percent(before),
                wording::percent(now)
            ),
        });
    };
    share("CPU share", before.cpu_share(), now.cpu_share(), true);
    if let (Some(old), Some(new)) = (lock_share(before), lock_share(now)) {
        let apart = match (lock_interval(before), lock_interval(now)) {
            (Some(old), Some(new)) => old[1] < new[0] || new[1] < old[0],
            _ => true,
        };
        share("share with the interpreter lock held", old, new, apart);
    }
    share(
        "share of native helper threads",
        native_share(before),
        native_share(now),
        true,
    );
    share(
        "pickling in the parent, of a task's time",
        before.parent_pickle_s() / before.own_s().max(1e-12),
        now.parent_pickle_s() / now.own_s().max(1e-12),
        true,
    );
    share(
        "tasks that raise",
        before.errors as f64 / before.count.max(1) as f64,
        now.errors as f64 / now.count.max(1) as f64,
        true,
    );
    for (name, old, new) in [
        ("argument size", before.argument_bytes, now.argument_bytes),
        ("result size", before.result_bytes, now.result_bytes),
    ] {
        if let (Some(before), Some(now)) = (old, new) {
            let factor = (now.max(1.0) / before.max(1.0)).ln().abs();
            found.push(Ratio {
                name: name.to_owned(),
                before,
                now,
                moved: factor > BYTES_FACTOR.ln() && before.max(now) > BYTES_FLOOR,
                words: format!(
                    "{name}: {} in the record, {} now",
                    wording::bytes(before),
                    wording::bytes(now)
                ),
            });
        }
    }
    if alike {
        let (old, new) = (before.own_s(), now.own_s());
        found.push(Ratio {
            name: "time of a task".to_owned(),
            before: old,
            now: new,
            moved: (new.max(1e-12) / old.max(1e-12)).ln().abs() > TIME_FACTOR.ln(),
            words: format!(
                "time of a task: {} in the record, {} now",
                wording::seconds(old),
                wording::seconds(new)
            ),
        });
    }
    found
}

/// The 95 % interval of the same share.
fn lock_interval(profile: &Profile) -> Option<[f64; 2]> {
    let split = profile.split?;
    let own = profile.own_s().max(1e-12);
    let ends = |low: f64, high: f64| [low / own, high / own];
    Some(ends(
        split.gil_cpu.low_s + split.gil_blocked.low_s,
        split.gil_cpu.high_s + split.gil_blocked.high_s,
    ))
}

/// Share of a task's own time with the interpreter lock held; `None` where it was not measured.
fn lock_share(profile: &Profile) -> Option<f64> {
    let held = profile.gil_cpu_s? + profile.gil_blocked_s.unwrap_or(0.0);
    Some((held / profile.own_s().max(1e-12)).min(1.0))
}

fn native_share(profile: &Profile) -> f64 {
    (profile.native_cpu_s / profile.own_s().max(1e-12)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::super::super::profile::tests::sample;
    use super::super::super::split::{Estimate, Split};
    use super::*;

    fn profile(wall_s: f64, cpu_s: f64) -> Profile {
        Profile::from_sample(&sample(wall_s, cpu_s))
    }

    fn moved(before: &Profile, now: &Profile, alike: bool) -> Vec<String> {
        ratios(before, now, alike)
            .into_iter()
            .filter(|one| one.moved)
            .map(|one| one.words)
            .collect()
    }

    #[test]
    fn a_faster_machine_moves_nothing() {
        assert_eq!(
            moved(&profile(0.010, 0.010), &profile(0.003, 0.003), false),
            Vec::<String>::new()
        );
    }

    #[test]
    fn waiting_instead_of_computing_moves_the_share() {
        assert_eq!(
            moved(&profile(0.010, 0.0099), &profile(0.010, 0.0001), true),
            ["CPU share: 99.0 % in the record, 1 % now"]
        );
        assert_eq!(
            moved(&profile(0.010, 0.0099), &profile(0.010, 0.0092), true),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_share_that_was_sampled_moves_only_when_its_intervals_are_apart() {
        let watched = |held: f64, half: f64| {
            let part = |mean_s: f64| Estimate {
                mean_s,
                low_s: mean_s - half,
                high_s: mean_s + half,
            };
            let split = Split {
                samples: 100,
                late: 0,
                rate_hz: 1000.0,
                gil_cpu: part(held),
                gil_blocked: Estimate {
                    mean_s: 0.0,
                    low_s: 0.0,
                    high_s: 0.0,
                },
                free_cpu: part(0.010 - held),
                wait: part(0.0),
                native_cpu: part(0.0),
                run_queue: part(0.0),
                releases_per_task: None,
                overhead: 0.0,
            };
            Profile {
                split: Some(split),
                gil_cpu_s: Some(held),
                ..profile(0.010, 0.010)
            }
        };
        let few = moved(&watched(0.005, 0.002), &watched(0.008, 0.002), true);
        assert_eq!(few, Vec::<String>::new(), "30 points, and 40 of margin");
        assert_eq!(
            moved(&watched(0.005, 0.0003), &watched(0.008, 0.0003), true),
            ["share with the interpreter lock held: 50 % in the record, 80 % now"]
        );
    }

    #[test]
    fn bytes_and_times_move_by_factors() {
        let before = profile(0.010, 0.010);
        let mut now = profile(0.030, 0.030);
        now.result_bytes = Some(1e6);
        assert_eq!(
            moved(&before, &now, true),
            [
                "result size: 100 B in the record, 977 KiB now",
                "time of a task: 10.0 ms in the record, 30.0 ms now",
            ]
        );
        now.result_bytes = Some(900.0);
        assert_eq!(moved(&before, &now, false), Vec::<String>::new());
    }
}
