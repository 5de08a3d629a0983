"""Tasks that wait for tasks, pools inside workers, and what workers say."""

from __future__ import annotations

import concurrent.futures
import logging
import pickle
import queue
import sys
import threading
import warnings
from typing import Any

import pytest
import treadle

_pool: treadle.Executor | None = None


def depth(levels: int) -> int:
    """Waits for a task of its own pool, which waits for another, and so on."""
    assert _pool is not None
    return 0 if levels == 0 else 1 + _pool.submit(depth, levels - 1).result()


def fan(width: int) -> list[int]:
    assert _pool is not None
    return [future.result() for future in [_pool.submit(depth, 2) for _ in range(width)]]


def test_a_thread_that_waits_for_its_own_pool_runs_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with treadle.Executor(threads=1) as pool:
        monkeypatch.setattr(sys.modules[__name__], "_pool", pool)
        assert pool.submit(depth, 20).result(timeout=60) == 20
        assert pool.submit(fan, 10).result(timeout=60) == [2] * 10
        counts = pool.stats()
        assert counts.submitted == counts.completed == 21 + 1 + 10 * 3


def awaited(kind: str, count: int) -> list[int]:
    """Waits for calls of its own pool in one of the standard library's ways; each of these does so too."""
    assert _pool is not None
    futures = [_pool.submit(depth, 2) for _ in range(count)]
    if kind == "as_completed":
        return [future.result() for future in concurrent.futures.as_completed(futures)]
    when = getattr(concurrent.futures, kind)
    left = set(futures)
    while left:
        _, left = concurrent.futures.wait(left, return_when=when)
    return [future.result() for future in futures]


def mapped(ordered: bool, levels: int) -> int:
    """Maps over its own pool, whose calls do so too."""
    assert _pool is not None
    if levels == 0:
        return 1
    return sum(_pool.map(mapped, [ordered] * 3, [levels - 1] * 3, ordered=ordered))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_thread_maps_over_its_own_pool(monkeypatch: pytest.MonkeyPatch, ordered: bool) -> None:
    with treadle.Executor(threads=1) as pool:
        monkeypatch.setattr(sys.modules[__name__], "_pool", pool)
        assert pool.submit(mapped, ordered, 3).result(timeout=60) == 27


def awaited_within(kind: str, levels: int) -> int:
    """Waits for one call of its own pool that waits for another."""
    assert _pool is not None
    if levels == 0:
        return sum(awaited(kind, 3))
    future = _pool.submit(awaited_within, kind, levels - 1)
    if kind == "as_completed":
        (ended,) = concurrent.futures.as_completed([future])
        return 1 + ended.result()
    concurrent.futures.wait([future], return_when=getattr(concurrent.futures, kind))
    return 1 + future.result()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "kind", ["as_completed", "ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]
)
def test_a_thread_waits_for_its_own_pool_in_the_standard_librarys_ways(
    monkeypatch: pytest.MonkeyPatch, kind: str, threads: int
) -> None:
    with treadle.Executor(threads=threads) as pool:
        monkeypatch.setattr(sys.modules[__name__], "_pool", pool)
        assert pool.submit(awaited, kind, 10).result(timeout=60) == [2] * 10
        assert pool.submit(awaited_within, kind, 5).result(timeout=60) == 5 + 3 * 2
        # More that wait than threads, at the same time.
        waiting = [pool.submit(awaited, kind, 5) for _ in range(20)]
        assert [future.result(timeout=60) for future in waiting] == [[2] * 5] * 20


def wait_for_nothing(gate: Any) -> tuple[int, int]:
    assert _pool is not None
    futures = [_pool.submit(gate), _pool.submit(abs, -1)]
    done, left = concurrent.futures.wait(futures, timeout=0)
    return len(done), len(left)


def test_a_wait_without_time_runs_nothing(monkeypatch: pytest.MonkeyPatch, gate: Any) -> None:
    with treadle.Executor(threads=1) as pool:
        monkeypatch.setattr(sys.modules[__name__], "_pool", pool)
        assert pool.submit(wait_for_nothing, gate).result(timeout=60) == (0, 2)
        gate.open()


def test_only_what_a_thread_waits_for_runs_in_it(
    monkeypatch: pytest.MonkeyPatch, gate: Any
) -> None:
    """A call that stands before the awaited one is not touched: it could wait for what this thread holds."""
    with treadle.Executor(threads=1) as pool:
        monkeypatch.setattr(sys.modules[__name__], "_pool", pool)
        ran: list[str] = []

        def wait_for_the_second() -> None:
            first = pool.submit(ran.append, "first")
            second = pool.submit(ran.append, "second")
            concurrent.futures.wait([second])
            assert not first.done()

        pool.submit(wait_for_the_second).result(timeout=60)
    assert ran == ["second", "first"]


def share_of_cores() -> tuple[float, int | None]:
    with treadle.Executor() as pool:
        return treadle.usable_cores(), pool.plan.threads


def nested(count: int) -> list[int]:
    with treadle.Executor(processes=2) as pool:
        return list(pool.map(abs, range(-count, 0)))


def test_a_pool_inside_a_worker_gets_its_share() -> None:
    workers = max(1, int(treadle.usable_cores()))
    with treadle.Executor(processes=workers) as pool:
        cores, threads = pool.submit(share_of_cores).result()
        assert cores == max(1.0, treadle.usable_cores() / workers)
        assert threads == int(cores) + 4


def test_a_pool_inside_a_worker_runs() -> None:
    with treadle.Executor(processes=1) as pool:
        assert pool.submit(nested, 5).result(timeout=60) == [5, 4, 3, 2, 1]


def test_neither_executor_nor_future_travels() -> None:
    with treadle.Executor(processes=1) as pool:
        future = pool.submit(abs, -1)
        with pytest.raises(treadle.PayloadError, match="wait for ever"):
            pickle.dumps(future)
        with pytest.raises(treadle.PayloadError, match="wait for ever"):
            pool.submit(repr, pool).result()
        # By value, too: a closure would carry them along.
        for held in (pool, future):
            with pytest.raises(treadle.PayloadError, match="wait for ever"):
                pool.submit(lambda held=held: held.result()).result()


def submit_to_itself(pool: Any) -> int:
    result: int = pool.submit(abs, -1).result()
    return result


def test_a_pool_that_would_wait_for_itself_is_found_as_the_cycle_closes() -> None:
    """The call that would take its own pool along fails where it is submitted, in a nested pool too."""
    with treadle.Executor(processes=1) as pool:
        future = pool.submit(submit_to_itself, pool)
        assert isinstance(future.exception(timeout=60), treadle.PayloadError)
        told = pool.submit(nested_cycle).result(timeout=60)
        assert "wait for ever" in told


def nested_cycle() -> str:
    with treadle.Executor(processes=1) as inner:
        return str(inner.submit(submit_to_itself, inner).exception())


def speak(number: int) -> int:
    logging.getLogger("choir").warning("number %d", number)
    warnings.warn(f"warned {number}", RuntimeWarning, stacklevel=1)
    return number


def log_later(gate: Any, done: Any) -> None:
    """Leaves a thread behind that logs when nothing runs."""

    def speak_late() -> None:
        gate.wait()
        logging.getLogger("choir").warning("late")
        done.arrive()

    threading.Thread(target=speak_late).start()


def test_what_a_worker_logs_between_tasks_comes_at_once(
    caplog: pytest.LogCaptureFixture, new_gate: Any
) -> None:
    gate, done = new_gate(), new_gate()
    heard = threading.Event()

    class Hear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.set()

    handler = Hear()
    logging.getLogger("choir").addHandler(handler)
    try:
        with caplog.at_level(logging.WARNING), treadle.Executor(processes=1) as pool:
            pool.submit(log_later, gate, done).result(timeout=60)
            gate.await_arrivals()
            gate.open()
            done.await_arrivals()
            # No other task is submitted: the record must come by itself.
            assert heard.wait(60), "the record waits for the next task"
    finally:
        logging.getLogger("choir").removeHandler(handler)
    (record,) = [record for record in caplog.records if record.name == "choir"]
    assert (record.getMessage(), record.treadle_worker, record.treadle_task) == (  # type: ignore[attr-defined]
        "late",
        0,
        0,
    )


def test_logs_and_warnings_reach_the_parent(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[str, type[Warning]]] = []

    def show(message: Any, category: type[Warning], *_: Any) -> None:
        shown.append((str(message), category))

    monkeypatch.setattr(warnings, "showwarning", show)
    with caplog.at_level(logging.WARNING), treadle.Executor(processes=1) as pool:
        assert list(pool.map(speak, range(5), chunksize=1)) == [0, 1, 2, 3, 4]
    records = [record for record in caplog.records if record.name == "choir"]
    assert [record.getMessage() for record in records] == [f"number {n}" for n in range(5)]
    assert {record.treadle_worker for record in records} == {0}  # type: ignore[attr-defined]
    assert [record.treadle_task for record in records] == [1, 2, 3, 4, 5]  # type: ignore[attr-defined]
    assert (
        "warned 0 (in worker 0, task 1)",
        RuntimeWarning,
    ) in shown


def chatter(number: int) -> None:
    """Does nothing but log, for ever."""
    while True:
        logging.getLogger("chatter").warning("number %d", number)


def test_an_interrupt_reaches_a_task_that_is_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("chatter")
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()

    class Hearing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.put(record.getMessage())

    monkeypatch.setattr(logger, "handlers", [Hearing()])
    monkeypatch.setattr(logger, "propagate", False)
    with treadle.Executor(processes=1) as pool:
        for number in range(10):
            future = pool.submit(chatter, number)
            while heard.get() != f"number {number}":
                pass  # what the call before had said
            assert future.interrupt(grace=30)
            with pytest.raises(treadle.TaskInterrupted):
                future.result()
        # Each was ended by the exception; none had to be killed.
        assert pool.stats().worker_deaths == 0
