//! The command line: arguments in, report, progress and exit code out.
//!
//! *Guarantees*: prints nothing by itself; everything goes to the two writers of the `World` that it is given.
#![forbid(unsafe_code)]

mod arguments;
mod checking;
mod comparing;
mod date;
pub mod html;
mod junit;
mod layout;
mod plot;
mod progress;
mod report;
mod top;
mod verdicts;

use std::io::Write;
use std::path::PathBuf;

use clap::Parser;
use clap::error::ErrorKind;

/// What the command needs from outside: where to write, how to run Python, when to stop.
pub struct World<'a> {
    /// Data: the report, or JSON.
    pub stdout: &'a mut dyn Write,
    /// Prose and progress.
    pub stderr: &'a mut dyn Write,
    /// The Python interpreter that treadle is installed in.
    pub python: PathBuf,
    /// Whether the user has interrupted; looked at every 50 ms.
    pub interrupted: &'a dyn Fn() -> bool,
    /// Columns and rows of the terminal that standard output is; `None` when it is not one.
    pub terminal: Option<(u16, u16)>,
    /// Whether standard error is a terminal, so that progress may rewrite its line.
    pub rewrite: bool,
    /// The current folder: where `treadle.toml` is written.
    pub directory: PathBuf,
    /// Reads an environment variable.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Program and arguments of the measuring process; `None` runs `treadle._laboratory` in `python`.
    pub laboratory: Option<Vec<String>>,
}

/// Runs the command `treadle` with these arguments, the program's name not among them; returns the exit code.
pub fn run(arguments: &[String], world: &mut World<'_>) -> i32 {
    let words = std::iter::once("treadle".to_owned()).chain(arguments.iter().cloned());
    match arguments::Treadle::try_parse_from(words) {
        Ok(parsed) => match parsed.command {
            arguments::Verb::Compare(compare) => comparing::run(&compare, arguments, world),
            arguments::Verb::Check(check) => checking::run(&check, world),
            arguments::Verb::Top(options) => top::top(&options, world),
            arguments::Verb::Dump(options) => top::dump(&options, world),
        },
        Err(error) => {
            let helped = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            let text = error.render().to_string();
            if helped {
                let _ = world.stdout.write_all(text.as_bytes());
                0
            } else {
                let _ = world.stderr.write_all(text.as_bytes());
                // 2 is an answer of `check`.
                if arguments.first().is_some_and(|verb| verb == "check") {
                    checking::UNCHECKED
                } else {
                    2
                }
            }
        }
    }
}
