"""What an async task costs the thread of its loop when others share the loop with it.

Alone, a task that awaits pays for the whole of each turn of the loop: the wait for events, the timers, the
wake-up. Many tasks in flight share the turns, so that one of them costs less: how much less is measured, by
running sampled inputs with so many at a time.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

from treadle._laboratory.calls import arguments
from treadle._laboratory.position import Position
from treadle._laboratory.target import Target

#: Fewer tasks than this many for each place on the loop would measure its filling and draining.
ROUNDS = 2


def shared_cost(
    target: Target,
    items: list[Any],
    star: bool,
    position: Position,
    concurrency: int,
    seconds: float,
) -> dict[str, Any] | None:
    """``{"concurrency", "cpu_s", "count"}``: CPU seconds of the loop's thread for each task.

    None where the tasks are so long that too few ended in `seconds`, or where any of them raised: an
    exception is not what a task costs.
    """
    return asyncio.run(_shared_cost(target, items, star, position, concurrency, seconds))


async def _shared_cost(
    target: Target,
    items: list[Any],
    star: bool,
    position: Position,
    concurrency: int,
    seconds: float,
) -> dict[str, Any] | None:
    function = target.function
    numbers = itertools.count()
    ended = errors = 0
    until = 0.0

    async def place() -> None:
        nonlocal ended, errors
        while time.perf_counter() < until:
            index = next(numbers) % len(items)
            position.at(index)
            try:
                await function(*arguments(items[index], star))
            except Exception:
                errors += 1
            ended += 1

    async def places() -> float:
        nonlocal until
        began, until = time.thread_time(), time.perf_counter() + seconds
        await asyncio.gather(*(place() for _ in range(concurrency)))
        return time.thread_time() - began

    cpu = await places()
    position.idle()
    if errors or ended < ROUNDS * concurrency:
        return None
    return {"concurrency": concurrency, "cpu_s": cpu / ended, "count": ended}
