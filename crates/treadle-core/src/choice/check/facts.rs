//! Level 0: what can be compared without running the function: source, environment, machine, static conditions.
//!
//! *Guarantees*: a change weighs only if it can change which plan wins; the rest is told.

use std::collections::BTreeMap;

use super::super::fingerprint::{Environment, Fingerprint};
use super::super::record::{Condition, Decided, Evidence, minor};
use super::super::wording;
use super::answer::{Change, Kind};

/// Cores and memory may differ by this share before it weighs: below, no plan of whole workers changes.
const AMOUNT_BAND: f64 = 0.1;
/// A limit on memory weighs when it is lower than recorded by this share.
const MEMORY_BAND: f64 = 0.2;

/// The machine as far as it can be read without measuring.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MachineFacts {
    /// Usable cores.
    pub cores: f64,
    /// Processor model.
    pub cpu: Option<String>,
    /// Kernel name and release.
    pub kernel: Option<String>,
    /// Limit on memory, bytes.
    pub memory_limit: Option<u64>,
}

impl MachineFacts {
    /// Reads this machine.
    pub fn read() -> Self {
        Self {
            cores: treadle_probe::usable_cores().cores,
            cpu: treadle_probe::machine::processor_model(),
            kernel: treadle_probe::machine::kernel(),
            memory_limit: treadle_probe::memory::memory().limit,
        }
    }

    /// The machine of the record.
    pub fn recorded(evidence: &Evidence) -> Self {
        let machine = &evidence.comparison.machine;
        Self {
            cores: machine.usable_cores,
            cpu: machine.cpu.clone(),
            kernel: machine.kernel.clone(),
            memory_limit: machine.memory_limit_bytes,
        }
    }

    /// Whether absolute times may be compared: the same processor, as many cores.
    pub fn alike(&self, other: &Self) -> bool {
        self.cpu == other.cpu && !differs(self.cores, other.cores)
    }
}

/// Whether two numbers of cores differ so that it weighs.
pub(super) fn differs(before: f64, now: f64) -> bool {
    (now / before.max(f64::MIN_POSITIVE) - 1.0).abs() > AMOUNT_BAND
}

/// How the table in `treadle.toml` differs from the evidence.
pub(super) fn settings(decided: &Decided, evidence: &Evidence) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut told = |what: &str, here: &str, there: &str| {
        if here != there {
            changes.push(Change::weighing(
                Kind::Settings,
                format!("treadle.toml has {what} {here}, the evidence {there}"),
            ));
        }
    };
    told("plan", &decided.plan.label(), &evidence.plan.label());
    let items = &evidence.comparison.items;
    if let Some(function) = &decided.function {
        told("function", function, &evidence.function);
    }
    if let Some(spec) = &decided.items {
        told("items", spec, &items.spec);
    }
    let word = |set: bool| if set { "true" } else { "false" };
    told("star", word(decided.star), word(items.star));
    told("once", word(decided.once), word(items.once));
    let targets = evidence.comparison.targets.join(",");
    let here = decided.targets.as_deref().unwrap_or("");
    if here.replace(' ', "") != targets {
        let or_none = |text: &str| {
            if text.is_empty() {
                "(none)".to_owned()
            } else {
                text.to_owned()
            }
        };
        told("targets", &or_none(here), &or_none(&targets));
    }
    changes
}

/// How source and environment differ.
pub(super) fn fingerprint(function: &str, before: &Fingerprint, now: &Fingerprint) -> Vec<Change> {
    let mut changes = Vec::new();
    if before.source.function != now.source.function {
        changes.push(Change::weighing(
            Kind::Source,
            format!("the source of {function} has changed"),
        ));
    }
    let (old, new) = (&before.source.callees, &now.source.callees);
    let list = |names: Vec<&String>| names.into_iter().cloned().collect::<Vec<_>>().join(", ");
    let edited: Vec<&String> = old
        .iter()
        .filter(|(name, hash)| new.get(*name).is_some_and(|other| other != *hash))
        .map(|(name, _)| name)
        .collect();
    let mut gone: Vec<&String> = old.keys().filter(|name| !new.contains_key(*name)).collect();
    let mut added: Vec<&String> = new.keys().filter(|name| !old.contains_key(*name)).collect();
    // Under another module's name with the same source, it has moved.
    let mut moved = Vec::new();
    gone.retain(|name| {
        let local = |name: &str| name.rsplit(':').next().map(str::to_owned);
        let place = added
            .iter()
            .position(|other| new[*other] == old[*name] && local(other) == local(name));
        if let Some(place) = place {
            moved.push(format!("{name} to {}", added.remove(place)));
        }
        place.is_none()
    });
    if !moved.is_empty() {
        changes.push(Change::remark(
            Kind::Callee,
            format!("what it uses has moved: {}", moved.join(", ")),
        ));
    }
    for (names, what) in [
        (edited, "what it uses has changed"),
        (gone, "what it used is used no more"),
        (added, "it uses more than it did"),
    ] {
        if !names.is_empty() {
            changes.push(Change::weighing(
                Kind::Callee,
                format!("{what}: {}", list(names)),
            ));
        }
    }
    if before.source.items != now.source.items {
        changes.push(Change::weighing(
            Kind::Items,
            "the source of what makes its inputs has changed".to_owned(),
        ));
    }
    changes.extend(environment(&before.environment, &now.environment));
    changes
}

fn environment(before: &Environment, now: &Environment) -> Vec<Change> {
    let mut changes = Vec::new();
    let weighing = |words: String| Change::weighing(Kind::Environment, words);
    let remark = |words: String| Change::remark(Kind::Environment, words);
    if before.implementation != now.implementation || minor(&before.python) != minor(&now.python) {
        changes.push(weighing(format!(
            "recorded with {} {}, this is {} {}",
            before.implementation, before.python, now.implementation, now.python
        )));
    } else if before.python != now.python {
        changes.push(remark(format!(
            "Python was {}, is {}",
            before.python, now.python
        )));
    }
    if before.gil != now.gil {
        changes.push(weighing(format!(
            "recorded {} an interpreter lock, this Python runs {} one",
            if before.gil { "with" } else { "without" },
            if now.gil { "with" } else { "without" }
        )));
    }
    for (key, value) in &before.build {
        let Some(other) = now.build.get(key).filter(|other| *other != value) else {
            continue;
        };
        let words = format!("Python's build: {key} was {value}, is {other}");
        // A debug build is several times slower in Python and not in native code, so ratios move.
        changes.push(if matches!(key.as_str(), "debug" | "free_threaded") {
            weighing(words)
        } else {
            remark(words)
        });
    }
    if let (Some(old), Some(new)) = (&before.start_method, &now.start_method)
        && old != new
    {
        changes.push(remark(format!(
            "multiprocessing started processes by {old}, now by {new}"
        )));
    }
    for (name, version) in &before.distributions {
        let shown =
            |version: &Option<String>| version.clone().unwrap_or("not installed".to_owned());
        if let Some(other) = now.distributions.get(name)
            && other != version
        {
            changes.push(weighing(format!(
                "package {name} was {}, is {}",
                shown(version),
                shown(other)
            )));
        }
    }
    changes.extend(pools(&before.native_pools, &now.native_pools));
    changes
}

/// Pools that both sides name; one that a library opens later is not there yet when nothing has run.
fn pools(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<Change> {
    before
        .iter()
        .filter_map(|(name, size)| {
            let other = now.get(name).filter(|other| *other != size)?;
            Some(Change::weighing(
                Kind::Environment,
                format!("native threads: {name} was {size}, is {other}"),
            ))
        })
        .collect()
}

/// How the machine differs.
pub(super) fn machine(before: &MachineFacts, now: &MachineFacts) -> Vec<Change> {
    let mut changes = Vec::new();
    let shown = |text: &Option<String>| text.clone().unwrap_or("unknown".to_owned());
    if differs(before.cores, now.cores) {
        changes.push(Change::weighing(
            Kind::Machine,
            format!(
                "recorded with {} usable cores, here are {}",
                wording::cores(before.cores),
                wording::cores(now.cores)
            ),
        ));
    }
    if before.cpu != now.cpu {
        changes.push(Change::weighing(
            Kind::Machine,
            format!(
                "recorded on another machine: {}, this is {}",
                shown(&before.cpu),
                shown(&now.cpu)
            ),
        ));
    }
    if let (Some(old), Some(new)) = (before.memory_limit, now.memory_limit)
        && (new as f64) < old as f64 * (1.0 - MEMORY_BAND)
    {
        changes.push(Change::weighing(
            Kind::Machine,
            format!(
                "memory was limited to {}, is to {}",
                wording::bytes(old as f64),
                wording::bytes(new as f64)
            ),
        ));
    }
    if before.kernel != now.kernel {
        changes.push(Change::remark(
            Kind::Machine,
            format!(
                "the kernel was {}, is {}",
                shown(&before.kernel),
                shown(&now.kernel)
            ),
        ));
    }
    changes
}

/// The static conditions under which the decision was to be revisited and that are met.
pub(super) fn conditions(
    revisit: &[Condition],
    machine: &MachineFacts,
    environment: &Environment,
) -> Vec<Change> {
    revisit
        .iter()
        .filter(|condition| match condition.fact.as_str() {
            "usable_cores" => condition.met_by(machine.cores),
            "python" => condition
                .is_not
                .as_ref()
                .is_some_and(|known| *known != minor(&environment.python)),
            "gil" => condition
                .is_not
                .as_ref()
                .is_some_and(|known| *known != environment.gil.to_string()),
            _ => false,
        })
        .map(met)
        .collect()
}

pub(super) fn met(condition: &Condition) -> Change {
    Change::weighing(
        Kind::Condition,
        format!("it was to be revisited when {}", condition.words),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment_of(python: &str) -> Environment {
        Environment {
            python: python.to_owned(),
            implementation: "cpython".to_owned(),
            gil: true,
            build: BTreeMap::from([
                ("debug".to_owned(), "no".to_owned()),
                ("compiler".to_owned(), "GCC 12".to_owned()),
            ]),
            start_method: Some("fork".to_owned()),
            distributions: BTreeMap::from([("numpy".to_owned(), Some("2.1".to_owned()))]),
            extensions: Vec::new(),
            native_pools: BTreeMap::from([("openblas".to_owned(), "2".to_owned())]),
        }
    }

    fn told(changes: &[Change]) -> Vec<(bool, &str)> {
        changes
            .iter()
            .map(|one| (one.weighs, one.words.as_str()))
            .collect()
    }

    #[test]
    fn nothing_has_changed() {
        let one = environment_of("3.11.7");
        assert_eq!(environment(&one, &one), []);
        let facts = MachineFacts {
            cores: 2.0,
            ..MachineFacts::default()
        };
        assert_eq!(machine(&facts, &facts), []);
    }

    #[test]
    fn a_patch_release_is_a_remark_and_a_minor_one_weighs() {
        let before = environment_of("3.11.7");
        assert_eq!(
            told(&environment(&before, &environment_of("3.11.9"))),
            [(false, "Python was 3.11.7, is 3.11.9")]
        );
        assert_eq!(
            told(&environment(&before, &environment_of("3.12.0"))),
            [(true, "recorded with cpython 3.11.7, this is cpython 3.12.0")]
        );
    }

    #[test]
    fn packages_locks_builds_and_pools_are_named() {
        let before = environment_of("3.13.1");
        let mut now = before.clone();
        now.gil = false;
        now.build.insert("debug".to_owned(), "yes".to_owned());
        now.build
            .insert("compiler".to_owned(), "Clang 18".to_owned());
        now.distributions.insert("numpy".to_owned(), None);
        now.native_pools
            .insert("openblas".to_owned(), "8".to_owned());
        now.native_pools.insert("mkl".to_owned(), "4".to_owned());
        assert_eq!(
            told(&environment(&before, &now)),
            [
                (
                    true,
                    "recorded with an interpreter lock, this Python runs without one"
                ),
                (false, "Python's build: compiler was GCC 12, is Clang 18"),
                (true, "Python's build: debug was no, is yes"),
                (true, "package numpy was 2.1, is not installed"),
                (true, "native threads: openblas was 2, is 8"),
            ]
        );
    }

    #[test]
    fn another_machine_is_named_and_its_kernel_is_a_remark() {
        let before = MachineFacts {
            cores: 2.0,
            cpu: Some("A".to_owned()),
            kernel: Some("Linux 5".to_owned()),
            memory_limit: Some(4 << 30),
        };
        let now = MachineFacts {
            cores: 8.0,
            cpu: Some("B".to_owned()),
            kernel: Some("Linux 6".to_owned()),
            memory_limit: Some(1 << 30),
        };
        assert_eq!(
            told(&machine(&before, &now)),
            [
                (true, "recorded with 2 usable cores, here are 8"),
                (true, "recorded on another machine: A, this is B"),
                (true, "memory was limited to 4.0 GiB, is to 1.0 GiB"),
                (false, "the kernel was Linux 5, is Linux 6"),
            ]
        );
        assert!(!before.alike(&now) && before.alike(&before));
    }

    #[test]
    fn callees_that_changed_went_or_came_are_named() {
        let source = |callees: &[(&str, &str)]| Fingerprint {
            source: super::super::super::fingerprint::Source {
                function: Some("f".to_owned()),
                callees: callees
                    .iter()
                    .map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned()))
                    .collect(),
                items: None,
            },
            environment: environment_of("3.11.7"),
        };
        let before = source(&[("a:x", "1"), ("a:y", "2"), ("a:w", "5")]);
        let now = source(&[("a:x", "3"), ("a:z", "4"), ("b:w", "5")]);
        let changes = fingerprint("jobs:f", &before, &now);
        assert_eq!(
            told(&changes),
            [
                (false, "what it uses has moved: a:w to b:w"),
                (true, "what it uses has changed: a:x"),
                (true, "what it used is used no more: a:y"),
                (true, "it uses more than it did: a:z"),
            ]
        );
    }

    #[test]
    fn conditions_on_static_facts() {
        let condition = |fact: &str| Condition {
            fact: fact.to_owned(),
            words: fact.to_owned(),
            ..Condition::default()
        };
        let revisit = [
            Condition {
                at_least: Some(4.0),
                ..condition("usable_cores")
            },
            Condition {
                is_not: Some("3.11".to_owned()),
                ..condition("python")
            },
            Condition {
                at_most: Some(0.5),
                ..condition("cpu_share")
            },
        ];
        let met = |cores: f64, python: &str| {
            let facts = MachineFacts {
                cores,
                ..MachineFacts::default()
            };
            conditions(&revisit, &facts, &environment_of(python)).len()
        };
        assert_eq!(
            (met(2.0, "3.11.9"), met(4.0, "3.11.9"), met(8.0, "3.12.1")),
            (0, 1, 2)
        );
    }
}
