"""What holds for a plan of coroutines alone: contexts, time-outs that meet user code, full plans that are never woken."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import sys
import weakref
from pathlib import Path
from typing import Any

import contract_calls as calls
import pytest
import treadle
from contract_calls import Gate

pytestmark = pytest.mark.ways("coroutines")

PLACE: contextvars.ContextVar[int] = contextvars.ContextVar("PLACE", default=0)


async def leave_and_find(value: int) -> int:
    """What an earlier call left in the context."""
    found = PLACE.get()
    PLACE.set(value)
    await asyncio.sleep(0)
    assert PLACE.get() == value
    return found


def test_each_call_has_a_task_and_a_context_of_its_own(way: Any) -> None:
    async def task_of() -> str:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    with way.make(workers=1) as pool:
        assert list(pool.map(leave_and_find, range(1, 20))) == [0] * 19
        assert len({pool.submit(task_of).result() for _ in range(5)}) == 5


@pytest.mark.parametrize("limit", [1, 3])
def test_never_more_at_a_time_than_planned(way: Any, limit: int) -> None:
    now = most = 0

    async def count() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        for _ in range(3):
            await asyncio.sleep(0)
        now -= 1

    with way.make(workers=limit) as pool:
        # From two sides: calls that enter a full plan are started by those that end.
        futures = [pool.submit(count) for _ in range(200)]
        for future in futures:
            future.result()
    assert (now, most) == (0, limit)


async def swallow(gate: Gate) -> str:
    """Makes nothing of being cancelled."""
    gate.arrive()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return "swallowed"
    raise AssertionError


def test_a_call_that_swallows_its_time_out_is_over_its_time(way: Any, gate: Gate) -> None:
    with way.make() as pool:
        with pytest.raises(treadle.TaskTimeout, match="cancelled"):
            pool.options(timeout=0.1).submit(swallow, gate).result()
        assert pool.stats().timed_out == 1
        assert pool.submit(way.of(calls.double), 2).result() == 4


async def turn_into(gate: Gate) -> None:
    gate.arrive()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise calls.Complaint("stopped") from None


def test_an_interrupted_call_is_not_run_again(way: Any, gate: Gate, marks: Path) -> None:
    with way.make() as pool:
        future = pool.options(retries=3).submit(turn_into, gate)
        gate.await_arrivals()
        assert future.interrupt()
        with pytest.raises(calls.Complaint):
            future.result()
        assert pool.stats().retried == 0


_runs = itertools.count()


async def late_then_bounded() -> str:
    """Takes too long at first; then has a time-out of its own, which looks at how often its task was asked to end."""
    if next(_runs) == 0:
        await asyncio.Event().wait()
    try:
        await asyncio.wait_for(asyncio.Event().wait(), 0.01)
    except asyncio.TimeoutError:
        pass
    if sys.version_info >= (3, 11):
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "bounded"
        raise AssertionError
    return "bounded"


def test_a_retry_after_a_time_out_begins_clean(way: Any) -> None:
    with way.make() as pool:
        # Generous for the second run, which waits for its own limits only.
        future = pool.options(timeout=1.0, retries=1).submit(late_then_bounded)
        assert future.result() == "bounded"
        told = pool.stats()
        assert (told.retried, told.timed_out) == (1, 1)


def test_a_failure_holds_no_cycle(way: Any) -> None:
    class Error(Exception):
        pass

    async def fail() -> None:
        raise Error

    with way.make() as pool:
        future = pool.submit(fail)
        error = future.exception()
        gone = weakref.ref(error)
        while pool.stats().completed < 1:
            pass
        gc.collect()
        gc.disable()
        try:
            del future, error
            # The loop's own task may hold it for one more turn.
            pool.submit(way.of(calls.double), 1).result()
            assert gone() is None
        finally:
            gc.enable()


def test_a_call_begins_in_the_context_that_the_initializer_left(way: Any) -> None:
    async def read() -> int:
        return PLACE.get()

    # This thread's own value is not the loop's.
    token = PLACE.set(-1)
    try:
        with way.make(workers=1, initializer=PLACE.set, initargs=(7,)) as pool:
            assert [future.result() for future in [pool.submit(read) for _ in range(5)]] == [7] * 5
    finally:
        PLACE.reset(token)
