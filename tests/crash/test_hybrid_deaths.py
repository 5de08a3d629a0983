"""Processes of several threads or coroutines that die: what it costs, and what is said."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crash_calls as calls
import pytest
import treadle

Make = Callable[..., treadle.Executor]


async def wait(ready: str) -> None:
    """As ``hang``, on a loop."""
    calls.tell(ready)
    await asyncio.Event().wait()


async def double(value: int) -> int:
    return 2 * value


async def block_in_c(ready: str) -> None:
    calls.hang_in_c(ready)


async def process_id() -> int:
    return os.getpid()


class Kind:
    """One of the two hybrids, and what it runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        asynchronous = name == "coroutines"
        self.hang: Callable[..., Any] = wait if asynchronous else calls.hang
        self.hang_in_c: Callable[..., Any] = block_in_c if asynchronous else calls.hang_in_c
        self.double: Callable[..., Any] = double if asynchronous else calls.double
        self.process_id: Callable[..., Any] = process_id if asynchronous else calls.process_id


@pytest.fixture(params=["threads", "coroutines"])
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    return Kind(request.param)


def check_pool(pool: treadle.Executor, kind: Kind) -> None:
    futures = [pool.submit(kind.double, number) for number in range(100)]
    assert [future.result() for future in futures] == [2 * number for number in range(100)]


def test_a_death_costs_what_its_process_was_running(
    pool_of: Make, arrivals: Any, kind: Kind
) -> None:
    pool = pool_of(2, **{kind.name: 3})
    hanging = [pool.submit(kind.hang, arrivals.path) for _ in range(6)]
    arrivals.expect(6)
    waiting = [pool.submit(kind.double, number) for number in range(50)]
    victim = pool.stats().workers[1].ident
    os.kill(victim, signal.SIGKILL)
    assert [future.result() for future in waiting] == [2 * number for number in range(50)]
    dead = [future for future in hanging if future.done()]
    assert len(dead) == 3
    for future in dead:
        error = future.exception()
        assert isinstance(error, treadle.WorkerDied)
        assert (error.pid, error.worker, error.deaths) == (victim, 1, 1)
        assert "SIGKILL" in str(error)
        assert error.task == hanging.index(future) + 1
        assert f"task {error.task} (" in str(error)
    assert all(future.running() for future in hanging if future not in dead)
    stats = pool.stats()
    assert (stats.worker_deaths, stats.lost) == (1, 3)


def test_each_of_them_is_retried(pool_of: Make, arrivals: Any, kind: Kind) -> None:
    pool = pool_of(2, **{kind.name: 2})
    hanging = [pool.options(retries=2).submit(kind.hang, arrivals.path) for _ in range(4)]
    arrivals.expect(4)
    os.kill(pool.stats().workers[0].ident, signal.SIGKILL)
    # The two that it ran come again, in the new process.
    arrivals.expect(2)
    assert not any(future.done() for future in hanging)
    stats = pool.stats()
    assert (stats.worker_deaths, stats.retried, stats.lost) == (1, 2, 0)


def test_an_idle_hybrid_may_die(pool_of: Make, kind: Kind) -> None:
    pool = pool_of(2, **{kind.name: 3})
    check_pool(pool, kind)
    for _ in range(3):
        pids = [worker.ident for worker in pool.stats().workers if worker.ident]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            calls.await_end_of(pid)
        check_pool(pool, kind)


def test_a_call_that_lets_nothing_else_run_costs_its_process(
    pool_of: Make, arrivals: Any, kind: Kind
) -> None:
    """It holds the interpreter's lock in C: its neighbours stand still with it. Those that may run again do, and lose no retry."""
    pool = pool_of(1, **{kind.name: 3})
    lost = pool.submit(kind.hang, arrivals.path)
    kept = pool.options(retries=1).submit(kind.hang, arrivals.path)
    arrivals.expect(2)
    stuck = pool.options(timeout=0.1).submit(kind.hang_in_c, arrivals.path)
    arrivals.expect()
    error = stuck.exception()
    assert isinstance(error, treadle.TaskTimeout)
    assert "was replaced" in str(error)
    # `kept` has come again.
    arrivals.expect()
    died = lost.exception()
    assert isinstance(died, treadle.WorkerDied)
    assert died.pid == error.pid
    assert "was killed by the pool, because task 3 (" in str(died)
    assert died.deaths == 0
    assert kept.running()
    stats = pool.stats()
    assert (stats.worker_deaths, stats.retried, stats.timed_out, stats.lost) == (0, 1, 1, 2)
    check_pool(pool, kind)


def await_stop(pid: int) -> None:
    """Returns when no thread of the process runs any more: the kernel stops them one by one."""
    states = {""}
    while states != {"T"}:
        states = {
            task.joinpath("stat").read_text().rpartition(")")[2].split()[0]
            for task in Path(f"/proc/{pid}/task").iterdir()
        }


def test_a_stopped_hybrid_goes_on_later(pool_of: Make, kind: Kind) -> None:
    pool = pool_of(1, **{kind.name: 2})
    pid = pool.submit(kind.process_id).result()
    os.kill(pid, signal.SIGSTOP)
    await_stop(pid)
    future = pool.submit(kind.process_id)
    with pytest.raises(TimeoutError):
        future.result(timeout=0.1)
    os.kill(pid, signal.SIGCONT)
    assert future.result() == pid


def test_a_loop_that_is_held_up_leaves_its_work_to_others(pool_of: Make, arrivals: Any) -> None:
    """A call that holds the interpreter's lock in C: what comes after it is run by the other process."""
    pool = pool_of(2, coroutines=4)
    stuck = pool.submit(block_in_c, arrivals.path)
    arrivals.expect()
    for number in range(30):
        assert pool.submit(double, number).result() == 2 * number
    futures = [pool.submit(double, number) for number in range(200)]
    assert [future.result() for future in futures] == [2 * number for number in range(200)]
    assert not stuck.done()
