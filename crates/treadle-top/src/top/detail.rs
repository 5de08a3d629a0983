//! One pool in detail: what it does, line by line, and its workers, row by row.

use ratatui::style::Style;
use ratatui::text::Line;
use treadle_core::choice::wording::{bytes, cores, count};
use treadle_core::live::picture::{Histogram, Pool, Worker};

use super::keys::{Face, Sort};
use super::model::{Facts, Watched};
use super::verdict::judge;
use super::view::{BOLD, DIM, Paint, dash, mark, rule};
use super::words::{age, bars, cut, cut_front, left, narrow, own, rate, right, short};

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
        parts.insert(0, "since the start".to_owned());
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
            bytes(memory.iter().map(|bytes| *bytes as f64).sum())
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
