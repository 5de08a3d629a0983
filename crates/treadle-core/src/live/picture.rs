//! A program's pools at an instant, as they travel from the program to whoever watches it.
//!
//! *Guarantees*: after [`Program::tidy`], texts are short and print as themselves, numbers are small enough to be reckoned with, seconds are
//! not negative, and histograms are whole, whatever the other side sent.

use serde::{Deserialize, Serialize};

/// Letters of a text from another program that are kept: a name longer than this fits no line.
const MOST_LETTERS: usize = 300;
/// Letters of a stack dump that are kept: 4 MiB of ASCII, some forty thousand frames.
const MOST_STACK_LETTERS: usize = 4 << 20;
/// Pools, workers of a pool, words of a command line: more than any program has, and few enough to show.
const MOST_POOLS: usize = 1_000;
const MOST_WORKERS: usize = 10_000;
const MOST_TASKS: usize = 100;
const MOST_WORDS: usize = 100;
/// Buckets of a histogram; the engine's have fifteen.
const MOST_BUCKETS: usize = 200;
/// The largest number: the last up to which a real number knows each whole one. A thousand of them can be added.
const MOST_NUMBER: u64 = 1 << 53;
/// Thirty thousand years.
const MOST_SECONDS: f64 = 1e12;
/// The least bound of a histogram: shorter than any instruction.
const LEAST_BOUND_S: f64 = 1e-12;

/// A program at an instant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Program {
    /// Its process, as it sees itself; in a container that may be another number than outside.
    pub pid: u32,
    /// The version of treadle in it.
    pub treadle: String,
    /// Its command line.
    pub command: Vec<String>,
    /// The cores that it may use.
    pub usable_cores: f64,
    /// CPU seconds of its process, all threads; without its workers.
    pub cpu_s: f64,
    /// Resident bytes of its process.
    pub memory_bytes: u64,
    /// CPU seconds that telling has cost it.
    pub told_cpu_s: f64,
    /// The interpreter's lock.
    pub lock: Lock,
    /// Its pools.
    pub pools: Vec<Pool>,
}

/// How the interpreter's lock was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lock {
    /// Whether this interpreter has one.
    pub exists: bool,
    /// Whether it was had in time.
    pub free: bool,
    /// Seconds until it was had, or for which it has been waited for.
    pub waited_s: f64,
}

/// A pool at an instant. Counts are tasks since its start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pool {
    /// Which pool of its program, counted from 1.
    pub number: u64,
    /// The executor's name.
    pub name: String,
    /// threads, processes, coroutines, hybrid and so on.
    pub strategy: String,
    /// The plan in words: `processes=4`.
    pub plan: String,
    /// Tasks that can run at once.
    pub concurrency: u64,
    /// Tasks submitted.
    pub submitted: u64,
    /// Tasks that a worker answered, with a result or an exception.
    pub completed: u64,
    /// Tasks cancelled before they began.
    pub cancelled: u64,
    /// Tasks that ended without a reply.
    pub lost: u64,
    /// Tasks that were run again.
    pub retried: u64,
    /// Tasks over their time.
    pub timed_out: u64,
    /// Workers that died unasked.
    pub deaths: u64,
    /// Tasks that a worker has now.
    pub running: u64,
    /// Tasks that no worker has.
    pub queued: u64,
    /// Age of the oldest task that no worker has.
    pub oldest_s: Option<f64>,
    /// Most unfinished tasks.
    pub limit: Option<u64>,
    /// Bytes of payloads on their way.
    pub payload_bytes: u64,
    /// From submission to start.
    pub wait: Option<Histogram>,
    /// From start to end.
    pub duration: Option<Histogram>,
    /// From submission until the answer was here.
    pub turnaround: Option<Histogram>,
    /// Why it can run nothing any more.
    pub broken: Option<String>,
    /// `shutdown` was called.
    pub closing: bool,
    /// How old this is in seconds, when the interpreter has not told anything newer; `None` when it is of this instant.
    pub told_s_ago: Option<f64>,
    /// Its workers.
    pub workers: Vec<Worker>,
    /// The tasks that have run longest, where one worker runs many at a time.
    pub tasks: Vec<Task>,
}

/// A worker at an instant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Worker {
    /// Its number in the pool.
    pub worker: u64,
    /// Its process or thread; 0 for none.
    pub ident: u64,
    /// starting, idle, busy, overdue or absent.
    pub state: String,
    /// What its task calls.
    pub function: Option<String>,
    /// Seconds since its task began.
    pub running_s: f64,
    /// Tasks that it has finished.
    pub tasks: Option<u64>,
    /// How often its place was filled again.
    pub restarts: u64,
    /// CPU seconds since its start.
    pub cpu_s: Option<f64>,
    /// Resident bytes of its process; `None` for a thread.
    pub memory_bytes: Option<u64>,
}

/// A task that runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Task {
    /// What it calls.
    pub function: String,
    /// Seconds since it began.
    pub running_s: f64,
}

/// How often a time fell between two bounds: `counts[i]` times up to `bounds_s[i]`; the last count is above all bounds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Histogram {
    /// The upper bounds in seconds.
    pub bounds_s: Vec<f64>,
    /// One count more than bounds.
    pub counts: Vec<u64>,
    /// The sum of the times.
    pub sum_s: f64,
}

/// What the workers of one pool do, with their stacks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stacks {
    /// The pool's number.
    pub pool: u64,
    /// The text; its lines may end with a line feed only.
    pub text: String,
}

impl Histogram {
    /// How many times there are.
    pub fn count(&self) -> u64 {
        self.counts
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The times that came since an earlier state of the same histogram.
    pub fn since(&self, before: &Histogram) -> Histogram {
        if before.bounds_s != self.bounds_s {
            return self.clone();
        }
        Histogram {
            bounds_s: self.bounds_s.clone(),
            counts: self
                .counts
                .iter()
                .zip(&before.counts)
                .map(|(now, before)| now.saturating_sub(*before))
                .collect(),
            sum_s: (self.sum_s - before.sum_s).max(0.0),
        }
    }

    /// About the time below which this share of all lies: within its bucket taken as evenly spread over the logarithm. `None` without times;
    /// what lies above all bounds is told as the last bound.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let wanted = share * total as f64;
        let mut below = 0.0;
        for (index, count) in self.counts.iter().enumerate() {
            let here = *count as f64;
            if *count > 0 && below + here >= wanted {
                let Some(high) = self.bounds_s.get(index) else {
                    return self.bounds_s.last().copied();
                };
                // Below the first bound there is no lower one; its buckets grow by about the same factor throughout.
                let low = match index
                    .checked_sub(1)
                    .and_then(|index| self.bounds_s.get(index))
                {
                    Some(low) => *low,
                    None => match self.bounds_s.get(1) {
                        Some(next) => high * high / next,
                        None => return Some(*high),
                    },
                };
                let part = ((wanted - below) / here).clamp(0.0, 1.0);
                return Some(low * (high / low).powf(part));
            }
            below += here;
        }
        self.bounds_s.last().copied()
    }

    fn is_whole(&self) -> bool {
        let rising = self
            .bounds_s
            .windows(2)
            .all(|pair| pair[0] < pair[1] && pair[1].is_finite());
        !self.bounds_s.is_empty()
            && self.bounds_s.len() <= MOST_BUCKETS
            && self.counts.len() == self.bounds_s.len() + 1
            && self.bounds_s[0] >= LEAST_BOUND_S
            && self.bounds_s[self.bounds_s.len() - 1] <= MOST_SECONDS
            && rising
    }
}

/// The text with every letter that could move a terminal's cursor, or change how the rest is read, replaced.
fn printable(text: &str, most: usize) -> String {
    text.chars()
        .take(most)
        .map(|letter| {
            // Marks of direction turn the letters after them around; the others are no letters at all.
            let turns = matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
            if letter.is_control() || turns { '\u{fffd}' } else { letter }
        })
        .collect()
}

fn tidy_text(text: &mut String) {
    *text = printable(text, MOST_LETTERS);
}

fn tidy_seconds(seconds: &mut f64) {
    if !seconds.is_finite() || *seconds < 0.0 {
        *seconds = 0.0;
    }
    *seconds = seconds.min(MOST_SECONDS);
}

fn tidy_numbers<'a>(numbers: impl IntoIterator<Item = &'a mut u64>) {
    for number in numbers {
        *number = (*number).min(MOST_NUMBER);
    }
}

fn tidy_histogram(histogram: &mut Option<Histogram>) {
    if histogram.as_ref().is_some_and(|found| !found.is_whole()) {
        *histogram = None;
    }
    if let Some(found) = histogram {
        tidy_seconds(&mut found.sum_s);
        tidy_numbers(&mut found.counts);
    }
}

impl Program {
    /// Makes what another program sent fit to be shown.
    pub fn tidy(&mut self) {
        tidy_text(&mut self.treadle);
        self.command.truncate(MOST_WORDS);
        self.command.iter_mut().for_each(tidy_text);
        tidy_seconds(&mut self.usable_cores);
        tidy_seconds(&mut self.cpu_s);
        tidy_seconds(&mut self.told_cpu_s);
        tidy_seconds(&mut self.lock.waited_s);
        tidy_numbers([&mut self.memory_bytes]);
        self.pools.truncate(MOST_POOLS);
        self.pools.iter_mut().for_each(Pool::tidy);
    }
}

impl Pool {
    fn tidy(&mut self) {
        tidy_text(&mut self.name);
        tidy_text(&mut self.strategy);
        tidy_text(&mut self.plan);
        self.broken.iter_mut().for_each(tidy_text);
        tidy_numbers([
            &mut self.number,
            &mut self.concurrency,
            &mut self.submitted,
            &mut self.completed,
            &mut self.cancelled,
            &mut self.lost,
            &mut self.retried,
            &mut self.timed_out,
            &mut self.deaths,
            &mut self.running,
            &mut self.queued,
            &mut self.payload_bytes,
        ]);
        tidy_numbers(&mut self.limit);
        self.oldest_s.iter_mut().for_each(tidy_seconds);
        self.told_s_ago.iter_mut().for_each(tidy_seconds);
        tidy_histogram(&mut self.wait);
        tidy_histogram(&mut self.duration);
        tidy_histogram(&mut self.turnaround);
        self.workers.truncate(MOST_WORKERS);
        for worker in &mut self.workers {
            tidy_text(&mut worker.state);
            worker.function.iter_mut().for_each(tidy_text);
            tidy_seconds(&mut worker.running_s);
            worker.cpu_s.iter_mut().for_each(tidy_seconds);
            tidy_numbers([&mut worker.worker, &mut worker.ident, &mut worker.restarts]);
            tidy_numbers(&mut worker.tasks);
            tidy_numbers(&mut worker.memory_bytes);
        }
        self.tasks.truncate(MOST_TASKS);
        for task in &mut self.tasks {
            tidy_text(&mut task.function);
            tidy_seconds(&mut task.running_s);
        }
    }
}

impl Stacks {
    /// Makes what another program sent fit to be shown; line feeds stay.
    pub fn tidy(&mut self) {
        let lines: Vec<String> = self
            .text
            .split('\n')
            .map(|line| printable(&line.replace('\t', "    "), MOST_STACK_LETTERS))
            .collect();
        let mut text = lines.join("\n");
        if let Some((end, _)) = text.char_indices().nth(MOST_STACK_LETTERS) {
            text.truncate(end);
        }
        self.text = text;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[u64]) -> Histogram {
        Histogram {
            bounds_s: vec![0.001, 0.004, 0.016],
            counts: counts.to_vec(),
            sum_s: 1.0,
        }
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        assert_eq!(histogram(&[0, 0, 0, 0]).quantile(0.5), None);
        let found = histogram(&[0, 100, 0, 0]).quantile(0.5).unwrap();
        assert!(
            (found - 0.002).abs() < 1e-12,
            "half way on the logarithm: {found}"
        );
        let first = histogram(&[10, 0, 0, 0]).quantile(0.5).unwrap();
        assert!((0.00025..=0.001).contains(&first), "{first}");
        assert_eq!(histogram(&[0, 0, 0, 9]).quantile(0.99), Some(0.016));
        let mixed = histogram(&[98, 0, 2, 0]);
        assert!(mixed.quantile(0.5).unwrap() <= 0.001);
        assert!(mixed.quantile(0.99).unwrap() > 0.004);
    }

    #[test]
    fn what_came_since_is_a_difference() {
        let since = histogram(&[5, 5, 0, 0]).since(&histogram(&[5, 1, 0, 0]));
        assert_eq!(since.counts, [0, 4, 0, 0]);
        let other = Histogram {
            bounds_s: vec![1.0],
            ..Histogram::default()
        };
        assert_eq!(histogram(&[5, 5, 0, 0]).since(&other).count(), 10);
    }

    #[test]
    fn what_another_program_sends_cannot_move_the_cursor() {
        let mut program = Program {
            command: vec!["a\u{1b}[2Jb\r\n".to_owned(), "x".repeat(10_000)],
            cpu_s: -1.0,
            pools: vec![Pool {
                name: "p\u{202e}q\u{9b}".to_owned(),
                wait: Some(Histogram {
                    bounds_s: vec![1.0, 0.5],
                    counts: vec![1, 2, 3],
                    sum_s: 1.0,
                }),
                workers: vec![Worker {
                    function: Some("f\u{7}".to_owned()),
                    running_s: f64::NAN,
                    ..Worker::default()
                }],
                ..Pool::default()
            }],
            ..Program::default()
        };
        program.tidy();
        let text = format!("{}{}", program.command[0], program.pools[0].name);
        assert!(
            !text.chars().any(char::is_control) && !text.contains('\u{202e}'),
            "{text:?}"
        );
        assert_eq!(program.command[1].chars().count(), MOST_LETTERS);
        assert_eq!(program.cpu_s, 0.0);
        assert_eq!(program.pools[0].wait, None, "bounds must rise");
        assert_eq!(program.pools[0].workers[0].running_s, 0.0);
        let mut stacks = Stacks {
            pool: 1,
            text: "one\n\ttwo\u{1b}[1m\n".to_owned(),
        };
        stacks.tidy();
        assert_eq!(stacks.text, "one\n    two\u{fffd}[1m\n");
    }
}
