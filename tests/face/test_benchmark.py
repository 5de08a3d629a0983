"""The benchmark's arithmetic, and that a run of it gives what it says."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("numpy")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def root_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_ratios_and_requirements() -> None:
    from benches.whole.interleave import Outcome
    from benches.whole.workload import BASELINE, TREADLE, Requirement, Workload

    workload = Workload("g", "w", "title", (TREADLE, BASELINE), open=None)  # type: ignore[arg-type]
    samples = {BASELINE: [40.0, 50.0, 60.0], TREADLE: [2.0, 1.0, 4.0], "memcpy": [2.0, 2.0, 2.0]}
    outcome = Outcome(workload, samples)
    assert outcome.ratio(TREADLE) == (25.0, 15.0, 50.0)
    assert outcome.ratio("absent") is None
    at_least = Requirement(25, 50)
    assert at_least.ratio(outcome.medians) == 25.0
    assert at_least.met(25.0)
    assert not at_least.met(24.9)
    at_most = Requirement(1.5, 1.0, against="memcpy", at_most=True)
    assert at_most.ratio(outcome.medians) == 1.0
    assert at_most.met(1.5)
    assert not at_most.met(1.6)
    assert Requirement(1, 1, against="absent").ratio(outcome.medians) is None


@pytest.mark.skipif(not hasattr(__import__("signal"), "SIGALRM"), reason="needs an alarm signal")
def test_a_contender_that_fails_is_named_and_leaves_the_others_alone() -> None:
    from benches.whole.interleave import run
    from benches.whole.workload import Sample, Workload

    @contextmanager
    def open_contender(name: str, _workers: int) -> Iterator[Sample]:
        if name == "absent":
            raise ModuleNotFoundError("No module named 'absent'", name="absent")
        taken = iter([1.0, 2.0])
        yield lambda: 1.0 if name == "steady" else next(taken)

    workload = Workload("g", "w", "title", ("steady", "absent", "fails"), open=open_contender)
    outcome = run(workload, workers=2, repetitions=3, chance=random.Random(7))
    assert outcome.samples == {"steady": [1.0, 1.0, 1.0]}
    assert outcome.absent["absent"] == "absent is not installed"
    assert outcome.absent["fails"].startswith("StopIteration")


def test_a_run_gives_its_data_on_stdout() -> None:
    command = [sys.executable, "-m", "benches.whole"]
    options = ["--only", "threads", "--repetitions", "1", "--seed", "1", "--json"]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, check=True
    )
    data = json.loads(done.stdout)
    assert data["machine"]["seed"] == 1
    [workload] = data["workloads"]
    assert "treadle" in workload["medians"], workload["not_measured"]
    [requirement] = workload["requirements"]
    expected = workload["medians"]["ThreadPoolExecutor"] / workload["medians"]["treadle"]
    assert requirement["ratio"] == pytest.approx(expected)


def test_a_group_that_does_not_exist_is_refused() -> None:
    command = [sys.executable, "-m", "benches.whole", "--only", "nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nothing" in done.stderr
