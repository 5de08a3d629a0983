"""`make accuracy`: the arithmetic of regret, the grid on plans of known speed, real batches."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
try:
    from benches.accuracy import advice, grid, outcome, report
    from benches.accuracy.batch import Runner
    from benches.accuracy.regret import (
        Judged,
        Regret,
        quantile,
        regret,
        requirements,
        student,
        summarise,
    )
    from benches.corpus.workload import Workload
finally:
    sys.path.remove(str(ROOT))

SEED = 20261122


@pytest.fixture(autouse=True)
def root_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def noisy(chance: random.Random, means: list[float], rounds: int) -> list[list[float]]:
    """Seconds whose noise has two parts: a tenth shared within a round, a twentieth of its own."""
    found = []
    for _round in range(rounds):
        shared = chance.gauss(0, 0.10)
        found.append([mean * math.exp(shared + chance.gauss(0, 0.05)) for mean in means])
    return found


def test_regret_without_noise_is_the_ratio() -> None:
    found = regret([[1.25, 1.0, 2.0]] * 5, 0)
    assert found.share == pytest.approx(0.2)
    assert found.low == pytest.approx(0.2)
    assert found.high == pytest.approx(0.2)
    assert (found.best, found.rounds) == (1, 5)


def test_the_advised_plan_wins_ties() -> None:
    found = regret([[1.0, 1.0], [2.0, 2.0]], 1)
    assert (found.share, found.best) == (0.0, 1)


def test_what_the_machine_does_to_a_whole_round_cancels() -> None:
    found = regret([[1.1, 1.0], [11.0, 10.0], [0.11, 0.1]], 0)
    assert found.share == pytest.approx(1 - 1 / 1.1)
    assert found.high - found.low < 1e-9


def test_one_round_says_nothing() -> None:
    with pytest.raises(ValueError, match="two rounds"):
        regret([[1.0, 2.0]], 0)


def test_equal_plans_have_no_regret_where_the_best_mean_would_have_one() -> None:
    chance = random.Random(SEED)
    honest, flattered = [], []
    for _trial in range(400):
        rounds = noisy(chance, [1.0] * 4, 6)
        honest.append(regret(rounds, 0).share)
        means = [
            sum(math.log(seconds) for seconds in column) for column in zip(*rounds, strict=True)
        ]
        flattered.append((means[0] - min(means)) / len(rounds))
    assert abs(sum(honest) / 400) < 0.004
    assert sum(flattered) / 400 > 0.015


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    chance = random.Random(SEED)
    truth = 1 - 1 / 1.15
    held = 0
    for _trial in range(400):
        found = regret(noisy(chance, [1.15, 1.0], 6), 0)
        held += found.low <= truth <= found.high
    # Binomial: 95 % of 400 less four standard deviations.
    assert held >= 362


def test_students_quantiles() -> None:
    assert student(4) == 2.776
    assert student(30) == 2.042
    assert student(31) == 1.96


def test_quantiles_are_interpolated() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([0.0, 10.0], 0.9) == pytest.approx(9.0)
    assert quantile([7.0], 0.9) == 7.0


def judged(share: float | None, right: bool = True, errors: tuple[float, ...] = (0.1,)) -> Judged:
    found = None if share is None else Regret(share, share - 0.02, share + 0.02, 0, 5)
    return Judged(found, right, errors, decision_s=4.0)


def test_the_summary() -> None:
    found = summarise([judged(0.0)] * 8 + [judged(-0.05), judged(0.2, right=False)], SEED)
    assert (found.workloads, found.undecided) == (10, 0)
    assert found.median == 0.0
    assert found.under_few == 0.9
    assert found.worst == 0.2
    assert found.classes_right == 0.9
    assert found.error_median == 0.1
    assert found.errors == 10
    met = [met for _words, _found, met in requirements(found)]
    assert met == [True, True, True, False]


def test_requirements_that_are_not_met() -> None:
    bad = summarise([judged(0.12)] * 7 + [judged(0.31)] * 2 + [judged(0.0)], SEED)
    assert [met for _words, _found, met in requirements(bad)] == [False, False, False, True]


def test_an_undecided_workload_counts_against_every_limit() -> None:
    found = summarise([judged(0.0)] * 9 + [judged(None)], SEED)
    assert found.undecided == 1
    assert found.under_few == 0.9
    assert math.isinf(found.worst)
    words = [text for _words, text, met in requirements(found) if not met]
    assert words == ["undecided"]
    assert report.finite(found.worst) is None


def nothing(value: int) -> int:
    return value


WAITING = Workload(nothing, list, ("io-bound",), "a test")
COMPUTING = Workload(nothing, list, ("cpu-bound",), "a test")


def known(speeds: dict[str, float], asked: list[str]) -> grid.Batch:
    """Batches of known seconds by plan; absent ones take ten, and -1 fails."""

    def batch(plan: dict[str, int], limit_s: float) -> dict[str, Any]:
        name = advice.label(plan)
        asked.append(name)
        seconds = speeds.get(name, 10.0)
        if seconds < 0:
            return {"error": "NotImplementedError: no such plan"}
        return {"cut_s": limit_s} if seconds > limit_s else {"seconds": seconds}

    return batch


def test_the_grid_follows_from_the_kind_of_work() -> None:
    names = [advice.label(plan) for plan in grid.plans(COMPUTING, 2, {"threads": 3})]
    assert names == [
        "serial", "threads=2", "threads=4", "threads=8", "processes=1", "processes=2", "processes=4", "threads=3",
    ]  # fmt: skip
    waiting = [advice.label(plan) for plan in grid.plans(WAITING, 2, {})]
    assert {"threads=256", "processes=8", "processes=2+threads=32"} <= set(waiting)
    assert not any("coroutines" in name for name in waiting)


def test_a_bad_advice_is_measured_against_the_best_of_the_grid() -> None:
    asked: list[str] = []
    batch = known({"serial": 2.0, "threads=2": 1.0, "threads=4": 1.05, "processes=2": -1}, asked)
    found = grid.measure(COMPUTING, batch, 2, {}, grid.Times(), random.Random(SEED))
    assert found.regret is not None
    assert found.regret.share == pytest.approx(0.5)
    assert found.best == "threads=2"
    assert set(found.finalists) == {"serial", "threads=2", "threads=4"}
    assert "NotImplementedError" in found.failed["processes=2"]
    assert "threads=8" in found.cut
    assert asked[0] == "serial", "the advised plan sets the limit for the others"


def test_an_advice_without_a_rival_has_no_regret() -> None:
    batch = known({"threads=2": 1.0, "serial": 1.9}, [])
    found = grid.measure(COMPUTING, batch, 2, {"threads": 2}, grid.Times(), random.Random(SEED))
    assert found.regret == Regret(0.0, 0.0, 0.0, 0, 0)


def test_an_advice_that_takes_forever_is_cut_and_counted() -> None:
    found = grid.measure(
        WAITING,
        known({"threads=64": 0.5, "serial": 100.0}, []),
        2,
        {},
        grid.Times(),
        random.Random(1),
    )
    assert found.regret is not None
    assert found.regret.censored
    assert found.regret.share >= 0.8


def test_an_advised_plan_that_fails_has_no_regret_to_show() -> None:
    batch = known({"threads=2": -1, "serial": 1.0}, [])
    found = grid.measure(COMPUTING, batch, 2, {"threads": 2}, grid.Times(), random.Random(SEED))
    assert found.regret is None


COMPARISON = {
    "profile": {"class": "cpu-bound"},
    "candidates": [
        {"plan": {}, "predicted_per_s": 90.0, "measured_per_s": 100.0},
        {
            "plan": {"threads": 2, "processes": None},
            "predicted_per_s": 150.0,
            "measured_per_s": 100.0,
        },
        {"plan": {"processes": 2}, "predicted_per_s": 200.0, "measured_per_s": None},
    ],
    "decision": {
        "plan": {"threads": 2, "processes": None},
        "reason": "it is",
        "confidence": "high",
    },
}


def test_the_advice_is_read_from_the_commands_json() -> None:
    found = advice.read(COMPARISON, 3.0, 1)
    assert found.plan == {"threads": 2}
    assert found.errors == pytest.approx({"threads=2": 0.5}), (
        "the plain loop's prediction is the profile"
    )
    assert not found.forced


def test_a_command_that_fails_is_quoted_without_progress_and_hint() -> None:
    said = "treadle: loading\ntreadle: input 6 failed\n\nhint: give a --budget\n"
    assert advice.complaint(said) == "treadle: input 6 failed"
    assert advice.complaint("") == "it said nothing"


def told() -> outcome.Outcome:
    measured = grid.measure(
        COMPUTING,
        known({"serial": 2.0, "threads=2": 1.0}, []),
        2,
        {},
        grid.Times(),
        random.Random(3),
    )
    return outcome.Outcome(
        "nothing",
        "test",
        ("io-bound",),
        "a test",
        (),
        10,
        advice.read(COMPARISON, 3.0, 1),
        measured,
    )


def test_an_outcome_survives_its_file() -> None:
    one = told()
    assert outcome.Outcome.of(one.data()) == one


def test_the_report_names_what_is_wrong() -> None:
    one = told()
    text = report.line(one)
    assert "class WRONG: io-bound" in text
    assert "LOSES 50%" in text
    summary = report.summary_text([one], report.summarised([one], SEED))
    assert "required: none loses over 30%: 50.0%, NOT MET" in summary
    assert "high and yet surely 10% lost: nothing" in summary
    json.dumps(report.data({}, {}, [one], report.summarised([one], SEED)), allow_nan=False)
    lost = dataclasses.replace(one, measured=grid.Measured())
    assert "worst undecided" in report.summary_text([lost], report.summarised([lost], SEED))
    json.dumps(report.data({}, {}, [lost], report.summarised([lost], SEED)), allow_nan=False)
    assert "NO REGRET" in report.line(lost)


def test_what_was_measured_is_kept_until_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome, "FOLDER", tmp_path)
    from benches.corpus import computing
    from benches.corpus.workload import of_module

    one = of_module(computing)[0]
    assert outcome.load(one, {"budget": 10}) is None
    outcome.keep(told(), one, {"budget": 10})
    assert outcome.load(one, {"budget": 10}) == told()
    assert outcome.load(one, {"budget": 5}) is None
    path = tmp_path / f"{one.name}.json"
    path.write_text(path.read_text()[:100])
    assert outcome.load(one, {"budget": 10}) is None


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Callable[[dict[str, int], float], dict[str, Any]]]:
    one = Runner("benches.corpus.computing:count_words", tmp_path / "log")
    yield one.batch
    one.close()


def test_real_batches(runner: Callable[[dict[str, int], float], dict[str, Any]]) -> None:
    for plan in ({}, {"threads": 2}, {"processes": 2}):
        assert runner(plan, 60)["seconds"] > 0
    assert "error" in runner({"threads": 2, "interpreters": 2}, 60)
    assert runner({}, 0.0) == {"cut_s": 0.0}
    assert runner({}, 60)["seconds"] > 0, "a batch that was cut leaves the next ones alone"


def test_a_workload_that_does_not_exist_is_refused() -> None:
    command = [sys.executable, "-m", "benches.accuracy", "--only", "nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nothing" in done.stderr or "make accuracy" in done.stderr


def test_without_the_libraries_the_way_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "cryptography.py").write_text("raise ImportError('no cryptography here')\n")
    environment = dict(os.environ, PYTHONPATH=str(tmp_path))
    command = [sys.executable, "-m", "benches.accuracy", "--list"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "make accuracy" in done.stderr


def test_screening_leaves_a_strategy_that_falls_away() -> None:
    asked: list[str] = []
    speeds = {"threads=256": 1.0, "threads=128": 1.4, "processes=2": 0.9}
    grid.measure(WAITING, known(speeds, asked), 2, {"threads": 256}, grid.Times(), random.Random(5))
    assert "threads=64" in asked, "the first below the hump that is cut"
    assert "threads=32" not in asked
    assert {"processes=8", "processes=4", "processes=2", "processes=1"} - set(asked) == set()


def test_of_a_strategy_that_is_cut_at_the_top_one_in_the_middle_is_tried() -> None:
    asked: list[str] = []
    batch = known({"serial": 1.0}, asked)
    grid.measure(WAITING, batch, 2, {}, grid.Times(), random.Random(5))
    sizes = [int(name.partition("=")[2]) for name in asked if name.startswith("threads=")]
    assert sizes == [256, 128, 16]


def test_a_failure_is_no_reason_to_leave_the_sizes_below_unseen() -> None:
    asked: list[str] = []
    speeds = {
        "threads=256": -1,
        "threads=128": -1,
        "threads=16": 0.5,
        "threads=32": 0.6,
        "serial": 1.0,
    }
    found = grid.measure(WAITING, known(speeds, asked), 2, {}, grid.Times(), random.Random(5))
    assert found.best in {"threads=16", "threads=32"}
