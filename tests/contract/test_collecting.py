"""Futures and the cyclic collector: what refers to itself through a future goes, and what refers to nothing is not looked at."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import contract_calls as calls
import pytest
import treadle
from contract_calls import Gate

GIL_DISABLED = not getattr(sys, "_is_gil_enabled", lambda: True)()


class Canary:
    """Something that can be watched, and refer to anything."""

    def __init__(self, held: Any = None) -> None:
        self.held = held


def ignore(_held: Any, _future: Any) -> None:
    """A callback that holds something."""


def result_that_holds(pool: Any, way: Any) -> weakref.ref[Any]:
    future = pool.submit(way.of(calls.give), [])
    result = future.result()
    canary = Canary(future)
    result.append(canary)
    if way.name in ("processes", "spawn"):
        assert future.result() is result, "decoded once"
    return weakref.ref(canary)


def callback_that_holds(pool: Any, way: Any) -> weakref.ref[Any]:
    canary = Canary()
    future = pool.submit(way.of(calls.double), 1)
    canary.held = future
    future.add_done_callback(partial(ignore, canary))
    future.result()
    return weakref.ref(canary)


def attribute_that_holds(pool: Any, way: Any) -> weakref.ref[Any]:
    future = pool.submit(way.of(calls.double), 1)
    future.result()
    canary = Canary(future)
    future.note = canary
    return weakref.ref(canary)


def exception_that_holds(pool: Any, way: Any) -> weakref.ref[Any]:
    future = pool.submit(way.of(calls.complain))
    error = future.exception()
    canary = Canary(future)
    error.note = canary
    return weakref.ref(canary)


@pytest.mark.parametrize(
    "make",
    [result_that_holds, callback_that_holds, attribute_that_holds, exception_that_holds],
    ids=lambda make: make.__name__,
)
def test_a_future_in_a_circle_is_collected(
    way: Any, make: Callable[[Any, Any], weakref.ref[Any]]
) -> None:
    with way.make() as pool:
        watched = make(pool, way)
        # A thread may still have its last call's objects in hand.
        pool.submit(way.of(calls.double), 1).result()
    for _ in range(3):
        gc.collect()
    assert watched() is None


@pytest.mark.ways("threads", "processes", "coroutines")
def test_a_waiting_future_in_a_circle_lives(way: Any, gate: Gate) -> None:
    with way.make() as pool:
        future = pool.submit(way.of(gate), 7)
        canary = Canary(future)
        future.note = canary
        watched = weakref.ref(canary)
        del canary
        gc.collect()
        assert watched() is not None
        gate.open()
        assert future.result() == 7
        assert future.note is watched()


@pytest.mark.skipif(GIL_DISABLED, reason="without the lock every object is looked at")
@pytest.mark.ways("threads", "processes")
def test_the_collector_looks_only_at_futures_that_refer_to_something(way: Any) -> None:
    with way.make() as pool:
        plain = pool.submit(way.of(calls.double), 1)
        listed = pool.submit(way.of(calls.give), [1])
        assert (plain.result(), listed.result()) == (2, [1])
        assert not gc.is_tracked(plain)
        assert gc.is_tracked(listed)
        plain.add_done_callback(ignore_one)
        assert gc.is_tracked(plain)
        assert gc.is_tracked(treadle.Future()), "one that somebody made by hand"


def ignore_one(_future: Any) -> None:
    """A callback that does nothing."""
