"""``stats``, ``dump``, plans, drop-ins and refusals."""

from __future__ import annotations

import concurrent.futures
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import contract_calls as calls
import pytest
import treadle
from contract_calls import HYBRIDS, Gate
from treadle import _worker

CONCURRENT = pytest.mark.ways("threads", "processes", "coroutines", "interpreters", *HYBRIDS)


@CONCURRENT
def test_the_counts_add_up(way: Any, gate: Gate, marks: Path) -> None:
    pool = way.make(workers=2)
    held = [pool.submit(way.of(gate)) for _ in range(2)]
    gate.await_arrivals(2)
    waiting = [pool.submit(way.of(calls.double), k) for k in range(10)]
    now = pool.stats()
    assert (now.submitted, now.running, now.queued, now.completed) == (12, 2, 10, 0)
    assert all(future.cancel() for future in waiting[:4])
    gate.open()
    for future in (*held, *waiting[4:]):
        future.result()
    with pytest.raises(calls.Complaint):
        pool.submit(way.of(calls.complain)).result()
    pool.options(retries=1).submit(way.of(calls.fail_first), marks, 1).result()
    pool.shutdown()
    end = pool.stats()
    assert (end.submitted, end.completed, end.cancelled) == (14, 10, 4)
    assert (end.running, end.queued, end.lost, end.retried) == (0, 0, 0, 1)
    assert now.submitted == 12, "a snapshot does not change"


def test_a_snapshot_cannot_be_changed(way: Any) -> None:
    with way.make() as pool:
        pool.submit(way.of(calls.double), 1).result()
        stats = pool.stats()
        assert stats.plan == pool.plan
        with pytest.raises(AttributeError):
            stats.submitted = 3
        for worker in stats.workers:
            with pytest.raises(AttributeError):
                worker.tasks = 3


def test_the_signal_for_stacks_is_the_one_that_the_engine_sends() -> None:
    assert signal.SIGRTMIN + 5 == _worker.DUMP_SIGNAL
    assert signal.SIGRTMIN + 6 == _worker.TASKS_SIGNAL


@CONCURRENT
def test_dump_names_what_a_worker_does(way: Any, gate: Gate) -> None:
    pool = way.make(workers=2)
    run_on = calls.wait_for_ever if way.is_async else calls.run_on
    future = pool.submit(run_on, gate)
    gate.await_arrivals()
    wanted = (
        re.escape(run_on.__name__)
        if "interpreters" in pool.plan.to_mapping()
        else calls.frame_of(run_on)
    )
    told = calls.dump_with(pool, wanted)
    assert "1 of 2" in told
    assert "0 calls waiting" in told
    future.interrupt()
    with pytest.raises(treadle.TaskInterrupted):
        future.result()


def test_dump_of_an_idle_pool(way: Any) -> None:
    with way.make() as pool:
        assert pool.dump()
        pool.submit(way.of(calls.double), 1).result()
        assert pool.dump()
    assert pool.dump()


def report(fifo: str) -> None:
    """Writes this process's id into a FIFO, and waits."""
    with open(fifo, "wb", buffering=0) as told:
        told.write(os.getpid().to_bytes(4, "little"))
    time.sleep(600)


@pytest.mark.parametrize("threads", [None, 1])
def test_a_worker_that_has_a_task_is_named_by_its_process(
    tmp_path: Path, threads: int | None
) -> None:
    """However late the parent hears of the fork: whoever sent a signal to process 0 would send it to his own group."""
    os.mkfifo(tmp_path / "told")
    told = os.open(tmp_path / "told", os.O_RDWR)
    for _ in range(10):
        pool = treadle.Executor(processes=1, threads=threads)
        pool.submit(report, str(tmp_path / "told"))
        process = int.from_bytes(os.read(told, 4), "little")
        assert [worker.ident for worker in pool.stats().workers] == [process]
        pool.kill_workers()
    os.close(told)


@pytest.mark.ways("processes")
def test_workers_are_named_by_their_process(way: Any, gate: Gate) -> None:
    pool = way.make(workers=2)
    held = [pool.submit(gate, k) for k in range(2)]
    gate.await_arrivals(2)
    workers = pool.stats().workers
    assert [worker.worker for worker in workers] == [0, 1]
    assert {worker.state for worker in workers} == {"busy"}
    assert all(os.path.exists(f"/proc/{worker.ident}") for worker in workers)
    gate.open()
    assert {future.result() for future in held} == {0, 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"threads": 0},
        {"threads": -1},
        {"processes": 2.5},
        {"processes": "8"},
        {"coroutines": True},
        {"threads": 2, "coroutines": 3},
        {"processes": 2, "interpreters": 2},
        {"processes": 2, "threads": 513},
        {"processes": 2, "coroutines": 5000},
        {"threads": 2, "chunk": 0},
        {"threads": 2, "max_pending": 0},
        {"processes": 2, "max_tasks_per_child": 0},
        {"processes": 2, "max_memory_per_child": -5},
        {"processes": 2, "native_threads": 0},
        {"processes": 2, "mp_context": "fork"},
        {"threads": 2, "timeout": 0},
        {"threads": 2, "retries": -1},
    ],
    ids=lambda wrong: "-".join(f"{k}={v}" for k, v in wrong.items()),
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(treadle.PlanError) as caught:
        treadle.Executor(**wrong)
    assert isinstance(caught.value, ValueError)
    assert any(name in str(caught.value) for name in wrong)


def test_a_plan_and_sizes_together_are_refused() -> None:
    with pytest.raises(treadle.PlanError, match="not both"):
        treadle.Executor(treadle.Plan(threads=2), threads=2)
    with pytest.raises(treadle.PlanError, match=r"Executor\.decided"):
        treadle.Executor("thumbnails")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        treadle.Executor(thread=2)  # type: ignore[call-arg]


def test_without_a_plan_there_are_threads() -> None:
    with treadle.Executor() as pool:
        assert pool.plan.strategy == "threads"
        assert pool.plan.threads == min(32, (os.cpu_count() or 1) + 4)
        assert pool.submit(threading.get_ident).result() != threading.get_ident()


def test_a_recorded_decision_is_run(tmp_path: Path) -> None:
    (tmp_path / "treadle.toml").write_text("[decision.thumbnails]\nplan = { processes = 2 }\n")
    deeper = tmp_path / "a" / "b"
    deeper.mkdir(parents=True)
    with treadle.Executor.decided("thumbnails", deeper, retries=1, name="small") as pool:
        assert pool.plan == treadle.Plan(processes=2)
        assert pool.submit(calls.process_id).result() != os.getpid()
    with pytest.raises(treadle.RecordError, match="thumbnails") as caught:
        treadle.Executor.decided("thumbnail", tmp_path)
    assert "treadle.toml" in str(caught.value)


@pytest.mark.parametrize("kind", [treadle.ThreadPoolExecutor, treadle.ProcessPoolExecutor])
def test_drop_ins_take_the_standard_arguments(kind: type[treadle.Executor]) -> None:
    assert issubclass(kind, concurrent.futures.Executor)
    if kind is treadle.ThreadPoolExecutor:
        pool = kind(2, "named", calls.set_up_value, (7,))
        with pool:
            name = pool.submit(threading.current_thread).result().name
            assert name.startswith("named")
            assert pool.submit(calls.read_setting, "value").result() == 7
    else:
        import multiprocessing

        context = multiprocessing.get_context("spawn")
        pool = kind(2, context, calls.set_up_value, (7,), max_tasks_per_child=5)
        with pool:
            assert pool.submit(calls.read_setting, "value").result() == 7
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            kind(wrong)
    with kind() as default:
        assert default.submit(calls.double, 2).result() == 4


@pytest.mark.ways("coroutines", "processes+coroutines")
def test_a_plain_function_is_refused_by_coroutines(way: Any) -> None:
    with way.make() as pool:
        for submit in (pool.submit, lambda fn, *a: list(pool.map(fn, a))):
            with pytest.raises(treadle.PlanError, match="threads"):
                submit(calls.double, 1)
        assert pool.submit(calls.doze, 0.0, value=3).result() == 3


@pytest.mark.ways("serial", "threads", "processes", "interpreters", *HYBRIDS)
def test_async_functions_run_everywhere(way: Any) -> None:
    with way.make() as pool:
        assert pool.submit(calls.doze, 0.0, 4).result() == 4
        assert list(pool.map(calls.doze, [0.0] * 5, range(5))) == list(range(5))


@pytest.mark.ways("threads")
def test_the_meters_of_threads_count_every_call(way: Any, gate: Gate) -> None:
    pool = way.make(workers=2)
    held = [pool.submit(gate) for _ in range(2)]
    gate.await_arrivals(2)
    waiting = [pool.submit(calls.nap, 0.02) for _ in range(6)]
    now = pool.stats()
    assert (sum(now.wait.counts), sum(now.duration.counts)) == (0, 0)
    assert now.oldest_s is not None
    gate.open()
    for future in (*held, *waiting):
        future.result()
    with pytest.raises(calls.Complaint):
        pool.submit(calls.complain).result()
    end = pool.stats()
    assert (sum(end.wait.counts), sum(end.duration.counts), end.completed) == (9, 9, 9)
    assert end.duration.sum_s >= 6 * 0.02
    pool.shutdown()
    assert pool.stats()[1:] == end._replace(workers=pool.stats().workers)[1:], (
        "threads that have left are counted"
    )


@pytest.mark.ways("threads")
def test_a_callback_is_not_counted_as_the_next_call(way: Any, gate: Gate) -> None:
    """The end of one call is taken as the beginning of the next, but not when a callback ran between."""
    pool = way.make(workers=1)
    first = pool.submit(gate)
    gate.await_arrivals()
    first.add_done_callback(lambda _: time.sleep(0.2))
    second = pool.submit(calls.double, 1)
    gate.open()
    second.result()
    wait = pool.stats().wait
    pool.shutdown()
    assert wait.sum_s >= 0.2, "the second waited for the callback of the first"


@pytest.mark.ways("threads")
def test_calls_inside_a_call_are_both_seen(way: Any, gate: Gate) -> None:
    """A call that waits for another of its pool runs that one inside; both can be asked for and counted."""
    pool = way.make(workers=1)
    inner = []

    def outer() -> Any:
        inner.append(pool.submit(gate, 5))
        return inner[0].result()

    future = pool.submit(outer)
    gate.await_arrivals()
    assert future.running()
    assert inner[0].running()
    stats = pool.stats()
    assert (stats.running, stats.queued, stats.completed) == (1, 0, 0)
    assert pool._strategy._pool.thread_of(future) == pool._strategy._pool.thread_of(inner[0])
    gate.open()
    assert future.result() == 5
    assert pool.stats().completed == 2
    pool.shutdown()
