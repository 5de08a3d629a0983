"""The profile of functions whose cost is known: waiting is seen as waiting, computing as computing.

Lower bounds only: a busy machine may take longer for anything.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from treadle import _core
from treadle._laboratory import serial
from treadle._laboratory.position import Position
from treadle._laboratory.target import Target

JOBS = """
import asyncio, hashlib, os, subprocess, sys, threading, time

def spin(milliseconds):
    end = time.thread_time() + milliseconds / 1000
    while time.thread_time() < end:
        pass

def nap(milliseconds):
    time.sleep(milliseconds / 1000)

async def async_nap(milliseconds):
    await asyncio.sleep(milliseconds / 1000)

SEEN = []

def remember(index):
    SEEN.append(index)

def half_fail(index):
    if index % 2:
        raise ValueError(f"odd {index}")
    return index

def always_fail(index):
    raise KeyError(index)

def leave(index):
    sys.exit(3)

def fork_and_return(index):
    child = os.fork()
    if child:
        os.waitpid(child, 0)

def threaded(milliseconds):
    helper = threading.Thread(target=spin, args=(milliseconds,))
    helper.start()
    helper.join()

def program(index):
    subprocess.run([sys.executable, "-S", "-c", "sum(range(200000))"], check=True)

def grow(index):
    return len(bytearray(150_000_000))  # more than a heap keeps once it was freed

def send(data):
    return data + data

def locked(index):
    return threading.Lock()

class Odd(Exception):
    def __init__(self, code, text):
        super().__init__(f"{code} {text}")

def raise_odd(index):
    if index:
        raise Odd(1, "x")

def returns_coroutine(index):
    return async_nap(index)
"""


def silent(_: dict[str, Any]) -> None:
    """No one listens to the progress."""


@pytest.fixture
def profile(
    write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Profiles a function of the file above."""
    write("known_jobs.py", JOBS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "known_jobs", raising=False)

    def run(
        name: str, items: list[Any], star: bool = False, most: int = 1000, **more: Any
    ) -> dict[str, Any]:
        import known_jobs  # type: ignore[import-not-found]

        found = Target.of(getattr(known_jobs, name), f"known_jobs:{name}")
        return serial.profile(found, items, star, Position(None), 5.0, most, silent, **more)

    return run


def test_computing_is_cpu_time(profile: Callable[..., dict[str, Any]]) -> None:
    found = profile("spin", [3] * 20)
    assert found["count"] == 20
    assert found["measured"] == 19
    assert len(found["walls"]) == 19
    assert found["thread_cpu_s"] >= 0.0029
    assert found["wall_s"] >= 0.0029
    assert found["process_cpu_s"] >= found["thread_cpu_s"] * 0.99
    assert found["errors"] == 0
    assert found["first_error"] is None
    assert not found["all_failed"]


def test_waiting_is_not_cpu_time(profile: Callable[..., dict[str, Any]]) -> None:
    for name in ("nap", "async_nap"):
        found = profile(name, [20] * 8)
        assert found["wall_s"] >= 0.019
        assert found["thread_cpu_s"] < found["wall_s"] / 4, name
        assert found["pilot"] is None, "the lock does not matter to what waits"


def test_other_threads_cpu_is_told_apart(profile: Callable[..., dict[str, Any]]) -> None:
    found = profile("threaded", [10] * 6)
    assert found["process_cpu_s"] >= 0.0099
    assert found["thread_cpu_s"] < found["process_cpu_s"] / 2


def test_programs_that_it_runs_are_counted(profile: Callable[..., dict[str, Any]]) -> None:
    found = profile("program", [0] * 4)
    # A fresh interpreter computes for some milliseconds, whoever waits for it.
    assert found["process_cpu_s"] - found["thread_cpu_s"] > 0.002
    assert all(natives > 0.002 for natives in found["natives"])


class Blind:
    """A meter whose lock cannot be watched; the clocks work."""

    absent = "it was covered"

    def __init__(self, rate: float) -> None:
        self._meter = _core.Meter(rate)
        self.begin, self.end = self._meter.begin, self._meter.end
        self.drop, self.close = self._meter.drop, self._meter.close

    def samples(self) -> int:
        """None was taken."""
        return 0

    def tally(self) -> None:
        """There is none."""


def test_without_the_split_two_threads_are_tried(
    profile: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("this build has no lock")
    monkeypatch.setattr(serial, "Meter", Blind)
    found = profile("spin", [2] * 40)
    assert found["tally"] is None
    assert found["lock_absent"] == "it was covered"
    pilot = found["pilot"]
    assert pilot["threads"] == 2
    low, high = pilot["interval"]
    assert low <= pilot["speedup"] <= high
    assert pilot["speedup"] > 0
    # What must not run twice is not tried.
    assert profile("spin", [2] * 40, once=True)["pilot"] is None


def test_no_input_runs_twice(profile: Callable[..., dict[str, Any]]) -> None:
    found = profile("remember", list(range(300)), once=True)
    import known_jobs

    assert sorted(known_jobs.SEEN) == sorted(found["used"])
    assert len(set(found["used"])) == found["count"] <= 300


def test_the_sample_ends_when_enough_is_known(profile: Callable[..., dict[str, Any]]) -> None:
    found = profile("spin", [1] * 1000, enough=serial.Enough(seconds=0.3, count=30))
    assert found["measured"] >= 30
    assert found["count"] < 1000, "300 looks at a pure function tell its shares"
    few = profile("spin", [1] * 1000, enough=serial.Enough(seconds=0.0, count=900))
    assert few["measured"] >= 900


def test_tasks_that_wait_alike_need_not_be_many(profile: Callable[..., dict[str, Any]]) -> None:
    enough = serial.Enough(seconds=0.0, count=900)
    found = profile("nap", [30] * 1000, enough=enough)
    assert serial.FEW_WAITING <= found["measured"] < 900
    # The longest and the shortest differ by a factor of ten, in no order: their mean takes more.
    chance = random.Random(1)
    mixed = [chance.choice([3, 30]) for _ in range(1000)]
    assert profile("nap", mixed, enough=enough)["measured"] > found["measured"]


def test_each_call_has_its_clocks(profile: Callable[..., dict[str, Any]]) -> None:
    found = profile("spin", [3] * 20)
    for key in ("walls", "cpus", "natives", "measured_inputs"):
        assert len(found[key]) == found["measured"]
    for cpu, wall in zip(found["cpus"], found["walls"], strict=True):
        assert 0.0029 <= cpu <= wall + 1e-3


def test_errors_are_counted_and_the_first_is_told(profile: Callable[..., dict[str, Any]]) -> None:
    found = profile("half_fail", list(range(10)))
    assert found["errors"] == 5
    assert found["measured"] == 4
    assert not found["all_failed"]
    error = found["first_error"]
    assert (error["index"], error["type"], error["message"]) == (1, "ValueError", "odd 1")
    assert "known_jobs.py" in error["traceback"]
    assert "serial.py" not in error["traceback"]


@pytest.mark.parametrize(("name", "kind"), [("always_fail", "KeyError"), ("leave", "SystemExit")])
def test_a_function_that_always_fails(
    name: str, kind: str, profile: Callable[..., dict[str, Any]]
) -> None:
    found = profile(name, list(range(5)))
    assert found["all_failed"]
    assert found["errors"] == found["count"] == 5
    assert found["first_error"]["type"] == kind
    assert found["wall_s"] > 0


def test_a_single_input_is_enough(profile: Callable[..., dict[str, Any]]) -> None:
    found = profile("spin", [2])
    assert found["count"] == 1
    assert len(found["walls"]) == 1
    assert found["thread_cpu_s"] >= 0.0019


def test_bytes_are_those_of_the_values(profile: Callable[..., dict[str, Any]]) -> None:
    found = profile("send", [b"x" * 100_000] * 5)
    assert 100_000 <= found["argument_bytes"] < 101_000
    assert 200_000 <= found["result_bytes"] < 201_000
    assert found["argument_buffer_bytes"] == 0
    assert found["dumps_s"] == found["argument_dumps_s"] + found["result_dumps_s"] > 0


def test_arrays_travel_out_of_band(profile: Callable[..., dict[str, Any]]) -> None:
    numpy = pytest.importorskip("numpy")
    found = profile("send", [numpy.zeros(100_000)] * 5)
    assert found["argument_buffer_bytes"] == 800_000
    assert 800_000 < found["argument_bytes"] < 801_000


def test_what_cannot_travel_is_named(profile: Callable[..., dict[str, Any]]) -> None:
    assert profile("locked", [1, 2, 3])["pickle"]["result"]["type"] == "_thread.lock"
    found = profile("raise_odd", [0, 1, 2, 3])["pickle"]
    assert found["result"] is None
    assert "super().__init__" in found["exception"]["hint"]
    lambdas = profile("half_fail", [[lambda: 1]] * 3)["pickle"]["argument"]
    assert (lambdas["path"], lambdas["type"]) == ("args[0][0]", "lambda")


def test_the_peak_is_seen_although_it_is_gone(profile: Callable[..., dict[str, Any]]) -> None:
    found = profile("grow", [0] * 3)
    assert found["peak_rss_bytes"] - found["baseline_rss_bytes"] >= 145_000_000


def test_star_spreads_tuples(profile: Callable[..., dict[str, Any]]) -> None:
    assert profile("nap", [(1,)] * 3, star=True)["errors"] == 0
    assert profile("nap", [(1,)] * 3, star=False)["all_failed"]


def test_a_coroutine_that_nobody_awaits_is_refused(
    profile: Callable[..., dict[str, Any]],
) -> None:
    with pytest.raises(serial.Refusal, match="returned a coroutine"):
        profile("returns_coroutine", [1, 2, 3])


def test_a_child_that_comes_back_from_the_call_is_told(
    profile: Callable[..., dict[str, Any]],
) -> None:
    with pytest.raises(serial.Refusal, match="child came back from the call") as refused:
        profile("fork_and_return", range(10))
    assert "os._exit" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("count", "wanted", "expected"),
    [(10, 5, [0, 2, 4, 6, 8]), (3, 10, [0, 1, 2]), (1, 1, [0]), (7, 3, [0, 2, 4])],
)
def test_the_sample_is_spread_evenly(count: int, wanted: int, expected: list[int]) -> None:
    assert serial.sample_indices(count, wanted) == expected
