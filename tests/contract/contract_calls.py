"""What the tests of the contract call: small functions that every kind of worker can import, and a gate to hold them."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import itertools
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: The ways in which processes run several tasks each; the names are those of their sizes.
HYBRIDS = ("processes+threads", "processes+coroutines")


class Gate:
    """Holds calls in any thread or process until it is opened, and tells who has come.

    A waiting call blocks in ``flock``; one that arrives writes a byte into a FIFO. Pickles as its folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = -1
        self._arrivals = -1

    @classmethod
    def make(cls, folder: Path) -> Gate:
        """A closed gate. The process that makes it opens it."""
        folder.mkdir(parents=True)
        os.mkfifo(folder / "arrivals")
        gate = cls(folder)
        gate._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        gate._arrivals = os.open(folder / "arrivals", os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(gate._lock, fcntl.LOCK_EX)
        return gate

    def __reduce__(self) -> tuple[Any, ...]:
        return Gate, (self.folder,)

    def arrive(self) -> None:
        """Tells the maker that a call is here."""
        # Not O_WRONLY: that would wait for a reader, and the gate may be open already.
        arrivals = os.open(self.folder / "arrivals", os.O_RDWR)
        os.write(arrivals, b".")
        os.close(arrivals)

    def wait(self, value: Any = None) -> Any:
        """Arrives, and returns ``value`` when the gate is open."""
        self.arrive()
        lock = os.open(self.folder / "lock", os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
        finally:
            os.close(lock)
        return value

    def __call__(self, value: Any = None) -> Any:
        return self.wait(value)

    def await_arrivals(self, count: int = 1) -> None:
        """Blocks until so many calls have come."""
        while count:
            count -= len(os.read(self._arrivals, count))

    def open(self) -> None:
        """Lets everybody through, now and later."""
        if self._lock >= 0:
            os.close(self._lock)
            os.close(self._arrivals)
            self._lock = self._arrivals = -1


class Awaited:
    """An async function made of a plain one, for plans of coroutines."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    async def __call__(self, /, *arguments: Any, **keywords: Any) -> Any:
        if isinstance(self.function, Gate):
            return await asyncio.to_thread(self.function, *arguments, **keywords)
        await asyncio.sleep(0)
        return self.function(*arguments, **keywords)


def double(value: Any) -> Any:
    return value * 2


def add(first: Any, second: Any, third: Any = 0) -> Any:
    return first + second + third


def keywords_of(*arguments: Any, **keywords: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return arguments, keywords


def give(value: Any) -> Any:
    return value


class Complaint(Exception):
    """An exception of the tests' own."""


def complain(text: str = "no") -> None:
    raise Complaint(text)


def complain_at(value: int, bad: int) -> int:
    if value == bad:
        raise Complaint(f"{value} is bad")
    return value


def complain_with_cause() -> None:
    try:
        {}["missing"]
    except KeyError as error:
        raise Complaint("outer") from error


def leave_a_mark(folder: Path) -> None:
    """Leaves one file for each run."""
    (folder / f"{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}").touch()


def mark_and_give(folder: Path, value: Any) -> Any:
    leave_a_mark(folder)
    return value


def note_down(path: Path, value: Any) -> None:
    """Appends a line; the lines tell the order of the runs."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{value}\n".encode())
    os.close(descriptor)


def fail_first(folder: Path, times: int) -> int:
    """Raises in its first ``times`` runs; then returns which run it was."""
    for number in itertools.count():
        try:
            os.close(os.open(folder / str(number), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        if number < times:
            raise Complaint(f"run {number}")
        return number
    raise AssertionError


def fail_first_of(folder: Path, times: int, value: int) -> int:
    """As :func:`fail_first`, for each value by itself; returns the value."""
    mine = folder / f"value-{value}"
    mine.mkdir(exist_ok=True)
    fail_first(mine, times)
    return value


def wait_at(gate: Gate) -> Any:
    return gate.wait()


def run_on(gate: Gate) -> None:
    """Arrives, then runs Python instructions until it is stopped."""
    gate.arrive()
    while True:
        time.sleep(0.001)


def run_on_and_count(gate: Gate, folder: Path) -> None:
    leave_a_mark(folder)
    run_on(gate)


def ignore_interrupts(gate: Gate) -> None:
    """Arrives, then runs on whatever is raised in it."""
    step: Callable[[], object] = gate.arrive
    while True:
        try:
            while True:
                step()
                step = functools.partial(time.sleep, 0.001)
        except Exception:
            pass


def frame_of(function: Callable[..., Any]) -> str:
    """A pattern of a frame of it: in a thread's stack by faulthandler ("…, line 3 in f") or in a task's by traceback ("…, line 3, in f")."""
    return rf'File ".*", line \d+,? in {re.escape(function.__name__)}$'


def dump_with(pool: Any, pattern: str, times: int = 1) -> str:
    """What the pool's dump says once the pattern is in it so often: a call that has arrived is not yet where it waits."""
    for _ in range(500):
        told: str = pool.dump()
        if len(re.findall(pattern, told, re.MULTILINE)) >= times:
            return told
        time.sleep(0.01)
    raise AssertionError(f"{pattern} is not {times} times in\n{told}")


async def wait_for_ever(gate: Gate) -> None:
    gate.arrive()
    await asyncio.Event().wait()


async def wait_for_ever_and_count(gate: Gate, folder: Path) -> None:
    leave_a_mark(folder)
    await wait_for_ever(gate)


def nap(seconds: float, value: Any = None) -> Any:
    """A call of known length, for deadlines."""
    time.sleep(seconds)
    return value


async def doze(seconds: float, value: Any = None) -> Any:
    await asyncio.sleep(seconds)
    return value


_settings: dict[str, Any] = {}


def set_up(**settings: Any) -> None:
    _settings.update(settings)


def set_up_value(value: Any) -> None:
    _settings["value"] = value


def set_up_and_mark(folder: Path) -> None:
    leave_a_mark(folder)


def read_setting(name: str) -> Any:
    return _settings.get(name)


def process_id(_: Any = None) -> int:
    return os.getpid()
