//! What is known of the watched programs: their last looks, and what follows from several looks in a row.
//!
//! *Guarantees*: rates come from two looks at the same pool and the time between them; a count that fell (which none should) is no rate.

use std::collections::{BTreeMap, VecDeque};

use treadle_core::live::asking::{Answer, Found, Trouble};
use treadle_core::live::picture::{Histogram, Pool, Program, Worker};

/// Rates and quantiles are of the last so many seconds: long enough that a pool with a task a second has some, short enough that a change is
/// seen while one looks.
pub(crate) const WINDOW_S: f64 = 10.0;
/// Looks that are kept whatever their times: at the shortest interval of 0.1 s they are the window.
const MOST_LOOKS: usize = 110;
/// For so long a death counts as one of now.
pub(crate) const DEATH_S: f64 = 60.0;
/// How long a program that has ended stays in the list.
const ENDED_S: f64 = 30.0;

/// One look at a program.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// When, in seconds of the watcher's clock.
    pub(crate) at_s: f64,
    pub(crate) program: Program,
}

/// How a program answers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Standing {
    /// Not asked yet.
    New,
    Answers,
    /// Since when it does not, and why.
    Troubled {
        since_s: f64,
        trouble: Trouble,
    },
    /// When it ended.
    Ended {
        at_s: f64,
    },
}

/// One watched program.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) found: Found,
    /// Its process as seen from here.
    pub(crate) pid: u32,
    pub(crate) standing: Standing,
    pub(crate) looks: VecDeque<Look>,
    /// When a worker of a pool was last seen to have died, by the pool's number.
    deaths_s: BTreeMap<u64, f64>,
}

/// Everything that is watched.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) programs: Vec<Watched>,
}

/// A pool now, with what the looks at it say together.
#[derive(Debug, Clone)]
pub(crate) struct Facts<'a> {
    pub(crate) program: &'a Program,
    pub(crate) pool: &'a Pool,
    /// Seconds between the first look at it in the window and the last; 0 when there is one.
    pub(crate) span_s: f64,
    /// How many looks there are.
    pub(crate) looks: usize,
    /// The pool at the first of them.
    pub(crate) before: &'a Pool,
    /// Tasks that came and that ended in between.
    pub(crate) came: u64,
    pub(crate) ended: u64,
    /// The share of its places that had a task, on average.
    pub(crate) busy_share: f64,
    /// Whether tasks waited at every look, and whether none did at any.
    pub(crate) always_queued: bool,
    pub(crate) never_queued: bool,
    /// Whether a worker was idle at every look.
    pub(crate) always_idle: bool,
    /// Cores that the workers used together, where their CPU time is known.
    pub(crate) cores: Option<f64>,
    /// Seconds since a worker was last seen to have died.
    pub(crate) died_s_ago: Option<f64>,
}

/// Tasks that have ended, however they did.
pub(crate) fn ended(pool: &Pool) -> u64 {
    // A task over its time is among the lost of a process pool, and among the completed of others.
    pool.completed + pool.cancelled + pool.lost
}

impl Facts<'_> {
    /// A count over the window as a rate.
    pub(crate) fn per_s(&self, count: u64) -> Option<f64> {
        (self.span_s > 0.0).then(|| count as f64 / self.span_s)
    }

    /// The times of the window, where it has any, else those since the start; and whether they are of the window.
    pub(crate) fn times(
        &self,
        of: impl Fn(&Pool) -> Option<&Histogram>,
    ) -> Option<(Histogram, bool)> {
        let now = of(self.pool)?;
        let recent = of(self.before).map(|before| now.since(before));
        match recent.filter(|recent| recent.count() > 0) {
            Some(recent) => Some((recent, true)),
            None => (now.count() > 0).then(|| (now.clone(), false)),
        }
    }

    /// Cores that one worker used, over the window.
    pub(crate) fn worker_cores(&self, worker: &Worker) -> Option<f64> {
        used(self.before, worker, self.span_s)
    }

    /// The worker whose task has run longest.
    pub(crate) fn longest(&self) -> Option<&Worker> {
        self.pool
            .workers
            .iter()
            .filter(|worker| worker.state == "busy" || worker.state == "overdue")
            .max_by(|one, other| one.running_s.total_cmp(&other.running_s))
    }
}

/// Cores that a worker used since an earlier look; `None` when another is in its place.
fn used(before: &Pool, worker: &Worker, span_s: f64) -> Option<f64> {
    let then = before.workers.iter().find(|other| {
        other.worker == worker.worker && other.ident == worker.ident && other.ident != 0
    })?;
    let grown = worker.cpu_s? - then.cpu_s?;
    (span_s > 0.0 && grown >= 0.0).then(|| grown / span_s)
}

fn busy_workers(pool: &Pool) -> f64 {
    let places = pool.concurrency.max(1) as f64;
    (pool.running as f64 / places).min(1.0)
}

impl Watched {
    fn new(found: Found) -> Watched {
        Watched {
            pid: found.pid,
            found,
            standing: Standing::New,
            looks: VecDeque::new(),
            deaths_s: BTreeMap::new(),
        }
    }

    /// The last look at it.
    pub(crate) fn last(&self) -> Option<&Look> {
        self.looks.back()
    }

    /// What it is called: the script or the module that its interpreter runs.
    pub(crate) fn name(&self) -> String {
        self.last().map_or_else(
            || self.found.name.clone(),
            |look| called(&look.program.command),
        )
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.standing, Standing::Ended { .. })
    }

    fn note(&mut self, at_s: f64, answer: Answer) {
        if let Some(before) = self.looks.back() {
            for pool in &answer.program.pools {
                let then = before
                    .program
                    .pools
                    .iter()
                    .find(|other| other.number == pool.number);
                if then.is_some_and(|then| pool.deaths > then.deaths) {
                    self.deaths_s.insert(pool.number, at_s);
                }
            }
        }
        if answer.pid != 0 {
            self.pid = answer.pid;
        }
        self.standing = Standing::Answers;
        self.looks.push_back(Look {
            at_s,
            program: answer.program,
        });
        while self.looks.len() > MOST_LOOKS
            || self.looks.len() > 2 && self.looks[1].at_s <= at_s - WINDOW_S
        {
            self.looks.pop_front();
        }
    }

    /// The facts of its pools, at the last look.
    pub(crate) fn facts(&self) -> Vec<Facts<'_>> {
        let Some(last) = self.last() else {
            return Vec::new();
        };
        last.program
            .pools
            .iter()
            .map(|pool| self.facts_of(last, pool))
            .collect()
    }

    fn facts_of<'a>(&'a self, last: &'a Look, pool: &'a Pool) -> Facts<'a> {
        let seen: Vec<(f64, &Pool)> = self
            .looks
            .iter()
            .filter_map(|look| {
                let found = look
                    .program
                    .pools
                    .iter()
                    .find(|other| other.number == pool.number)?;
                Some((look.at_s, found))
            })
            .collect();
        let (first_s, before) = seen.first().copied().unwrap_or((last.at_s, pool));
        let span_s = last.at_s - first_s;
        let looks = seen.len().max(1);
        let sampled = seen.iter().map(|(_, pool)| busy_workers(pool)).sum::<f64>() / looks as f64;
        // The time that tasks took, where it is metered, is exact for tasks that are short against the window.
        let metered = match (&pool.duration, &before.duration) {
            (Some(now), Some(then)) if span_s > 0.0 && now.since(then).count() > 0 => {
                Some(now.since(then).sum_s / span_s / pool.concurrency.max(1) as f64)
            }
            _ => None,
        };
        let cores: Vec<f64> = pool
            .workers
            .iter()
            .filter_map(|worker| used(before, worker, span_s))
            .collect();
        Facts {
            program: &last.program,
            pool,
            span_s,
            looks,
            before,
            came: pool.submitted.saturating_sub(before.submitted),
            ended: ended(pool).saturating_sub(ended(before)),
            busy_share: metered.unwrap_or(sampled).min(1.0),
            always_queued: seen.iter().all(|(_, pool)| pool.queued > 0),
            never_queued: seen.iter().all(|(_, pool)| pool.queued == 0),
            always_idle: seen
                .iter()
                .all(|(_, pool)| pool.workers.iter().any(|worker| worker.state == "idle")),
            cores: (!cores.is_empty()).then(|| cores.iter().sum()),
            died_s_ago: self.deaths_s.get(&pool.number).map(|at_s| last.at_s - at_s),
        }
    }

    /// Cores that its own process used, over the window.
    pub(crate) fn cores(&self) -> Option<f64> {
        let (first, last) = (self.looks.front()?, self.looks.back()?);
        rate(first, last, |program| program.cpu_s)
    }

    /// The share of a core that telling costs it, over the window.
    pub(crate) fn cost(&self) -> Option<f64> {
        let (first, last) = (self.looks.front()?, self.looks.back()?);
        rate(first, last, |program| program.told_cpu_s)
    }

    /// What the queue of a pool was at each look of the window.
    pub(crate) fn queue(&self, number: u64) -> Vec<u64> {
        self.looks
            .iter()
            .filter_map(|look| look.program.pools.iter().find(|pool| pool.number == number))
            .map(|pool| pool.queued)
            .collect()
    }
}

fn rate(first: &Look, last: &Look, of: impl Fn(&Program) -> f64) -> Option<f64> {
    let span_s = last.at_s - first.at_s;
    (span_s > 0.0).then(|| ((of(&last.program) - of(&first.program)) / span_s).max(0.0))
}

/// What a command line runs: `crawl.py` of `python -u /srv/crawl.py --all`, `jobs.nightly` of `python -m jobs.nightly`.
pub(crate) fn called(command: &[String]) -> String {
    let base = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let Some(program) = command.first() else {
        return "?".to_owned();
    };
    let mut words = command.iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-m" => {
                return words
                    .next()
                    .map_or_else(|| base(program), |module| format!("-m {module}"));
            }
            "-c" => return "python -c".to_owned(),
            // Options of the interpreter that take a word of their own.
            "-W" | "-X" => drop(words.next()),
            "-" => return base(program),
            option if option.starts_with('-') => {}
            script => return base(script),
        }
    }
    base(program)
}

impl Model {
    /// Takes in which programs there are now. A program that is gone from the list is asked once more, which tells how it ended.
    pub(crate) fn discovered(&mut self, found: &[Found]) {
        for one in found {
            if !self.programs.iter().any(|watched| watched.found == *one) {
                self.programs.push(Watched::new(one.clone()));
            }
        }
    }

    /// Takes in an answer, or why there is none.
    pub(crate) fn heard(&mut self, found: &Found, at_s: f64, heard: Result<Answer, Trouble>) {
        let Some(watched) = self
            .programs
            .iter_mut()
            .find(|watched| watched.found == *found)
        else {
            return;
        };
        match heard {
            Ok(answer) => watched.note(at_s, answer),
            // One of which nothing is known is not worth a row.
            Err(Trouble::Ended) if watched.looks.is_empty() => {
                self.programs.retain(|watched| watched.found != *found);
            }
            Err(Trouble::Ended) => {
                if !watched.has_ended() {
                    watched.standing = Standing::Ended { at_s };
                }
            }
            Err(trouble) => {
                let since_s = match watched.standing {
                    Standing::Troubled { since_s, .. } => since_s,
                    _ => at_s,
                };
                watched.standing = Standing::Troubled { since_s, trouble };
            }
        }
    }

    /// Forgets programs that ended a while ago; one that was asked for by number is kept.
    pub(crate) fn forget(&mut self, now_s: f64, keep: Option<u32>) {
        self.programs.retain(|watched| match watched.standing {
            Standing::Ended { at_s } => {
                now_s - at_s <= ENDED_S
                    || keep == Some(watched.pid)
                    || keep == Some(watched.found.pid)
            }
            _ => true,
        });
    }

    /// How many programs answer, and how many pools they have.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let living = || self.programs.iter().filter(|watched| !watched.has_ended());
        let pools = living()
            .filter_map(Watched::last)
            .map(|look| look.program.pools.len())
            .sum();
        (living().count(), pools)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn found(pid: u32) -> Found {
        Found {
            uid: 1000,
            pid,
            name: format!("treadle-1000-{pid}"),
        }
    }

    /// A pool of processes with this many workers busy, tasks done and tasks waiting.
    pub(crate) fn pool(busy: u64, done: u64, queued: u64) -> Pool {
        let workers = (0..4)
            .map(|worker| Worker {
                worker,
                ident: 4300 + worker,
                state: if worker < busy { "busy" } else { "idle" }.to_owned(),
                function: (worker < busy).then(|| "images.thumbnail".to_owned()),
                running_s: if worker < busy { 0.12 } else { 0.0 },
                tasks: Some(done / 4),
                cpu_s: Some(done as f64 / 400.0),
                memory_bytes: Some(84 << 20),
                ..Worker::default()
            })
            .collect();
        Pool {
            number: 1,
            name: "thumbs".to_owned(),
            strategy: "processes".to_owned(),
            plan: "processes=4".to_owned(),
            concurrency: 4,
            submitted: done + queued + busy,
            completed: done,
            running: busy,
            queued,
            oldest_s: (queued > 0).then_some(0.5),
            workers,
            ..Pool::default()
        }
    }

    pub(crate) fn program(pools: Vec<Pool>) -> Program {
        Program {
            pid: 4242,
            treadle: "0.1.0".to_owned(),
            command: ["/usr/bin/python3", "/srv/crawl.py"]
                .map(str::to_owned)
                .to_vec(),
            usable_cores: 8.0,
            memory_bytes: 120 << 20,
            lock: treadle_core::live::picture::Lock {
                exists: true,
                free: true,
                waited_s: 0.0002,
            },
            pools,
            ..Program::default()
        }
    }

    /// A model of one program, looked at once a second.
    pub(crate) fn watched(looks: Vec<Program>) -> Model {
        let mut model = Model::default();
        model.discovered(&[found(4242)]);
        for (second, program) in looks.into_iter().enumerate() {
            let answer = Answer {
                pid: 4242,
                program,
                stacks: Vec::new(),
            };
            model.heard(&found(4242), 100.0 + second as f64, Ok(answer));
        }
        model
    }

    #[test]
    fn rates_come_from_the_looks_of_the_window() {
        let looks = (0..30)
            .map(|second| program(vec![pool(4, second * 80, 0)]))
            .collect();
        let model = watched(looks);
        let facts = model.programs[0].facts().remove(0);
        assert_eq!(facts.per_s(facts.ended), Some(80.0));
        assert!(
            facts.span_s >= WINDOW_S && facts.span_s <= WINDOW_S + 1.0,
            "{}",
            facts.span_s
        );
        assert_eq!(facts.busy_share, 1.0);
        assert_eq!(facts.worker_cores(&facts.pool.workers[0]), Some(0.2));
        assert!((facts.cores.unwrap() - 0.8).abs() < 1e-9);
    }

    #[test]
    fn one_look_gives_no_rate_and_a_replaced_worker_no_load() {
        let model = watched(vec![program(vec![pool(4, 80, 0)])]);
        let facts = model.programs[0].facts().remove(0);
        assert_eq!((facts.per_s(facts.ended), facts.cores), (None, None));
        let mut later = pool(4, 160, 0);
        later.workers[0].ident = 9999;
        later.deaths = 1;
        let model = watched(vec![program(vec![pool(4, 80, 0)]), program(vec![later])]);
        let facts = model.programs[0].facts().remove(0);
        assert_eq!(facts.worker_cores(&facts.pool.workers[0]), None);
        assert_eq!(facts.died_s_ago, Some(0.0));
    }

    #[test]
    fn a_program_that_ends_is_kept_for_a_while() {
        let mut model = watched(vec![program(vec![pool(4, 80, 0)])]);
        model.heard(&found(4242), 101.0, Err(Trouble::Silent));
        assert!(matches!(
            model.programs[0].standing,
            Standing::Troubled { .. }
        ));
        model.heard(&found(4242), 102.0, Err(Trouble::Ended));
        model.forget(103.0, None);
        assert_eq!((model.programs.len(), model.counts()), (1, (0, 0)));
        model.forget(200.0, Some(4242));
        assert_eq!(model.programs.len(), 1);
        model.forget(200.0, None);
        assert!(model.programs.is_empty());
    }

    #[test]
    fn a_program_that_ended_before_it_answered_is_not_listed() {
        let mut model = Model::default();
        model.discovered(&[found(1)]);
        model.heard(&found(1), 1.0, Err(Trouble::Ended));
        assert!(model.programs.is_empty());
    }

    #[test]
    fn a_program_is_called_as_what_it_runs() {
        for (words, name) in [
            ("/usr/bin/python3 /srv/crawl.py --all", "crawl.py"),
            ("python -X dev -W error -u jobs/run.py", "run.py"),
            ("python -m jobs.nightly x", "-m jobs.nightly"),
            ("python -c pass", "python -c"),
            ("/opt/uwsgi", "uwsgi"),
            ("", "?"),
        ] {
            let command: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            assert_eq!(called(&command), name, "{words}");
        }
    }
}
