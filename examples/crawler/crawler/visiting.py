"""One visit: fetch an address, read what came. This is what the workers run.

`visit` is an ordinary async function and the same for every plan. Coroutines share one loop; a thread, or the caller in a
serial plan, brings a loop of its own. Each loop has one client, whose connections are kept alive.

*Guarantees*: a visit ends within its deadline, whatever the other end does. What can be tried again raises `Unavailable`;
everything else that a server can answer is a `Visit`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

import aiohttp

from crawler.addresses import normal
from crawler.reading import read

AGENT = "treadle-example-crawler"
LARGEST = 2 * 1024 * 1024  # bytes of markup; the rest of a larger page is not read
REDIRECTS = frozenset((301, 302, 303, 307, 308))
LATER = frozenset((408, 425, 429, 500, 502, 503, 504))  # answers that may be another one next time


class Visit(NamedTuple):
    """What came of a visit. `state` is `stored`, `redirected` (to `target`) or `refused` (for `reason`)."""

    state: str
    status: int = 0
    reason: str = ""
    target: str = ""
    title: str = ""
    text: str = ""
    links: tuple[str, ...] = ()
    size: int = 0
    seconds: float = 0.0


class Unavailable(Exception):
    """The page may be there next time. `wait` is how many seconds the server asked for, or None."""

    def __init__(self, reason: str, wait: float | None = None, crowded: bool = False) -> None:
        super().__init__(reason, wait, crowded)
        self.reason = reason
        self.wait = wait
        self.crowded = crowded  # the server says that it is asked too often

    def __str__(self) -> str:
        return self.reason


async def visit(address: str, deadline: float = 5.0) -> Visit:
    """Fetches the page at `address` within `deadline` seconds and reads it.

    Raises:
        Unavailable: no whole answer came in time, or one that asks to come again.
    """
    began = time.monotonic()
    status, head, body = await _get(address, deadline, wanted="text/html")
    seconds = time.monotonic() - began
    if status in REDIRECTS:
        target = normal(head.get("Location", ""), address)
        if target is None:
            return Visit("refused", status, "redirects to no address", seconds=seconds)
        return Visit("redirected", status, target=target, seconds=seconds)
    if status != 200:
        return Visit("refused", status, f"the server answered {status}", seconds=seconds)
    kind = head.get("Content-Type", "")
    if body is None:
        return Visit("refused", status, f"not a page: {kind}", seconds=seconds)
    markup = body.decode(_charset(kind), errors="replace")
    title, text, links = read(markup, address)
    return Visit("stored", status, "", "", title, text, links, len(body), seconds)


async def visit_robots(host: str, deadline: float = 5.0) -> str:
    """The robots.txt of a host; empty where there is none.

    Raises:
        Unavailable: it cannot be told now what the host allows.
    """
    status, _head, body = await _get(f"{host}/robots.txt", deadline, wanted="text/plain")
    if status != 200 or body is None:
        return ""
    return body.decode("utf-8", errors="replace").replace("\0", "")


async def _get(
    address: str, deadline: float, wanted: str
) -> tuple[int, Mapping[str, str], bytes | None]:
    """Status, headers, and the body if it is 200 and of the `wanted` type."""
    try:
        client = await _client()
        limit = aiohttp.ClientTimeout(total=deadline)
        async with client.get(address, timeout=limit, allow_redirects=False) as answer:
            if answer.status in LATER:
                raise Unavailable(
                    f"the server answered {answer.status}",
                    _seconds(answer.headers.get("Retry-After")),
                    crowded=answer.status == 429,
                )
            kind = answer.headers.get("Content-Type", "text/html")
            body = None
            if answer.status == 200 and kind.lower().startswith(wanted):
                body = await _body(answer)
            return answer.status, answer.headers, body
    except asyncio.TimeoutError as error:  # another class than TimeoutError before Python 3.11
        raise Unavailable(f"no whole answer within {deadline:g} s") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from error


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """The answer's body, or the first `LARGEST` bytes of it."""
    parts: list[bytes] = []
    left = LARGEST
    async for part in answer.content.iter_any():
        parts.append(part[:left])
        left -= len(parts[-1])
        if left == 0:
            answer.close()
            break
    return b"".join(parts)


def _charset(kind: str) -> str:
    """The encoding that a Content-Type names, if Python knows it; else UTF-8."""
    name = kind.lower().partition("charset=")[2].partition(";")[0].strip(" \"'")
    try:
        "".encode(name)
    except LookupError:
        return "utf-8"
    return name or "utf-8"


def _seconds(retry_after: str | None) -> float | None:
    """The seconds of a Retry-After header; a date in it is left to the back-off."""
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None


_keepers: dict[asyncio.AbstractEventLoop, AsyncIterator[aiohttp.ClientSession]] = {}
_clients: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}


async def _client() -> aiohttp.ClientSession:
    """The client of the running loop, made at first use."""
    loop = asyncio.get_running_loop()
    if loop not in _clients:
        keeper = _keepers[loop] = _keep(loop)
        await keeper.__anext__()
    return _clients[loop]


async def _keep(loop: asyncio.AbstractEventLoop) -> AsyncIterator[aiohttp.ClientSession]:
    """Holds a client until its loop ends: a loop closes its asynchronous generators as it goes, and those what they hold."""
    # The plan says how many visits run at once; a second limit here would hide it. Cookies are not kept: a visit is
    # the same whoever makes it.
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, headers={"User-Agent": AGENT}, cookie_jar=aiohttp.DummyCookieJar()
    ) as client:
        _clients[loop] = client
        try:
            yield client
        finally:
            del _clients[loop], _keepers[loop]
