//! The stacks of a program's workers as text and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};
use treadle_core::live::asking::Answer;
use treadle_core::live::picture::{Pool, Stacks};

use super::model::called;
use super::words::{age, short};

/// All pools of a program, or the one with this number.
pub(crate) fn text(answer: &Answer, only: Option<u64>) -> String {
    let program = &answer.program;
    let pid = if answer.pid == 0 {
        program.pid
    } else {
        answer.pid
    };
    let mut text = format!(
        "{} ({pid}), treadle {}\n",
        called(&program.command),
        program.treadle
    );
    let lock = &program.lock;
    let _ = match (lock.exists, lock.free) {
        (false, _) => writeln!(text, "this interpreter has no lock"),
        (true, true) => writeln!(text, "interpreter lock: had in {}", short(lock.waited_s)),
        (true, false) => writeln!(
            text,
            "interpreter lock: held by another thread for {} now; stacks of threads and coroutines cannot be had meanwhile\n\
             hint: a debugger reads them from outside: py-spy dump --pid {pid}",
            age(lock.waited_s)
        ),
    };
    let mut told = false;
    for pool in program
        .pools
        .iter()
        .filter(|pool| only.is_none_or(|only| only == pool.number))
    {
        told = true;
        let _ = write!(text, "\n── {} · {} ──\n", pool.name, pool.plan);
        match stacks_of(answer, pool.number) {
            Some(stacks) => text.push_str(&stacks.text),
            None => text.push_str(&states(pool)),
        }
    }
    if !told {
        text.push_str("\nno pool now\n");
    }
    text
}

fn stacks_of(answer: &Answer, number: u64) -> Option<&Stacks> {
    answer.stacks.iter().find(|stacks| stacks.pool == number)
}

/// What is known without stacks.
fn states(pool: &Pool) -> String {
    let mut text = format!("{} running, {} waiting\n", pool.running, pool.queued);
    if let Some(old_s) = pool.told_s_ago {
        let _ = writeln!(text, "(as it was {} ago)", age(old_s));
    }
    for worker in &pool.workers {
        let _ = write!(
            text,
            "worker {} ({}): {}",
            worker.worker, worker.ident, worker.state
        );
        if let Some(function) = &worker.function {
            let _ = write!(text, " for {} in {function}", age(worker.running_s));
        }
        text.push('\n');
    }
    for task in &pool.tasks {
        let _ = writeln!(text, "{} for {}", task.function, age(task.running_s));
    }
    text
}

/// The same as one object for each program.
pub(crate) fn json(answer: &Answer) -> Value {
    let program = &answer.program;
    let pools: Vec<Value> = program
        .pools
        .iter()
        .map(|pool| {
            let mut value = serde_json::to_value(pool).unwrap_or_default();
            value["stacks"] = json!(stacks_of(answer, pool.number).map(|stacks| &stacks.text));
            value
        })
        .collect();
    json!({
        "pid": if answer.pid == 0 { program.pid } else { answer.pid },
        "treadle": program.treadle,
        "command": program.command,
        "lock": program.lock,
        "pools": pools,
        "trouble": null,
    })
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{pool, program};
    use super::*;
    use treadle_core::live::picture::{Lock, Program};

    #[test]
    fn a_held_lock_leaves_the_states() {
        let held = Program {
            lock: Lock {
                exists: true,
                free: false,
                waited_s: 12.0,
            },
            ..program(vec![
                pool(2, 8, 1),
                Pool {
                    number: 2,
                    name: "other".to_owned(),
                    ..pool(0, 0, 0)
                },
            ])
        };
        let stacks = vec![Stacks {
            pool: 2,
            text: "File \"a.py\", line 1 in f\n".to_owned(),
        }];
        let answer = Answer {
            pid: 77,
            program: held,
            stacks,
        };
        let found = text(&answer, None);
        for part in [
            "crawl.py (77), treadle 0.1.0",
            "held by another thread for 12 s",
            "py-spy dump --pid 77",
            "worker 0 (4300): busy for 0.1 s in images.thumbnail",
            "worker 3 (4303): idle",
            "── other · processes=4 ──\nFile \"a.py\", line 1 in f\n",
        ] {
            assert!(found.contains(part), "{part} is not in\n{found}");
        }
        assert!(!text(&answer, Some(2)).contains("thumbs"));
        assert_eq!(
            json(&answer)["pools"][1]["stacks"],
            "File \"a.py\", line 1 in f\n"
        );
        assert_eq!(json(&answer)["pools"][0]["stacks"], Value::Null);
    }
}
