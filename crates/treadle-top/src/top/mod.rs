//! `treadle top` and `treadle dump`: running programs in the terminal.
//!
//! ```text
//! programs ─► sampling ─► model ─► verdict ─► view ─► screen (or once: text, JSON)
//!                                    keys: where the user looks ─┘
//! ```

mod detail;
mod dump;
mod keys;
mod model;
mod once;
mod sampling;
mod screen;
#[cfg(test)]
mod screens;
mod verdict;
mod view;
mod words;

use serde_json::{Value, json};
use treadle_core::live::asking;
use treadle_core::live::protocol::Ask;

use crate::World;
use crate::arguments::{Dump, Top};
use crate::comparing::put;

/// Exit code when the program that was asked for cannot be watched, or the view cannot be shown.
const UNSEEN: i32 = 1;

/// Runs `treadle top`.
pub(crate) fn top(options: &Top, world: &mut World<'_>) -> i32 {
    let found = match sampling::choose(options.pid) {
        Ok(found) => found,
        Err((what, next)) => return refuse(world, &what, &next),
    };
    // A view needs a terminal to be shown on; a pipe gets one picture.
    let Some((wide, _)) = world.terminal.filter(|_| !options.once && !options.json) else {
        let model = once::look(&found, world.interrupted);
        if (world.interrupted)() {
            return 130;
        }
        if options.json {
            put(world.stdout, &format!("{}\n", once::json(&model)));
        } else {
            let wide = world.terminal.map_or(100, |(wide, _)| usize::from(wide));
            put(world.stdout, &once::text(&model, wide.clamp(60, 200)));
        }
        return 0;
    };
    let dumb = (world.environment)("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if dumb || wide == 0 {
        return refuse(
            world,
            "this terminal cannot be drawn on",
            "`treadle top --once` prints one picture",
        );
    }
    let sight = screen::Sight {
        pid: options.pid,
        interval_s: options.interval,
        colour: (world.environment)("NO_COLOR").is_none_or(|value| value.is_empty()),
        interrupted: world.interrupted,
    };
    match screen::show(&sight, world.stdout) {
        Ok(code) => code,
        Err(error) => refuse(
            world,
            &format!("the terminal cannot be used: {error}"),
            "`treadle top --once` prints one picture",
        ),
    }
}

/// Runs `treadle dump`.
pub(crate) fn dump(options: &Dump, world: &mut World<'_>) -> i32 {
    let found = match sampling::choose(options.pid) {
        Ok(found) => found,
        Err((what, next)) => return refuse(world, &what, &next),
    };
    let mut programs: Vec<Value> = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    let mut failed = false;
    for program in &found {
        if (world.interrupted)() {
            return 130;
        }
        match asking::ask(program, Ask::Stacks) {
            Ok(answer) => {
                texts.push(dump::text(&answer, None));
                programs.push(dump::json(&answer));
            }
            Err(trouble) => {
                failed = true;
                put(
                    world.stderr,
                    &format!("treadle: {}: {trouble}\n", program.pid),
                );
                programs.push(
                    json!({ "pid": program.pid, "trouble": trouble.to_string(), "pools": [] }),
                );
            }
        }
    }
    if options.json {
        let told = json!({ "schema": 1, "programs": programs });
        put(world.stdout, &format!("{told}\n"));
    } else if found.is_empty() {
        put(
            world.stdout,
            &view::NOTHING.map(|line| format!("{line}\n")).concat(),
        );
    } else {
        put(world.stdout, &texts.join("\n"));
    }
    if failed { UNSEEN } else { 0 }
}

fn refuse(world: &mut World<'_>, what: &str, next: &str) -> i32 {
    put(world.stderr, &format!("treadle: {what}\n\nhint: {next}\n"));
    UNSEEN
}
