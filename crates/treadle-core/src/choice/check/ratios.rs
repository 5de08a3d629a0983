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
    let mut share = |name: &str, before: f64, now: f64| {
        found.push(Ratio {
            name: name.to_owned(),
            before,
            now,
            moved: (now - before).abs() > SHARE_BAND,
            words: format!(
                "{name}: {} in the record, {} now",
                wording::percent(before),
                wording::percent(now)
            ),
        });
    };
    share("CPU share", before.cpu_share(), now.cpu_share());
    if let (Some(old), Some(new)) = (lock_share(before), lock_share(now)) {
        share("share with the interpreter lock held", old, new);
    }
    share(
        "share of native helper threads",
        native_share(before),
        native_share(now),
    );
    share(
        "pickling in the parent, of a task's time",
        before.parent_pickle_s() / before.own_s().max(1e-12),
        now.parent_pickle_s() / now.own_s().max(1e-12),
    );
    share(
        "tasks that raise",
        before.errors as f64 / before.count.max(1) as f64,
        now.errors as f64 / now.count.max(1) as f64,
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
