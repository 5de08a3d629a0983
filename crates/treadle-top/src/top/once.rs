//! One picture as plain text or JSON: two looks a little apart, for rates need two.

use std::time::Duration;

use serde_json::{Value, json};
use treadle_core::live::asking::Found;
use treadle_probe::clock::monotonic;

use super::detail;
use super::keys::{Face, Overlay};
use super::model::{Facts, Model, Standing, Watched};
use super::sampling::Sampler;
use super::verdict::judge;
use super::view::{self, NOTHING, Paint};

/// Between the two looks: CPU time is counted in hundredths of a second, so a core's share comes out within 2 %.
const BETWEEN: Duration = Duration::from_millis(500);
/// Longer than the slowest of two answers takes.
const PATIENCE_S: f64 = 6.0;

/// Looks twice at each program.
pub(crate) fn look(found: &[Found], interrupted: &dyn Fn() -> bool) -> Model {
    let sampler = Sampler::new(BETWEEN);
    let mut model = Model::default();
    model.discovered(found);
    for one in found {
        if let Err(error) = sampler.watch(one) {
            let trouble = treadle_core::live::asking::Trouble::Failed(error.to_string());
            model.heard(one, monotonic(), Err(trouble));
        }
    }
    let deadline_s = monotonic() + PATIENCE_S;
    let done = |watched: &Watched| {
        watched.looks.len() >= 2 || !matches!(watched.standing, Standing::New | Standing::Answers)
    };
    while !model.programs.iter().all(done) && monotonic() < deadline_s && !interrupted() {
        for heard in sampler.heard(Duration::from_millis(50)) {
            model.heard(&heard.found, heard.at_s, heard.answer);
        }
    }
    model
}

/// The picture as text, as high as it needs.
pub(crate) fn text(model: &Model, wide: usize) -> String {
    if model.programs.is_empty() {
        return NOTHING.map(|line| format!("{line}\n")).concat();
    }
    let now_s = monotonic();
    let face = Face {
        overlay: None::<Overlay>,
        ..Face::new(BETWEEN.as_secs_f64())
    };
    let paint = Paint { colour: false };
    let mut lines = Vec::new();
    for watched in &model.programs {
        let facts = watched.facts();
        if facts.is_empty() || watched.has_ended() {
            let (_, what) = view::told(watched, &watched.standing, now_s);
            lines.push(format!("{} ({}): {what}", watched.name(), watched.pid));
            lines.push(String::new());
        }
        for facts in facts.iter().filter(|_| !watched.has_ended()) {
            let detail = detail::about(watched, facts, paint, wide);
            lines.extend(detail.iter().map(|line| view::plain(line)));
            lines.push(String::new());
            let lanes = detail::lanes(facts, &face, wide, usize::MAX);
            lines.extend(lanes.iter().map(|line| view::plain(line)));
            lines.push(String::new());
        }
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The picture as one object.
pub(crate) fn json(model: &Model) -> Value {
    let programs: Vec<Value> = model.programs.iter().map(program).collect();
    json!({ "schema": 1, "programs": programs })
}

fn program(watched: &Watched) -> Value {
    let trouble = match &watched.standing {
        Standing::Troubled { trouble, .. } => Some(trouble.to_string()),
        Standing::Ended { .. } => Some("it has ended".to_owned()),
        Standing::New => Some("it has not answered".to_owned()),
        Standing::Answers => None,
    };
    let Some(look) = watched.last() else {
        return json!({ "pid": watched.pid, "trouble": trouble, "pools": [] });
    };
    let mut value = serde_json::to_value(&look.program).unwrap_or_default();
    value["pid"] = json!(watched.pid);
    value["trouble"] = json!(trouble);
    value["cpu_cores"] = json!(watched.cores());
    value["pools"] = watched.facts().iter().map(pool).collect();
    value
}

fn pool(facts: &Facts<'_>) -> Value {
    let verdict = judge(facts);
    let mut value = serde_json::to_value(facts.pool).unwrap_or_default();
    value["verdict"] = json!({
        "rule": verdict.rule,
        "gravity": verdict.gravity.word(),
        "sentence": verdict.sentence,
        "advice": verdict.advice,
    });
    value["span_s"] = json!(facts.span_s);
    value["submitted_per_s"] = json!(facts.per_s(facts.came));
    value["ended_per_s"] = json!(facts.per_s(facts.ended));
    value["busy_share"] = json!(facts.busy_share);
    value["cpu_cores"] = json!(facts.cores);
    for (name, times) in [
        ("wait", facts.times(|pool| pool.wait.as_ref())),
        ("duration", facts.times(|pool| pool.duration.as_ref())),
        ("turnaround", facts.times(|pool| pool.turnaround.as_ref())),
    ] {
        let quantile = |share: f64| times.as_ref().and_then(|(found, _)| found.quantile(share));
        value[format!("{name}_p50_s")] = json!(quantile(0.5));
        value[format!("{name}_p99_s")] = json!(quantile(0.99));
    }
    if let Some(workers) = value["workers"].as_array_mut() {
        for (worker, value) in facts.pool.workers.iter().zip(workers) {
            value["cpu_cores"] = json!(facts.worker_cores(worker));
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{pool, program, watched};
    use super::*;

    #[test]
    fn the_text_tells_every_pool_and_the_json_every_number() {
        let looks = (0..3)
            .map(|second| program(vec![pool(3, second * 80, 0)]))
            .collect();
        let model = watched(looks);
        let found = text(&model, 80);
        for part in [
            "thumbs · processes=4 · crawl.py (4242)",
            "images.thumbnail",
            "80.0/s out",
            "RESTARTS",
        ] {
            assert!(found.contains(part), "{part} is not in\n{found}");
        }
        assert!(
            found
                .lines()
                .all(|line| super::super::words::columns(line) <= 80 && line == line.trim_end())
        );
        let told = json(&model);
        let pool = &told["programs"][0]["pools"][0];
        assert_eq!(
            (&told["schema"], &pool["ended_per_s"], &pool["queued"]),
            (&json!(1), &json!(80.0), &json!(0))
        );
        assert_eq!(pool["verdict"]["rule"], "working");
        assert_eq!(pool["workers"][3]["state"], "idle");
        assert_eq!(pool["workers"][0]["cpu_cores"], 0.2);
    }

    #[test]
    fn nothing_to_see_says_why() {
        assert!(
            text(&Model::default(), 80)
                .starts_with("No program of yours has a Treadle pool now.\n")
        );
        assert_eq!(
            json(&Model::default()),
            json!({ "schema": 1, "programs": [] })
        );
    }
}
