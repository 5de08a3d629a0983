"""What the chaos suite and the fuzzer found, as small tests of their own."""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
import threading
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import jobs  # noqa: E402
import treadle  # noqa: E402

#: No test here takes a twentieth of it.
WATCHDOG_S = 60


def test_a_call_behind_any_number_of_cancelled_ones_runs() -> None:
    """Nobody claims while the only worker is busy, so nobody advances the queue's head past the cancelled calls."""
    with treadle.Executor(processes=1) as pool:
        busy = pool.submit(jobs.slept, 1, 0.5)
        while not busy.running():
            pass
        for number in range(5000):
            assert pool.submit(jobs.scaled, number).cancel()
        last = pool.submit(jobs.scaled, 2)
        assert last.result(timeout=WATCHDOG_S) == 7


def test_looking_at_an_ended_future_loses_no_callback() -> None:
    """``wait`` touches a future that has ended but whose callbacks the collector has not run yet."""
    with treadle.Executor(processes=1) as pool:
        for _ in range(300):
            called = threading.Event()
            future = pool.submit(jobs.scaled, 1)
            future.add_done_callback(lambda _, called=called: called.set())
            # The rings are read here, by this thread: the collector has yet to hear of the end.
            pool.submit(jobs.scaled, 2).result(timeout=WATCHDOG_S)
            concurrent.futures.wait([future], timeout=WATCHDOG_S)
            assert called.wait(WATCHDOG_S)


@pytest.mark.parametrize(
    "scenario",
    ["lifetimes", "single", "fast", "all-at-once", "zygotes", "stops", "storm"],
)
def test_a_quick_chaos(scenario: str) -> None:
    ran = subprocess.run(
        [sys.executable, str(HERE / "run.py"), "--quick", scenario],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
