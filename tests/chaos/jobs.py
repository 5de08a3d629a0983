"""What the workers are asked to do. Every result follows from the arguments, so that it can be checked by value."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable
from typing import Any

import numpy


def scaled(number: int) -> int:
    return 3 * number + 1


def added(left: int, right: float, word: str) -> tuple[float, str]:
    return left + right, word[::-1]


def turned(table: dict[str, Any]) -> dict[Any, str]:
    return {repr(value): key for key, value in table.items()}


def reversed_bytes(data: bytes) -> bytes:
    return data[::-1]


def raised(number: int) -> int:
    raise LookupError(f"number {number}")


def slept(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return -number


def filled(number: int, count: int) -> numpy.ndarray:
    """An array of ``count`` float64 made by the worker: only the result is big."""
    return numpy.arange(count, dtype=numpy.float64) + number


def summed(array: numpy.ndarray) -> tuple[int, float]:
    """Only the argument is big."""
    return array.size, float(array.sum())


def doubled(array: numpy.ndarray) -> numpy.ndarray:
    """Both ways."""
    return array * 2


def marked(path: str, number: int) -> int:
    """Leaves eight bytes in the file each time it runs: a task that ran twice is seen."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, number.to_bytes(8, "little"))
    finally:
        os.close(descriptor)
    return number ^ 0x5555


def late_success(path: str, number: int) -> int:
    """Raises the first time it runs for this number."""
    try:
        os.close(os.open(f"{path}.{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return number + 7
    raise ConnectionError(f"the first try of {number}")


async def awaited(number: int) -> int:
    return number - 5


def ended(code: int) -> None:
    """Ends its worker."""
    os._exit(code)


def own_pid() -> int:
    return os.getpid()


async def slept_awaiting(number: int, seconds: float) -> int:
    await asyncio.sleep(seconds)
    return -number


async def _called(name: str, *arguments: Any) -> Any:
    await asyncio.sleep(0)
    return globals()[name](*arguments)


#: Each of these for a plan of coroutines, by name.
AWAITED: dict[str, Callable[..., Any]] = {
    **{
        function.__name__: functools.partial(_called, function.__name__)
        for function in (
            *(scaled, added, turned, reversed_bytes, raised, filled),
            *(summed, doubled, marked, late_success),
        )
    },
    "slept": slept_awaiting,
    "awaited": awaited,
}
