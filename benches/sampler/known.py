"""Functions whose use of the interpreter lock is known by construction, and what is true of them.

CPU time is spent by the thread's own clock, so that a busy machine changes how long a call takes and not how
its time divides. How long a sleep takes is for the clocks to say.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import threading
import time
from collections.abc import Callable
from typing import Any

#: Hashing gives the lock up for 2,048 bytes and more; this many take milliseconds.
BUFFER = bytes(4_000_000)
#: Takes some 50 µs, without the lock.
SMALL_BUFFER = bytes(100_000)
#: Calls C and keeps the lock, as an extension module may.
LIBRARY = ctypes.PyDLL(None)
_MATRICES: list[Any] = []


def spend(step: Callable[[], Any], milliseconds: float) -> None:
    """Repeats `step` until the thread has been on a processor for so long."""
    end = time.thread_time() + milliseconds / 1000
    while time.thread_time() < end:
        step()


def digest() -> bytes:
    """Computes without the lock."""
    return hashlib.sha256(BUFFER).digest()


def python(_: int) -> None:
    """Computes in Python."""
    spend(int, 30)


def hashing(_: int) -> None:
    """Computes in C, without the lock."""
    spend(digest, 30)


def sleeping(_: int) -> None:
    """Waits without the lock."""
    time.sleep(0.03)


def sleeping_with_the_lock(_: int) -> None:
    """Waits with the lock: nobody else can run Python meanwhile."""
    LIBRARY.usleep(30_000)


def thirds(_: int) -> None:
    """A third each: Python, hashing, waiting."""
    spend(int, 20)
    spend(digest, 20)
    time.sleep(0.02)


def python_and_locked_sleep(_: int) -> None:
    """Half Python, half waiting with the lock."""
    spend(int, 20)
    LIBRARY.usleep(20_000)


async def awaiting(_: int) -> None:
    """A third Python, two thirds waiting in an event loop."""
    spend(int, 10)
    await asyncio.sleep(0.02)


def small_digest() -> bytes:
    """Computes without the lock, briefly."""
    return hashlib.sha256(SMALL_BUFFER).digest()


def chopped(_: int) -> None:
    """Python and hashing in turns that are shorter than the gap between two looks."""
    for _turn in range(60):
        spend(int, 0.2)
        spend(small_digest, 0.2)


def naps(_: int) -> None:
    """Python and sixty short naps in turns."""
    for _turn in range(60):
        spend(int, 0.2)
        time.sleep(0.0002)


def helper(_: int) -> None:
    """Waits for a thread that computes for 20 ms."""
    thread = threading.Thread(target=spend, args=(int, 20))
    thread.start()
    thread.join()


def matrices(_: int) -> None:
    """Multiplies matrices: the library computes without the lock, in as many threads as it likes."""
    import numpy

    if not _MATRICES:
        _MATRICES.append(numpy.random.default_rng(1).random((700, 700)))
    for _turn in range(3):
        _MATRICES[0] @ _MATRICES[0]


#: Shares of a task's time, but for its time in the run queue.
TRUTH: dict[Callable[[int], Any], dict[str, float]] = {
    python: {"gil_cpu": 1.0, "gil_blocked": 0.0, "free_cpu": 0.0, "wait": 0.0},
    hashing: {"gil_cpu": 0.0, "gil_blocked": 0.0, "free_cpu": 1.0, "wait": 0.0},
    sleeping: {"gil_cpu": 0.0, "gil_blocked": 0.0, "free_cpu": 0.0, "wait": 1.0},
    sleeping_with_the_lock: {"gil_cpu": 0.0, "gil_blocked": 1.0, "free_cpu": 0.0, "wait": 0.0},
    thirds: {"gil_cpu": 1 / 3, "gil_blocked": 0.0, "free_cpu": 1 / 3, "wait": 1 / 3},
    python_and_locked_sleep: {"gil_cpu": 0.5, "gil_blocked": 0.5, "free_cpu": 0.0, "wait": 0.0},
    awaiting: {"gil_cpu": 1 / 3, "gil_blocked": 0.0, "free_cpu": 0.0, "wait": 2 / 3},
    chopped: {"gil_cpu": 0.5, "gil_blocked": 0.0, "free_cpu": 0.5, "wait": 0.0},
}

#: The class that follows from it.
CLASSES: dict[Callable[[int], Any], str] = {
    python: "cpu-bound",
    hashing: "cpu-bound-releasing",
    sleeping: "io-bound",
    sleeping_with_the_lock: "mixed",
    thirds: "mixed",
    python_and_locked_sleep: "mixed",
    awaiting: "mixed",
    matrices: "cpu-bound-releasing",
}

PARTS = ("gil_cpu", "gil_blocked", "free_cpu", "wait")


def shares(profile: dict[str, Any]) -> dict[str, float]:
    """The parts of a profile's split over the time that is the task's own."""
    split = profile["split"]
    own = sum(split[name]["mean_s"] for name in PARTS)
    return {name: split[name]["mean_s"] / own for name in PARTS}
