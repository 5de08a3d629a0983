"""Tiny tasks from a coroutine: `asubmit` and `gather`, against `run_in_executor` and `gather`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benches.whole.pools import PROCESSES, Futures, opened
from benches.whole.tasks import identity
from benches.whole.workload import TREADLE, Requirement, Sample, Workload, calibrated, timed

MOST = 4_000


async def by_treadle(executor: Any, count: int) -> None:
    """Awaits `count` tasks through treadle's own awaitable submit."""
    await asyncio.gather(*[executor.asubmit(identity, number) for number in range(count)])


async def by_loop(executor: Any, count: int) -> None:
    """Awaits `count` tasks through the loop's bridge to executors."""
    run = asyncio.get_running_loop().run_in_executor
    await asyncio.gather(*[run(executor, identity, number) for number in range(count)])


@contextmanager
def open_pool(name: str, workers: int) -> Iterator[Sample]:
    """Samples the time of one awaited task."""
    bridge = by_treadle if name == TREADLE else by_loop
    with opened(PROCESSES, name, workers) as pool:
        assert isinstance(pool, Futures)
        executor = pool.executor
        yield calibrated(lambda count: timed(lambda: asyncio.run(bridge(executor, count))), MOST)


WORKLOADS = (
    Workload(
        group="asyncio",
        name="asyncio-gather",
        title="tiny tasks awaited together in a coroutine",
        contenders=("treadle", "ProcessPoolExecutor", "loky"),
        open=open_pool,
        requirements=(Requirement(8, 20),),
        remark="the other pools have no bridge to asyncio",
    ),
)
