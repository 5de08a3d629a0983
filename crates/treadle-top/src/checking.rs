//! `treadle check`: the request, its progress, its answers and its exit code.

use treadle_core::choice::ChoiceError;
use treadle_core::choice::check::{Asking, check};
use treadle_core::choice::laboratory::Surroundings;
use treadle_core::choice::{Request, record};

use crate::World;
use crate::arguments::Check;
use crate::comparing::{put, tell};
use crate::progress::Line;
use crate::{junit, verdicts};

/// Exit code of a check that could not be carried out: 0 to 3 are answers.
pub(crate) const UNCHECKED: i32 = 4;

/// Runs the check.
pub(crate) fn run(options: &Check, world: &mut World<'_>) -> i32 {
    match attempt(options, world) {
        Ok(code) => code,
        Err(error) => {
            tell(&error, world.stderr);
            if error == ChoiceError::Interrupted {
                error.exit_code()
            } else {
                UNCHECKED
            }
        }
    }
}

fn attempt(options: &Check, world: &mut World<'_>) -> Result<i32, ChoiceError> {
    let mut gate = Request::new("", "");
    gate.heed(world.environment)?;
    let asking = Asking {
        names: options.names.clone(),
        static_only: options.static_only,
        measure: options.measure,
        race: options.race,
        budget_s: options.budget,
        ignore_noise: gate.ignore_noise,
        python: Some(world.python.to_string_lossy().into_owned()),
        laboratory: world.laboratory.clone(),
        ..Asking::new(&world.directory)
    };
    let report = {
        let mut line = Line::new(
            &mut *world.stderr,
            world.rewrite,
            world.terminal.map_or(80, |(columns, _)| columns),
        );
        let surroundings = Surroundings {
            clock: &treadle_probe::clock::monotonic,
            interrupted: world.interrupted,
        };
        let outcome = check(&asking, &mut line, surroundings);
        line.clear();
        outcome?
    };
    if let Some(file) = &options.junit {
        record::write_whole(&world.directory.join(file), &junit::xml(&report))?;
    }
    let width = world
        .terminal
        .map_or(100, |(columns, _)| usize::from(columns))
        .clamp(60, 160);
    let text = verdicts::text(&report, width);
    let json = || {
        serde_json::to_string(&report)
            .map(|text| text + "\n")
            .map_err(|error| {
                ChoiceError::usage(
                    format!("cannot write the answers: {error}"),
                    "this is a mistake in treadle",
                )
            })
    };
    match options.json.as_deref() {
        Some("-") => {
            put(world.stderr, &text);
            put(world.stdout, &json()?);
        }
        Some(file) => {
            record::write_whole(&world.directory.join(file), &json()?)?;
            put(world.stdout, &text);
        }
        None => put(world.stdout, &text),
    }
    Ok(report.exit_code)
}
