"""The life of an executor: initializer, shutdown, drop, the interpreter's end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contract_calls as calls
import pytest
import treadle
from contract_calls import HYBRIDS, Gate

CONCURRENT = pytest.mark.ways("threads", "processes", "coroutines", "interpreters", *HYBRIDS)
EVERY = pytest.mark.ways(
    "serial", "threads", "processes", "spawn", "coroutines", "interpreters", *HYBRIDS
)


@EVERY
def test_submit_after_shutdown_is_refused(way: Any) -> None:
    pool = way.make()
    assert pool.submit(way.of(calls.double), 1).result() == 2
    pool.shutdown()
    with pytest.raises(treadle.PoolShutDown, match="after shutdown") as caught:
        pool.submit(way.of(calls.double), 1)
    assert isinstance(caught.value, RuntimeError)
    with pytest.raises(treadle.PoolShutDown):
        pool.options(retries=1).submit(way.of(calls.double), 1)
    pool.shutdown()
    pool.shutdown(wait=False, cancel_futures=True)


def test_a_pool_that_ran_nothing_shuts_down(way: Any) -> None:
    with way.make():
        pass
    way.make().shutdown(wait=True, cancel_futures=True)


@CONCURRENT
def test_shutdown_waits_for_what_was_submitted(way: Any, gate: Gate, marks: Path) -> None:
    pool = way.make(workers=1)
    held = pool.submit(way.of(gate), "held")
    gate.await_arrivals()
    rest = [pool.submit(way.of(calls.leave_a_mark), marks) for _ in range(20)]
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError):
        pool.submit(way.of(calls.double), 1)
    gate.open()
    pool.shutdown(wait=True)
    assert len(list(marks.iterdir())) == 20
    assert held.result() == "held"
    assert all(future.result() is None for future in rest)


@CONCURRENT
def test_shutdown_may_cancel_what_waits(way: Any, gate: Gate, marks: Path) -> None:
    pool = way.make(workers=1)
    held = pool.submit(way.of(gate), "held")
    gate.await_arrivals()
    told: list[Any] = []
    rest = [pool.submit(way.of(calls.leave_a_mark), marks) for _ in range(20)]
    for future in rest[:10]:
        future.add_done_callback(told.append)
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in rest)
    assert set(told) == set(rest[:10])
    gate.open()
    pool.shutdown(wait=True)
    assert held.result() == "held"
    assert list(marks.iterdir()) == []
    assert concurrent.futures.wait(rest, timeout=60).not_done == set()


@EVERY
def test_the_initializer_runs_before_the_first_call(way: Any) -> None:
    with way.make(initializer=calls.set_up_value, initargs=("ready",)) as pool:
        values = {pool.submit(way.of(calls.read_setting), "value").result() for _ in range(20)}
        assert values == {"ready"}


@CONCURRENT
def test_the_initializer_runs_once_in_each_worker(
    way: Any, marks: Path, new_gate: Callable[[], Gate]
) -> None:
    gate = new_gate()
    pool = way.make(workers=2, initializer=calls.set_up_and_mark, initargs=(marks,))
    futures = [pool.submit(way.of(gate)) for _ in range(2)]
    gate.await_arrivals(2)
    gate.open()
    for future in futures:
        future.result()
    for _ in range(20):
        pool.submit(way.of(calls.double), 1).result()
    assert len(list(marks.iterdir())) == (1 if way.name in ("coroutines", *HYBRIDS) else 2)


@EVERY
def test_an_initializer_that_fails_breaks_the_pool(way: Any) -> None:
    pool = way.make(initializer=calls.complain, initargs=("bad set-up",))
    with pytest.raises(concurrent.futures.BrokenExecutor, match="bad set-up") as caught:
        pool.submit(way.of(calls.double), 1).result()
    assert isinstance(caught.value, treadle.TreadleError)
    with pytest.raises(concurrent.futures.BrokenExecutor, match="bad set-up"):
        pool.submit(way.of(calls.double), 1).result()
    pool.shutdown()


@CONCURRENT
def test_an_initializer_that_fails_ends_every_waiting_call(way: Any) -> None:
    pool = way.make(initializer=calls.complain, initargs=("bad set-up",))
    futures = []
    try:
        for _ in range(200):
            futures.append(pool.submit(way.of(calls.double), 1))
    except concurrent.futures.BrokenExecutor:
        pass
    for future in futures:
        assert isinstance(future.exception(), concurrent.futures.BrokenExecutor)
    pool.shutdown()


def test_an_initializer_that_cannot_be_called_is_refused(way: Any) -> None:
    with pytest.raises(TypeError, match="callable"):
        way.make(initializer="no function")


@CONCURRENT
def test_a_dropped_executor_finishes_its_calls_and_leaves_nothing(way: Any, marks: Path) -> None:
    before = set(threading.enumerate())
    pool = treadle.Executor(**way.sizes(2))
    futures = [pool.submit(way.of(calls.leave_a_mark), marks) for _ in range(20)]
    workers = [worker.ident for worker in pool.stats().workers] if way.in_processes else []
    del pool
    gc.collect()
    assert all(future.result() is None for future in futures)
    assert len(list(marks.iterdir())) == 20
    del futures
    for thread in set(threading.enumerate()) - before:
        thread.join()
    for pid in filter(None, workers):
        await_end_of(pid)


def await_end_of(pid: int) -> None:
    """Blocks until this process is gone, whosever child it is."""
    import select

    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 60)[0], f"process {pid} lives on"
    finally:
        os.close(descriptor)


@CONCURRENT
def test_a_dropped_executor_runs_calls_whose_futures_are_dropped_too(way: Any, gate: Gate) -> None:
    pool = treadle.Executor(**way.sizes(1))
    for _ in range(5):
        pool.submit(way.of(gate))
    del pool
    gc.collect()
    gate.await_arrivals(1)
    gate.open()
    # The others come too, although nobody can ever ask for their results.
    gate_arrivals_after_opening(gate)


def gate_arrivals_after_opening(gate: Gate) -> None:
    """An open gate counts no more; that the first call came at all is what was to be shown."""
    assert gate._lock < 0


SCRIPT = """
import sys, treadle, contract_calls as calls, pathlib
if __name__ == "__main__":
    way, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    pool = treadle.Executor(**dict.fromkeys(way.split("+"), 2))
    call = calls.Awaited(calls.leave_a_mark) if "coroutines" in way else calls.leave_a_mark
    futures = [pool.submit(call, folder) for _ in range(50)]
    print("submitted", flush=True)
"""


def run_script(folder: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a program that has the calls of these tests on its path."""
    script = folder / "program.py"
    script.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(Path(calls.__file__).parent)}
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )


@CONCURRENT
def test_the_interpreter_ends_after_what_was_submitted(
    way: Any, marks: Path, tmp_path: Path
) -> None:
    ran = run_script(tmp_path, SCRIPT, way.name, str(marks))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "submitted\n", "")
    assert len(list(marks.iterdir())) == 50


@CONCURRENT
def test_sys_exit_ends_after_what_was_submitted(way: Any, marks: Path, tmp_path: Path) -> None:
    ran = run_script(tmp_path, SCRIPT + "    sys.exit(3)\n", way.name, str(marks))
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, "submitted\n", "")
    assert len(list(marks.iterdir())) == 50


@pytest.mark.ways("threads", "coroutines", "interpreters")
def test_ending_workers_is_for_processes(way: Any) -> None:
    with way.make() as pool:
        for end in (pool.terminate_workers, pool.kill_workers):
            with pytest.raises(ValueError, match="only processes"):
                end()


@pytest.mark.ways("processes", "spawn", *HYBRIDS)
@pytest.mark.parametrize("how", ["terminate_workers", "kill_workers"])
def test_workers_may_be_ended(way: Any, how: str, gate: Gate) -> None:
    pool = way.make()
    futures = [pool.submit(way.of(gate)) for _ in range(6)]
    gate.await_arrivals(2)
    pids = [worker.ident for worker in pool.stats().workers]
    getattr(pool, how)()
    for future in futures:
        assert future.cancelled() or isinstance(
            future.exception(), concurrent.futures.BrokenExecutor
        )
    pool.shutdown()
    for pid in pids:
        await_end_of(pid)


def test_an_executor_shows_its_plan(way: Any) -> None:
    with way.make() as pool:
        assert isinstance(pool.plan, treadle.Plan)
        assert pool.plan.strategy == ("hybrid" if way.name in HYBRIDS else way.name)
        assert str(pool.plan) in repr(pool)


@pytest.mark.parametrize("strategy", ["serial", "threads"])
def test_dropping_a_serial_executor_inside_a_coroutine_harms_nothing(strategy: str) -> None:
    async def seven() -> int:
        return 7

    # In this thread it has used the very loop that a serial coroutine runs on; in a thread of a pool, it has not.
    dropped = [treadle.Executor(treadle.Plan())]
    assert dropped[0].submit(seven).result() == 7

    async def drop() -> str:
        # The collector of garbage may do this at any place.
        dropped.pop()
        gc.collect()
        await asyncio.sleep(0)
        return "not cancelled"

    plan = treadle.Plan(threads=1) if strategy == "threads" else treadle.Plan()
    with treadle.Executor(plan) as pool:
        assert pool.submit(drop).result() == "not cancelled"
        assert pool.submit(seven).result() == 7
