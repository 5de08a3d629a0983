"""Small functions of every kind, and the plans that each is predicted and measured under."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import threading
import time
import zlib

_BLOCK = bytes(range(256)) * 4096
_RECORD = json.dumps(
    [{"id": number, "name": f"name {number}", "tags": ["a", "b"]} for number in range(200)]
)
_local = threading.local()

#: Plans for functions that compute, that wait, and that are async.
COMPUTING = "threads=2,4;processes=1,2,4"
WAITING = "threads=2,8,32;processes=2,4"
ASYNC = "coroutines=4,32,256;threads=4;processes=2"


def sleep(_item: int) -> None:
    """10 ms of waiting."""
    time.sleep(0.01)


def sleep_skewed(item: int) -> None:
    """2 ms of waiting, and 50 ms for one input in ten, in no order."""
    time.sleep(0.05 if zlib.crc32(item.to_bytes(8, "big")) % 10 == 0 else 0.002)


def python(item: int) -> int:
    """2 ms of bytecode."""
    total = 0
    for number in range(40_000):
        total += number ^ item
    return total


def python_short(item: int) -> int:
    """20 µs of bytecode."""
    total = 0
    for number in range(400):
        total += number ^ item
    return total


def hashing(item: int) -> bytes:
    """1 MiB through SHA-256, without the interpreter lock."""
    return hashlib.sha256(_BLOCK).digest()


def compressing(item: int) -> int:
    """256 KiB through zlib, without the interpreter lock."""
    return len(zlib.compress(_BLOCK[: 256 * 1024], 6))


def parsing(item: int) -> int:
    """JSON of some 10 KiB there and back, with the interpreter lock."""
    return len(json.dumps(json.loads(_RECORD)))


def mixed(item: int) -> int:
    """1 ms of bytecode, then 4 ms of waiting."""
    total = 0
    for number in range(20_000):
        total += number ^ item
    time.sleep(0.004)
    return total


def halves(item: int) -> bytes:
    """1 ms of bytecode, then 1 MiB of SHA-256."""
    total = 0
    for number in range(20_000):
        total += number ^ item
    return hashlib.sha256(_BLOCK).digest()


def database(item: int) -> int:
    """An aggregate over 5,000 rows in memory, a connection each thread."""
    connection = getattr(_local, "connection", None)
    if connection is None:
        connection = _local.connection = sqlite3.connect(":memory:")
        connection.execute("create table points (x integer, y integer)")
        connection.executemany(
            "insert into points values (?, ?)", [(n, n * n % 97) for n in range(5000)]
        )
    return connection.execute("select sum(y) from points where x > ?", (item % 100,)).fetchone()[0]


def heavy_result(item: int) -> list[int]:
    """Little work and a list of 20,000 numbers back."""
    return list(range(item, item + 20_000))


async def async_sleep(_item: int) -> None:
    """20 ms of awaiting."""
    await asyncio.sleep(0.02)


async def async_mixed(item: int) -> int:
    """0.3 ms of bytecode, then 5 ms of awaiting, twice."""
    total = 0
    for _ in range(2):
        for number in range(6_000):
            total += number ^ item
        await asyncio.sleep(0.005)
    return total


#: Function and plans.
WORKLOADS = {
    "sleep": WAITING,
    "sleep_skewed": WAITING,
    "python": COMPUTING,
    "python_short": COMPUTING,
    "hashing": COMPUTING,
    "compressing": COMPUTING,
    "parsing": COMPUTING,
    "mixed": WAITING,
    "halves": COMPUTING,
    "database": COMPUTING,
    "heavy_result": COMPUTING,
    "async_sleep": ASYNC,
    "async_mixed": ASYNC,
}
