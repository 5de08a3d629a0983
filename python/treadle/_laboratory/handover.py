"""What handing a task over costs: tasks that do nothing, run as the race runs the real ones.

A pool with one worker of each kind is kept busy for a moment; the processor time of this process and of the
worker, divided by the tasks, is what every task pays beside itself. In one process the parent's thread is
told from the worker's by its own clock.

*Assumes*: nothing else runs in this process.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from treadle._laboratory import readings
from treadle._laboratory.calls import nothing, nothing_awaited
from treadle._laboratory.position import Position
from treadle._laboratory.target import Target
from treadle._laboratory.trial import Trial

#: Inputs that a pool goes round; their pickle is one small number.
INPUTS = 64
#: Tasks of a block at most: enough for a mean within a percent, wherever the clock ticks.
TASKS = 100_000
#: Coroutines that share the loop: its turns are shared as they will be.
COROUTINES = 64


def costs(
    is_async: bool, with_processes: bool, with_interpreters: bool, seconds: float
) -> dict[str, Any]:
    """``{"serial_s", "threads", "coroutines", "processes", "chunked", "interpreters", "interpreters_chunked"}``, each after
    the first ``{"parent_s", "worker_s"}`` in CPU seconds a task; None where it does not apply or could not be measured.

    `seconds` is the time that each kind gets.
    """
    found: dict[str, Any] = dict.fromkeys(
        (
            "serial_s",
            "threads",
            "coroutines",
            "processes",
            "chunked",
            "interpreters",
            "interpreters_chunked",
        )
    )
    function = nothing_awaited if is_async else nothing
    target = Target.of(function, f"{function.__module__}:{function.__name__}")
    with _trial({}, target) as trial:
        found["serial_s"] = _wall(trial, seconds)
    with _trial({"threads": 1}, target) as trial:
        found["threads"] = _inside(trial, seconds)
    if is_async:
        with _trial({"coroutines": COROUTINES}, target) as trial:
            found["coroutines"] = _inside(trial, seconds)
    if with_processes:
        with _trial({"processes": 1}, target) as trial:
            # The first block goes one by one; when tasks were seen to be short, the others go in chunks.
            found["processes"] = _apart(trial, seconds)
            if not is_async:
                _apart(trial, seconds / 2)  # chunks grow to their size meanwhile
                found["chunked"] = _apart(trial, seconds)
    if with_interpreters:
        with _trial({"interpreters": 1}, target) as trial:
            # One by one, then in chunks, as above; a sub-interpreter computes in a thread of this process.
            found["interpreters"] = _inside(trial, seconds, warmed_up=True)
            if not is_async:
                _inside(trial, seconds / 2, warmed_up=True)
                found["interpreters_chunked"] = _inside(trial, seconds, warmed_up=True)
    return found


@contextlib.contextmanager
def _trial(plan: dict[str, int], target: Target) -> Any:
    """The pool of a plan; what fails in it leaves its number out."""
    trial = None
    with contextlib.suppress(Exception):
        trial = Trial(plan, target, list(range(INPUTS)), False, Position(None))
        yield trial
    if trial is not None:
        trial.close()


def _wall(trial: Trial, seconds: float) -> float:
    trial.block(0, TASKS, seconds / 4)
    block = trial.block(0, TASKS, seconds / 2)
    return block["wall_s"] / block["count"]


def _inside(trial: Trial, seconds: float, warmed_up: bool = False) -> dict[str, float]:
    """The parent is a thread beside the worker's."""
    if not warmed_up:
        trial.block(0, TASKS, seconds / 4)
    own, whole = time.thread_time(), time.process_time()
    block = trial.block(0, TASKS, seconds)
    own, whole = time.thread_time() - own, time.process_time() - whole
    return {
        "parent_s": own / block["count"],
        "worker_s": max(0.0, whole - own) / block["count"],
    }


def _apart(trial: Trial, seconds: float) -> dict[str, float]:
    """The parent is this process, the worker another."""
    others = [pid for pid in readings.tree() if pid != os.getpid()]
    before, own = readings.tree_cpu_seconds(others), time.process_time()
    block = trial.block(0, TASKS, seconds)
    own = time.process_time() - own
    after = readings.tree_cpu_seconds(others)
    worker = sum(max(0.0, after[pid] - before[pid]) for pid in others)
    return {"parent_s": own / block["count"], "worker_s": worker / block["count"]}
