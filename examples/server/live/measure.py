"""The measurement: many clients held by one server, their light requests timed with idle and with busy workers.

    python -m live measure

prints the table that the README shows. The clients are connections of one other process, at the machine's usual priority;
each sends a light request now and then, at its own times. A request is timed from before it is sent until its answer is
read, so that time in which the measuring process itself is held up counts against the server. Then a worker is killed at
its work, and a server, and it is counted what became of their jobs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from live.dataset import REGIONS
from live.errors import ServerError
from live.server import raise_open_files
from live.trial import FOLDER

SETTLE_S = 1.0  # after the clients are there, and after the workers became busy or idle
TURNS = 3  # of idle and of busy workers
JOBS = 6  # in the queue when a worker, or the server, is killed
LONG = {"report": "forecast", "parameters": {"rounds": 800}}  # a job that is met at work


class Phase(NamedTuple):
    """The light requests of some seconds: how many, and quantiles of their times in seconds."""

    name: str
    requests: int
    p50: float
    p99: float
    worst: float


@contextmanager
def running_server(
    queue: Path, *options: str, **how: Any
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Runs `python -m live serve` on a free port; gives its process and address.

    Raises:
        ServerError: it did not start; it has said why on stderr.
    """
    command = [sys.executable, "-m", "live", "serve", "--port", "0", "--queue", str(queue)]
    process = subprocess.Popen(
        [*command, *options], cwd=FOLDER, stdout=subprocess.PIPE, text=True, **how
    )
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address:
            raise ServerError("the server did not start", "its message is above")
        yield process, address
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait()
        process.stdout.close()


class Talk:
    """A client that keeps answers apart from events."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse[Any]) -> None:
        self._socket = socket
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    async def ask(self, do: str, **rest: Any) -> dict[str, Any]:
        """Sends a request and waits for its answer."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_str(json.dumps({"id": number, "do": do, **rest}))
        return await answer

    async def event(self, *names: str, job: int | None = None) -> dict[str, Any]:
        """The next event of one of these names (and of this job); others are passed over."""
        while True:
            event = await self.events.get()
            if event["event"] in names and job in (None, event.get("job")):
                return event

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "event" in told:
                self.events.put_nowait(told)
            else:
                answer = self._answers.pop(told["re"])
                if not answer.done():
                    answer.set_result(told)
        gone = ConnectionError("the server has closed the connection")
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(gone)
        self.events.put_nowait({"event": "gone"})

    async def close(self) -> None:
        """Says goodbye."""
        await self._socket.close()
        await self._reader


@asynccontextmanager
async def talking(address: str, name: str) -> AsyncIterator[Talk]:
    """A client of this name for the length of a `with` block."""
    async with aiohttp.ClientSession() as session:
        talk = Talk(await session.ws_connect(f"{address}ws", params={"name": name}))
        try:
            yield talk
        finally:
            await talk.close()


async def light(talks: list[Talk], seconds: float, rate: float, seed: int = 1) -> list[float]:
    """Light requests of all clients, `rate` a second in all, at times of their own (a Poisson process); how long each took."""
    chance = random.Random(seed)
    times: list[float] = []

    async def one(talk: Talk) -> None:
        began = time.perf_counter()
        answer = await talk.ask("total", region=chance.choice(REGIONS))
        times.append(time.perf_counter() - began)
        assert "total" in answer, answer

    asked: set[asyncio.Task[None]] = set()
    due = time.perf_counter()
    end = due + seconds
    while due < end:
        due += chance.expovariate(rate)
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        asked.add(asyncio.create_task(one(chance.choice(talks))))
    await asyncio.gather(*asked)
    return times


def phase(name: str, times: list[float]) -> Phase:
    """The quantiles of some times."""
    times = sorted(times)
    return Phase(name, len(times), times[len(times) // 2], times[int(0.99 * len(times))], times[-1])


async def measure(address: str, clients: int, seconds: float, rate: float) -> dict[str, Any]:
    """Both phases, `seconds` of each, and what the server says of itself."""
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        talks: list[Talk] = []
        began = time.perf_counter()
        while len(talks) < clients:
            names = range(len(talks), min(clients, len(talks) + 100))
            sockets = [session.ws_connect(f"{address}ws", params={"name": f"c{n}"}) for n in names]
            talks += [Talk(socket) for socket in await asyncio.gather(*sockets)]
        connected_s = time.perf_counter() - began
        page = await stack.enter_async_context(talking(address, "page"))
        await page.ask("watch")
        look = await page.event("look")
        gc.collect()
        gc.freeze()
        await asyncio.sleep(SETTLE_S)
        reporter = await stack.enter_async_context(talking(address, "reporter"))
        idle: list[float] = []
        busy: list[float] = []
        # By turns, so that a slow minute of the machine falls on both.
        for turn in range(TURNS):
            idle += await light(talks, seconds / TURNS, rate, turn)
            # Enough for the whole turn; what is left is cancelled.
            jobs = [(await reporter.ask("submit", report="forecast"))["job"] for _job in range(60)]
            await reporter.event("started")
            await asyncio.sleep(SETTLE_S)
            busy += await light(talks, seconds / TURNS, rate, turn)
            after = await page.event("look")
            while page.events.qsize():
                after = await page.event("look")
            for job in jobs:
                await reporter.ask("cancel", job=job)
            await asyncio.sleep(SETTLE_S)
        for talk in talks:
            await talk.close()
    return {
        "phases": [phase("workers idle", idle), phase("all workers busy", busy)],
        "clients": look["clients"] - 1,
        "connected_s": connected_s,
        "memory": look["memory"],
        "done": after["queue"].get("done", 0),
        "busy": sum(worker["state"] == "busy" for worker in after["workers"]),
        "plan": after["plan"],
    }


async def strike(address: str) -> int:
    """Submits jobs and waits until one is at work; the process of its worker."""
    async with talking(address, "reporter") as reporter, talking(address, "page") as page:
        for _job in range(JOBS):
            await reporter.ask("submit", **LONG)
        await page.ask("watch")
        while True:
            look = await page.event("look")
            for worker in look["workers"]:
                if worker["job"] is not None:
                    return int(worker["pid"])


async def attempts(address: str) -> list[int]:
    """Waits until the jobs have ended; how many attempts each took that is done."""
    async with talking(address, "reporter") as reporter:
        while True:
            jobs = (await reporter.ask("jobs"))["jobs"]
            if all(job["ended_at"] for job in jobs):
                return [job["attempts"] for job in jobs if job["state"] == "done"]
            await reporter.event("done", "failed", "cancelled")


def survival(folder: Path, options: tuple[str, ...]) -> dict[str, list[int]]:
    """The attempts that jobs took whose worker, and whose server, was killed."""
    with running_server(folder / "worker.sqlite", *options) as (_process, address):
        os.kill(asyncio.run(strike(address)), signal.SIGKILL)
        worker = asyncio.run(attempts(address))
    with running_server(folder / "server.sqlite", *options) as (process, address):
        asyncio.run(strike(address))
        process.kill()
        process.wait()
    with running_server(folder / "server.sqlite", *options) as (_process, address):
        return {"worker": worker, "server": asyncio.run(attempts(address))}


def table(found: dict[str, Any]) -> str:
    """What was measured, in Markdown."""
    idle, busy = found["phases"]
    lines = [
        f"{found['clients']:,} clients, connected in {found['connected_s']:.1f} s; the server then had"
        f" {found['memory'] / 2**20:.0f} MiB. Reports under {found['plan']}.",
        "",
        "| light requests while | number | p50 | p99 | slowest |",
        "|---|---|---|---|---|",
    ]
    for phase in (idle, busy):
        lines.append(
            f"| {phase.name} | {phase.requests:,} | {1000 * phase.p50:.2f} ms"
            f" | {1000 * phase.p99:.2f} ms | {1000 * phase.worst:.1f} ms |"
        )
    lines += [
        "",
        f"Busy against idle: p99 {busy.p99 / idle.p99:.2f} times,"
        f" {1000 * (busy.p99 - idle.p99):+.2f} ms; {found['done']} reports done meanwhile.",
        "",
        f"| killed with {JOBS} jobs in the queue | jobs done | at a second attempt |",
        "|---|---|---|",
    ]
    for what in ("worker", "server"):
        each = found[what]
        lines.append(f"| a {what} | {len(each)} | {sum(times > 1 for times in each)} |")
    return "\n".join(lines)


def main(options: argparse.Namespace) -> int:
    """`python -m live measure`: the table on stdout; exit code 1 if a client was not held, no worker was busy, or a job was lost."""
    raise_open_files()
    clients = 200 if options.short else options.clients
    seconds = 3.0 if options.short else options.seconds
    workers = ("--workers", str(options.workers)) if options.workers else ()
    with tempfile.TemporaryDirectory(prefix="live-") as name:
        folder = Path(name)
        with running_server(folder / "queue.sqlite", *workers) as (_process, address):
            found = asyncio.run(measure(address, clients, seconds, options.rate))
        found |= survival(folder, workers)
    print(table(found))
    whole = all(len(found[what]) == JOBS for what in ("worker", "server"))
    return int(found["clients"] != clients or not found["busy"] or not whole)
