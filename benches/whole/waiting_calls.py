"""The memory of calls that wait: in a plan of coroutines, and in tasks of asyncio before a semaphore."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from pathlib import Path

import treadle

BY_HAND = "asyncio, semaphore"
#: Calls in all, and those of them that have begun.
WAITING, BEGUN = 10_000, 1_000


def private_bytes() -> int:
    """This process's own memory."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


async def parked(event: asyncio.Event) -> None:
    """Waits until it is let go."""
    await event.wait()


def memory_by_hand() -> float:
    """Bytes for each call in a task of its own, before a semaphore."""

    async def main() -> float:
        semaphore, event = asyncio.Semaphore(BEGUN), asyncio.Event()

        async def bounded() -> None:
            async with semaphore:
                await parked(event)

        gc.collect()
        before = private_bytes()
        tasks = [asyncio.ensure_future(bounded()) for _ in range(WAITING)]
        for _turn in range(3):
            await asyncio.sleep(0)
        took = private_bytes() - before
        event.set()
        await asyncio.gather(*tasks)
        return took / WAITING

    return asyncio.run(main())


def memory_of_plan() -> float:
    """Bytes for each call in a plan of coroutines, its future included."""
    go = threading.Event()

    async def make() -> asyncio.Event:
        return asyncio.Event()

    async def let_go(event: asyncio.Event) -> None:
        await asyncio.to_thread(go.wait)
        event.set()

    # One place more, for the call that lets the others go.
    with treadle.Executor(coroutines=BEGUN + 1) as executor:
        event = executor.submit(make).result()
        letting_go = executor.submit(let_go, event)
        while executor.stats().running < 1:
            time.sleep(0.001)
        gc.collect()
        before = private_bytes()
        futures = [executor.submit(parked, event) for _ in range(WAITING)]
        while executor.stats().running <= BEGUN:
            time.sleep(0.001)
        took = private_bytes() - before
        go.set()
        for future in [letting_go, *futures]:
            future.result()
        return took / WAITING


def waiting_memory(name: str, _workers: int) -> float:
    """Bytes for each of the calls, by the contender's name."""
    return memory_by_hand() if name == BY_HAND else memory_of_plan()
