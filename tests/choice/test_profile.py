"""The profile of functions whose cost is known: waiting is seen as waiting, computing as computing.

Lower bounds only: a busy machine may take longer for anything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from treadle._laboratory import serial
from treadle._laboratory.position import Position
from treadle._laboratory.target import Target

JOBS = """
import asyncio, hashlib, subprocess, sys, threading, time

def spin(milliseconds):
    end = time.thread_time() + milliseconds / 1000
    while time.thread_time() < end:
        pass

def nap(milliseconds):
    time.sleep(milliseconds / 1000)

async def async_nap(milliseconds):
    await asyncio.sleep(milliseconds / 1000)

def half_fail(index):
    if index % 2:
        raise ValueError(f"odd {index}")
    return index

def always_fail(index):
    raise KeyError(index)

def leave(index):
    sys.exit(3)

def threaded(milliseconds):
    helper = threading.Thread(target=spin, args=(milliseconds,))
    helper.start()
    helper.join()

def program(index):
    subprocess.run([sys.executable, "-S", "-c", "sum(range(200000))"], check=True)

def grow(index):
    return len(bytearray(50_000_000))

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

    def run(name: str, items: list[Any], star: bool = False, most: int = 1000) -> dict[str, Any]:
        import known_jobs  # type: ignore[import-not-found]

        found = Target.of(getattr(known_jobs, name), f"known_jobs:{name}")
        return serial.profile(found, items, star, Position(None), 5.0, most, silent)

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
    assert profile("program", [0] * 4)["children_cpu_s"] > 0.0


def test_two_threads_do_not_speed_up_what_holds_the_lock(
    profile: Callable[..., dict[str, Any]],
) -> None:
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("this build has no lock")
    pilot = profile("spin", [2] * 40)["pilot"]
    assert pilot["threads"] == 2
    low, high = pilot["interval"]
    assert low <= pilot["speedup"] <= high
    # Two cores would give 2; on a crowded machine two threads win a little CPU from the others.
    assert pilot["speedup"] < 1.6


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
    assert found["peak_rss_bytes"] - found["baseline_rss_bytes"] >= 45_000_000


def test_star_spreads_tuples(profile: Callable[..., dict[str, Any]]) -> None:
    assert profile("nap", [(1,)] * 3, star=True)["errors"] == 0
    assert profile("nap", [(1,)] * 3, star=False)["all_failed"]


def test_a_coroutine_that_nobody_awaits_is_refused(
    profile: Callable[..., dict[str, Any]],
) -> None:
    with pytest.raises(serial.Refusal, match="returned a coroutine"):
        profile("returns_coroutine", [1, 2, 3])


@pytest.mark.parametrize(
    ("count", "wanted", "expected"),
    [(10, 5, [0, 2, 4, 6, 8]), (3, 10, [0, 1, 2]), (1, 1, [0]), (7, 3, [0, 2, 4])],
)
def test_the_sample_is_spread_evenly(count: int, wanted: int, expected: list[int]) -> None:
    assert serial.sample_indices(count, wanted) == expected
