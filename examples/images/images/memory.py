"""Memory: a limit for the whole batch, kept by each worker, and what was used.

*Guarantees*: a worker process that would go over its share gets a MemoryError, which costs the file it was at and nothing
else. The share is of private memory that can be written to: what the kernel calls data.
"""

from __future__ import annotations

import os
import re
import resource
import threading
from contextlib import suppress
from pathlib import Path

import treadle

from images.errors import BatchError

LEAST = (
    192 * 2**20
)  # bytes: Python, NumPy and Pillow take 60 MiB, a 12-megapixel photograph about as much again
OWN = 96 * 2**20  # bytes for the process that hands out the files
UNITS = {"MiB": 2**20, "GiB": 2**30, "MB": 10**6, "GB": 10**9}


def parse(text: str) -> int:
    """The bytes in `1.5GiB`. Raises ValueError."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(MiB|GiB|MB|GB)", text)
    if found is None:
        raise ValueError(f"{text!r} is no amount of memory; write 800MiB or 2GiB")
    return int(float(found[1]) * UNITS[found[2]])


def share(limit: int, plan: treadle.Plan) -> int:
    """What each process of workers may use so that all together keep to `limit`.

    Raises:
        BatchError: the limit is too small for so many workers.
    """
    workers = plan.processes or 1
    each = (limit - OWN) // workers if plan.processes else limit
    # Threads hold a photograph each in one process, which has Python only once.
    least = LEAST + ((plan.threads or 1) - 1) * LEAST // 2
    if each < least:
        needed = least * workers + (OWN if plan.processes else 0)
        raise BatchError(
            f"{limit / 2**20:.0f} MiB are too little for {plan}",
            f"allow {needed / 2**20:.0f} MiB with --memory, or use fewer workers with --plan",
        )
    return each


def restrict(size: int) -> None:
    """Holds this process to `size` bytes from now on: the initializer of each worker."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))


class Watch:
    """Samples the memory of a process and all its descendants, until the `with` block ends. `peak` is in bytes."""

    def __init__(self, process: int, period: float = 0.05) -> None:
        self.process = process
        self.period = period
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self.period):
            self.peak = max(self.peak, sum(proportional(one) for one in family(self.process)))


def family(process: int) -> list[int]:
    """A process and its descendants, those that live."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with suppress(OSError):
                stat = Path(entry.path, "stat").read_text()
                parent = int(stat.rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [process]
    for one in found:
        found += children.get(one, [])
    return found


def proportional(process: int) -> int:
    """The bytes of a process in memory, with what it shares divided among those that share it; 0 when it is gone."""
    with suppress(OSError):
        found = re.search(
            r"^Pss:\s+(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text(), re.M
        )
        if found is not None:
            return int(found[1]) * 1024
    return 0
