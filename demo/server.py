"""The remote end of the demo: an HTTP server whose pages take as long as real ones.

    python demo/server.py

It picks a free port on the loopback address, prints its base address as its first line, and serves
`/page/N` until its standard input ends: it cannot outlive the program that started it.

A page's delay belongs to the page, so every plan that fetches the same pages meets the same
delays: log-normal with a median of 60 ms, and one page in fifty takes 0.3 to 0.6 s more.
The server works on at most `AT_ONCE` requests at a time and lets the others wait, as servers do.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
from collections import deque

MEDIAN_S = 0.060
SIGMA = 0.35  # of the delay's logarithm: nine in ten pages take 34 to 107 ms
SLOW_SHARE = 0.02
SLOW_EXTRA_S = (0.3, 0.6)
AT_ONCE = 300
PARAGRAPH = "<p>" + "A treadle lifts the threads that the weaver's foot has chosen. " * 4 + "</p>\n"


def delay_of(page: int) -> float:
    """Seconds that page number `page` takes to answer, the same at every request."""
    chance = random.Random(page)
    delay = MEDIAN_S * math.exp(chance.gauss(0, SIGMA))
    if chance.random() < SLOW_SHARE:
        delay += chance.uniform(*SLOW_EXTRA_S)
    return delay


def answer_of(page: int) -> bytes:
    """The whole HTTP answer for page number `page`: 1 to 16 KiB of markup."""
    paragraphs = PARAGRAPH * random.Random(~page).randint(4, 60)
    body = f"<html><head><title>Page {page}</title></head>\n<body>{paragraphs}</body></html>\n"
    return response("200 OK", body)


def response(status: str, body: str) -> bytes:
    """An HTTP/1.1 answer with this status line's end and this markup."""
    content = body.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


class Desk:
    """Works on at most AT_ONCE requests at a time; the others wait in the order they came."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._working = 0
        self._waiting: deque[tuple[Connection, int]] = deque()

    def accept(self, connection: Connection, page: int) -> None:
        """Takes a request for `page`; its answer goes to `connection` after the page's delay."""
        self._waiting.append((connection, page))
        self._begin()

    def _begin(self) -> None:
        while self._waiting and self._working < AT_ONCE:
            connection, page = self._waiting.popleft()
            self._working += 1
            self._loop.call_later(delay_of(page), self._finish, connection, page)

    def _finish(self, connection: Connection, page: int) -> None:
        self._working -= 1
        connection.send(answer_of(page))
        self._begin()


class Connection(asyncio.Protocol):
    """One client's connection, kept alive: a request at a time, answered in order."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _end, self._received = self._received.partition(b"\r\n\r\n")
            self._request(head.split(b"\r\n", 1)[0].decode("latin-1"))

    def _request(self, line: str) -> None:
        method, _space, rest = line.partition(" ")
        page = rest.partition(" ")[0].removeprefix("/page/")
        if method == "GET" and page.isdecimal():
            self._desk.accept(self, int(page))
        else:
            self.send(response("404 Not Found", "This server has only GET /page/N.\n"))

    def send(self, answer: bytes) -> None:
        """Sends `answer`, unless the client has gone meanwhile."""
        if self._transport is not None:
            self._transport.write(answer)


async def serve() -> None:
    """Serves until standard input ends."""
    loop = asyncio.get_running_loop()
    desk = Desk(loop)
    server = await loop.create_server(lambda: Connection(desk), "127.0.0.1", 0, backlog=1024)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"http://{host}:{port}", flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        pass
