"""The whole server, from outside: what clients see, what a killed worker and a killed server cost, what is said at the start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import treadle

from live import client as clients
from live import dataset, reports, server
from live.desk import Desk, workers
from live.errors import Refused, ServerError
from live.measure import Phase, Talk, light, running_server, table, talking
from live.queue import Queue
from live.schedule import parse
from live.trial import DECISION, FOLDER
from tests.test_queue import small_disk

TWO = ("--workers", "2")
WATCHDOG_S = 60


def against(path: Path, scene: Callable[[str], Coroutine[Any, Any, None]], *options: str) -> None:
    """Plays a scene against a running server with its queue in this file."""
    with running_server(path, *TWO, *options) as (_process, address):
        asyncio.run(asyncio.wait_for(scene(address), WATCHDOG_S))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the queue is."""
    return tmp_path / "queue.sqlite"


def test_light_requests_are_answered_and_wrong_ones_are_told(path: Path) -> None:
    totals = dataset.totals(dataset.make())

    async def scene(address: str) -> None:
        async with talking(address, "ann") as ann:
            for region in dataset.REGIONS:
                assert (await ann.ask("total", region=region))["total"] == totals[region]
            wrong = [
                ({"do": "total", "region": "up"}, "there is no region 'up'"),
                ({"do": "total", "region": ["north"]}, "there is no region ['north']"),
                ({"do": "dance"}, "cannot do 'dance'; there are total, submit"),
                ({"do": "submit", "report": "gossip"}, "there is no report 'gossip'"),
                ({"do": "submit", "report": "forecast", "parameters": {"rounds": 1}}, "from 20 to"),
                (
                    {"do": "submit", "report": "forecast", "parameters": {"x": 1}},
                    "takes rounds, not x",
                ),
                ({"do": "cancel", "job": "1"}, "must be the number of a job"),
                ({"do": "cancel", "job": 99}, "there is no job 99"),
            ]
            for message, said in wrong:
                answer = await ann.ask(**message)
                assert said in answer["error"], answer
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{address}ws") as raw:
                for text in ("no JSON", "[1]", '"do"'):
                    await raw.send_str(text)
                    assert "error" in await raw.receive_json()
                await raw.send_bytes(b"\0")
                assert (await raw.receive_json())["error"] == "send JSON as text"
            async with session.get(f"{address}ws", params={"name": "x" * 65}) as answer:
                assert answer.status == 400
            elsewhere = {"Origin": "https://elsewhere.example"}
            async with session.get(f"{address}ws", headers=elsewhere) as answer:
                assert answer.status == 403
            async with session.get(address) as answer:
                assert "<title>live" in await answer.text()
            async with session.get(f"{address}health") as answer:
                assert (answer.status, await answer.json()) == (200, {"problem": ""})

    against(path, scene)


def test_a_job_tells_its_progress_and_its_result(path: Path) -> None:
    async def scene(address: str) -> None:
        async with talking(address, "ann") as ann, talking(address, "bob") as bob:
            job = (await ann.ask("submit", report="forecast", parameters={"rounds": 20}))["job"]
            assert (await ann.event("started"))["attempt"] == 1
            shares = []
            while True:
                event = await ann.event("progress", "done", job=job)
                if event["event"] == "done":
                    break
                shares.append(event["share"])
            assert shares == sorted(shares)
            assert 0 < shares[0] < 1
            assert set(event["result"]["stores"]) == {str(store) for store in range(dataset.STORES)}
            answer = await ann.ask("result", job=job)
            assert (answer["state"], answer["result"]) == ("done", event["result"])
            assert [one["state"] for one in (await ann.ask("jobs"))["jobs"]] == ["done"]
            # It is nobody else's.
            assert (await bob.ask("result", job=job))["error"] == f"there is no job {job}"
            assert (await bob.ask("jobs"))["jobs"] == []

    against(path, scene)


def test_a_running_job_and_a_waiting_one_may_be_cancelled(path: Path) -> None:
    async def scene(address: str) -> None:
        async with talking(address, "ann") as ann, talking(address, "bob") as bob:
            long = {"report": "forecast", "parameters": {"rounds": 20_000}}
            jobs = [(await ann.ask("submit", **long))["job"] for _job in range(3)]
            for job in jobs[:2]:
                await ann.event("started", job=job)
            await ann.event("progress")
            assert "error" in await bob.ask("cancel", job=jobs[0])
            assert (await ann.ask("cancel", job=jobs[2]))["cancelled"]
            assert (await ann.ask("cancel", job=jobs[0]))["cancelled"]
            assert not (await ann.ask("cancel", job=jobs[0]))["cancelled"]
            assert (await ann.ask("cancel", job=jobs[1]))["cancelled"]
            states = {one["job"]: one["state"] for one in (await ann.ask("jobs"))["jobs"]}
            assert states == dict.fromkeys(jobs, "cancelled")
            # The workers are free for others.
            job = (await bob.ask("submit", report="overview"))["job"]
            assert (await bob.event("done", "failed", job=job))["event"] == "done"

    against(path, scene)


def test_a_job_that_is_cancelled_as_it_is_taken_is_cancelled(path: Path) -> None:
    async def scene() -> None:
        queue = Queue(path)
        events: list[str] = []
        desk = Desk(
            queue,
            dataset.make(),
            lambda job, event, told: events.append(event),
            workers(treadle.Plan(processes=1)),
        )
        disk, ended, begun = desk.disk, asyncio.Event(), asyncio.Event()

        async def held(call: Callable[..., Any], *arguments: Any) -> Any:
            result = await disk(call, *arguments)
            if call == queue.take and result is not None:
                await ended.wait()
            if call == queue.end and not ended.is_set():
                # The job is taken, and cancelled on the disk; now the desk begins with it.
                ended.set()
                await begun.wait()
            return result

        desk.disk = held  # type: ignore[method-assign]
        begin = desk._begin
        desk._begin = lambda job: (begin(job), begun.set())  # type: ignore
        try:
            await desk.open()
            number = await desk.submit("ann", "overview", {})
            assert await desk.cancel(number)
            assert number not in desk.running
            assert (await disk(queue.job, number)).state == "cancelled"
            assert events == ["started", "cancelled"]
        finally:
            await desk.close()
            queue.close()

    asyncio.run(asyncio.wait_for(scene(), WATCHDOG_S))


async def busy_worker(watcher: Talk, job: int) -> int:
    """The process that is at a job."""
    while True:
        look = await watcher.event("look")
        for worker in look["workers"]:
            if worker["job"] == job:
                return int(worker["pid"])


def test_a_killed_worker_costs_one_retried_job(path: Path) -> None:
    async def scene(address: str) -> None:
        async with talking(address, "ann") as ann, talking(address, "page") as page:
            await page.ask("watch")
            long = {"report": "forecast", "parameters": {"rounds": 1500}}
            struck = (await ann.ask("submit", **long))["job"]
            other = (await ann.ask("submit", **long))["job"]
            os.kill(await busy_worker(page, struck), signal.SIGKILL)
            event = await ann.event("waiting", job=struck)
            assert (
                event["problem"] == "its worker was killed by signal 9 (SIGKILL); it is tried again"
            )
            ended = {}
            while len(ended) < 2:
                event = await ann.event("done", "failed")
                ended[event["job"]] = event["event"]
            assert ended == {struck: "done", other: "done"}
            attempts = {one["job"]: one["attempts"] for one in (await ann.ask("jobs"))["jobs"]}
            assert attempts == {struck: 2, other: 1}
            look = await page.event("look")
            assert look["retried"] == 1

    against(path, scene)


def test_a_job_that_kills_its_workers_is_given_up(path: Path) -> None:
    async def scene(address: str) -> None:
        async with talking(address, "ann") as ann, talking(address, "page") as page:
            await page.ask("watch")
            job = (await ann.ask("submit", report="forecast", parameters={"rounds": 20_000}))["job"]
            for event in ("waiting", "waiting", "failed"):
                os.kill(await busy_worker(page, job), signal.SIGKILL)
                told = await ann.event(event, job=job)
            assert told["problem"].startswith("its workers died 3 times; the last one was killed")
            fine = (await ann.ask("submit", report="overview"))["job"]
            assert (await ann.event("done", job=fine))["result"]["regions"]

    against(path, scene)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_ended_resumes_its_queue(path: Path, how: signal.Signals) -> None:
    jobs: list[int] = []

    async def begin(address: str, process: subprocess.Popen[str]) -> None:
        async with talking(address, "ann") as ann:
            for _job in range(5):
                jobs.append((await ann.ask("submit", report="forecast"))["job"])
            await ann.event("started", job=jobs[1])
            process.send_signal(how)
            await ann.event("gone")

    async def go_on(address: str) -> None:
        async with talking(address, "ann") as ann:
            while True:
                known = (await ann.ask("jobs"))["jobs"]
                if all(job["state"] == "done" for job in known):
                    break
                await ann.event("done")
            assert sorted(job["job"] for job in known) == jobs
            attempts = {job["job"]: job["attempts"] for job in known}
            # A killed server cannot say that it was not the job's fault; one that was asked to end can.
            assert attempts == {job: 2 if job in running else 1 for job in jobs}

    with running_server(path, *TWO) as (process, address):
        asyncio.run(asyncio.wait_for(begin(address, process), WATCHDOG_S))
        assert process.wait() == (0 if how == signal.SIGTERM else -how)
    queue = Queue(path)
    left = {job.job: job.state for job in queue.of_client("ann")}
    queue.close()
    running = [job for job, state in left.items() if state == "running"]
    assert list(left) == jobs[::-1]
    assert (how == signal.SIGKILL) == bool(running)
    assert "failed" not in left.values()
    against(path, go_on)


def test_periodic_jobs_come_by_themselves(path: Path) -> None:
    async def scene(address: str) -> None:
        async with talking(address, "page") as page:
            await page.ask("watch")
            while True:
                look = await page.event("look")
                done = [job for job in look["jobs"] if job["state"] == "done"]
                if len(done) >= 2:
                    break
            assert {job["client"] for job in done} == {"schedule: every 1 s"}
            assert [entry["rule"] for entry in look["schedule"]] == ["every 1 s", "0 4 * * 1"]

    against(path, scene, "-s", "1s=overview", "-s", "0 4 * * 1=forecast")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("30s=gossip", "names no report"),
        ("forecast", "names no report"),
        ("0s=forecast", "'0s' is no time"),
        ("61 * * * *=forecast", "is no time"),
        ("* * *=forecast", "is no time"),
    ],
)
def test_a_schedule_that_cannot_be_is_named(text: str, said: str) -> None:
    with pytest.raises(ServerError, match=said) as caught:
        parse(text)
    assert caught.value.hint


def test_a_locked_queue_refuses_a_job_and_the_server_lives_on(path: Path) -> None:
    async def scene(address: str) -> None:
        async with talking(address, "ann") as ann:
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            refused = await ann.ask("submit", report="overview")
            assert "database is locked" in refused["error"]
            assert "total" in await ann.ask("total", region="north")
            other.execute("ROLLBACK")
            other.close()
            job = (await ann.ask("submit", report="overview"))["job"]
            assert (await ann.event("done", job=job))["result"]

    against(path, scene)


def test_an_outcome_waits_for_a_queue_that_is_locked(path: Path) -> None:
    async def scene(address: str) -> None:
        async with talking(address, "ann") as ann, talking(address, "page") as page:
            await page.ask("watch")
            job = (await ann.ask("submit", report="forecast"))["job"]
            await ann.event("progress", job=job)
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            while "locked" not in (await page.event("look"))["problem"]:
                pass
            with pytest.raises(urllib.error.HTTPError, match="503"):
                await asyncio.to_thread(urllib.request.urlopen, f"{address}health")
            other.execute("ROLLBACK")
            other.close()
            await ann.event("done", job=job)
            assert (await ann.ask("result", job=job))["state"] == "done"
            while (await page.event("look"))["problem"]:
                pass

    against(path, scene)


def test_a_full_disk_refuses_jobs_and_keeps_outcomes(tmp_path: Path) -> None:
    disk = tmp_path / "disk"

    async def scene(address: str) -> None:
        async with talking(address, "ann") as ann, talking(address, "page") as page:
            await page.ask("watch")
            job = (await ann.ask("submit", report="forecast"))["job"]
            await ann.event("progress", job=job)
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * 4096)
            answer = await ann.ask("submit", report="overview")
            assert "full" in answer["error"] or "disk I/O" in answer["error"], answer
            assert "total" in await ann.ask("total", region="north")
            while not (await page.event("look", "problem"))["problem"]:
                pass
            filler.unlink()
            assert (await ann.event("done", "failed", job=job))["event"] == "done"
            job = (await ann.ask("submit", report="overview"))["job"]
            assert (await ann.event("done", "failed", job=job))["event"] == "done"

    with small_disk(disk, "1M"):
        against(disk / "queue.sqlite", scene)


def serve(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "live", "serve", *map(str, arguments)]
    return subprocess.run(
        command, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=WATCHDOG_S
    )


def test_what_keeps_a_server_from_starting_is_named(path: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        wrong = serve("--port", port, "--queue", path, *TWO)
    assert wrong.returncode == 1
    assert f"error: cannot listen on 127.0.0.1:{port}: " in wrong.stderr
    assert "Address already in use\nhint: another program has the port" in wrong.stderr
    assert not path.exists()

    wrong = serve("--host", "no host", "--queue", path, *TWO)
    assert "error: cannot listen on no host:8765: " in wrong.stderr
    assert "\nhint: choose another --host or --port" in wrong.stderr

    wrong = serve("--queue", tmp_path / "nowhere" / "queue.sqlite", *TWO)
    assert "error: cannot open" in wrong.stderr

    (tmp_path / "treadle.toml").write_text("[decision.report]\nplan = { threads = 4 }\n")
    wrong = serve("--queue", path, "--decisions", tmp_path)
    assert "error: the plan threads=4 does not run reports in processes\nhint: " in wrong.stderr
    assert not path.exists()

    with running_server(path, *TWO):
        wrong = serve("--queue", path, "--port", "0", *TWO)
        assert f"error: another server uses {path}\nhint: " in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_pool_that_is_broken_ends_the_server_and_keeps_the_jobs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An initializer that fails, in every worker.
    monkeypatch.setattr(reports, "make_way", os.nice)
    queue = Queue(path)
    number = queue.add("ann", "overview", {})
    queue.close()
    serving = server.serve("127.0.0.1", 0, path, [], treadle.Plan(processes=1))
    with pytest.raises(ServerError, match=r"no report can be run any more: .*initializer"):
        asyncio.run(asyncio.wait_for(serving, WATCHDOG_S))
    queue = Queue(path)
    job = queue.job(number)
    assert (job.state, job.attempts) == ("waiting", 0)
    queue.close()


def test_many_clients_are_held(path: Path) -> None:
    async def scene(address: str) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            names = [{"name": f"client-{number}"} for number in range(300)]
            sockets = [session.ws_connect(f"{address}ws", params=name) for name in names]
            talks = [Talk(socket) for socket in await asyncio.gather(*sockets)]
            assert len(await light(talks, 0.5, 400)) > 100
            async with talking(address, "page") as page:
                await page.ask("watch")
                assert (await page.event("look"))["clients"] == 301
                for talk in talks:
                    await talk.close()
                while (await page.event("look"))["clients"] > 1:
                    pass

    against(path, scene)


class Deaf:
    """A websocket whose other end reads nothing."""

    closed = False

    def __init__(self) -> None:
        self.code = 0
        self.gone = asyncio.Event()

    async def send_str(self, text: str) -> None:
        await asyncio.Event().wait()

    async def close(self, *, code: int, message: bytes) -> None:
        self.code = code
        self.gone.set()


def test_a_client_that_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "OUTBOX", 5)

    async def scene() -> None:
        deaf: Any = Deaf()
        client = clients.Client(deaf, "deaf")
        for number in range(6):
            client.tell({"event": "progress", "job": number})
            await asyncio.sleep(0)
        assert deaf.code == 0
        client.tell({"event": "progress", "job": 7})
        await deaf.gone.wait()
        assert deaf.code == 1013

    asyncio.run(asyncio.wait_for(scene(), WATCHDOG_S))


def test_reports_are_right() -> None:
    sales = dataset.make()
    told: list[float] = []
    regions = reports.overview(sales, told.append)["regions"]
    assert {name: one["revenue"] for name, one in regions.items()} == dataset.totals(sales)
    assert sum(one["sales"] for one in regions.values()) == dataset.ROWS
    assert told[-1] == 1.0
    flat = [100.0 + 10 * (day % 7 == 3) for day in range(140)]
    assert reports.smoothed(flat) == pytest.approx([100 + 10 * (day % 7 == 3) for day in range(14)])
    for wrong in ("gossip", ["forecast"], None):
        with pytest.raises(Refused):
            reports.checked(wrong, {})


def test_the_table_compares_busy_with_idle() -> None:
    phases = [Phase("idle", 10, 0.001, 0.002, 0.003), Phase("busy", 10, 0.001, 0.003, 0.004)]
    found = {"phases": phases, "clients": 7, "connected_s": 1.0, "memory": 2**20, "done": 3}
    found |= {"plan": "processes=2", "worker": [1, 1, 2], "server": [2, 1, 2]}
    told = table(found)
    assert "p99 1.50 times, +1.00 ms; 3 reports" in told
    assert "| a worker | 3 | 1 |\n| a server | 3 | 2 |" in told


def test_the_decided_plan_runs(path: Path) -> None:
    async def scene(address: str) -> None:
        async with talking(address, "page") as page:
            await page.ask("watch")
            with treadle.Executor.decided(DECISION, FOLDER) as executor:
                assert (await page.event("look"))["plan"] == str(executor.plan)

    with running_server(path) as (_process, address):
        asyncio.run(asyncio.wait_for(scene(address), WATCHDOG_S))
