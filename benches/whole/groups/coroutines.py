"""Coroutines: `Executor(coroutines=n).map` against asyncio written by hand, with a semaphore.

By hand means what a careful programmer writes: one task for each input, a semaphore of n around the call, `gather`, in one `asyncio.run`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import treadle

from benches.whole.fresh import sampled
from benches.whole.waiting_calls import BEGUN, BY_HAND, WAITING
from benches.whole.workload import TREADLE, Requirement, Sample, Workload, timed

CONTENDERS = (TREADLE, BY_HAND)

Call = Callable[[Any], Coroutine[Any, Any, Any]]


async def at_once(value: Any) -> Any:
    """Gives its argument back after one turn of the loop."""
    await asyncio.sleep(0)
    return value


async def after_a_millisecond(value: Any) -> Any:
    """Gives its argument back after a wait, as a call over a network does."""
    await asyncio.sleep(0.001)
    return value


def by_hand(call: Call, count: int, limit: int) -> list[Any]:
    """The results for `range(count)`, at most `limit` at a time."""

    async def main() -> list[Any]:
        semaphore = asyncio.Semaphore(limit)

        async def bounded(value: int) -> Any:
            async with semaphore:
                return await call(value)

        return await asyncio.gather(*[bounded(value) for value in range(count)])

    return asyncio.run(main())


def workload(name: str, title: str, call: Call, count: int, limit: int) -> Workload:
    """One comparison: `count` calls, at most `limit` at a time; seconds for one call."""

    @contextmanager
    def open_plan(contender: str, _workers: int) -> Iterator[Sample]:
        if contender == BY_HAND:
            by_hand(call, count, limit)
            yield lambda: timed(lambda: by_hand(call, count, limit)) / count
            return
        with treadle.Executor(coroutines=limit) as executor:

            def run() -> None:
                # Read one by one, as results are.
                for _result in executor.map(call, range(count)):
                    pass

            run()
            yield lambda: timed(run) / count

    return Workload(
        group="coroutines",
        name=name,
        title=title,
        contenders=CONTENDERS,
        open=open_plan,
        requirements=(Requirement(1.0, 1.2, against=BY_HAND),),
        baseline=BY_HAND,
    )


@contextmanager
def open_memory(contender: str, workers: int) -> Iterator[Sample]:
    """Samples the bytes for each call that waits, in a fresh interpreter."""
    yield lambda: sampled("waiting", contender, workers)


WORKLOADS = (
    workload(
        "coroutines-1ms", "10,000 waits of 1 ms, 100 at a time", after_a_millisecond, 10_000, 100
    ),
    workload(
        "coroutines-wide",
        "10,000 waits of 1 ms, 1,000 at a time",
        after_a_millisecond,
        10_000,
        1000,
    ),
    workload(
        "coroutines-tiny", "10,000 calls that yield once, 100 at a time", at_once, 10_000, 100
    ),
    Workload(
        group="coroutines",
        name="coroutines-memory",
        title=f"memory for each of {WAITING:,} calls that wait, {BEGUN:,} of them begun",
        contenders=CONTENDERS,
        open=open_memory,
        requirements=(Requirement(1.0, 2.0, against=BY_HAND),),
        baseline=BY_HAND,
        unit="B",
    ),
)
