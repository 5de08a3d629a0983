"""``serve_metrics``: what Prometheus reads, who may read it, and what is left afterwards."""

from __future__ import annotations

import errno
import gc
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest
import treadle
from treadle import _core

parser = pytest.importorskip("prometheus_client.parser")


@pytest.fixture
def server() -> Iterator[treadle.MetricsServer]:
    """An endpoint on a free port."""
    with treadle.serve_metrics(0) as server:
        yield server


class Scrape:
    """The samples of one answer."""

    def __init__(self, server: treadle.MetricsServer) -> None:
        with urllib.request.urlopen(server.url, timeout=30) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            text = answer.read().decode()
        self.families = {one.name: one for one in parser.text_string_to_metric_families(text)}
        self.samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in self.families.values():
            assert family.documentation, family.name
            assert family.type in ("counter", "gauge", "histogram"), family
            for sample in family.samples:
                series = sample.name, frozenset(sample.labels.items())
                assert series not in self.samples, f"twice: {series}"
                self.samples[series] = sample.value

    def __call__(self, name: str, **labels: str) -> float:
        """The one sample of this name with these labels among its own."""
        wanted = set(labels.items())
        (value,) = [
            value for (found, own), value in self.samples.items() if found == name and wanted <= own
        ]
        return value

    def total(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name with these labels among their own."""
        wanted = set(labels.items())
        return sum(
            value for (found, own), value in self.samples.items() if found == name and wanted <= own
        )

    def has(self, name: str, **labels: str) -> bool:
        """Whether there is such a sample."""
        wanted = set(labels.items())
        return any(found == name and wanted <= own for found, own in self.samples)


def square(number: int) -> int:
    """Some result."""
    return number * number


def fail(number: int) -> int:
    """An exception."""
    raise ValueError(number)


async def asquare(number: int) -> int:
    """Some result, from a coroutine."""
    return number * number


def read(path: str) -> str:
    """What comes through a pipe, at its end."""
    with open(path) as pipe:
        return pipe.read()


def leave(_: int) -> None:
    """The end of the worker."""
    os._exit(3)


PLANS: list[dict[str, Any]] = [{"threads": 2}, {"processes": 2}, {"coroutines": 4}]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: next(iter(plan)))
def test_tasks_are_counted(plan: dict[str, int], server: treadle.MetricsServer) -> None:
    (strategy,) = plan
    pool = {"pool": f"counted {strategy}", "strategy": strategy}
    work = asquare if strategy == "coroutines" else square
    with treadle.Executor(**plan, name=pool["pool"], max_pending=100) as executor:
        wait([executor.submit(work, number) for number in range(50)])
        # A future is done an instant before its worker says so.
        while executor.stats().completed < 50:
            executor.submit(work, 1).cancel()
        found = Scrape(server)
        assert found("treadle_executor_task_submitted_total", **pool) >= 50
        assert found("treadle_executor_task_completed_total", outcome="answered", **pool) >= 50
        assert found("treadle_executor_task_completed_total", outcome="lost", **pool) == 0
        assert found("treadle_executor_worker_max", **pool) == next(iter(plan.values()))
        assert found("treadle_executor_queue_limit", **pool) == 100
        assert found("treadle_executor_count", **pool) == 1
        states = ("idle", "busy")
        assert sum(found("treadle_executor_worker_count", state=one, **pool) for one in states) >= 1
        assert (
            found.has("treadle_executor_cpu_time_seconds_total", **pool) or strategy != "processes"
        )
        if strategy == "processes":
            assert found("treadle_executor_memory_usage_bytes", **pool) > 1_000_000
    assert found("process_cpu_seconds_total") > 0
    assert found("process_resident_memory_bytes") > 1_000_000


@pytest.mark.parametrize("plan", PLANS[:2], ids=lambda plan: next(iter(plan)))
def test_times_are_counted_in_buckets(plan: dict[str, int], server: treadle.MetricsServer) -> None:
    (strategy,) = plan
    pool = {"pool": f"timed {strategy}", "strategy": strategy}
    names = ["wait_time", "duration", *(["turnaround"] if strategy == "processes" else [])]
    with treadle.Executor(**plan, name=pool["pool"]) as executor:
        list(executor.map(square, range(40), chunksize=1))
        wait([executor.submit(time.sleep, 0.005) for _ in range(4)])
    found = Scrape(server)
    for name in names:
        family = f"treadle_executor_task_{name}_seconds"
        for function, count in ((f"{__name__}.square", 40), ("time.sleep", 4)):
            own = {**pool, "function": function}
            assert found(f"{family}_count", **own) == count
            below = sorted(
                (float(dict(labels)["le"]), value)
                for (sample, labels), value in found.samples.items()
                if sample == f"{family}_bucket" and set(own.items()) <= labels
            )
            assert [value for _, value in below] == sorted(value for _, value in below)
            assert below[-1] == (float("inf"), count)
            assert below[0][0] == 1.024e-06
            if name != "wait_time" and function == "time.sleep":
                long = count - max(value for bound, value in below if bound < 0.005)
                assert long == 4, "sleeping tasks lie above 4 ms"
                assert found(f"{family}_sum", **own) >= 0.02


@pytest.mark.parametrize("plan", PLANS[:2], ids=lambda plan: next(iter(plan)))
def test_the_age_of_the_oldest_waiting_task(
    plan: dict[str, int], server: treadle.MetricsServer, tmp_path: Path
) -> None:
    (strategy,) = plan
    pool = {"pool": f"old {strategy}", "strategy": strategy}
    gate = str(tmp_path / "gate")
    os.mkfifo(gate)
    with treadle.Executor(**{strategy: 1}, name=pool["pool"]) as executor:
        assert not Scrape(server).has("treadle_executor_queue_oldest_age_seconds", **pool)
        held = executor.submit(read, gate)
        writer = os.open(gate, os.O_WRONLY)  # waits until the task reads
        began = time.monotonic()
        waiting = executor.submit(square, 2)
        while time.monotonic() - began < 0.01:
            pass
        age = Scrape(server)("treadle_executor_queue_oldest_age_seconds", **pool)
        assert 0.01 <= age <= time.monotonic() - began
        os.close(writer)
        assert (held.result(), waiting.result()) == ("", 4)
    assert not Scrape(server).has("treadle_executor_queue_oldest_age_seconds", **pool)


def test_running_and_queued_tasks_are_told_apart(server: treadle.MetricsServer) -> None:
    go, busy = threading.Event(), threading.Barrier(3)

    def hold() -> None:
        busy.wait()
        go.wait()

    pool = {"pool": "held", "strategy": "threads"}
    with treadle.Executor(threads=2, name="held") as executor:
        for _ in range(2):
            executor.submit(hold)
        busy.wait()
        for number in range(7):
            executor.submit(square, number)
        found = Scrape(server)
        go.set()
    assert found("treadle_executor_task_count", state="running", **pool) == 2
    assert found("treadle_executor_task_count", state="queued", **pool) == 7
    assert found("treadle_executor_worker_count", state="busy", **pool) == 2


def test_counts_outlive_their_pool(server: treadle.MetricsServer) -> None:
    pool = {"pool": "short", "strategy": "threads"}
    totals = []
    for _ in range(3):
        with treadle.Executor(threads=1, name="short") as executor:
            list(executor.map(square, range(10)))
        del executor
        gc.collect()
        totals.append(Scrape(server)("treadle_executor_task_submitted_total", **pool))
    assert totals == [10, 20, 30]
    assert not Scrape(server).has("treadle_executor_task_count", **pool), "it lives no more"


def test_pools_of_one_name_are_one_series(server: treadle.MetricsServer) -> None:
    pool = {"pool": "twins", "strategy": "threads"}
    with (
        treadle.Executor(threads=1, name="twins") as one,
        treadle.Executor(threads=3, name="twins") as other,
    ):
        wait([one.submit(square, 1), other.submit(square, 1)])
        found = Scrape(server)
    assert found("treadle_executor_count", **pool) == 2
    assert found("treadle_executor_worker_max", **pool) == 4
    assert found("treadle_executor_task_submitted_total", **pool) == 2


def test_deaths_and_losses_are_told(server: treadle.MetricsServer) -> None:
    pool = {"pool": "mortal", "strategy": "processes"}
    with treadle.Executor(processes=1, name="mortal") as executor:
        with pytest.raises(treadle.WorkerDied):
            executor.submit(leave, 1).result()
        assert executor.submit(square, 3).result() == 9
        found = Scrape(server)
    assert found("treadle_executor_task_completed_total", outcome="lost", **pool) == 1
    assert found("treadle_executor_worker_deaths_total", **pool) == 1
    assert found("treadle_executor_worker_restarts_total", **pool) == 1


def test_labels_name_no_process_and_no_argument(server: treadle.MetricsServer) -> None:
    secret = 7_654_321
    with treadle.Executor(processes=1, name="discreet") as executor:
        assert executor.submit(square, secret).result() == secret * secret
        idents = {str(worker.ident) for worker in executor.stats().workers}
        found = Scrape(server)
    for name, labels in found.samples:
        assert {label for label, _ in labels} <= {
            "pool",
            "strategy",
            "function",
            "state",
            "outcome",
            "direction",
            "band",
            "interpreter",
            "part",
            "le",
        }, name
        values = {value for label, value in labels if label != "le"}
        assert not values & (idents | {str(secret), str(os.getpid())})


def test_what_travels_is_told_by_direction_and_band(server: treadle.MetricsServer) -> None:
    pool = {"pool": "moving", "strategy": "processes"}
    with treadle.Executor(processes=1, name="moving") as executor:
        assert executor.submit(len, bytes(1 << 20)).result() == 1 << 20
        assert executor.submit(bytes, 1 << 21).result() == bytes(1 << 21)
        found = Scrape(server)
    size, duration = "treadle_transfer_size_bytes", "treadle_transfer_duration_seconds"
    for direction, bytes_out in (("argument", 1 << 20), ("result", 1 << 21)):
        own = {**pool, "direction": direction}
        assert found(f"{size}_sum", band="out", **own) == bytes_out
        assert found(f"{size}_count", band="out", **own) == 1
        assert found(f"{size}_count", band="in", **own) == 2
        assert found(f"{duration}_count", **own) == 1
    assert not found.has(f"{size}_sum", strategy="threads")


def test_the_share_of_the_interpreter_lock(server: treadle.MetricsServer) -> None:
    if _core.LockWatch(100.0, 1.0).absent is not None:
        pytest.skip("the interpreter lock cannot be watched here")
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            pass

    with treadle.Executor(threads=1, name="holding") as executor:
        computing = executor.submit(compute)
        try:
            while not (found := Scrape(server)).has(
                "treadle_executor_gil_held_ratio", pool="holding"
            ):
                time.sleep(0.2)
        finally:
            stop.set()
        computing.result()
    assert 0.3 < found("treadle_executor_gil_held_ratio", pool="holding") <= 1
    assert 0.3 < found("treadle_gil_held_ratio", interpreter="main") <= 1
    assert found("treadle_observer_cpu_time_seconds_total", part="lock") > 0


def test_what_watching_costs_is_told(server: treadle.MetricsServer) -> None:
    with treadle.Executor(threads=1, name="costly") as executor:
        wait([executor.submit(square, number) for number in range(100)])
        before = Scrape(server)
        after = Scrape(server)
    name = "treadle_observer_cpu_time_seconds_total"
    assert after(name, part="meters") > 0
    assert after(name, part="endpoint") > before(name, part="endpoint")


def test_a_name_of_any_kind_is_escaped(server: treadle.MetricsServer) -> None:
    name = 'a "b" \\ c\n{d="e"} é'
    with treadle.Executor(threads=1, name=name):
        assert Scrape(server)("treadle_executor_count", pool=name) == 1


def test_counters_never_fall(server: treadle.MetricsServer) -> None:
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            with treadle.Executor(threads=2, name="falling") as executor:
                futures = [executor.submit(square, number) for number in range(20)]
                futures[-1].cancel()
                list(executor.map(square, range(5)))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        before: dict[Any, float] = {}
        for _ in range(30):
            found = Scrape(server)
            for series, value in found.samples.items():
                if series[0].endswith(("_total", "_count", "_bucket")) and "executor" in series[0]:
                    if series[0] == "treadle_executor_count" or "worker_count" in series[0]:
                        continue
                    if "task_count" in series[0]:
                        continue
                    assert value >= before.get(series, 0), series
                    before[series] = value
    finally:
        stop.set()
        thread.join()
    assert len(before) > 5


def test_other_paths_and_methods(server: treadle.MetricsServer) -> None:
    root = server.url.removesuffix("/metrics")
    with urllib.request.urlopen(root + "/") as answer:
        assert b"/metrics" in answer.read()
    for request, code in (
        (urllib.request.Request(root + "/else"), 404),
        (urllib.request.Request(server.url, data=b"x", method="POST"), 501),
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        with caught.value as error:
            assert error.code == code
    with urllib.request.urlopen(urllib.request.Request(server.url, method="HEAD")) as answer:
        assert answer.read() == b""


def test_it_listens_on_this_machine_alone(server: treadle.MetricsServer) -> None:
    assert server.host == "127.0.0.1"
    with treadle.serve_metrics(0, host="localhost") as named:
        assert named.host in ("127.0.0.1", "::1")
        assert Scrape(named).samples


def test_a_port_in_use_is_told_with_a_way_out(server: treadle.MetricsServer) -> None:
    with pytest.raises(treadle.ServingError, match=r"hint: .* 0 for a free one") as caught:
        treadle.serve_metrics(server.port)
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == errno.EADDRINUSE
    assert str(server.port) in str(caught.value)
    for host in ("203.0.113.1", "no.such.name.invalid"):
        with pytest.raises(treadle.ServingError, match="hint"):
            treadle.serve_metrics(0, host=host)


@pytest.mark.parametrize("port", [-1, 65536, "80", 80.0, True, None])
def test_a_port_that_is_none(port: Any) -> None:
    with pytest.raises(ValueError, match="whole number from 0 to 65535"):
        treadle.serve_metrics(port)


def test_stopping_frees_the_port_and_the_thread() -> None:
    server = treadle.serve_metrics(0)
    assert repr(server) == f"<treadle.MetricsServer {server.url}>"
    assert any(thread.name == "treadle-metrics" for thread in threading.enumerate())
    server.stop()
    server.stop()
    assert "stopped" in repr(server)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0
    with treadle.serve_metrics(server.port):
        pass
    assert not any(thread.name == "treadle-metrics" for thread in threading.enumerate())


PROGRAM = """
import os, socket, sys, treadle
kept = treadle.serve_metrics(0)
pool = treadle.Executor(threads=2)
pool.submit(pow, 2, 3).result()
if sys.argv[1] == "fork":
    child = os.fork()
    if child == 0:
        descriptors = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
        os._exit(sum(one.startswith("socket:") for one in descriptors))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    print(kept.port)
"""


def test_a_program_ends_although_it_serves() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "end"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(done.stdout))) != 0


def test_a_forked_child_does_not_listen() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, "fork"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "0", done
    assert done.stderr == ""
