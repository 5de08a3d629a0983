//! The screens that the view draws, against the texts in `tests/screens/`.

use super::keys::{Face, Overlay, Place, Sort, places};
use super::model::Model;
use super::model::tests::{found, pool, program};
use super::once;
use super::view::{Paint, plain, screen};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::widgets::Paragraph;
use serde_json::Value;
use treadle_core::live::asking::{Answer, Found, Trouble};
use treadle_core::live::picture::{Histogram, Pool, Worker};
use treadle_core::live::picture::{Lock, Program, Task};
use treadle_core::live::protocol::{PROTOCOL, decode_reply};

fn times(fast: u64, slow: u64) -> Option<Histogram> {
    Some(Histogram {
        bounds_s: vec![0.001, 0.004, 0.016, 0.064, 0.256],
        counts: vec![0, 0, fast, 0, slow, 0],
        sum_s: 0.01 * fast as f64,
    })
}

/// Threads that fetch, one of them late, and a loop with two tasks.
fn fetching(second: u64) -> Program {
    let workers = (0..16)
        .map(|worker| Worker {
            worker,
            ident: 5001 + worker,
            state: if worker == 3 { "overdue" } else { "busy" }.to_owned(),
            function: Some("shop.client.fetch_with_retries".to_owned()),
            running_s: if worker == 3 {
                12.0
            } else {
                0.03 * worker as f64
            },
            tasks: Some(400 + worker),
            cpu_s: Some(second as f64 * 0.02),
            ..Worker::default()
        })
        .collect();
    let fetch = Pool {
        name: "fetch".to_owned(),
        strategy: "threads".to_owned(),
        plan: "threads=16".to_owned(),
        concurrency: 16,
        running: 16,
        limit: Some(200),
        wait: times(second * 200, second * 3),
        duration: times(second * 200, 0),
        workers,
        ..pool(0, second * 210, 90)
    };
    let socket = Pool {
        number: 2,
        name: "sockets".to_owned(),
        strategy: "coroutines".to_owned(),
        plan: "coroutines=1000".to_owned(),
        concurrency: 1000,
        running: 2,
        workers: vec![Worker {
            ident: 5100,
            state: "busy".to_owned(),
            ..Worker::default()
        }],
        tasks: ["live.listen", "live.answer"]
            .map(|function| Task {
                function: function.to_owned(),
                running_s: 75.0,
            })
            .to_vec(),
        ..pool(0, 9, 0)
    };
    Program {
        command: ["python", "-m", "shop"].map(str::to_owned).to_vec(),
        cpu_s: second as f64 * 0.3,
        told_cpu_s: second as f64 * 0.0004,
        ..program(vec![fetch, socket])
    }
}

fn thumbs(second: u64) -> Program {
    let mut pool = pool(4, second * 80, 40 + 41 * second);
    pool.wait = times(second * 80, second);
    pool.duration = times(second * 80, 0);
    pool.turnaround = times(second * 80, second);
    pool.payload_bytes = 3 << 20;
    program(vec![pool])
}

fn model() -> Model {
    let mut model = Model::default();
    model.discovered(&[found(4242), found(5000)]);
    for second in 0..8 {
        let at_s = second as f64;
        let hear = |model: &mut Model, found: &Found, program: Program| {
            let answer = Answer {
                pid: found.pid,
                program,
                stacks: Vec::new(),
            };
            model.heard(found, at_s, Ok(answer));
        };
        hear(&mut model, &found(4242), thumbs(second));
        hear(&mut model, &found(5000), fetching(second));
    }
    model
}

fn drawn(model: &Model, face: &Face, size: (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal
        .draw(|frame| {
            let lines = screen(model, face, Paint { colour: true }, size, 8.0);
            frame.render_widget(Paragraph::new(lines), frame.area());
        })
        .unwrap();
    let buffer = terminal.backend().buffer();
    let rows = (0..size.1).map(|row| {
        let cells = (0..size.0).map(|column| buffer[(column, row)].symbol());
        cells.collect::<String>().trim_end().to_owned() + "\n"
    });
    rows.collect()
}

fn shown(face: &Face, size: (u16, u16)) -> String {
    drawn(&model(), face, size)
}

/// Compares with the text in `tests/screens/`; TREADLE_SCREENS=write replaces it.
fn compare(name: &str, shown: &str) {
    let path = format!("{}/tests/screens/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var("TREADLE_SCREENS").is_ok_and(|how| how == "write") {
        std::fs::write(&path, shown).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(
        shown == expected,
        "the screen is not as in {path}:\n{shown}"
    );
}

#[test]
fn the_screens_look_as_they_should() {
    let place = |pid: u32, pool: u64| Face {
        place: Some(Place {
            program: found(pid),
            pool: Some(pool),
        }),
        ..Face::new(1.0)
    };
    compare("processes-80", &shown(&place(4242, 1), (80, 24)));
    compare(
        "threads-80",
        &shown(
            &Face {
                sort: Sort::Time,
                scroll: 2,
                ..place(5000, 1)
            },
            (80, 24),
        ),
    );
    compare("coroutines-80", &shown(&place(5000, 2), (80, 24)));
    compare("processes-120", &shown(&place(4242, 1), (120, 40)));
    compare("least-40", &shown(&place(4242, 1), (40, 10)));
    let stacks = Overlay::Stacks {
        title: "stacks of 4242".to_owned(),
        text: Some("worker 0\n  File \"a.py\", line 3 in f\n".to_owned()),
        scroll: 0,
    };
    compare(
        "stacks-80",
        &shown(
            &Face {
                overlay: Some(stacks),
                ..place(4242, 1)
            },
            (80, 24),
        ),
    );
    compare(
        "help-80",
        &shown(
            &Face {
                overlay: Some(Overlay::Help),
                ..place(4242, 1)
            },
            (80, 24),
        ),
    );
}

#[test]
fn every_size_holds_its_lines() {
    let model = model();
    for overlay in [
        None,
        Some(Overlay::Help),
        Some(Overlay::Stacks {
            title: "t".to_owned(),
            text: Some("x\n".repeat(99)),
            scroll: 50,
        }),
    ] {
        for size in [
            (40, 10),
            (50, 12),
            (79, 24),
            (80, 24),
            (110, 30),
            (200, 60),
            (1, 1),
            (39, 24),
        ] {
            for place in places(&model) {
                let face = Face {
                    overlay: overlay.clone(),
                    place: Some(place),
                    scroll: 1000,
                    ..Face::new(1.0)
                };
                let lines = screen(&model, &face, Paint { colour: false }, size, 8.0);
                assert!(lines.len() <= usize::from(size.1), "{size:?}");
                for line in &lines {
                    assert!(
                        line.width() <= usize::from(size.0),
                        "{size:?}: {}",
                        plain(line)
                    );
                    assert!(
                        line.spans.iter().all(|span| span.style.fg.is_none()),
                        "no colour was asked for"
                    );
                }
            }
        }
    }
}

#[test]
fn a_program_that_ends_or_says_nothing_is_told_in_its_row() {
    let mut model = model();
    model.heard(&found(4242), 8.0, Err(Trouble::Ended));
    model.heard(&found(5000), 8.0, Err(Trouble::Silent));
    let text = drawn(&model, &Face::new(1.0), (120, 24));
    assert!(
        text.contains("crawl.py") && text.contains("ended 0.0 ms ago"),
        "{text}"
    );
    assert!(
        text.contains("it does not answer: it may be stopped"),
        "{text}"
    );
    assert!(drawn(&Model::default(), &Face::new(1.0), (80, 24)).contains("No program of yours"));
}

#[test]
fn a_held_lock_is_the_headline() {
    let mut model = model();
    let held = Program {
        lock: Lock {
            exists: true,
            free: false,
            waited_s: 4.2,
        },
        ..fetching(9)
    };
    model.heard(
        &found(5000),
        9.0,
        Ok(Answer {
            pid: 5000,
            program: held,
            stacks: Vec::new(),
        }),
    );
    let text = drawn(&model, &Face::new(1.0), (80, 24));
    let head = text.lines().nth(1).unwrap();
    assert!(
        head.starts_with("✗ fetch: interpreter lock held for 4.2 s"),
        "{text}"
    );
}

/// Every number of a program's picture replaced by one from the ends of its kind, some of them at each turn.
fn spoil(value: &mut Value, chance: &mut impl FnMut() -> usize) {
    const WHOLE: [u64; 5] = [0, 1, 1 << 32, u64::MAX - 1, u64::MAX];
    const REAL: [f64; 5] = [0.0, -1.0, 1e-308, 1e300, f64::MAX];
    match value {
        Value::Array(all) => all.iter_mut().for_each(|one| spoil(one, chance)),
        Value::Object(all) => all.values_mut().for_each(|one| spoil(one, chance)),
        Value::Number(number) if chance().is_multiple_of(3) => {
            *value = if number.is_u64() {
                WHOLE[chance() % WHOLE.len()].into()
            } else {
                REAL[chance() % REAL.len()].into()
            };
        }
        _ => {}
    }
}

#[test]
fn no_number_that_a_program_sends_stops_the_view() {
    let mut state = 1u64;
    let mut chance = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as usize
    };
    let mut drawn_programs = 0;
    for _ in 0..60 {
        let mut model = Model::default();
        model.discovered(&[found(5000)]);
        for second in 0..3 {
            let mut reply = serde_json::json!({"protocol": PROTOCOL, "program": fetching(second)});
            spoil(&mut reply["program"], &mut chance);
            let heard = match decode_reply(reply.to_string().as_bytes()) {
                Ok(reply) => Ok(Answer {
                    pid: 5000,
                    program: reply.program,
                    stacks: Vec::new(),
                }),
                // Such as a process of a number that no process has.
                Err(_) => continue,
            };
            drawn_programs += 1;
            model.heard(&found(5000), second as f64, heard);
        }
        for place in places(&model) {
            let face = Face {
                place: Some(place),
                ..Face::new(1.0)
            };
            for size in [(40, 10), (80, 24), (200, 60)] {
                drawn(&model, &face, size);
            }
        }
        once::text(&model, 80);
        once::json(&model);
    }
    assert!(drawn_programs > 60, "{drawn_programs}");
}
