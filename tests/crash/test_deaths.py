"""Workers that die, hang, stop or grow: what it costs, and what is said."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import os
import pickle
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crash_calls as calls
import pytest
import treadle

Make = Callable[..., treadle.Executor]


def check_pool(pool: treadle.Executor, count: int = 100) -> None:
    """The pool still runs everything that it is given."""
    futures = [pool.submit(calls.double, number) for number in range(count)]
    assert [future.result() for future in futures] == [2 * number for number in range(count)]


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
@pytest.mark.parametrize(
    ("call", "arguments", "told"),
    [
        (calls.exit_now, (7,), r"exit.* 7"),
        (calls.exit_now, (0,), r"exit.* 0"),
        (calls.kill_myself, (signal.SIGKILL,), "SIGKILL"),
        (calls.kill_myself, (signal.SIGTERM,), "SIGTERM"),
        (calls.segfault, (), "SIGSEGV"),
        (calls.abort, (), "SIGABRT"),
    ],
    ids=["exit-7", "exit-0", "kill", "terminate", "segfault", "abort"],
)
def test_a_death_costs_its_own_task_and_is_told(
    pool_of: Make, start: str, call: Callable[..., None], arguments: tuple[Any, ...], told: str
) -> None:
    pool = pool_of(2, mp_context=start)
    before = [pool.submit(calls.double, number) for number in range(200)]
    fatal = pool.submit(call, *arguments)
    after = [pool.submit(calls.double, number) for number in range(200)]
    error = fatal.exception()
    assert isinstance(error, treadle.WorkerDied)
    assert isinstance(error, concurrent.futures.BrokenExecutor)
    assert isinstance(error, treadle.TreadleError)
    assert re.search(told, str(error)), str(error)
    assert f"pid {error.pid}" in str(error)
    assert error.deaths == 1
    # The 201st call, counted in the order of submission.
    assert (error.task, error.function) == (201, f"crash_calls.{call.__name__}")
    assert f"task 201 (crash_calls.{call.__name__})" in str(error)
    assert repr(pickle.loads(pickle.dumps(error))) == repr(error)
    for futures in (before, after):
        assert [future.result() for future in futures] == [2 * number for number in range(200)]
    check_pool(pool)
    stats = pool.stats()
    assert (stats.worker_deaths, stats.lost) == (1, 1)
    assert stats.submitted == stats.completed + stats.lost


class Fatal:
    """Calls that travel with their function."""

    def end(self, code: int) -> None:
        os._exit(code)

    def __call__(self) -> None:
        os._exit(1)


@pytest.mark.parametrize(
    ("call", "arguments", "name"),
    [
        (functools.partial(calls.exit_now, 3), (), "crash_calls.exit_now"),
        (Fatal().end, (4,), "Fatal.end"),
        (Fatal(), (), "Fatal"),
        (lambda: os._exit(5), (), "<lambda>"),
    ],
    ids=["partial", "method", "object", "lambda"],
)
def test_a_call_that_carries_its_function_is_named(
    pool_of: Make, call: Callable[..., None], arguments: tuple[Any, ...], name: str
) -> None:
    error = pool_of(1).submit(call, *arguments).exception()
    assert isinstance(error, treadle.WorkerDied)
    assert error.function.endswith(name)


def test_a_task_whose_worker_dies_is_retried_on_another(pool_of: Make, tmp_path: Path) -> None:
    pool = pool_of(2)
    mine = pool.options(retries=2).submit(calls.die_first, str(tmp_path), 2)
    assert isinstance(mine.result(), int)
    stats = pool.stats()
    assert (stats.worker_deaths, stats.retried, stats.lost) == (2, 2, 0)


def test_a_task_that_kills_three_workers_is_failed(pool_of: Make) -> None:
    pool = pool_of(2)
    error = pool.options(retries=50).submit(calls.exit_now, 4).exception()
    assert isinstance(error, treadle.WorkerDied)
    assert error.deaths == 3
    assert "killed 3 workers" in str(error)
    check_pool(pool)
    assert pool.stats().worker_deaths == 3


@pytest.mark.parametrize("chunksize", [1, 10])
def test_a_death_in_a_map_comes_in_its_place(pool_of: Make, chunksize: int) -> None:
    pool = pool_of(2)
    results = pool.map(calls.die_at, range(100), [55] * 100, chunksize=chunksize)
    seen = []
    with pytest.raises(treadle.WorkerDied):
        seen.extend(results)
    assert seen == list(range(55))
    check_pool(pool)


def test_every_worker_may_die_at_once(pool_of: Make, arrivals: Any) -> None:
    pool = pool_of(3)
    for _ in range(3):
        hanging = [pool.submit(calls.hang, arrivals.path) for _ in range(3)]
        arrivals.expect(3)
        waiting = [pool.submit(calls.double, number) for number in range(100)]
        for worker in pool.stats().workers:
            os.kill(worker.ident, signal.SIGKILL)
        for future in hanging:
            assert isinstance(future.exception(), treadle.WorkerDied)
        assert [future.result() for future in waiting] == [2 * k for k in range(100)]
    check_pool(pool)


def test_idle_workers_may_die(pool_of: Make) -> None:
    pool = pool_of(2)
    check_pool(pool)
    for _ in range(3):
        pids = [worker.ident for worker in pool.stats().workers if worker.ident]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            calls.await_end_of(pid)
        check_pool(pool)


def zygote_of(pool: treadle.Executor) -> int:
    worker = pool.submit(calls.process_id).result()
    stat = Path(f"/proc/{worker}/stat").read_text()
    return int(stat.rsplit(")", 1)[1].split()[1])


def test_the_zygote_may_die(pool_of: Make, arrivals: Any) -> None:
    pool = pool_of(2)
    for _ in range(3):
        zygote = zygote_of(pool)
        assert zygote != os.getpid()
        hanging = [pool.submit(calls.hang, arrivals.path) for _ in range(2)]
        arrivals.expect(2)
        waiting = [pool.submit(calls.double, number) for number in range(50)]
        os.kill(zygote, signal.SIGKILL)
        for future in hanging:
            assert isinstance(future.exception(), treadle.WorkerDied)
        assert [future.result() for future in waiting] == [2 * k for k in range(50)]
        assert zygote_of(pool) != zygote


def test_the_zygote_may_die_while_nothing_runs(pool_of: Make) -> None:
    pool = pool_of(2)
    zygote = zygote_of(pool)
    os.kill(zygote, signal.SIGKILL)
    calls.await_end_of(zygote)
    check_pool(pool)


def test_workers_that_die_one_after_another_break_the_pool(pool_of: Make) -> None:
    pool = pool_of(2, initializer=calls.die_in_initializer)
    futures = [pool.submit(calls.double, number) for number in range(20)]
    for future in futures:
        error = future.exception()
        assert isinstance(error, treadle.PoolBroken)
    assert "one after another" in str(error)
    assert "exit" in str(error)
    with pytest.raises(treadle.PoolBroken):
        pool.submit(calls.double, 1)
    pool.shutdown()


def test_tasks_that_all_kill_their_workers_end(pool_of: Make) -> None:
    pool = pool_of(2)
    futures = [pool.submit(calls.exit_now, 1) for _ in range(60)]
    for future in futures:
        assert isinstance(future.exception(), (treadle.WorkerDied, treadle.PoolBroken))


def test_a_stopped_worker_goes_on_later(pool_of: Make) -> None:
    pool = pool_of(1)
    pid = pool.submit(calls.process_id).result()
    for _ in range(3):
        os.kill(pid, signal.SIGSTOP)
        future = pool.submit(calls.process_id)
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(timeout=0.1)
        os.kill(pid, signal.SIGCONT)
        assert future.result() == pid


def test_a_stopped_worker_does_not_hold_up_the_others(pool_of: Make) -> None:
    pool = pool_of(2)
    check_pool(pool)
    stopped = pool.stats().workers[0].ident
    os.kill(stopped, signal.SIGSTOP)
    try:
        # One of these may sit in the stopped worker's hands; not more.
        futures = [pool.submit(calls.double, number) for number in range(200)]
        ended = concurrent.futures.as_completed(futures)
        assert len(list(itertools.islice(ended, 199))) == 199
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert [future.result() for future in futures] == [2 * number for number in range(200)]


@pytest.mark.parametrize("call", [calls.hang, calls.hang_in_c])
def test_a_task_over_its_time_costs_its_worker_and_no_other(
    pool_of: Make, arrivals: Any, call: Callable[..., None]
) -> None:
    pool = pool_of(2)
    hanging = pool.options(timeout=0.3).submit(call, arrivals.path)
    arrivals.expect()
    neighbour = pool.submit(calls.hang, arrivals.path)
    arrivals.expect()
    waiting = [pool.submit(calls.double, number) for number in range(20)]
    with pytest.raises(
        treadle.TaskTimeout, match=r"task 1 \(crash_calls\.hang\w*\) .* \(pid \d+\) was replaced"
    ) as told:
        hanging.result()
    assert (told.value.task, told.value.function) == (1, f"crash_calls.{call.__name__}")
    assert told.value.pid
    assert told.value.worker in (0, 1)
    assert [future.result() for future in waiting] == [2 * number for number in range(20)]
    assert neighbour.running()
    assert neighbour.interrupt(grace=60)
    error = neighbour.exception()
    assert isinstance(error, treadle.TaskInterrupted)
    assert (error.task, error.function) == (2, "crash_calls.hang")
    assert "task 2 (crash_calls.hang) was interrupted" in str(error)
    assert f"pid {error.pid}" in str(error)


def test_an_interrupt_reaches_code_that_holds_the_interpreters_lock(
    pool_of: Make, arrivals: Any
) -> None:
    pool = pool_of(1)
    future = pool.submit(calls.hang_in_c, arrivals.path)
    arrivals.expect()
    told = pool.dump()
    assert "crash_calls.py" in told
    assert "in hang_in_c" in told
    assert future.interrupt(grace=0.05)
    error = future.exception()
    assert isinstance(error, treadle.TaskInterrupted)
    assert (error.task, error.function) == (1, "crash_calls.hang_in_c")
    assert (
        f"(crash_calls.hang_in_c) was interrupted; it did not stop by itself, so its worker (pid {error.pid})"
        in str(error)
    )
    check_pool(pool)


def test_dump_shows_the_stack_of_a_hanging_task_and_a_stopped_worker(
    pool_of: Make, arrivals: Any
) -> None:
    pool = pool_of(2)
    future = pool.submit(calls.hang, arrivals.path)
    arrivals.expect()
    told = pool.dump()
    assert "crash_calls.py" in told
    assert "in hang" in told
    busy = next(worker.ident for worker in pool.stats().workers if worker.state == "busy")
    os.kill(busy, signal.SIGSTOP)
    assert "did not answer" in pool.dump()
    os.kill(busy, signal.SIGCONT)
    assert future.interrupt(grace=60)


def test_workers_are_replaced_after_their_tasks(pool_of: Make) -> None:
    pool = pool_of(1, max_tasks_per_child=3)
    pids = [pool.submit(calls.process_id).result() for _ in range(10)]
    assert len(set(pids)) >= 4
    for pid in set(pids):
        assert pids.count(pid) <= 3
    check_pool(pool)
    assert pool.stats().worker_deaths == 0


def test_workers_that_grew_are_replaced(pool_of: Make) -> None:
    pool = pool_of(1, max_memory_per_child=100 << 20)
    first = pool.submit(calls.grow, 1).result()
    seen = {first}
    # It looks at its memory now and then, not after each task.
    while len(seen) < 3:
        seen.add(pool.submit(calls.grow, 30).result())
    check_pool(pool)
    assert pool.stats().worker_deaths == 0


def test_what_a_task_has_freed_is_no_growth(pool_of: Make) -> None:
    pool = pool_of(1, max_memory_per_child=30 << 20)
    # Longer apart than it looks at its memory.
    assert len({pool.submit(calls.use_and_free, 60, 0.02).result() for _ in range(10)}) == 1


def test_native_threads_are_told_to_workers(pool_of: Make) -> None:
    assert pool_of(1, native_threads=3).submit(calls.native_threads).result() == "3"


def test_a_nested_pool_divides_the_share_of_its_worker(
    pool_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    outer = pool_of(1, native_threads=2)
    # What the pool set is not the user's wish; what the user set, is.
    cores = int(treadle.usable_cores())
    assert outer.submit(calls.nested_native_threads, 1).result() == str(cores)
    assert outer.submit(calls.nested_native_threads, 2 * cores).result() == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert pool_of(1).submit(calls.nested_native_threads, 1).result() == "7"
