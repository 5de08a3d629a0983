"""What the tests of other engines call in workers; importable there by name."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any


class Complaint(Exception):
    """An exception of the tests' own."""


class Unpicklable(Exception):
    """An exception that holds what cannot travel."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


def give(*arguments: Any, **keywords: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return arguments, keywords


def double(value: Any) -> Any:
    return value * 2


def double_unless(bad: int, value: int) -> int:
    if value == bad:
        raise Complaint(f"{value} is bad")
    return value * 2


def complain(text: str) -> None:
    raise Complaint(text)


def complain_unpicklably(text: str) -> None:
    raise Unpicklable(text)


def raise_this(kind: type[BaseException]) -> None:
    raise kind("stop")


def give_a_lock() -> Any:
    return threading.Lock()


def leave_a_mark(folder: Path) -> int:
    """Leaves a file for each run; returns which run it was."""
    for number in range(100):
        try:
            os.close(os.open(folder / str(number), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        return number
    raise AssertionError("a hundred runs")


def fail_first(folder: Path, times: int) -> int:
    number = leave_a_mark(folder)
    if number < times:
        raise Complaint(f"run {number}")
    return number


def die_first(folder: Path, times: int) -> int:
    number = leave_a_mark(folder)
    if number < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def look_up(table: Any, key: Any) -> Any:
    return table[key]


def process_id(_: Any = None) -> int:
    return os.getpid()


async def double_later(value: Any) -> Any:
    return value * 2


def run_on() -> None:
    """Runs Python instructions until it is stopped."""
    while True:
        time.sleep(0.001)
