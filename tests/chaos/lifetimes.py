"""Pools made and destroyed again and again: nothing of them stays."""

from __future__ import annotations

import gc
import os
import random
import re
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

import jobs
import numpy
import processes
import treadle
from load import Wrong

#: What the first pools may leave warm: allocator arenas, imported modules, thread stacks.
_WARM_UP = 20
#: Growth of resident memory over all later lifetimes beyond which it is a leak: a leaked board alone would be 0.7 MB each.
_MOST_GROWTH_BYTES = 16 << 20


@dataclass(frozen=True)
class Held:
    """What this process holds."""

    descriptors: int
    memfd_descriptors: int
    memfd_mappings: int
    threads: int
    zygotes: int
    workers: int
    resident_bytes: int


def held() -> Held:
    gc.collect()
    names = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            continue
    maps = Path("/proc/self/maps").read_text()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Held(
        descriptors=len(names),
        memfd_descriptors=sum("memfd:treadle" in name for name in names),
        memfd_mappings=len(re.findall("memfd:treadle", maps)),
        threads=len(os.listdir("/proc/self/task")),
        zygotes=len(processes.zygotes()),
        workers=len(processes.workers()),
        resident_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
    )


def _settled(before: Held) -> Held:
    """Threads and processes end a moment after their pool; polled under a generous watchdog."""
    pause = threading.Event()
    for _ in range(2000):
        now = held()
        if (
            now.threads <= before.threads
            and now.workers == 0
            and now.descriptors <= before.descriptors
            and now.memfd_mappings <= before.memfd_mappings
        ):
            return now
        pause.wait(0.01)
    return now


def _live(chance: random.Random) -> None:
    way = chance.randrange(7)
    pool = treadle.Executor(processes=chance.randrange(1, 4))
    array = numpy.full(200_000, 2.0)
    futures = [pool.submit(jobs.scaled, number) for number in range(50)]
    arrays = [pool.submit(jobs.doubled, array) for _ in range(3)]
    if way == 0:
        assert list(pool.map(jobs.scaled, range(200))) == [3 * n + 1 for n in range(200)]
    if way == 1:
        for pid in processes.workers():
            processes.send(pid, signal.SIGKILL)
    if way == 2:
        pool.kill_workers()
    elif way == 3:
        pool.terminate_workers()
    elif way == 4:
        pool.shutdown(wait=False, cancel_futures=True)
    elif way == 5:
        # Dropped with work in flight.
        del pool, futures, arrays
        return
    for future in (*futures, *arrays):
        error = None if future.cancelled() else future.exception(timeout=60)
        if error is not None and not isinstance(error, (treadle.WorkerDied, treadle.PoolBroken)):
            raise Wrong(f"{error!r}")
    if way == 6:
        # Results outlive their pool.
        kept = arrays[0].result()
        pool.shutdown()
        del pool
        assert kept[0] == 4.0
        return
    pool.shutdown()


def lifetimes(count: int, seed: int, folder: Path) -> str:
    chance = random.Random(seed)
    for _ in range(_WARM_UP):
        _live(chance)
    with treadle.Executor(processes=1) as pool:
        pool.submit(jobs.scaled, 1).result()
    del pool
    before = _settled(held())
    for _ in range(count):
        _live(chance)
    after = _settled(before)
    growth = after.resident_bytes - before.resident_bytes
    leaks = {
        name: (getattr(before, name), getattr(after, name))
        for name in (
            "descriptors",
            "memfd_descriptors",
            "memfd_mappings",
            "threads",
            "workers",
            "zygotes",
        )
        if getattr(after, name) > getattr(before, name)
    }
    if leaks or growth > _MOST_GROWTH_BYTES:
        raise Wrong(f"{count} pools left {leaks}, {growth >> 10} KiB; now {after}")
    return f"{count} pools; resident memory changed by {growth >> 10} KiB; {after}"
