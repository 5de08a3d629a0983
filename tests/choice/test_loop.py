"""What a shared loop and a hand-over cost: measured on functions whose truth is known by construction."""

from __future__ import annotations

import asyncio
import time

import pytest
from treadle._laboratory import handover, interpreter, loop
from treadle._laboratory.position import Position
from treadle._laboratory.target import Target


async def sleeping(_item: int) -> None:
    """Awaits a little, so that all places of the loop are taken."""
    await asyncio.sleep(0.002)


async def burning(_item: int) -> None:
    """Half a millisecond of CPU by the thread's own clock, then one turn of the loop."""
    until = time.thread_time() + 0.0005
    while time.thread_time() < until:
        pass
    await asyncio.sleep(0)


async def counting(_item: int) -> None:
    """Tells how many are in flight."""
    state["now"] += 1
    state["most"] = max(state["most"], state["now"])
    await asyncio.sleep(0.001)
    state["now"] -= 1


async def failing(_item: int) -> None:
    """Raises."""
    raise ValueError("no")


state = {"now": 0, "most": 0}


def cost(function: object, concurrency: int = 8, seconds: float = 0.1) -> dict[str, float] | None:
    """The shared cost of `function` over a few inputs."""
    target = Target.of(function, f"{__name__}:f")  # type: ignore[arg-type]
    return loop.shared_cost(target, [1, 2, 3], False, Position(None), concurrency, seconds)


def test_work_costs_what_it_costs_alone() -> None:
    found = cost(burning)
    assert found is not None
    assert found["concurrency"] == 8
    assert found["count"] >= 16
    # Thread CPU, so others on the machine do not count; the turn of the loop comes on top.
    assert found["cpu_s"] >= 0.0005


def test_so_many_are_in_flight() -> None:
    state.update(now=0, most=0)
    assert cost(counting, concurrency=8) is not None
    assert state["most"] == 8


def test_too_few_tasks_tell_nothing() -> None:
    assert cost(sleeping, concurrency=64, seconds=0.0) is None


def test_errors_tell_nothing() -> None:
    assert cost(failing) is None


@pytest.mark.parametrize("is_async", [False, True])
def test_handing_over_costs_something_everywhere(is_async: bool) -> None:
    here = interpreter.HAS_INTERPRETERS
    found = handover.costs(is_async, with_processes=True, with_interpreters=here, seconds=0.03)
    assert 0 < found["serial_s"] < 0.001
    kinds = ["threads", "processes", "coroutines" if is_async else "chunked"]
    if here:
        kinds.extend(["interpreters"] if is_async else ["interpreters", "interpreters_chunked"])
    for kind in kinds:
        assert found[kind]["parent_s"] > 0, kind
        assert found[kind]["worker_s"] >= 0, kind
    assert (found["coroutines"] is None) == (not is_async)
    if not is_async:
        # Many in a chunk share its way.
        assert found["chunked"]["parent_s"] < found["processes"]["parent_s"]


def test_without_processes_there_is_no_number_for_them() -> None:
    found = handover.costs(False, with_processes=False, with_interpreters=False, seconds=0.01)
    assert found["processes"] is None
    assert found["chunked"] is None
    assert found["interpreters"] is None
