//! The picture: a model and where the user looks, as lines of a screen.
//!
//! *Guarantees*: no line is wider than the screen, and there are no more than it has rows; every difference that colour shows is also one of
//! letters or marks.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use treadle_core::choice::wording::{bytes, cores, count};
use treadle_core::live::picture::{Histogram, Pool, Worker};

use super::keys::{Face, Overlay, Place, Sort, places};
use super::model::{Facts, Model, Standing, Watched};
use super::verdict::{Gravity, Verdict, judge};
use super::words::{age, bars, columns, cut, cut_front, left, narrow, rate, right, short};

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
    fn of(self, gravity: Gravity) -> Style {
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

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);

fn mark(gravity: Gravity) -> &'static str {
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

fn dash() -> String {
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

fn rule(text: &str, wide: usize) -> Line<'static> {
    let text = cut(text, wide.saturating_sub(6));
    let line = wide.saturating_sub(columns(&text) + 4);
    Line::from(vec![
        Span::styled("── ", DIM),
        Span::styled(text, BOLD),
        Span::styled(format!(" {}", "─".repeat(line)), DIM),
    ])
}

/// What a pool is and does, line by line.
pub(crate) fn about(
    watched: &Watched,
    facts: &Facts<'_>,
    paint: Paint,
    wide: usize,
) -> Vec<Line<'static>> {
    let pool = facts.pool;
    let verdict = judge(facts);
    let name = format!(
        "{} · {} · {} ({})",
        pool.name,
        pool.plan,
        watched.name(),
        watched.pid
    );
    let mut lines = vec![
        rule(&name, wide),
        Line::styled(
            cut(
                &format!("{} {}", mark(verdict.gravity), verdict.sentence),
                wide,
            ),
            paint.of(verdict.gravity),
        ),
    ];
    let mut line = |label: &str, parts: Vec<String>| {
        let text = format!("  {}{}", left(label, 9), parts.join("   "));
        lines.push(Line::raw(cut(&text, wide)));
    };
    line("tasks", tasks(facts));
    line("queue", queue(watched, facts));
    if let Some(times) = times(facts) {
        line("times", times);
    }
    line("uses", uses(facts));
    line("program", program(watched, facts));
    lines
}

fn tasks(facts: &Facts<'_>) -> Vec<String> {
    let pool = facts.pool;
    let mut parts = vec![format!("{} done", count(pool.completed))];
    if let (Some(ended), Some(came)) = (facts.per_s(facts.ended), facts.per_s(facts.came)) {
        parts.push(format!("{}/s in, {}/s out", rate(came), rate(ended)));
    }
    for (number, what) in [
        (pool.lost, "lost"),
        (pool.timed_out, "over time"),
        (pool.cancelled, "cancelled"),
        (pool.retried, "retried"),
    ] {
        if number > 0 {
            parts.push(format!("{} {what}", count(number)));
        }
    }
    if pool.deaths > 0 {
        let plural = if pool.deaths == 1 { "" } else { "s" };
        parts.push(format!("{} worker{plural} died", count(pool.deaths)));
    }
    parts
}

fn queue(watched: &Watched, facts: &Facts<'_>) -> Vec<String> {
    let pool = facts.pool;
    let mut parts = vec![format!("{} waiting", count(pool.queued))];
    if let Some(oldest_s) = pool.oldest_s {
        parts.push(format!("oldest {}", age(oldest_s)));
    }
    if let Some(limit) = pool.limit {
        parts.push(format!("limit {}", count(limit)));
    }
    let history = watched.queue(pool.number);
    if history.len() > 2 && history.iter().any(|length| *length > 0) {
        parts.push(format!("last {} {}", age(facts.span_s), bars(&history, 20)));
    }
    parts
}

/// `None` where the pool meters nothing or has ended no task.
fn times(facts: &Facts<'_>) -> Option<Vec<String>> {
    let quantiles = |name: &str, found: Option<(Histogram, bool)>| {
        let (times, recent) = found?;
        let (half, most) = (times.quantile(0.5)?, times.quantile(0.99)?);
        Some((
            format!("{name} p50 {} p99 {}", short(half), short(most)),
            recent,
        ))
    };
    let found: Vec<(String, bool)> = [
        quantiles("wait", facts.times(|pool| pool.wait.as_ref())),
        quantiles("run", facts.times(|pool| pool.duration.as_ref())),
        quantiles("turnaround", facts.times(|pool| pool.turnaround.as_ref())),
    ]
    .into_iter()
    .flatten()
    .collect();
    let old = found.iter().any(|(_, recent)| !recent);
    let mut parts: Vec<String> = found.into_iter().map(|(text, _)| text).collect();
    if parts.is_empty() {
        return None;
    }
    if old {
        parts.push("since the start".to_owned());
    }
    Some(parts)
}

fn uses(facts: &Facts<'_>) -> Vec<String> {
    let pool = facts.pool;
    let mut parts = Vec::new();
    if let Some(used) = facts.cores {
        parts.push(format!(
            "CPU {used:.2} of {} cores",
            cores(facts.program.usable_cores)
        ));
    }
    let memory: Vec<u64> = pool
        .workers
        .iter()
        .filter_map(|worker| worker.memory_bytes)
        .collect();
    if !memory.is_empty() {
        parts.push(format!(
            "memory {} in workers",
            bytes(memory.iter().sum::<u64>() as f64)
        ));
    }
    if matches!(pool.strategy.as_str(), "processes" | "hybrid") {
        parts.push(format!("payloads {}", bytes(pool.payload_bytes as f64)));
    }
    if parts.is_empty() {
        parts.push("not known yet".to_owned());
    }
    parts
}

fn program(watched: &Watched, facts: &Facts<'_>) -> Vec<String> {
    let program = facts.program;
    let mut parts = Vec::new();
    if let Some(used) = watched.cores() {
        parts.push(format!("CPU {used:.2}"));
    }
    parts.push(format!("memory {}", bytes(program.memory_bytes as f64)));
    parts.push(match (&program.lock.exists, program.lock.free) {
        (false, _) => "no interpreter lock".to_owned(),
        (true, true) => format!("lock in {}", short(program.lock.waited_s)),
        (true, false) => format!("lock awaited for {}", age(program.lock.waited_s)),
    });
    if let Some(cost) = watched.cost() {
        parts.push(format!("watching costs {:.2} %", cost * 100.0));
    }
    if let Some(old_s) = facts.pool.told_s_ago {
        parts.push(format!("pool told {} ago", age(old_s)));
    }
    parts
}

/// The workers, a row each, and a loop's tasks.
pub(crate) fn lanes(
    facts: &Facts<'_>,
    face: &Face,
    wide: usize,
    room: usize,
) -> Vec<Line<'static>> {
    let pool = facts.pool;
    if pool.workers.is_empty() && pool.tasks.is_empty() {
        return vec![Line::styled(
            "  no worker yet: they start with the first task",
            DIM,
        )];
    }
    let mut rows: Vec<Line<'static>> = Vec::new();
    let shape = Shape::of(pool, wide);
    for worker in sorted(facts, face.sort) {
        rows.push(shape.row(facts, worker));
    }
    if !pool.tasks.is_empty() {
        let running = format!("  {} tasks run; the longest:", count(pool.running));
        rows.push(Line::styled(cut(&running, wide), DIM));
        for task in &pool.tasks {
            let text = format!(
                "  {} {}",
                right(&narrow(task.running_s), 6),
                cut_front(own(&task.function), wide.saturating_sub(9))
            );
            rows.push(Line::raw(text));
        }
    }
    let mut lines = vec![shape.header()];
    let fits = room.saturating_sub(1);
    if rows.len() > fits {
        let first = face
            .scroll
            .min(rows.len().saturating_sub(fits.saturating_sub(1)));
        let shown = fits.saturating_sub(1);
        let below = rows.len().saturating_sub(first + shown);
        lines.extend(rows.into_iter().skip(first).take(shown));
        let text = format!("  {first} more above, {below} below: PgUp PgDn");
        lines.push(Line::styled(cut(&text, wide), DIM));
    } else {
        lines.extend(rows);
    }
    lines
}

/// A function's name without the module that every script is.
pub(crate) fn own(function: &str) -> &str {
    let script = function.strip_prefix("__main__.");
    script
        .or_else(|| function.strip_prefix("__mp_main__."))
        .unwrap_or(function)
}

fn sorted<'a>(facts: &Facts<'a>, sort: Sort) -> Vec<&'a Worker> {
    let mut workers: Vec<&Worker> = facts.pool.workers.iter().collect();
    match sort {
        Sort::Number => workers.sort_by_key(|worker| worker.worker),
        Sort::Time => workers.sort_by(|one, other| other.running_s.total_cmp(&one.running_s)),
        Sort::Load => workers.sort_by(|one, other| {
            let load = |worker: &Worker| facts.worker_cores(worker).unwrap_or(-1.0);
            load(other).total_cmp(&load(one))
        }),
        Sort::Tasks => workers.sort_by_key(|worker| std::cmp::Reverse(worker.tasks)),
    }
    workers
}

/// Which columns the lanes of a pool have.
struct Shape {
    wide: usize,
    /// Workers are processes, with memory of their own and places that are filled again.
    processes: bool,
    function: usize,
}

impl Shape {
    fn of(pool: &Pool, wide: usize) -> Shape {
        let processes = pool
            .workers
            .iter()
            .any(|worker| worker.memory_bytes.is_some())
            || matches!(pool.strategy.as_str(), "processes" | "hybrid");
        // Worker 6, process or thread 7, state 8, time 6, tasks 8, CPU 5, and a space before each but the first; memory and restarts.
        let fixed = 6 + 7 + 8 + 6 + 8 + 5 + 6 + if processes { 9 + 9 } else { 0 };
        Shape {
            wide,
            processes,
            function: wide.saturating_sub(fixed).max(8),
        }
    }

    fn line(&self, cells: [&str; 7], memory: &str, restarts: &str) -> String {
        let [worker, ident, state, function, time, tasks, load] = cells;
        let mut text = format!(
            "{} {} {} {} {} {} {}",
            right(worker, 6),
            right(ident, 7),
            left(state, 8),
            left(&cut_front(function, self.function), self.function),
            right(time, 6),
            right(tasks, 8),
            right(load, 5)
        );
        if self.processes {
            text.push_str(&format!(" {} {}", right(memory, 8), right(restarts, 8)));
        }
        cut(&text, self.wide)
    }

    fn header(&self) -> Line<'static> {
        let ident = if self.processes { "PROCESS" } else { "THREAD" };
        let cells = ["WORKER", ident, "STATE", "FUNCTION", "FOR", "TASKS", "CPU"];
        Line::styled(self.line(cells, "MEMORY", "RESTARTS"), BOLD)
    }

    fn row(&self, facts: &Facts<'_>, worker: &Worker) -> Line<'static> {
        let busy = worker.state == "busy" || worker.state == "overdue";
        let ident = if worker.ident == 0 {
            dash()
        } else {
            worker.ident.to_string()
        };
        let time = if busy && worker.running_s > 0.0 {
            narrow(worker.running_s)
        } else {
            dash()
        };
        let tasks = worker.tasks.map_or_else(dash, count);
        let load = facts
            .worker_cores(worker)
            .map_or_else(dash, |cores| format!("{:.0}%", cores * 100.0));
        let function = own(worker.function.as_deref().unwrap_or_default()).to_owned();
        let memory = worker
            .memory_bytes
            .map_or_else(dash, |size| bytes(size as f64));
        let restarts = worker.restarts.to_string();
        let cells = [
            worker.worker.to_string(),
            ident,
            worker.state.clone(),
            function,
            time,
            tasks,
            load,
        ];
        let text = self.line(cells.each_ref().map(String::as_str), &memory, &restarts);
        let style = match worker.state.as_str() {
            "idle" | "absent" => DIM,
            "overdue" => BOLD,
            _ => Style::new(),
        };
        Line::styled(text, style)
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{found, pool, program};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::widgets::Paragraph;
    use treadle_core::live::asking::{Answer, Found, Trouble};
    use treadle_core::live::picture::{Lock, Program, Task};

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
        assert!(
            drawn(&Model::default(), &Face::new(1.0), (80, 24)).contains("No program of yours")
        );
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
}
