//! What is to be said of a pool in one sentence: rules, the gravest first. Each has its threshold and where that comes from.

use treadle_core::choice::wording::{count, number, percent};
use treadle_core::live::picture::Worker;

use super::model::{DEATH_S, Facts};
use super::words::{age, own, rate, short};

/// How grave it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Gravity {
    /// Nothing to do.
    Idle,
    /// It works as it should.
    Good,
    /// It could be better.
    Note,
    /// It will be bad if it goes on.
    Warning,
    /// It is bad.
    Bad,
}

impl Gravity {
    /// As JSON has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Gravity::Idle => "idle",
            Gravity::Good => "good",
            Gravity::Note => "note",
            Gravity::Warning => "warning",
            Gravity::Bad => "bad",
        }
    }
}

/// A verdict on a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) gravity: Gravity,
    /// The rule's name, for JSON: one word or two.
    pub(crate) rule: &'static str,
    /// What is so.
    pub(crate) sentence: String,
    /// What to do about it; empty when nothing.
    pub(crate) advice: String,
}

/// A task is unusually long from here on, however short the others are: about when somebody who waits begins to wonder.
const LONG_S: f64 = 10.0;
/// And when it takes so many times the time that 99 of 100 tasks stay below. The meters' buckets grow by four: less than two of them could be
/// the meter's own coarseness.
const LONG_FACTOR: f64 = 16.0;
/// A 99th percentile of fewer tasks than this is one of their greatest times.
const LONG_TASKS: u64 = 100;
/// The interpreter's lock counts as held from here on. A program that computes hands it on within some hundredths of a second, and a machine
/// with many times more to do than cores delays a thread by some tenths.
const LOCK_S: f64 = 1.0;
/// Looks span at least so long before anything is said of how things change: two looks at the usual interval.
const TREND_S: f64 = 2.0;
/// A count that comes at random varies by its square root; twice that is seldom chance.
const TREND_DEVIATIONS: f64 = 2.0;
/// Tasks that waited so long beside an idle worker waited for something else: workers are woken within a millisecond.
const UNSERVED_S: f64 = 1.0;
/// Cores in use count as all from nine tenths on: the rest is the system's, and what one look counts in ticks of a hundredth of a second.
const ALL_CORES: f64 = 0.9;
/// With fewer than half of its workers busy, half as many would have done.
const STARVED_SHARE: f64 = 0.5;
/// CPU seconds are counted in hundredths: over less than this the share of a core is off by several hundredths.
const LOAD_S: f64 = 1.0;

type Rule = fn(&Facts<'_>) -> Option<Verdict>;

/// The rules. The first that applies is the verdict, so the gravest come first.
const RULES: [Rule; 11] = [
    broken,
    lock_held,
    dying,
    overdue,
    unserved,
    growing,
    over_threaded,
    lock_bound,
    starved,
    closing,
    working,
];

/// The verdict on a pool.
pub(crate) fn judge(facts: &Facts<'_>) -> Verdict {
    RULES
        .iter()
        .find_map(|rule| rule(facts))
        .unwrap_or_else(|| Verdict {
            gravity: Gravity::Idle,
            rule: "idle",
            sentence: "idle: nothing to do".to_owned(),
            advice: String::new(),
        })
}

fn verdict(
    gravity: Gravity,
    rule: &'static str,
    sentence: String,
    advice: &str,
) -> Option<Verdict> {
    Some(Verdict {
        gravity,
        rule,
        sentence,
        advice: advice.to_owned(),
    })
}

fn broken(facts: &Facts<'_>) -> Option<Verdict> {
    let reason = facts.pool.broken.as_ref()?;
    verdict(
        Gravity::Bad,
        "broken",
        format!("broken: {reason}"),
        "it runs nothing any more: the program must make another executor",
    )
}

fn lock_held(facts: &Facts<'_>) -> Option<Verdict> {
    let lock = &facts.program.lock;
    if !lock.exists || lock.free || lock.waited_s < LOCK_S {
        return None;
    }
    let stale = match facts.pool.told_s_ago {
        Some(old_s) => format!("; its numbers are {} old", age(old_s)),
        None => String::new(),
    };
    verdict(
        Gravity::Bad,
        "lock held",
        format!(
            "interpreter lock held for {}: no other Python code runs{stale}",
            age(lock.waited_s)
        ),
        "a C call or a long computation in one thread keeps it; native calls should release it, computing belongs in processes",
    )
}

fn dying(facts: &Facts<'_>) -> Option<Verdict> {
    let ago_s = facts.died_s_ago.filter(|ago_s| *ago_s <= DEATH_S)?;
    verdict(
        Gravity::Bad,
        "workers dying",
        format!(
            "workers dying: the last one {} ago, {} since the start, {} tasks lost",
            age(ago_s),
            count(facts.pool.deaths),
            count(facts.pool.lost)
        ),
        "the error of the lost task names the signal or exit code; a SIGKILL from nobody is most likely the kernel's for want of memory",
    )
}

fn overdue(facts: &Facts<'_>) -> Option<Verdict> {
    let what = |worker: &Worker| {
        let function = worker.function.as_deref().map_or("a task", own);
        format!("{} in {function}", age(worker.running_s))
    };
    if let Some(late) = facts
        .pool
        .workers
        .iter()
        .find(|worker| worker.state == "overdue")
    {
        return verdict(
            Gravity::Warning,
            "task overdue",
            format!(
                "task overdue: worker {} is beyond its timeout, {}",
                late.worker,
                what(late)
            ),
            "a thread cannot be stopped from outside: give the call a timeout of its own, or run it in processes",
        );
    }
    let (pool, worker) = (facts.pool, facts.longest()?);
    let times = pool.duration.as_ref().or(pool.turnaround.as_ref())?;
    let usual_s = times.quantile(0.99)?;
    if times.count() < LONG_TASKS || worker.running_s < LONG_S.max(LONG_FACTOR * usual_s) {
        return None;
    }
    verdict(
        Gravity::Warning,
        "task overdue",
        format!(
            "task overdue: 99 of 100 end within {}, worker {} is {}",
            short(usual_s),
            worker.worker,
            what(worker)
        ),
        "d shows where it is; timeout=… would end it",
    )
}

fn unserved(facts: &Facts<'_>) -> Option<Verdict> {
    let oldest_s = facts.pool.oldest_s?;
    if facts.looks < 2 || !facts.always_queued || !facts.always_idle || oldest_s < UNSERVED_S {
        return None;
    }
    verdict(
        Gravity::Warning,
        "not served",
        format!(
            "not served: {} tasks wait beside idle workers, the oldest for {}",
            count(facts.pool.queued),
            age(oldest_s)
        ),
        "workers that are woken and cannot begin wait for the interpreter lock or for a core",
    )
}

fn growing(facts: &Facts<'_>) -> Option<Verdict> {
    let (pool, before) = (facts.pool, facts.before);
    let growth = pool.queued.saturating_sub(before.queued) as f64;
    let noise = TREND_DEVIATIONS * (facts.came as f64).sqrt();
    // A task ahead for each worker is what keeps them busy.
    if facts.span_s < TREND_S || growth <= noise || pool.queued <= pool.concurrency {
        return None;
    }
    let oldest = pool.oldest_s.map_or_else(String::new, |oldest_s| {
        format!(", oldest {}", age(oldest_s))
    });
    let (came, ended) = (facts.per_s(facts.came)?, facts.per_s(facts.ended)?);
    let advice = match pool.limit {
        Some(limit) => format!(
            "submit waits at {} tasks; more workers, or fewer tasks",
            count(limit)
        ),
        None => "more workers, cheaper tasks, or max_pending=… so that submit waits".to_owned(),
    };
    verdict(
        Gravity::Warning,
        "queue growing",
        format!(
            "queue growing: {}/s in, {}/s out, {} wait{oldest}",
            rate(came),
            rate(ended),
            count(pool.queued)
        ),
        &advice,
    )
}

fn is_of_processes(facts: &Facts<'_>) -> bool {
    matches!(facts.pool.strategy.as_str(), "processes" | "hybrid")
}

fn over_threaded(facts: &Facts<'_>) -> Option<Verdict> {
    let (pool, usable) = (facts.pool, facts.program.usable_cores);
    let cores = facts.cores.filter(|_| facts.span_s >= LOAD_S)?;
    if usable <= 0.0 || pool.running as f64 <= usable.ceil() || cores < ALL_CORES * usable {
        return None;
    }
    let what = if is_of_processes(facts) {
        "processes"
    } else {
        "threads"
    };
    verdict(
        Gravity::Note,
        "over-threaded",
        format!(
            "over-threaded: {} {what} compute on {} cores, all of them in use",
            count(pool.running),
            number(usable)
        ),
        &format!(
            "more than {} gain nothing while tasks compute; `treadle compare` finds the best number",
            number(usable.ceil())
        ),
    )
}

/// One core, give or take a tenth as in [`ALL_CORES`], shared by several threads that are all at work.
fn lock_bound(facts: &Facts<'_>) -> Option<Verdict> {
    let cores = facts.cores.filter(|_| facts.span_s >= LOAD_S)?;
    let one = (ALL_CORES..=2.0 - ALL_CORES).contains(&cores);
    let alone = facts.program.usable_cores >= 2.0 - ALL_CORES;
    if facts.pool.strategy != "threads"
        || !facts.program.lock.exists
        || facts.pool.running < 2
        || !one
        || !alone
    {
        return None;
    }
    verdict(
        Gravity::Note,
        "lock-bound",
        format!(
            "perhaps lock-bound: {} busy threads compute with {} cores together",
            count(facts.pool.running),
            number(cores)
        ),
        "the interpreter lock lets one thread compute at a time; `treadle compare` measures whether processes gain",
    )
}

fn starved(facts: &Facts<'_>) -> Option<Verdict> {
    let busy = facts.busy_share < STARVED_SHARE;
    if facts.span_s < TREND_S
        || facts.ended == 0
        || !facts.never_queued
        || !busy
        || facts.pool.concurrency < 2
    {
        return None;
    }
    verdict(
        Gravity::Good,
        "starved",
        format!(
            "starved: {}/s end, and the workers had work for {} of the time",
            rate(facts.per_s(facts.ended)?),
            percent(facts.busy_share)
        ),
        "there is room: the program could submit faster, or fewer workers would do",
    )
}

fn closing(facts: &Facts<'_>) -> Option<Verdict> {
    let left = facts.pool.running + facts.pool.queued;
    if !facts.pool.closing {
        return None;
    }
    verdict(
        Gravity::Good,
        "shutting down",
        format!("shutting down: {} tasks left", count(left)),
        "",
    )
}

fn working(facts: &Facts<'_>) -> Option<Verdict> {
    let pool = facts.pool;
    if pool.running == 0 && pool.queued == 0 && facts.ended == 0 {
        return None;
    }
    let speed = facts
        .per_s(facts.ended)
        .map_or_else(String::new, |ended| format!(", {}/s end", rate(ended)));
    let full = pool.running >= pool.concurrency && pool.queued > 0;
    let how = if full {
        "working at capacity"
    } else {
        "working"
    };
    verdict(
        Gravity::Good,
        "working",
        format!(
            "{how}: {} of {} busy{speed}",
            count(pool.running),
            count(pool.concurrency)
        ),
        "",
    )
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{pool, program, watched};
    use super::*;
    use treadle_core::live::picture::{Histogram, Lock, Pool, Program};

    fn judged(looks: Vec<Program>) -> Verdict {
        judge(&watched(looks).programs[0].facts()[0])
    }

    fn of(pools: impl IntoIterator<Item = Pool>) -> Verdict {
        judged(pools.into_iter().map(|pool| program(vec![pool])).collect())
    }

    #[test]
    fn idle_and_working_are_told_apart() {
        assert_eq!(
            of([pool(0, 7, 0), pool(0, 7, 0), pool(0, 7, 0)]).rule,
            "idle"
        );
        let found = of((0..5).map(|second| pool(4, second * 80, 3)));
        assert_eq!((found.rule, found.gravity), ("working", Gravity::Good));
        assert_eq!(
            found.sentence,
            "working at capacity: 4 of 4 busy, 80.0/s end"
        );
        assert_eq!(of([pool(2, 7, 0)]).sentence, "working: 2 of 4 busy");
    }

    #[test]
    fn a_queue_that_grows_is_told_and_one_that_waves_is_not() {
        let found = of((0..5).map(|second| pool(4, second * 80, 10 + second * 40)));
        assert_eq!(found.rule, "queue growing");
        assert!(
            found.sentence.contains("120/s in, 80.0/s out, 170 wait"),
            "{}",
            found.sentence
        );
        let waves = [100, 110, 95, 105, 108];
        assert_eq!(
            of((0..5).map(|second| pool(4, second as u64 * 80, waves[second]))).rule,
            "working"
        );
        // From nothing to one task ahead for each worker is no growth.
        assert_eq!(of((0..5).map(|second| pool(4, 0, second))).rule, "working");
    }

    #[test]
    fn workers_without_work_are_starved() {
        let found = of((0..6).map(|second| pool(second % 2, second * 10, 0)));
        assert_eq!(found.rule, "starved");
        assert!(
            found.sentence.contains("for 13 % of the time")
                || found.sentence.contains("for 12 % of the time"),
            "{}",
            found.sentence
        );
        // The meter of durations knows better than looks do.
        let busy = |second: u64| Pool {
            duration: Some(Histogram {
                bounds_s: vec![1.0],
                counts: vec![second * 40, 0],
                sum_s: second as f64 * 3.6,
            }),
            ..pool(1, second * 10, 0)
        };
        assert_eq!(of((0..6).map(busy)).rule, "working");
    }

    #[test]
    fn a_death_is_told_for_a_minute() {
        let died = |at: u64, looks: u64| {
            of((0..looks).map(move |second| Pool {
                deaths: u64::from(second >= at),
                ..pool(4, second * 80, 3)
            }))
        };
        assert_eq!(died(2, 4).rule, "workers dying");
        assert_eq!(died(2, 4).gravity, Gravity::Bad);
        assert_eq!(died(2, 80).rule, "working");
        assert_eq!(died(0, 4).rule, "working", "it died before anybody looked");
    }

    #[test]
    fn a_task_that_takes_too_long_is_named() {
        let mut late = pool(2, 7, 0);
        late.workers[1].state = "overdue".to_owned();
        late.workers[1].running_s = 61.0;
        let found = of([late]);
        assert_eq!(found.rule, "task overdue");
        assert!(
            found.sentence.contains("worker 1")
                && found.sentence.contains("1 min 1 s in images.thumbnail"),
            "{}",
            found.sentence
        );
        let long = |running_s: f64, tasks: u64| {
            let mut long = pool(2, tasks, 0);
            long.workers[0].running_s = running_s;
            long.turnaround = Some(Histogram {
                bounds_s: vec![0.25, 1.0],
                counts: vec![0, tasks, 0],
                sum_s: 1.0,
            });
            of([long]).rule
        };
        assert_eq!(long(20.0, 1000), "task overdue");
        assert_eq!(long(9.0, 1000), "working", "nobody wonders yet");
        assert_eq!(long(12.0, 1000), "working", "its like takes a second");
        assert_eq!(long(20.0, 99), "working", "too few to compare with");
    }

    #[test]
    fn a_held_lock_is_graver_than_a_queue() {
        let looks = (0..4)
            .map(|second| Program {
                lock: Lock {
                    exists: true,
                    free: false,
                    waited_s: 12.3,
                },
                ..program(vec![pool(4, 0, second * 100)])
            })
            .collect();
        let found = judged(looks);
        assert_eq!((found.rule, found.gravity), ("lock held", Gravity::Bad));
        assert!(
            found.sentence.starts_with("interpreter lock held for 12 s"),
            "{}",
            found.sentence
        );
    }

    #[test]
    fn more_workers_than_cores_are_told_when_the_cores_are_full() {
        let with = |cores: f64, share: f64| {
            let looks = (0..4).map(|second| {
                let mut pool = pool(4, second * 80, 3);
                for worker in &mut pool.workers {
                    worker.cpu_s = Some(second as f64 * share);
                }
                Program {
                    usable_cores: cores,
                    ..program(vec![pool])
                }
            });
            judged(looks.collect()).rule
        };
        assert_eq!(with(2.0, 0.49), "over-threaded");
        assert_eq!(with(2.0, 0.30), "working", "cores are left");
        assert_eq!(with(4.0, 1.0), "working", "as many as cores");
    }

    #[test]
    fn threads_that_share_one_core_are_perhaps_bound_by_the_lock() {
        let with = |strategy: &str, share: f64| {
            let looks = (0..4).map(|second| {
                let mut pool = Pool {
                    strategy: strategy.to_owned(),
                    ..pool(4, second * 80, 3)
                };
                for worker in &mut pool.workers {
                    worker.cpu_s = Some(second as f64 * share);
                }
                program(vec![pool])
            });
            judged(looks.collect()).rule
        };
        assert_eq!(with("threads", 0.25), "lock-bound");
        assert_eq!(with("threads", 0.40), "working");
        assert_eq!(with("processes", 0.25), "working");
    }

    #[test]
    fn tasks_that_wait_beside_idle_workers_are_not_served() {
        let waiting = |oldest_s: f64| {
            of((0..3).map(move |_| Pool {
                oldest_s: Some(oldest_s),
                ..pool(1, 0, 2)
            }))
            .rule
        };
        assert_eq!(waiting(3.0), "not served");
        assert_eq!(waiting(0.2), "working");
    }

    #[test]
    fn a_broken_pool_says_why() {
        let found = of([Pool {
            broken: Some("the initializer raised".to_owned()),
            ..pool(0, 0, 0)
        }]);
        assert_eq!(found.sentence, "broken: the initializer raised");
    }
}
