"""The site that is crawled here: hosts on the loopback network that behave as hosts do.

    python -m crawler site --port 8700 --hosts 8 --pages 3000

Host `i` listens on 127.0.0.(i + 1). What page `n` of host `i` is, how long it takes and where it links belong to the page
and the seed, so every crawl of the site meets the same pages. A host works on a few requests at a time, lets the others
wait, and answers 429 to whoever asks faster than its robots.txt allows (with `--patient` it answers late instead). It
counts what it served: `/-/log` tells.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import math
import os
import random
import signal
import sys
from collections import Counter, deque
from functools import lru_cache
from typing import NamedTuple

from aiohttp import web

from crawler.errors import CrawlError

MEDIAN_S = 0.120
SIGMA = 0.4  # of the delay's logarithm: nine pages in ten take 62 to 232 ms
AT_ONCE = 16  # requests that a host works on at the same time
RATE = 25  # requests a second that a host allows
WORDS = [
    "warp",
    "weft",
    "heddle",
    "shuttle",
    "loom",
    "treadle",
    "selvedge",
    "bobbin",
    "reed",
    "twill",
    "sley",
    "pick",
]

# How many pages of a hundred behave so; the rest are ordinary.
SHARES = {
    "slow": 3.0,  # one to two seconds more
    "flaky": 5.0,  # 503 once or twice, then the page
    "missing": 2.5,  # 404
    "moved": 3.0,  # a redirect to another page
    "cut": 0.4,  # the connection ends within the page, each time
    "hanging": 0.4,  # the page begins and never ends
    "silent": 0.3,  # no answer at all
    "picture": 1.5,  # not HTML
}
STORABLE = frozenset(("ordinary", "slow", "flaky"))
ENDLESS = frozenset(("hanging", "silent"))
FREE_PORTS = 20  # that are tried until one is free on every host


class Nature(NamedTuple):
    """What a page is. `failures` is how many requests a flaky one fails."""

    kind: str
    delay: float
    failures: int
    links: tuple[tuple[int, int], ...]  # (host, page)
    private: tuple[int, ...]  # pages under /private/, which robots.txt forbids


class Site:
    """All pages of all hosts, as a pure function of the sizes and the seed. Without `endless` every page ends."""

    def __init__(
        self, hosts: int = 8, pages: int = 3000, seed: int = 5, endless: bool = True
    ) -> None:
        self.hosts = hosts
        self.pages = pages
        self.seed = seed
        self.endless = endless

    @lru_cache(maxsize=4096)  # noqa: B019 (a site lives as long as its program)
    def nature(self, host: int, page: int) -> Nature:
        """What page `page` of host `host` is. Page 0 of every host is ordinary."""
        chance = random.Random(f"{self.seed}/{host}/{page}")
        delay = MEDIAN_S * math.exp(chance.gauss(0, SIGMA))
        draw, kind = chance.random() * 100, "ordinary"
        for name, share in SHARES.items():
            draw -= share
            if draw < 0 and page > 0:
                kind = name if self.endless or name not in ENDLESS else "ordinary"
                break
        if kind == "slow":
            delay += chance.uniform(1, 2)
        each = max(1, self.pages // self.hosts)
        near = [(host, child) for child in (2 * page + 1, 2 * page + 2) if child < each]
        far = [(chance.randrange(self.hosts), chance.randrange(each)) for _ in range(6)]
        if kind == "moved":
            near, far = [], far[:1]
        private = (page,) if chance.random() < 0.02 else ()
        return Nature(kind, delay, chance.randint(1, 2), tuple(near + far), private)

    def storable(self) -> set[tuple[int, int]]:
        """The pages that a patient crawl from page 0 of host 0 stores."""
        stored, seen, waiting = set(), {(0, 0)}, deque([(0, 0)])
        while waiting:
            page = waiting.popleft()
            nature = self.nature(*page)
            if nature.kind in STORABLE:
                stored.add(page)
            if nature.kind in STORABLE or nature.kind == "moved":
                fresh = [link for link in nature.links if link not in seen]
                seen.update(fresh)
                waiting.extend(dict.fromkeys(fresh))
        return stored

    def path(self, page: int) -> str:
        """Where page number `page` of any host is."""
        return f"/page/{page}" if page else "/"


class Host:
    """One listening host: its desk, its rate, its counts."""

    def __init__(self, site: Site, number: int, port: int, patient: bool) -> None:
        self.patient = patient
        self.turn = 0.0  # when a patient host takes the next request
        self.site = site
        self.number = number
        self.port = port
        self.desk = asyncio.Semaphore(AT_ONCE)
        self.recent: deque[float] = deque()
        self.asked: Counter[str] = Counter()  # requests for each path
        self.served: Counter[str] = Counter()  # whole pages for each path
        self.crowded = 0
        self.fastest = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to any request."""
        path = request.path
        if path == "/-/log":
            return web.json_response(self.log())
        self.asked[path] += 1
        if path == "/robots.txt":
            return web.Response(
                text=f"User-agent: *\nDisallow: /private/\nRequest-rate: {RATE}/1\n"
            )
        number = 0 if path == "/" else -1
        if path.startswith("/page/") and path[6:].isdecimal():
            number = int(path[6:])
        if not 0 <= number < max(1, self.site.pages // self.site.hosts):
            return web.Response(status=404, text="There is no such page.\n")
        if self.patient:
            await self.await_turn()
        elif self.too_fast():
            self.crowded += 1
            return web.Response(status=429, headers={"Retry-After": "1"}, text="Too fast.\n")
        nature = self.site.nature(self.number, number)
        async with self.desk:
            await asyncio.sleep(nature.delay)
        return await self.page(request, path, number, nature)

    async def await_turn(self) -> None:
        """Waits until this request is within the rate."""
        now = asyncio.get_running_loop().time()
        self.turn = max(self.turn + 1 / RATE, now)
        await asyncio.sleep(self.turn - now)

    def too_fast(self) -> bool:
        """Counts a request; whether the last second saw more than a quarter above the rate."""
        now = asyncio.get_running_loop().time()
        self.recent.append(now)
        while self.recent[0] < now - 1:
            self.recent.popleft()
        self.fastest = max(self.fastest, len(self.recent))
        return len(self.recent) > RATE * 1.25

    async def page(
        self, request: web.BaseRequest, path: str, number: int, nature: Nature
    ) -> web.StreamResponse:
        """Page `number` as its nature wants it."""
        if nature.kind == "missing":
            return web.Response(status=404, text="There is no such page any more.\n")
        if nature.kind == "picture":
            return web.Response(body=b"\xff\xd8\xff", content_type="image/jpeg")
        if nature.kind == "moved":
            raise web.HTTPMovedPermanently(self.address(*nature.links[0]))
        if nature.kind == "flaky" and self.asked[path] <= nature.failures:
            return web.Response(status=503, text="Not now.\n")
        if nature.kind == "silent":
            await self.nothing(request)
            return web.Response(status=500)
        body = self.markup(number, nature).encode()
        if nature.kind in ("cut", "hanging"):
            answer = web.StreamResponse(headers={"Content-Type": "text/html; charset=utf-8"})
            answer.content_length = len(body)
            await answer.prepare(request)
            await answer.write(body[: len(body) // 2])
            if nature.kind == "hanging":
                await self.nothing(request)
            if request.transport is not None:
                request.transport.close()
            return answer
        self.served[path] += 1
        return web.Response(body=body, headers={"Content-Type": "text/html; charset=utf-8"})

    async def nothing(self, request: web.BaseRequest) -> None:
        """Says nothing until the client has gone."""
        while request.transport is not None and not request.transport.is_closing():
            await asyncio.sleep(0.5)

    def address(self, host: int, page: int) -> str:
        """The address of a page of any host."""
        return f"http://127.0.0.{host + 1}:{self.port}{self.site.path(page)}"

    def markup(self, number: int, nature: Nature) -> str:
        """The HTML of a page: 2 to 14 KiB."""
        chance = random.Random(f"{self.number}/{number}")
        paragraphs = "".join(
            f"<p>{' '.join(chance.choices(WORDS, k=60))}.</p>\n"
            for _ in range(chance.randint(4, 32))
        )
        links = "".join(
            f'<li><a href="{self.address(host, page)}#top">page {page}</a></li>\n'
            for host, page in nature.links
        )
        links += "".join(
            f'<li><a href="/private/{page}">private</a></li>' for page in nature.private
        )
        return (
            f"<!doctype html><html><head><title>Page {number} of host {self.number}</title>"
            f"<style>p {{ margin: 1em }}</style></head>\n<body>{paragraphs}<ul>{links}</ul></body></html>\n"
        )

    def log(self) -> dict[str, object]:
        """What this host saw; `most_in_a_second` counts requests for pages."""
        return {
            "asked": dict(self.asked),
            "served": dict(self.served),
            "crowded": self.crowded,
            "most_in_a_second": self.fastest,
        }


async def listen(site: Site, port: int, patient: bool) -> list[asyncio.Server]:
    """All hosts, listening on one port; 0 stands for one that is free on the first host.

    Raises:
        CrawlError: a host cannot listen; then none does.
    """
    loop = asyncio.get_running_loop()
    listening: list[asyncio.Server] = []
    try:
        for number in range(site.hosts):
            host = Host(site, number, port, patient)
            server = web.Server(host.answer, access_log=None)
            name = f"127.0.0.{number + 1}"
            try:
                bound = await loop.create_server(server, name, port, backlog=1024)
            except OSError as error:
                taken = error.errno == errno.EADDRINUSE
                raise CrawlError(
                    f"cannot listen on {name}:{port}: {os.strerror(error.errno or 0)}",
                    "another program has the port; end it, or choose one with --port"
                    if taken
                    else "choose another port with --port",
                ) from error
            host.port = port = bound.sockets[0].getsockname()[1]
            listening.append(bound)
    except BaseException:
        for bound in listening:
            bound.close()
        raise
    return listening


async def serve(site: Site, port: int, patient: bool = False) -> None:
    """Serves until SIGTERM or SIGINT; the first line on stdout is the address of the first page.

    Raises:
        CrawlError: the port is taken.
    """
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for ending in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(ending, over.set)
    for left in reversed(range(1 if port else FREE_PORTS)):
        try:
            listening = await listen(site, port, patient)
            break
        except CrawlError:
            if not left:
                raise
    try:
        print(f"http://127.0.0.1:{listening[0].sockets[0].getsockname()[1]}/", flush=True)
        await over.wait()
    finally:
        for bound in listening:
            bound.close()


def main(options: argparse.Namespace) -> None:
    """`python -m crawler site`."""
    try:
        site = Site(options.hosts, options.pages, options.seed, options.endless)
        asyncio.run(serve(site, options.port, options.patient))
    except KeyboardInterrupt:
        print("the site is closed", file=sys.stderr)
