//! The picture: a model and where the user looks, as lines of a screen.
//!
//! *Guarantees*: no line is wider than the screen, and there are no more than it has rows; every difference that colour shows is also one of
//! letters or marks.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use treadle_core::choice::wording::count;

use super::detail::{about, lanes};
use super::keys::{Face, Overlay, Place, places};
use super::model::{Model, Standing, Watched};
use super::verdict::{Gravity, Verdict, judge};
use super::words::{age, columns, cut, left, narrow, rate, right};

/// Below this nothing useful fits.
const LEAST: (u16, u16) = (40, 10);
/// From this width on the list tells each pool's verdict.
const WIDE: usize = 110;

/// How things are painted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    /// False with NO_COLOR: bold, dim and reversed letters are no colours.
    pub(crate) colour: bool,
}

impl Paint {
    pub(crate) fn of(self, gravity: Gravity) -> Style {
        let colour = match gravity {
            Gravity::Bad => Color::Red,
            Gravity::Warning => Color::Yellow,
            Gravity::Note => Color::Cyan,
            Gravity::Good => Color::Green,
            Gravity::Idle => Color::Reset,
        };
        let style = Style::new();
        if self.colour { style.fg(colour) } else { style }
    }
}

pub(crate) const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
pub(crate) const DIM: Style = Style::new().add_modifier(Modifier::DIM);

/// The mark of a gravity.
pub(crate) fn mark(gravity: Gravity) -> &'static str {
    match gravity {
        Gravity::Bad => "✗",
        Gravity::Warning => "▲",
        Gravity::Note => "◆",
        Gravity::Good => "●",
        Gravity::Idle => "○",
    }
}

/// The screen, as lines.
pub(crate) fn screen(
    model: &Model,
    face: &Face,
    paint: Paint,
    (wide, high): (u16, u16),
    now_s: f64,
) -> Vec<Line<'static>> {
    if wide < LEAST.0 || high < LEAST.1 {
        return vec![Line::raw(cut(
            &format!("treadle top needs {} × {}", LEAST.0, LEAST.1),
            usize::from(wide),
        ))];
    }
    let (wide, high) = (usize::from(wide), usize::from(high));
    let mut lines = match &face.overlay {
        Some(Overlay::Help) => page(&help(), 0, wide, high, "any key closes"),
        Some(Overlay::Stacks {
            title,
            text,
            scroll,
        }) => {
            let mut found = vec![title.clone(), String::new()];
            match text {
                Some(text) => found.extend(text.lines().map(str::to_owned)),
                None => found.push("asking …".to_owned()),
            }
            page(
                &found,
                *scroll,
                wide,
                high,
                "↑↓ PgUp PgDn scroll   Esc closes",
            )
        }
        None => main(model, face, paint, wide, high, now_s),
    };
    lines.truncate(high);
    lines
}

fn page(
    text: &[String],
    scroll: usize,
    wide: usize,
    high: usize,
    foot: &str,
) -> Vec<Line<'static>> {
    let room = high - 2;
    let first = scroll.min(text.len().saturating_sub(room));
    let mut lines: Vec<Line<'static>> = text[first..]
        .iter()
        .take(room)
        .enumerate()
        .map(|(row, line)| {
            let style = if first + row == 0 { BOLD } else { Style::new() };
            Line::styled(cut(line, wide), style)
        })
        .collect();
    lines.resize(high - 1, Line::default());
    let more = text.len().saturating_sub(first + room);
    let foot = if more > 0 {
        format!("{foot}   {more} more lines below")
    } else {
        foot.to_owned()
    };
    lines.push(Line::styled(cut(&foot, wide), DIM));
    lines
}

fn help() -> Vec<String> {
    let mut lines: Vec<String> = [
        "treadle top: the pools of running programs",
        "",
        "  ↑ ↓ k j     select a pool             Tab         the next program",
        "  PgUp PgDn   scroll the workers        s           sort them",
        "  d Enter     stacks of the pool        Space p     pause the picture",
        "  ? h         this page                 q Ctrl-C    quit",
        "",
        "  ✗ bad   ▲ warning   ◆ note   ● works   ○ idle",
        "",
        "  rates, times and CPU are of the last 10 seconds, unless told",
        "  wait: from submission to start; run: from start to end",
        "  turnaround: from submission until the answer is there",
        "  p50, p99: half and 99 of 100 tasks took at most that, within a factor of 2",
        "  CPU: 100% is one core; a dash: not known here",
        "  lock: how long the interpreter's lock was waited for at the last look",
        "  watching costs: the share of a core that telling all this takes in the program",
    ]
    .map(str::to_owned)
    .to_vec();
    lines.push(String::new());
    lines.push(format!("  treadle {}", env!("CARGO_PKG_VERSION")));
    lines
}

fn main(
    model: &Model,
    face: &Face,
    paint: Paint,
    wide: usize,
    high: usize,
    now_s: f64,
) -> Vec<Line<'static>> {
    let mut lines = vec![title(model, face, wide)];
    let places = places(model);
    if places.is_empty() {
        lines.push(Line::default());
        for text in NOTHING {
            lines.push(Line::raw(cut(text, wide)));
        }
        lines.resize(high - 1, Line::default());
        lines.push(foot(face, wide));
        return lines;
    }
    lines.extend(headline(model, paint, wide));
    lines.push(Line::default());
    // A third of the screen for the list, the rest for the selected pool.
    let room = (high / 3).saturating_sub(2).clamp(3, places.len().max(3));
    lines.extend(list(model, face, &places, paint, wide, room, now_s));
    lines.push(Line::default());
    let left = high.saturating_sub(lines.len() + 1);
    let mut detail = match face.selected(&places) {
        Some(place) => details(model, place, face, paint, wide, left, now_s),
        None => Vec::new(),
    };
    detail.resize(left, Line::default());
    lines.extend(detail);
    lines.push(foot(face, wide));
    lines
}

/// A line without its paint.
pub(crate) fn plain(line: &Line<'_>) -> String {
    let text: String = line
        .spans
        .iter()
        .map(|span| span.content.as_ref())
        .collect();
    text.trim_end().to_owned()
}

/// What is said when there is nothing to see.
pub(crate) const NOTHING: [&str; 3] = [
    "No program of yours has a Treadle pool now.",
    "",
    "A program is seen from its first treadle.Executor on, unless it runs with TREADLE_TOP=0.",
];

fn title(model: &Model, face: &Face, wide: usize) -> Line<'static> {
    let (programs, pools) = model.counts();
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let told = format!(
        "{programs} program{}, {pools} pool{}",
        plural(programs),
        plural(pools)
    );
    let state = if face.paused {
        "paused".to_owned()
    } else {
        format!("every {} s", face.interval_s)
    };
    let name = "treadle top";
    let told = cut(
        &told,
        wide.saturating_sub(columns(name) + 4 + columns(&state)),
    );
    let space = wide.saturating_sub(columns(name) + 3 + columns(&told) + columns(&state));
    Line::from(vec![
        Span::styled(name, BOLD),
        Span::raw("   "),
        Span::raw(told),
        Span::raw(" ".repeat(space)),
        Span::styled(state, if face.paused { BOLD } else { DIM }),
    ])
}

fn foot(face: &Face, wide: usize) -> Line<'static> {
    let pause = if face.paused { "resume" } else { "pause" };
    let text = format!(
        "q quit  ? help  ↑↓ select  d stacks  s sort: {}  Space {pause}",
        face.sort.word()
    );
    Line::styled(cut(&text, wide), DIM)
}

/// The gravest verdict of all, in two lines.
fn headline(model: &Model, paint: Paint, wide: usize) -> Vec<Line<'static>> {
    let mut worst: Option<(String, Verdict)> = None;
    for watched in model
        .programs
        .iter()
        .filter(|watched| watched.standing == Standing::Answers)
    {
        for facts in watched.facts() {
            let verdict = judge(&facts);
            if worst
                .as_ref()
                .is_none_or(|(_, other)| verdict.gravity > other.gravity)
            {
                worst = Some((facts.pool.name.clone(), verdict));
            }
        }
    }
    let Some((pool, verdict)) = worst else {
        return vec![
            Line::raw(cut("○ no pool answers now", wide)),
            Line::default(),
        ];
    };
    let style = paint.of(verdict.gravity).add_modifier(Modifier::BOLD);
    let (_, pools) = model.counts();
    let whose = if pools > 1 {
        format!("{pool}: ")
    } else {
        String::new()
    };
    vec![
        Line::styled(
            cut(
                &format!("{} {whose}{}", mark(verdict.gravity), verdict.sentence),
                wide,
            ),
            style,
        ),
        Line::styled(cut(&format!("  {}", verdict.advice), wide), Style::new()),
    ]
}

/// Columns of the list: what grows with the screen.
struct Widths {
    program: usize,
    pool: usize,
    plan: usize,
    verdict: usize,
}

impl Widths {
    fn of(wide: usize) -> Widths {
        // Marks 4, process 7, busy 9, queue 6, oldest 6, rate 8, and a space before each of the seven columns.
        let spare = wide.saturating_sub(4 + 7 + 9 + 6 + 6 + 8 + 7);
        let verdict = if wide >= WIDE { 16 } else { 0 };
        let spare = spare.saturating_sub(verdict);
        let (program, pool) = (spare * 2 / 5, spare * 3 / 10);
        Widths {
            program,
            pool,
            plan: spare - program - pool,
            verdict,
        }
    }

    fn row(&self, cells: [&str; 8]) -> String {
        let [process, program, pool, plan, busy, queue, oldest, rate] = cells;
        format!(
            "{} {} {} {} {} {} {} {}",
            right(process, 7),
            left(program, self.program),
            left(pool, self.pool),
            left(plan, self.plan),
            right(busy, 9),
            right(queue, 6),
            right(oldest, 6),
            right(rate, 8)
        )
    }
}

#[allow(clippy::too_many_arguments)]
fn list(
    model: &Model,
    face: &Face,
    places: &[Place],
    paint: Paint,
    wide: usize,
    room: usize,
    now_s: f64,
) -> Vec<Line<'static>> {
    let widths = Widths::of(wide);
    let mut header = format!(
        "    {}",
        widths.row([
            "PROCESS", "PROGRAM", "POOL", "PLAN", "BUSY", "QUEUED", "OLDEST", "TASKS/S"
        ])
    );
    if widths.verdict > 0 {
        header.push_str("  VERDICT");
    }
    let mut lines = vec![Line::styled(cut(&header, wide), BOLD)];
    let selected = face.index(places);
    let first = selected
        .saturating_sub(room.saturating_sub(1))
        .min(places.len().saturating_sub(room));
    for (index, place) in places.iter().enumerate().skip(first).take(room) {
        let Some(watched) = model
            .programs
            .iter()
            .find(|watched| watched.found == place.program)
        else {
            continue;
        };
        lines.push(list_row(
            watched,
            place,
            &widths,
            paint,
            wide,
            index == selected,
            now_s,
        ));
    }
    let hidden = places.len().saturating_sub(first + room);
    if first + hidden > 0 {
        lines.push(Line::styled(
            cut(&format!("    {} more pools: ↑↓", first + hidden), wide),
            DIM,
        ));
    }
    lines
}

fn list_row(
    watched: &Watched,
    place: &Place,
    widths: &Widths,
    paint: Paint,
    wide: usize,
    selected: bool,
    now_s: f64,
) -> Line<'static> {
    let process = watched.pid.to_string();
    let arrow = if selected { "▸ " } else { "  " };
    let facts = watched.facts();
    let facts = facts
        .iter()
        .find(|facts| Some(facts.pool.number) == place.pool);
    let (gravity, text) = match (&watched.standing, facts) {
        (Standing::Answers, Some(facts)) => {
            let verdict = judge(facts);
            let pool = facts.pool;
            let mut row = widths.row([
                &process,
                &watched.name(),
                &pool.name,
                &pool.plan,
                &format!("{}/{}", pool.running, pool.concurrency),
                &count(pool.queued),
                &pool.oldest_s.map_or_else(dash, narrow),
                &facts.per_s(facts.ended).map_or_else(dash, rate),
            ]);
            if widths.verdict > 0 {
                row.push_str("  ");
                row.push_str(&left(verdict.rule, widths.verdict - 2));
            }
            (verdict.gravity, row)
        }
        (standing, _) => {
            let (gravity, what) = told(watched, standing, now_s);
            (
                gravity,
                format!(
                    "{} {} {what}",
                    right(&process, 7),
                    left(&watched.name(), widths.program)
                ),
            )
        }
    };
    let text = cut(&format!("{arrow}{} {text}", mark(gravity)), wide);
    if selected {
        return Line::styled(
            left(&text, wide),
            Style::new().add_modifier(Modifier::REVERSED),
        );
    }
    let mut letters = text.chars();
    let head: String = letters.by_ref().take(3).collect();
    Line::from(vec![
        Span::styled(head, paint.of(gravity)),
        Span::styled(
            letters.collect::<String>(),
            if watched.has_ended() {
                DIM
            } else {
                Style::new()
            },
        ),
    ])
}

/// How a program stands that has no pool to show.
pub(crate) fn told(watched: &Watched, standing: &Standing, now_s: f64) -> (Gravity, String) {
    match standing {
        Standing::New => (Gravity::Idle, "asking …".to_owned()),
        Standing::Answers => (Gravity::Idle, "no pool now".to_owned()),
        Standing::Troubled { since_s, trouble } => {
            let seen = match watched.last() {
                Some(look) => format!("; last seen {} ago", age(now_s - look.at_s)),
                None => String::new(),
            };
            let since = if now_s - since_s >= 1.0 {
                format!("for {}: ", age(now_s - since_s))
            } else {
                String::new()
            };
            (Gravity::Warning, format!("{since}{trouble}{seen}"))
        }
        Standing::Ended { at_s } => (Gravity::Idle, format!("ended {} ago", age(now_s - at_s))),
    }
}

/// What stands for a number that is not known.
pub(crate) fn dash() -> String {
    "–".to_owned()
}

fn details(
    model: &Model,
    place: &Place,
    face: &Face,
    paint: Paint,
    wide: usize,
    high: usize,
    now_s: f64,
) -> Vec<Line<'static>> {
    let Some(watched) = model
        .programs
        .iter()
        .find(|watched| watched.found == place.program)
    else {
        return Vec::new();
    };
    let facts = watched.facts();
    let facts = facts
        .iter()
        .find(|facts| Some(facts.pool.number) == place.pool);
    let Some(facts) = facts.filter(|_| !watched.has_ended()) else {
        let (_, what) = told(watched, &watched.standing, now_s);
        return vec![
            rule(&format!("{} ({})", watched.name(), watched.pid), wide),
            Line::raw(cut(&what, wide)),
        ];
    };
    let mut lines = about(watched, facts, paint, wide);
    lines.push(Line::default());
    let room = high.saturating_sub(lines.len());
    lines.extend(lanes(facts, face, wide, room));
    lines
}

/// A line across the screen with a title.
pub(crate) fn rule(text: &str, wide: usize) -> Line<'static> {
    let text = cut(text, wide.saturating_sub(6));
    let line = wide.saturating_sub(columns(&text) + 4);
    Line::from(vec![
        Span::styled("── ", DIM),
        Span::styled(text, BOLD),
        Span::styled(format!(" {}", "─".repeat(line)), DIM),
    ])
}
