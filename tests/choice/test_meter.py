"""The sampler of the interpreter lock against functions whose truth is known by construction.

Shares are judged, never times: what a busy machine adds stands in the run queue, which is no part of them.
A share may miss the truth by 3 points at 2,000 looks; by chance alone one in some hundred does, so a miss is
looked at again with more looks, against the same bound.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import treadle
from treadle import _core

from benches.sampler import known

LOCK = getattr(sys, "_is_gil_enabled", lambda: True)()
watched = pytest.mark.skipif(
    not (LOCK and sys.platform == "linux"), reason="the lock can be watched on Linux, where it is"
)

#: At 2,000 looks.
POINTS = 0.03
#: Seconds of a profile that give some 2,000 looks, and of the one that has the last word.
ENOUGH_S, MORE_S = 4.5, 12.0


def profile_of(function: Callable[[int], Any], seconds: float = ENOUGH_S) -> dict[str, Any]:
    """The profile as JSON; there must be a split."""
    found = treadle.measure(function, range(2000), max_seconds=seconds).json
    assert found["split"] is not None, found["split_absent"]
    return found


@watched
@pytest.mark.parametrize("function", known.TRUTH, ids=lambda one: one.__name__)
def test_shares_are_right_within_three_points(function: Callable[[int], Any]) -> None:
    for seconds in (ENOUGH_S, MORE_S):
        profile = profile_of(function, seconds)
        shares, truth = known.shares(profile), known.TRUTH[function]
        wrong = {
            name: (shares[name], share)
            for name, share in truth.items()
            if abs(shares[name] - share) > POINTS
        }
        if not wrong:
            break
    assert not wrong, f"(found, true) of {profile['split']['samples']} looks: {wrong}"
    if function is not known.chopped:  # half and half is on the border of two classes
        assert profile["class"] == known.CLASSES[function]
    assert profile["pilot"] is None, "the split needs no trial of two threads"
    assert len(profile["used"]) == len(set(profile["used"])) == profile["count"]


@watched
@pytest.mark.parametrize("name", ["python", "hashing", "thirds"])
def test_one_processor_for_the_function_and_the_sampler(
    name: str, write: Callable[[str, str], Path]
) -> None:
    root = Path(known.__file__).parents[2]
    path = write(
        "alone.py",
        f"""
import json, os, sys
sys.path.insert(0, {str(root)!r})
import treadle
from benches.sampler import known
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
if __name__ == "__main__":
    print(json.dumps(treadle.measure(known.{name}, range(2000), max_seconds=float(sys.argv[1])).json))
""",
    )
    for seconds in (ENOUGH_S, MORE_S):
        ran = subprocess.run(
            [sys.executable, str(path), str(seconds)], capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        profile = json.loads(ran.stdout)
        assert profile["split"] is not None, profile["split_absent"]
        shares = known.shares(profile)
        truth = known.TRUTH[getattr(known, name)]
        wrong = [part for part, share in truth.items() if abs(shares[part] - share) > 2 * POINTS]
        if not wrong:
            break
    assert not wrong, shares


@watched
def test_how_often_the_lock_is_given_up() -> None:
    # Sixty sleeps, a release each; the clock's own calls release nothing.
    assert 30 < profile_of(known.naps)["split"]["releases_per_task"] < 150
    assert profile_of(known.python)["split"]["releases_per_task"] < 1


@watched
def test_helper_threads_are_told_apart() -> None:
    split = profile_of(known.helper)["split"]
    assert split["native_cpu"]["mean_s"] == pytest.approx(0.02, rel=0.1)
    assert split["gil_cpu"]["mean_s"] < 0.1 * split["wait"]["mean_s"]


@watched
def test_native_threads_of_a_library_are_counted() -> None:
    pytest.importorskip("numpy")
    profile = profile_of(known.matrices)
    assert known.shares(profile)["gil_cpu"] < 2 * POINTS, "the product is computed without the lock"
    assert profile["class"] == known.CLASSES[known.matrices]
    if len(os.sched_getaffinity(0)) > 1:
        # The caller computes its own part.
        assert profile["native_cpu_s"] > 0.3 * profile["thread_cpu_s"]


@watched
def test_intervals_are_around_the_mean_and_narrow_with_looks() -> None:
    split = profile_of(known.python)["split"]
    for name in (*known.PARTS, "native_cpu", "run_queue"):
        part = split[name]
        assert 0.0 <= part["low_s"] <= part["mean_s"] <= part["high_s"]
    assert split["samples"] >= 500
    assert split["free_cpu"]["high_s"] < 0.02 * split["gil_cpu"]["mean_s"]
    # The sampler's own CPU time is nobody's: it is told apart.
    assert split["native_cpu"]["mean_s"] < 0.2 * split["overhead"] * split["gil_cpu"]["mean_s"]


@watched
@pytest.mark.parametrize("search", [False, True])
def test_both_ways_of_finding_the_lock_see_the_same(search: bool) -> None:
    interval = sys.getswitchinterval()
    meter = _core.Meter(5000.0, search)
    try:
        assert meter.absent is None
        assert meter.source == ("search" if search or sys.version_info < (3, 13) else "table")
        assert sys.getswitchinterval() == pytest.approx(interval, abs=1e-6)
        while meter.samples() < 500:
            meter.begin()
            end = time.thread_time() + 0.01
            while time.thread_time() < end:
                pass
            meter.end()
        tally = meter.tally()
        assert tally is not None
        assert tally["held_running"] + tally["held_ready"] > 0.97 * meter.samples()
    finally:
        meter.close()


@watched
def test_what_is_dropped_or_outside_of_calls_does_not_count() -> None:
    meter = _core.Meter(20_000.0)
    try:
        meter.begin()
        while meter.samples() < 50:
            pass
        meter.end()
        meter.drop()
        assert meter.samples() == 0
        seen = threading.Event()
        seen.wait(0.02)
        assert meter.samples() == 0
    finally:
        meter.close()
    meter.close()
    assert meter.tally() is None


@watched
def test_other_threads_holding_is_not_ones_own() -> None:
    meter = _core.Meter(2000.0)
    stop = False

    def spin() -> None:
        while not stop:
            pass

    other = threading.Thread(target=spin)
    other.start()
    try:
        meter.begin()
        waiting = threading.Event()
        while meter.samples() < 300:
            waiting.wait(0.02)
        meter.end()
        tally = meter.tally()
        assert tally is not None
        # It asks for the lock after each sleep, and gets it at the next switch.
        held = tally["held_running"] + tally["held_ready"] + tally["held_blocked"]
        assert held < 0.3 * meter.samples()
    finally:
        stop = True
        other.join()
        meter.close()


def test_a_forked_child_and_the_end_of_the_interpreter_are_safe(
    write: Callable[[str, str], Path],
) -> None:
    path = write(
        "ends.py",
        """
import os, sys
from treadle import _core
meter = _core.Meter(5000.0)
meter.begin()
if hasattr(os, "fork"):
    child = os.fork()
    if child == 0:
        meter.end(); meter.tally(); meter.close()
        other = _core.Meter(1000.0)
        os._exit(7 if other.absent is None or "no interpreter lock" in other.absent else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
# It samples on, and nobody closes it.
print("end")
""",
    )
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", str(path)], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "end\n"), ran.stderr


@pytest.mark.skipif(LOCK, reason="this build has a lock")
def test_a_build_without_a_lock_says_so() -> None:
    meter = _core.Meter(1000.0)
    assert meter.absent == "this build of Python has no interpreter lock"
    meter.begin()
    wall, *_ = meter.end()
    assert wall >= 0.0
    assert meter.tally() is None


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), 1e9])
def test_rates_without_sense_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="sampling rate"):
        _core.Meter(rate)
