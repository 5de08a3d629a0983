//! `treadle compare`: the request, its progress, its report and its exit code.

use std::io::Write;
use std::path::Path;

use treadle_core::choice::laboratory::Surroundings;
use treadle_core::choice::record::{self, Saving};
use treadle_core::choice::{ChoiceError, Comparison, Request, compare};

use crate::World;
use crate::arguments::Compare;
use crate::progress::Line;
use crate::{date, html, layout, report};

/// Runs the comparison; everything that can be wrong with the arguments is told before anything is measured.
pub(crate) fn run(options: &Compare, words: &[String], world: &mut World<'_>) -> i32 {
    match attempt(options, words, world) {
        Ok(code) => code,
        Err(error) => {
            tell(&error, world.stderr);
            error.exit_code()
        }
    }
}

fn attempt(options: &Compare, words: &[String], world: &mut World<'_>) -> Result<i32, ChoiceError> {
    if let Some(name) = &options.save {
        record::prepare(name, &world.directory)?;
    }
    if let Some(file) = &options.html {
        check_page(file, &world.directory)?;
    }
    let mut request = Request {
        star: options.star,
        limit: options.limit,
        budget_s: options.budget,
        plans: options.plans.clone(),
        targets: options.targets.clone(),
        profile_only: options.profile_only,
        once: options.once,
        seed: options.seed,
        python: Some(world.python.to_string_lossy().into_owned()),
        laboratory: world.laboratory.clone(),
        fingerprint: options.save.is_some(),
        ..Request::new(&options.target, &options.items)
    };
    request.heed(world.environment)?;
    let comparison = {
        let mut line = Line::new(
            &mut *world.stderr,
            world.rewrite,
            world.terminal.map_or(80, |(columns, _)| columns),
        );
        let surroundings = Surroundings {
            clock: &treadle_probe::clock::monotonic,
            interrupted: world.interrupted,
        };
        let outcome = compare(&request, &mut line, surroundings);
        line.clear();
        outcome?
    };
    let width = world
        .terminal
        .map_or(100, |(columns, _)| usize::from(columns))
        .clamp(60, 160);
    let text = report::text(&comparison, width);
    match options.json.as_deref() {
        Some("-") => {
            put(world.stderr, &text);
            put(world.stdout, &(json(&comparison)? + "\n"));
        }
        Some(file) => {
            let path = world.directory.join(file);
            record::write_whole(Path::new(&path), &(json(&comparison)? + "\n"))?;
            put(world.stdout, &text);
        }
        None => put(world.stdout, &text),
    }
    let command = layout::shell("treadle", words);
    if let Some(file) = &options.html {
        let path = world.directory.join(file);
        let origin = html::Origin {
            command: Some(command.clone()),
            date: date::today(),
        };
        record::write_whole(&path, &html::page(&comparison, &origin))?;
        put(
            world.stderr,
            &format!("treadle: wrote the page {}\n", path.display()),
        );
    }
    let code = comparison.exit_code();
    if let Some(name) = &options.save {
        if comparison.decision.plan.is_none() && code != 0 {
            put(
                world.stderr,
                &format!("treadle: nothing was decided, so `{name}` was not recorded\n"),
            );
            return Ok(code);
        }
        let command = layout::shell("treadle", &deciding(words, false));
        let afresh = layout::shell("treadle", &deciding(words, true));
        let saved = record::save(Saving {
            comparison: &comparison,
            name,
            function: &options.target,
            directory: &world.directory,
            date: &date::today(),
            command: &command,
            afresh: &afresh,
        })?;
        put(
            world.stderr,
            &format!(
                "treadle: recorded `{name}` ({} as {}) in {}, {} and {}\n",
                saved.plan.label(),
                saved.status.name(),
                saved.settings.display(),
                saved.page.display(),
                saved.evidence.display()
            ),
        );
    }
    Ok(code)
}

/// Tells before anything is measured that a page could not be written in the end.
fn check_page(file: &str, directory: &Path) -> Result<(), ChoiceError> {
    let path = directory.join(file);
    let wrong = |what: String| {
        ChoiceError::usage(
            format!("cannot write the page {}: {what}", path.display()),
            "name a file in a folder that exists and can be written, such as --html comparison.html",
        )
    };
    if file == "-" || path.file_name().is_none() {
        return Err(wrong("it is no name of a file".to_owned()));
    }
    if path.is_dir() {
        return Err(wrong("it is a folder".to_owned()));
    }
    record::check_whole(&path).map_err(|error| wrong(error.to_string()))
}

/// The words that decide again: those of this command, but for where it wrote its report and page; `afresh`, by a race of all plans.
fn deciding(words: &[String], afresh: bool) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let name = word.split('=').next().unwrap_or(word);
        match name {
            "--html" if word == name => {
                words.next();
            }
            "--json" if word == name => {
                words.next_if(|next| !next.starts_with("--"));
            }
            "--plans" if afresh => {
                if word == name {
                    words.next();
                }
            }
            "--json" | "--html" => {}
            "--profile-only" if afresh => {}
            _ => kept.push(word.clone()),
        }
    }
    kept
}

fn json(comparison: &Comparison) -> Result<String, ChoiceError> {
    serde_json::to_string(comparison).map_err(|error| {
        ChoiceError::usage(
            format!("cannot write the comparison: {error}"),
            "this is a mistake in treadle",
        )
    })
}

/// Writes all of it; a reader that has gone away is not an error of ours.
pub(crate) fn put(writer: &mut dyn Write, text: &str) {
    let _ = writer
        .write_all(text.as_bytes())
        .and_then(|()| writer.flush());
}

pub(crate) fn tell(error: &ChoiceError, stderr: &mut dyn Write) {
    let mut text = format!("treadle: {error}\n");
    if let Some(detail) = error.detail() {
        text.push('\n');
        for line in detail.trim_end().lines() {
            text.push_str(&format!("    {line}\n"));
        }
    }
    if let Some(hint) = error.hint() {
        text.push_str(&format!("\nhint: {hint}\n"));
    }
    put(stderr, &text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_of_a_record_writes_no_json() {
        let of = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            deciding(&words, false).join(" ")
        };
        assert_eq!(
            of(&[
                "compare",
                "a:f",
                "--json",
                "found.json",
                "--items",
                "range:3"
            ]),
            "compare a:f --items range:3"
        );
        assert_eq!(
            of(&["compare", "a:f", "--json", "--star"]),
            "compare a:f --star"
        );
        assert_eq!(of(&["compare", "a:f", "--json=x"]), "compare a:f");
        let words = [
            "a:f",
            "--plans",
            "threads=2",
            "--profile-only",
            "--plans=serial",
        ];
        let words: Vec<String> = words.map(str::to_owned).to_vec();
        assert_eq!(deciding(&words, false), words);
        assert_eq!(deciding(&words, true), ["a:f"]);
    }
}
