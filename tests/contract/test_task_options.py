"""``options``: a task's timeout and retries; ``interrupt``."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contract_calls as calls
import pytest
import treadle
from contract_calls import HYBRIDS, Gate

CONCURRENT = pytest.mark.ways("threads", "processes", "coroutines", "interpreters", *HYBRIDS)
EVERY = pytest.mark.ways(
    "serial", "threads", "processes", "spawn", "coroutines", "interpreters", *HYBRIDS
)


def run_on_of(way: Any) -> Callable[..., Any]:
    """A call that arrives at its gate and then does not end by itself; in a sub-interpreter, where nobody can stop it, until the gate opens."""
    if way.name == "interpreters":
        return calls.wait_at
    return calls.wait_for_ever if way.is_async else calls.run_on


@EVERY
def test_a_call_is_retried_as_often_as_asked(way: Any, marks: Path) -> None:
    with way.make() as pool:
        assert pool.options(retries=3).submit(way.of(calls.fail_first), marks, 3).result() == 3
        assert pool.stats().retried == 3


@EVERY
def test_after_the_last_retry_the_exception_stands(way: Any, marks: Path) -> None:
    with way.make(retries=2) as pool:
        with pytest.raises(calls.Complaint, match="run 2"):
            pool.submit(way.of(calls.fail_first), marks, 99).result()
        assert len(list(marks.iterdir())) == 3
        assert pool.options(retries=0).submit(way.of(calls.double), 2).result() == 4


@pytest.mark.ways(
    "serial", "threads", "coroutines", "interpreters"
)  # processes still retry it: a known difference
def test_a_call_that_ends_the_program_is_not_retried(way: Any, marks: Path) -> None:
    with way.make(retries=5) as pool:
        future = pool.submit(way.of(mark_and_exit), marks)
        assert isinstance(future.exception(), SystemExit)
        assert len(list(marks.iterdir())) == 1


def mark_and_exit(folder: Path) -> None:
    calls.leave_a_mark(folder)
    raise SystemExit(3)


def test_options_of_a_view_are_its_own(way: Any, marks: Path) -> None:
    with way.make(retries=1) as pool:
        view = pool.options(retries=2)
        assert view.options(retries=0).submit(way.of(calls.double), 1).result() == 2
        assert view.submit(way.of(calls.fail_first), marks, 2).result() == 2
        assert list(view.map(way.of(calls.double), range(5))) == [0, 2, 4, 6, 8]


@CONCURRENT
def test_a_task_over_its_time_fails_and_the_others_do_not(way: Any, gate: Gate) -> None:
    with way.make(workers=2) as pool:
        run_on = run_on_of(way)
        hanging = pool.options(timeout=0.2).submit(run_on, gate)
        gate.await_arrivals()
        others = [pool.submit(way.of(calls.double), number) for number in range(50)]
        with pytest.raises(treadle.TaskTimeout, match=r"timeout of 0\.2 s") as caught:
            hanging.result()
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, concurrent.futures.TimeoutError)
        assert [future.result() for future in others] == [2 * number for number in range(50)]
        if way.name == "threads":
            # It runs on, as its message says; stop it for the sake of the test's own end.
            assert "a thread cannot be stopped" in str(caught.value)
            stop_threads()
        if way.name == "interpreters":
            assert "a sub-interpreter cannot be stopped" in str(caught.value)
            gate.open()


def stop_threads() -> None:
    """Raises in every thread that runs on, so that it ends."""
    import ctypes
    import sys

    for ident, frame in sys._current_frames().items():
        while frame is not None:
            if frame.f_code is calls.run_on.__code__:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(ident), ctypes.py_object(SystemExit)
                )
                break
            frame = frame.f_back  # type: ignore[assignment]


@CONCURRENT
def test_the_time_begins_with_the_task(way: Any, gate: Gate) -> None:
    """A task that waits longer for its worker than it may run is not over its time."""
    pool = way.make(workers=1)
    held = pool.submit(way.of(gate))
    gate.await_arrivals()
    later = pool.options(timeout=0.3).submit(way.of(calls.double), 4)
    with pytest.raises(concurrent.futures.TimeoutError):
        held.result(timeout=0.5)
    gate.open()
    assert later.result() == 8


@pytest.mark.ways("processes", "coroutines", *HYBRIDS)
def test_a_task_over_its_time_is_retried(way: Any, gate: Gate, marks: Path) -> None:
    with way.make(workers=1) as pool:
        call = calls.wait_for_ever_and_count if way.is_async else calls.run_on_and_count
        # Long enough that a busy machine lets each run leave its mark.
        future = pool.options(timeout=1.5, retries=1).submit(call, gate, marks)
        with pytest.raises(treadle.TaskTimeout):
            future.result()
        assert len(list(marks.iterdir())) == 2


@CONCURRENT
def test_a_timeout_that_is_kept_changes_nothing(way: Any) -> None:
    with way.make(timeout=60.0) as pool:
        double = way.of(calls.double)
        assert [pool.submit(double, k).result() for k in range(50)] == list(range(0, 100, 2))


@pytest.mark.ways("serial")
def test_a_serial_plan_refuses_a_timeout(way: Any) -> None:
    with pytest.raises(ValueError, match="serial"):
        way.make(timeout=1.0).submit(calls.double, 1)


@CONCURRENT
def test_a_waiting_call_is_interrupted_by_cancelling(way: Any, gate: Gate) -> None:
    pool = way.make(workers=1)
    held = pool.submit(way.of(gate))
    gate.await_arrivals()
    waiting = pool.submit(way.of(calls.double), 1)
    assert waiting.interrupt()
    assert waiting.cancelled()
    gate.open()
    assert held.result() is None
    assert not held.interrupt()
    assert not held.cancelled()


@CONCURRENT
@pytest.mark.parametrize("retries", [0, 3])
def test_a_running_call_is_interrupted(way: Any, gate: Gate, marks: Path, retries: int) -> None:
    with way.make(workers=1) as pool:
        call = calls.wait_for_ever_and_count if way.is_async else calls.run_on_and_count
        future = pool.options(retries=retries).submit(call, gate, marks)
        gate.await_arrivals()
        assert future.interrupt(grace=60)
        with pytest.raises(treadle.TaskInterrupted) as caught:
            future.result()
        assert isinstance(caught.value, concurrent.futures.CancelledError)
        assert pool.submit(way.of(calls.double), 2).result() == 4
        assert len(list(marks.iterdir())) == 1, "it was run again"


@pytest.mark.ways("processes", "spawn")
def test_a_call_that_goes_on_after_the_interrupt_loses_its_worker(way: Any, gate: Gate) -> None:
    with way.make(workers=1) as pool:
        before = pool.submit(calls.process_id).result()
        future = pool.submit(calls.ignore_interrupts, gate)
        gate.await_arrivals()
        assert future.interrupt(grace=0.05)
        assert isinstance(future.exception(), treadle.TaskInterrupted)
        assert pool.submit(calls.process_id).result() != before


@CONCURRENT
def test_an_interrupt_never_hits_another_call(way: Any) -> None:
    """Interrupts at every moment of short calls: each ends with its own result, or was interrupted itself."""
    with way.make(workers=1) as pool:
        double = way.of(calls.double)
        for number in range(300):
            hit = pool.submit(double, number)
            after = pool.submit(double, -number)
            hit.interrupt()
            try:
                assert hit.result() == 2 * number
            except concurrent.futures.CancelledError:
                pass
            assert after.result() == -2 * number


@pytest.mark.ways("processes")
def test_an_interrupt_of_a_running_call_is_never_lost(way: Any) -> None:
    """Whatever the moment: a call that goes on for ever ends, and `interrupt` says so."""
    with way.make(workers=1) as pool:
        pool.submit(calls.double, 1).result()
        for _ in range(300):
            future = pool.submit(calls.nap, 600)
            while not future.running():
                pass
            assert future.interrupt(grace=60)
            with pytest.raises(concurrent.futures.CancelledError):
                future.result(timeout=60)


@pytest.mark.parametrize("seconds", [0, -1, "2", True, float("nan")])
def test_an_impossible_timeout_is_refused(way: Any, seconds: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        way.make(timeout=seconds)
    with way.make() as pool, pytest.raises(ValueError, match="timeout"):
        pool.options(timeout=seconds)


@pytest.mark.parametrize("retries", [-1, "2", True, 1.5])
def test_impossible_retries_are_refused(way: Any, retries: Any) -> None:
    with way.make() as pool, pytest.raises(ValueError, match="retries"):
        pool.options(retries=retries)
