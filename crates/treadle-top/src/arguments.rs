//! The arguments of the command, and its help.

use clap::{Args, Parser, Subcommand};

/// Threads, processes, asyncio or a mix: measured, decided, run and watched.
#[derive(Debug, Parser)]
#[command(
    name = "treadle",
    version,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Treadle {
    #[command(subcommand)]
    pub(crate) command: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Compare(Compare),
    Check(Check),
    Top(Top),
    Dump(Dump),
}

/// Measure a function on its inputs, predict every plan, race the best few, decide.
///
/// The function is run several times over the inputs, in processes of its own: it should be safe to repeat. It runs on these inputs and
/// no others; --limit bounds them, and --once runs none of them twice.
///
/// Exit codes: 0 decided, 2 usage, 3 nothing could be decided: the machine is too noisy (TREADLE_NOISE=ignore decides all the same), or --once leaves too few inputs,
/// 4 the function failed on its inputs, 130 interrupted.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// The function: module:function or file.py:function
    pub(crate) target: String,

    /// The inputs: module:callable or file.py:callable (returns or yields them), a quoted glob such as 'photos/*.jpg', lines:FILE, json:FILE or range:N
    #[arg(long, value_name = "SPEC")]
    pub(crate) items: String,

    /// Pass an input that is a tuple as the list of arguments
    #[arg(long)]
    pub(crate) star: bool,

    /// Seconds for the whole race
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub(crate) budget: f64,

    /// Race exactly these plans, and serial: 'threads=2,8;processes=2'
    #[arg(long, value_name = "PLANS")]
    pub(crate) plans: Option<String>,

    /// What the plan must reach: 'throughput=200/s,p50=5ms,p99=50ms,memory=2GiB,errors=0,cpu=4' (latencies are those of a task in its worker)
    #[arg(long = "target", value_name = "TARGETS")]
    pub(crate) targets: Option<String>,

    /// Record the decision under this name, in treadle.toml and docs/decisions/
    #[arg(long, value_name = "NAME")]
    pub(crate) save: Option<String>,

    /// Write the whole comparison as JSON to a file, or to standard output without one (the report then goes to standard error)
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub(crate) json: Option<String>,

    /// Write the comparison as a page: one HTML file that needs nothing else, for a screen, a telephone or paper
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<String>,

    /// Stop after the profile and the predictions; with --save, what the model expects is recorded as proposed
    #[arg(long)]
    pub(crate) profile_only: bool,

    /// Run no input twice: a sample is profiled, the race splits the others
    #[arg(long)]
    pub(crate) once: bool,

    /// Read at most so many inputs; the function runs on no others
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,

    /// Repeat the order of an earlier race
    #[arg(long, value_name = "SEED")]
    pub(crate) seed: Option<u64>,
}

/// Say whether recorded decisions are still right, from the cheapest test to the dearest, as deep as it takes.
///
/// Source, inputs, Python, packages and machine are compared with the record. Where something that weighs has changed, the
/// function is profiled serially (about 3 s) and the plans are ranked again by the model. --race races them. Nothing is
/// written. Looks for treadle.toml in this folder and above.
///
/// Exit codes: 0 all hold, 1 stale (facts changed, the choice is not contradicted), 2 overturned (another plan is better),
/// 3 inconclusive (it could not be told), 4 it could not be checked (an unknown name, a damaged treadle.toml, a wrong
/// option), 130 interrupted. The worst of several counts: overturned, then stale, then inconclusive.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The decisions to check; all of them when none is named
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,

    /// Compare files alone: run nothing but the imports of the function's module
    #[arg(long = "static", conflicts_with_all = ["measure", "race"])]
    pub(crate) static_only: bool,

    /// Profile and rank also where nothing has changed
    #[arg(long)]
    pub(crate) measure: bool,

    /// Race the plan, its runner-up and serial, unless the profile already contradicts the choice
    #[arg(long)]
    pub(crate) race: bool,

    /// Seconds for the race of each decision
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0)]
    pub(crate) budget: f64,

    /// Write the answers as JSON to a file, or to standard output without one (the text then goes to standard error)
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", require_equals = false)]
    pub(crate) json: Option<String>,

    /// Write the answers as JUnit XML to a file: overturned and stale fail, inconclusive is skipped
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<String>,
}

/// Show the pools of a running program, or of all of your programs: what they do, what limits them, worker by worker.
///
/// A program is seen from its first executor on. Nothing has to be prepared in it, and it need not be stopped. Keys: ? shows them.
/// Where standard output is no terminal, one picture is printed, as with --once.
///
/// Exit codes: 0 done, 1 the program cannot be watched or the terminal not be used, 2 usage, 130 interrupted.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// The program; all of yours when none is named
    #[arg(value_name = "PID")]
    pub(crate) pid: Option<u32>,

    /// Print one picture as text and end
    #[arg(long)]
    pub(crate) once: bool,

    /// Print one picture as JSON and end
    #[arg(long)]
    pub(crate) json: bool,

    /// Seconds between looks, from 0.1 to 60
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    pub(crate) interval: f64,
}

fn interval(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.1..=60.0).contains(seconds))
        .ok_or_else(|| "a number of seconds from 0.1 to 60 is needed".to_owned())
}

/// Print what every worker of a running program does now, with stacks; of all of your programs when none is named.
///
/// The stacks of worker processes are had whatever the program does. Those of threads and coroutines need its interpreter's lock:
/// when that is held for more than two seconds, the states are printed without them, and for how long.
///
/// Exit codes: 0 done, 1 a program cannot be watched, 2 usage, 130 interrupted.
#[derive(Debug, Args)]
pub(crate) struct Dump {
    /// The program; all of yours when none is named
    #[arg(value_name = "PID")]
    pub(crate) pid: Option<u32>,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
