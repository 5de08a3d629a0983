"""Async functions: timers, aiohttp and httpx against a local server, and some that compute.

Each event loop has one client, opened at its first use and closed with the loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import httpx

from benches.corpus import material
from benches.corpus.workload import pages, workload

_held: dict[tuple[asyncio.AbstractEventLoop, Any], tuple[Any, AsyncIterator[Any]]] = {}


async def client(make: Callable[[], AbstractAsyncContextManager[Any]]) -> Any:
    """The running loop's client; the loop's end closes it, as it closes async generators."""
    key = (asyncio.get_running_loop(), make)
    if key not in _held:
        holder = _hold(key, make)
        _held[key] = (await anext(holder), holder)
    return _held[key][0]


async def _hold(
    key: Any, make: Callable[[], AbstractAsyncContextManager[Any]]
) -> AsyncIterator[Any]:
    opened = make()
    async with opened as one:
        try:
            while True:
                yield one
        finally:
            _held.pop(key, None)


def aiohttp_client() -> aiohttp.ClientSession:
    """A session without a limit of its own: the plan says how many run at once."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=60)
    )


def httpx_client() -> httpx.AsyncClient:
    """The same of httpx."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(limits=limits, timeout=60, trust_env=False)


def addresses() -> list[str]:
    """1,500 pages of the local server."""
    return pages(1500)


@workload(
    addresses,
    "io-bound",
    because="the server answers after 60 ms in the median; aiohttp computes a fraction of one",
    server=True,
)
async def crawl(address: str) -> int:
    """The size of a page, over aiohttp."""
    session = await client(aiohttp_client)
    async with session.get(address) as response:
        return len(await response.read())


def fewer_addresses() -> list[str]:
    """1,000 pages of the local server."""
    return pages(1000)


@workload(
    fewer_addresses,
    "io-bound",
    because="the server answers after 60 ms in the median; httpx computes about one of them",
    server=True,
)
async def visit(address: str) -> int:
    """The size of a page, over httpx."""
    response = await (await client(httpx_client)).get(address)
    return len(response.content)


def few_addresses() -> list[str]:
    """60 pages of the local server."""
    return pages(60)


@workload(
    few_addresses,
    "mixed",
    because="60 ms of waiting for the server, then about as much of plain Python on the loop's thread",
    server=True,
)
async def crawl_and_count(address: str) -> int:
    """How often the most frequent triple of letters occurs in a page, counted in plain Python."""
    session = await client(aiohttp_client)
    async with session.get(address) as response:
        page = await response.text()
    counts: dict[str, int] = {}
    # Pages differ in length; the work shall not.
    for _pass in range(max(1, 700_000 // len(page))):
        for at in range(len(page) - 2):
            triple = page[at : at + 3]
            counts[triple] = counts.get(triple, 0) + 1
    return max(counts.values())


def delays() -> list[float]:
    """5,000 delays of 20 to 60 ms."""
    chance = random.Random(8)
    return [chance.uniform(0.020, 0.060) for _ in range(5000)]


@workload(
    delays, "io-bound", because="asyncio.sleep leaves the loop to others and uses no processor"
)
async def pause(delay: float) -> float:
    """Waits on the loop."""
    await asyncio.sleep(delay)
    return delay


def texts() -> list[str]:
    """240 texts of 60,000 characters, of which 16 differ."""
    some = [material.text(seed, 60_000) for seed in range(16)]
    return material.repeated(some, 240)


@workload(
    texts,
    "cpu-bound",
    because="an async function that never waits: a loop of Python's own bytecode, lock held",
)
async def count_letters(text: str) -> int:
    """How often the most frequent pair of letters occurs."""
    counts: dict[str, int] = {}
    for at in range(len(text) - 1):
        pair = text[at : at + 2]
        counts[pair] = counts.get(pair, 0) + 1
    return max(counts.values())


def uploads() -> list[bytes]:
    """400 blocks of 8 MiB, of which two differ."""
    two = [random.Random(seed).randbytes(8 << 20) for seed in range(2)]
    return material.repeated(two, 400)


@workload(
    uploads,
    "cpu-bound-releasing",
    because="the digest of 8 MiB is made in a thread of the loop's, without the lock",
)
async def check_upload(block: bytes) -> str:
    """The SHA-1 of a block, handed to a thread so that the loop goes on."""
    return (await asyncio.to_thread(hashlib.sha1, block)).hexdigest()
