"""The server: one loop that holds every client and answers light requests at once; whatever is heavy goes to the desk."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import logging
import os
import resource
import secrets
import signal
import socket
import sys
import time
from collections import deque
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import treadle
from aiohttp import WSCloseCode, WSMsgType, web

from live import dataset, reports
from live.client import Client
from live.desk import Desk, workers
from live.errors import QueueError, Refused, ServerError
from live.queue import Job, Queue
from live.schedule import Entry, Schedule

LOG = logging.getLogger("live")
PAGE = Path(__file__).with_name("page.html")
LARGEST = 64 * 1024  # bytes of a client's message
LOOK_S = 0.5  # between two looks of the page
LAG_S = 0.05  # between two looks at how late the loop is
OPEN_FILES = 16_384
BACKLOG = 4096  # clients that may wait to be let in
WIDTH = 64  # characters of a client's name


class Server:
    """All that the loop holds. Made and used on the loop."""

    def __init__(self, queue: Queue, executor: treadle.Executor) -> None:
        sales = dataset.make()
        self.totals = dataset.totals(sales)
        self.desk = Desk(queue, sales, self.happened, executor)
        self.schedule = Schedule(self.desk, [])
        self.clients: dict[str, set[Client]] = {}
        self.count = 0
        self.requests = 0
        self._rates: deque[tuple[float, int]] = deque(maxlen=11)
        self._lags: deque[float] = deque(maxlen=int(10 / LAG_S))
        self._began = time.time()

    # What clients ask

    async def socket(self, request: web.Request) -> web.StreamResponse:
        """`GET /ws?name=NAME`: a client, until it goes."""
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            # A browser says which site's script connects; one of another site would act for whoever reads that site.
            raise web.HTTPForbidden(text="only this server's own page may connect from a browser\n")
        name = request.query.get("name", "") or f"guest-{secrets.token_hex(4)}"
        if len(name) > WIDTH or not name.isprintable():
            raise web.HTTPBadRequest(text=f"a name has at most {WIDTH} printable characters\n")
        if name.startswith("schedule:"):
            raise web.HTTPBadRequest(text="names that begin with schedule: are the server's own\n")
        socket = web.WebSocketResponse(heartbeat=30, max_msg_size=LARGEST, compress=False)
        await socket.prepare(request)
        client = Client(socket, name)
        self.clients.setdefault(name, set()).add(client)
        self.count += 1
        try:
            async for message in socket:
                if message.type == WSMsgType.TEXT:
                    self.requests += 1
                    await socket.send_str(json.dumps(await self.answer(client, message.data)))
                elif message.type == WSMsgType.BINARY:
                    await socket.send_str(json.dumps({"re": None, "error": "send JSON as text"}))
        except ConnectionError:
            pass  # it went while it was being answered
        finally:
            self.count -= 1
            self.clients[name].discard(client)
            if not self.clients[name]:
                del self.clients[name]
        return socket

    async def answer(self, client: Client, text: str) -> dict[str, Any]:
        """The answer to a message; `re` is the `id` of what it answers."""
        number = None
        try:
            try:
                message = json.loads(text)
            except ValueError as error:
                raise Refused(f"this is not JSON: {error}") from error
            if not isinstance(message, dict):
                raise Refused("a message is an object")
            number = message.get("id")
            return {"re": number} | await self.carry_out(client, message)
        except (Refused, QueueError) as error:
            return {"re": number, "error": str(error)}

    async def carry_out(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        """Does what a message asks for. Raises Refused, QueueError."""
        wish = message.get("do")
        if wish == "total":
            region = message.get("region")
            if not isinstance(region, str) or region not in self.totals:
                raise Refused(f"there is no region {region!r}; there are {', '.join(self.totals)}")
            return {"total": self.totals[region]}
        if wish == "submit":
            report, parameters = reports.checked(
                message.get("report"), message.get("parameters", {})
            )
            return {"job": await self.desk.submit(client.name, report, parameters)}
        if wish == "cancel":
            job = await self.own_job(client, message)
            return {"cancelled": await self.desk.cancel(job.job)}
        if wish == "result":
            job = await self.own_job(client, message)
            result = await self.desk.disk(self.desk.queue.result, job.job)
            return {"state": job.state, "problem": job.problem, "result": result}
        if wish == "jobs":
            jobs = await self.desk.disk(self.desk.queue.of_client, client.name)
            return {"jobs": [self.shown(job) for job in jobs]}
        if wish == "watch":
            client.watches = True
            return {"watching": True}
        raise Refused(f"cannot do {wish!r}; there are total, submit, cancel, result, jobs, watch")

    async def own_job(self, client: Client, message: dict[str, Any]) -> Job:
        """The job that a message names, if this client may see it. Raises Refused, QueueError."""
        number = message.get("job")
        if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < 2**63:
            raise Refused("job must be the number of a job")
        job: Job = await self.desk.disk(self.desk.queue.job, number)
        if job.client != client.name and not client.watches:
            raise Refused(f"there is no job {number}")  # nor does it learn whose it is
        return job

    # What clients hear

    def happened(self, job: Job, event: str, told: dict[str, Any]) -> None:
        """Tells the clients whose job it is."""
        for client in self.clients.get(job.client, ()):
            client.tell({"event": event, "job": job.job} | told)

    def shown(self, job: Job) -> dict[str, Any]:
        """A job as clients see it."""
        running = self.desk.running.get(job.job)
        seen = job._asdict()
        if running is not None:
            seen |= {"share": round(running.share, 3), "worker": running.worker}
        return seen

    async def look(self) -> dict[str, Any]:
        """All that the page shows."""
        queue, stats = self.desk.queue, self.desk.executor.stats()
        at_work = {running.worker: running for running in self.desk.running.values()}
        seen = []
        for worker in stats.workers:
            running = at_work.get(worker.worker) if worker.state == "busy" else None
            seen.append(
                {
                    "worker": worker.worker,
                    "pid": worker.ident,
                    "state": worker.state,
                    "tasks": worker.tasks,
                    "restarts": worker.restarts,
                    "running_s": round(worker.running_s, 1),
                    "job": running.job.job if running else None,
                    "report": running.job.report if running else None,
                    "share": round(running.share, 3) if running else None,
                }
            )
        now = time.monotonic()
        self._rates.append((now, self.requests))
        then, before = self._rates[0]
        lags = sorted(self._lags)
        return {
            "event": "look",
            "clients": self.count,
            "requests_per_s": (self.requests - before) / (now - then) if now > then else 0,
            "lag_ms": 1000 * lags[int(0.99 * len(lags))] if lags else 0,
            "memory": resident(),
            "up_s": time.time() - self._began,
            "plan": str(stats.plan),
            "worker_deaths": stats.worker_deaths,
            "retried": self.desk.retried,
            "problem": self.desk.problem,
            "queue": await self.desk.disk(queue.counts),
            "busiest": [
                {
                    "name": name,
                    "running": run,
                    "waiting": wait,
                    "here": len(self.clients.get(name, ())),
                }
                for name, run, wait in await self.desk.disk(queue.busiest, 5)
            ],
            "workers": seen,
            "jobs": [self.shown(job) for job in await self.desk.disk(queue.latest, 8)],
            "schedule": self.schedule.coming(),
        }

    async def show(self) -> None:
        """Sends looks to those who watch, as long as the server lives."""
        while True:
            await asyncio.sleep(LOOK_S)
            watching = [one for those in self.clients.values() for one in those if one.watches]
            if not watching:
                self._rates.clear()
                continue
            try:
                seen = await self.look()
            except QueueError as error:
                seen = {"event": "problem", "problem": str(error)}
            for client in watching:
                client.tell(seen)

    async def watch_lag(self) -> None:
        """Notes how late the loop comes to what is due."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_S
            await asyncio.sleep(LAG_S)
            self._lags.append(loop.time() - due)

    # The rest of HTTP

    async def page(self, request: web.Request) -> web.StreamResponse:
        """`GET /`."""
        return web.Response(text=PAGE.read_text(encoding="utf-8"), content_type="text/html")

    async def health(self, request: web.Request) -> web.StreamResponse:
        """`GET /health`: 503 while the queue cannot be written."""
        problem = self.desk.problem
        return web.json_response({"problem": problem}, status=503 if problem else 200)


def resident() -> int:
    """The bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def serve(
    host: str,
    port: int,
    path: Path,
    entries: list[Entry],
    plan: treadle.Plan | None = None,
    decisions: str | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT; the first line on stdout is the address.

    Raises:
        ServerError: it cannot start, or no job can be run any more.
        treadle.RecordError: there is no decided plan.
    """
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    # The queue last: where there is no plan or no port, no file is made.
    with (
        workers(plan, decisions) as executor,
        bound(host, port) as listening,
        closing(Queue(path)) as queue,
    ):
        server = Server(queue, executor)
        server.schedule = Schedule(server.desk, entries)
        try:
            await listen(server, listening, over)
        finally:
            await server.desk.close()


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens at this address.

    Raises:
        ServerError: it cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _kind, _protocol, _name, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        hint = "choose another --host or --port"
        if error.errno == errno.EADDRINUSE:
            hint = "another program has the port; end it, or choose one with --port"
        known = error.errno is not None and error.errno > 0
        reason = os.strerror(error.errno or 0) if known else error.strerror
        raise ServerError(f"cannot listen on {host}:{port}: {reason}", hint) from error


async def listen(server: Server, listening: socket.socket, over: asyncio.Event) -> None:
    """From the first client to the last one's goodbye."""
    application = web.Application()
    application.router.add_get("/", server.page)
    application.router.add_get("/ws", server.socket)
    application.router.add_get("/health", server.health)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=2)
    await runner.setup()
    tasks: list[asyncio.Task[None]] = []
    try:
        await web.SockSite(runner, listening, backlog=BACKLOG).start()
        resumed = await server.desk.open()
        if resumed:
            LOG.info("%d jobs were running when the former server ended; they wait again", resumed)
        server.schedule.start()
        tasks = [asyncio.create_task(server.show()), asyncio.create_task(server.watch_lag())]
        # What was made until now stays: the collector of garbage need not look at it for each client.
        gc.collect()
        gc.freeze()
        host, port = listening.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        print(f"http://{host}:{port}/", flush=True)
        server.desk.broken.add_done_callback(lambda _broken: over.set())
        await over.wait()
        if server.desk.broken.done():
            broken = server.desk.broken.exception()
            raise ServerError(f"no report can be run any more: {broken}") from broken
    finally:
        server.schedule.stop()
        for task in tasks:
            task.cancel()
        clients = [client for those in server.clients.values() for client in those]
        goodbye = [
            client.socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server ends")
            for client in clients
        ]
        try:
            await asyncio.wait_for(asyncio.gather(*goodbye, return_exceptions=True), timeout=2)
        except asyncio.TimeoutError:
            pass  # some do not answer
        await runner.cleanup()


def raise_open_files() -> None:
    """Lifts the soft limit on open files: each client needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(
    host: str, port: int, path: Path, entries: list[Entry], count: int | None, decisions: Path
) -> None:
    """`python -m live serve`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    raise_open_files()
    plan = treadle.Plan(processes=count) if count else None
    asyncio.run(serve(host, port, path, entries, plan, str(decisions)))
