"""The crawl of the demo: one page over HTTP, with one client for each event loop.

`fetch` is an ordinary coroutine function. Coroutines share a loop and so a client; when threads or
processes run it, each brings a loop and so a client of its own. Connections are kept alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp

_clients: dict[asyncio.AbstractEventLoop, AsyncIterator[aiohttp.ClientSession]] = {}
_sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}


async def fetch(url: str) -> tuple[int, str]:
    """The length in bytes and the title of the page at `url`; raises aiohttp.ClientError."""
    session = await _session()
    async with session.get(url) as response:
        response.raise_for_status()
        page = await response.text()
    _before, _tag, rest = page.partition("<title>")
    return len(page), rest.partition("</title>")[0]


async def _session() -> aiohttp.ClientSession:
    """The session of the running loop, opened at first use."""
    loop = asyncio.get_running_loop()
    if loop not in _sessions:
        _clients[loop] = _client(loop)
        await anext(_clients[loop])
    return _sessions[loop]


async def _client(loop: asyncio.AbstractEventLoop) -> AsyncIterator[aiohttp.ClientSession]:
    """Holds a session open until its loop ends.

    A loop that is closed properly (`asyncio.run` does so) closes its asynchronous generators, and
    with them whatever they hold. That is the one moment a loop offers for saying goodbye.
    """
    # The plan says how many requests run at once; a second limit here would hide it.
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        _sessions[loop] = session
        try:
            while True:
                yield session
        finally:
            del _sessions[loop], _clients[loop]
