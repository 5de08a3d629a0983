"""``treadle.measure`` and ``treadle.compare`` from programs: what they give, and what they raise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import treadle
from treadle import comparing
from treadle.comparing import Comparison
from treadle.measuring import Profile

PROGRAM = """
import os, sys, threading, time
import treadle

def nap(x):
    time.sleep(0.005)
    return x

def add(left, right):
    return left + right

def fail(x):
    raise ValueError(f"no {x}")

def leave(x):
    os._exit(3)

if __name__ == "__main__":
"""


FOUND: dict[str, Any] = {
    "schema": 1,
    "target": "jobs:f",
    "items": {"count": 3, "spec": "range:3"},
    "machine": {"usable_cores": 2.0, "python": "3.11.7", "gil": True, "noise": "noisy"},
    "profile": {"count": 3, "errors": 0, "wall_s": 0.1, "gil_cpu_s": None, "class": "mixed"},
    "candidates": [
        {
            "plan": {"threads": 4},
            "predicted_per_s": 10.0,
            "interval_per_s": [9.0, 10.0],
            "outcome": "slower",
            "extra": 5,
        }
    ],
    "decision": {"plan": None, "reason": "too noisy", "confidence": "none"},
}


@pytest.fixture
def run(write: Callable[[str, str], Path]) -> Callable[..., Any]:
    """Runs lines of a main program after the definitions above; gives the finished process."""

    def run_program(*lines: str, guarded: bool = True) -> subprocess.CompletedProcess[str]:
        text = PROGRAM
        if not guarded:
            text = text.replace('if __name__ == "__main__":', "if True:")
        path = write("program.py", text + "".join(f"    {line}\n" for line in lines))
        return subprocess.run(
            [sys.executable, path.name],
            cwd=path.parent,
            env={**os.environ, "TREADLE_NOISE": "ignore"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run_program


def test_measure_from_a_script(run: Callable[..., Any]) -> None:
    ran = run(
        "profile = treadle.measure(nap, range(60), sample=20, max_seconds=4)",
        "import json",
        "assert treadle.measure is not None and callable(treadle.measure)",
        "print(json.dumps([profile.count, profile.wall_s, profile.workload, profile.to_json()]))",
    )
    assert ran.returncode == 0, ran.stderr
    count, wall_s, workload, whole = json.loads(ran.stdout)
    assert count == 20
    assert wall_s >= 0.0049
    assert workload == whole["class"] == "io-bound"


def test_the_parts_of_the_time_have_intervals(run: Callable[..., Any]) -> None:
    ran = run(
        "profile = treadle.measure(nap, range(300), max_seconds=3)",
        "split = profile.split",
        "if split is None:",
        "    print(profile.split_absent)",
        "else:",
        "    assert split.samples > 100 and 0 < split.overhead < 1",
        "    assert split.wait.low_s <= split.wait.mean_s <= split.wait.high_s",
        "    assert profile.wait_s == split.wait.mean_s > 0.8 * profile.wall_s",
        "    assert profile.gil_cpu_s == split.gil_cpu.mean_s < 0.2 * profile.wall_s",
        "    print('split')",
        "assert len(profile.walls) == len(profile.cpus) > 10",
    )
    assert ran.returncode == 0, ran.stderr
    locked = getattr(sys, "_is_gil_enabled", lambda: True)() and sys.platform == "linux"
    assert (ran.stdout == "split\n") == locked, ran.stdout


def test_compare_from_a_script(run: Callable[..., Any]) -> None:
    ran = run(
        "found = treadle.compare(nap, range(300), budget=3, plans=[treadle.Plan(threads=4)],"
        " targets={'errors': 0})",
        "with treadle.Executor(found.decision.plan) as executor:",
        "    print(found.decision.plan, sum(executor.map(nap, range(5))))",
        "print([one.plan == treadle.Plan() for one in found.candidates].count(True))",
        "print(found.profile.workload, found.items.count, found.machine.usable_cores > 0)",
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["threads=4 10", "1", "io-bound 300 True"]


def test_once_runs_no_input_twice(
    run: Callable[..., Any], write: Callable[[str, str], Path]
) -> None:
    seen = write("seen.txt", "")
    write(
        "noting.py",
        "import time\ndef note(x):\n"
        f"    with open({str(seen)!r}, 'a') as file:\n        file.write(f'{{x}}\\n')\n"
        "    time.sleep(0.002)\n",
    )
    ran = run(
        "from noting import note",
        "found = treadle.compare(note, range(2000), budget=3, once=True)",
        "print(found.decision.plan is not None, found.json['items']['once'])",
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "True True\n"
    inputs = seen.read_text().split()
    assert len(inputs) == len(set(inputs)) > 0


def test_measuring_once_runs_no_input_twice(
    run: Callable[..., Any], write: Callable[[str, str], Path]
) -> None:
    seen = write("seen.txt", "")
    write(
        "noting.py",
        "import asyncio\nasync def note(x):\n"
        f"    with open({str(seen)!r}, 'a') as file:\n        file.write(f'{{x}}\\n')\n"
        "    await asyncio.sleep(0.002)\n",
    )
    ran = run(
        "from noting import note",
        "profile = treadle.measure(note, range(300), max_seconds=2, once=True)",
        "print(profile.workload, len(profile.walls) > 0)",
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "io-bound True\n"
    inputs = seen.read_text().split()
    assert len(inputs) == len(set(inputs)) > 0


def test_star(run: Callable[..., Any]) -> None:
    ran = run(
        "print(treadle.measure(add, [(1, 2)] * 5, star=True).errors)",
    )
    assert (ran.returncode, ran.stdout) == (0, "0\n"), ran.stderr


@pytest.mark.parametrize(
    ("line", "kind", "word"),
    [
        ("treadle.measure(fail, range(5))", "TreadleError", "no 0"),
        ("treadle.measure(leave, range(5))", "TreadleError", "3"),
        ("treadle.measure(nap, [threading.Lock()])", "PicklingError", "args[0]"),
        ("treadle.measure(nap, [])", "ValueError", "empty"),
        ("treadle.measure(5, [1])", "TypeError", "function"),
        ("treadle.measure(nap, [1], sample=0)", "ValueError", "sample"),
        ("treadle.compare(nap, [1], plans='fibers=2')", "TreadleError", "fibers"),
        ("treadle.compare(nap, [1], targets='beauty=2')", "TreadleError", "beauty"),
    ],
)
def test_what_fails_raises(line: str, kind: str, word: str, run: Callable[..., Any]) -> None:
    ran = run(
        "import pickle",
        "TreadleError, PicklingError = treadle.TreadleError, pickle.PicklingError",
        "try:",
        f"    {line}",
        f"except {kind} as error:",
        "    print(error)",
    )
    assert ran.returncode == 0, ran.stderr
    assert word in ran.stdout


def test_a_script_without_a_guard_is_told_so(run: Callable[..., Any]) -> None:
    ran = run("treadle.measure(nap, range(5))", guarded=False)
    assert ran.returncode == 1
    assert "__main__" in ran.stderr
    assert ran.stderr.count("hint:") >= 1


def test_the_faces_keep_the_whole_object() -> None:
    found = Comparison.of(FOUND)
    assert found.to_json() is FOUND
    assert found.candidates[0].plan == treadle.Plan(threads=4)
    assert found.candidates[0].interval_per_s == (9.0, 10.0)
    assert found.candidates[0].json["extra"] == 5
    assert found.decision.plan is None
    assert isinstance(found.profile, Profile)
    assert found.profile.gil_cpu_s is None
    with pytest.raises(AttributeError):
        found.schema = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (treadle.Plan(), "serial"),
        ({}, "serial"),
        (treadle.Plan(processes=2, threads=3), "processes=2+threads=3"),
        ({"threads": 4, "chunk": 2}, "threads=4+chunk=2"),
    ],
)
def test_plans_are_written_as_the_command_line_takes_them(plan: Any, text: str) -> None:
    assert comparing._plan_text(plan) == text


@pytest.mark.parametrize("plan", [{"fibers": 2}, treadle.Plan(dask="local"), {"ray": "auto"}])
def test_a_plan_that_cannot_be_raced_is_no_serial_one(plan: Any) -> None:
    with pytest.raises(treadle.PlanError, match=r"fibers|cluster"):
        treadle.compare(len, [[1]], plans=[plan])
