"""Tasks that wait for tasks, pools inside workers, and what workers say."""

from __future__ import annotations

import logging
import pickle
import queue
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
    import sys

    with treadle.Executor(threads=1) as pool:
        monkeypatch.setattr(sys.modules[__name__], "_pool", pool)
        assert pool.submit(depth, 20).result(timeout=60) == 20
        assert pool.submit(fan, 10).result(timeout=60) == [2] * 10
        counts = pool.stats()
        assert counts.submitted == counts.completed == 21 + 1 + 10 * 3


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


def speak(number: int) -> int:
    logging.getLogger("choir").warning("number %d", number)
    warnings.warn(f"warned {number}", RuntimeWarning, stacklevel=1)
    return number


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
    assert len({record.treadle_task for record in records}) == 5  # type: ignore[attr-defined]
    assert (
        "warned 0 (in worker 0)",
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
