"""Processes that run several tasks each: what the plans of one strategy alone do not show."""

from __future__ import annotations

import asyncio
import collections
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contract_calls as calls
import pytest
import treadle
from contract_calls import HYBRIDS, Gate

BOTH = pytest.mark.ways(*HYBRIDS)
THREADS = pytest.mark.ways("processes+threads")
LOOPS = pytest.mark.ways("processes+coroutines")


def wait_and_tell(gate: Gate) -> tuple[int, int]:
    gate.wait()
    return os.getpid(), threading.get_ident()


@THREADS
def test_as_many_calls_run_at_once_as_there_are_threads(way: Any, gate: Gate) -> None:
    with way.make(workers=6) as pool:
        held = [pool.submit(wait_and_tell, gate) for _ in range(6)]
        gate.await_arrivals(6)
        assert pool.stats().running == 6
        gate.open()
        ran = [future.result() for future in held]
        assert len(set(ran)) == 6
        assert sorted(collections.Counter(pid for pid, _ in ran).values()) == [3, 3]


@LOOPS
def test_four_loops_hold_a_thousand_calls(gate: Gate, way: Any, cleanup: Any) -> None:
    with treadle.Executor(processes=4, coroutines=250) as pool:
        held = [pool.submit(calls.wait_for_ever, gate) for _ in range(1000)]
        waiting = pool.submit(calls.doze, 0.0, 5)
        gate.await_arrivals(1000)
        stats = pool.stats()
        assert (stats.running, stats.queued) == (1000, 1)
        assert [worker.running for worker in stats.workers] == [250] * 4
        assert held[17].interrupt(grace=60)
        assert waiting.result() == 5
        assert isinstance(held[17].exception(), treadle.TaskInterrupted)
        pool.kill_workers()
        assert all(isinstance(future.exception(), treadle.TreadleError) for future in held)


@BOTH
def test_one_queue_feeds_every_place(way: Any, gate: Gate) -> None:
    """All places but one are held: the last one runs everything, wherever it is."""
    pool = way.make(workers=4)
    held = [pool.submit(way.of(gate), number) for number in range(3)]
    gate.await_arrivals(3)
    double = way.of(calls.double)
    assert [pool.submit(double, k).result() for k in range(50)] == [2 * k for k in range(50)]
    futures = [pool.submit(double, k) for k in range(200)]
    assert [future.result() for future in futures] == [2 * k for k in range(200)]
    gate.open()
    assert [future.result() for future in held] == [0, 1, 2]


@BOTH
def test_work_goes_to_an_idle_process_first(way: Any, gate: Gate) -> None:
    """Two calls that compute should not share an interpreter lock while another process idles."""
    with way.make(workers=8) as pool:
        everywhere = [pool.submit(way.of(gate)) for _ in range(8)]
        gate.await_arrivals(8)
        gate.open()
        for future in everywhere:
            future.result()
        assert [worker.running for worker in pool.stats().workers] == [0, 0]


@BOTH
def test_a_call_over_its_time_is_stopped_and_its_neighbours_are_not(
    way: Any, new_gate: Callable[[], Gate]
) -> None:
    gate, other = new_gate(), new_gate()
    pool = way.make(workers=3)
    before = pool.submit(way.of(calls.process_id)).result()
    neighbours = [pool.submit(way.of(other), number) for number in range(2)]
    other.await_arrivals(2)
    run_on = calls.wait_for_ever if way.is_async else calls.run_on
    late = pool.options(timeout=1.5).submit(run_on, gate)
    gate.await_arrivals()
    with pytest.raises(treadle.TaskTimeout, match="stopped when it was asked to") as told:
        late.result()
    assert (told.value.pid, told.value.task) == (before, 4)
    other.open()
    assert [future.result() for future in neighbours] == [0, 1]
    assert pool.submit(way.of(calls.process_id)).result() == before
    stats = pool.stats()
    assert (stats.timed_out, stats.lost, stats.worker_deaths) == (1, 1, 0)
    assert stats.submitted == stats.completed + stats.lost


async def ignore_cancelling(gate: Gate) -> None:
    """Arrives, then waits on whatever is raised in it."""
    gate.arrive()
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass


@BOTH
@pytest.mark.parametrize("how", ["timeout", "interrupt"])
def test_a_call_that_does_not_stop_costs_no_neighbour(
    way: Any, new_gate: Callable[[], Gate], how: str
) -> None:
    """The process takes no more calls, ends the others, and is replaced."""
    gate, other = new_gate(), new_gate()
    ignore = ignore_cancelling if way.is_async else calls.ignore_interrupts
    pool = way.make(workers=2, initializer=calls.give, initargs=(ignore,))  # which imports it
    before = pool.submit(way.of(calls.process_id)).result()
    neighbour = pool.submit(way.of(other), "kept")
    other.await_arrivals()
    options = {"timeout": 1.5} if how == "timeout" else {}
    stubborn = pool.options(**options).submit(ignore, gate)
    gate.await_arrivals()
    if how == "interrupt":
        assert stubborn.interrupt(grace=0.05)
    error = stubborn.exception()
    expected = treadle.TaskTimeout if how == "timeout" else treadle.TaskInterrupted
    assert isinstance(error, expected)
    assert "runs on until the other calls of its worker" in str(error)
    assert (error.pid, error.task) == (before, 3)
    assert neighbour.running()
    assert [worker.state for worker in pool.stats().workers] == ["overdue"]
    later = pool.submit(way.of(calls.process_id))
    other.open()
    assert neighbour.result() == "kept"
    assert later.result() != before
    stats = pool.stats()
    assert (stats.worker_deaths, stats.lost) == (0, 1)
    assert [worker.restarts for worker in stats.workers] == [1]


@BOTH
def test_a_call_that_does_not_stop_is_run_again_when_its_process_is_gone(
    way: Any, gate: Gate, marks: Path
) -> None:
    call = ignore_once_async if way.is_async else ignore_once
    pool = way.make(
        workers=2, initializer=calls.give, initargs=(call,)
    )  # which imports this module
    # Long enough that a busy machine lets a run come to its mark.
    future = pool.options(timeout=1.5, retries=5).submit(call, gate, marks)
    assert future.result() >= 2
    stats = pool.stats()
    assert stats.retried >= 1
    assert (stats.lost, stats.worker_deaths) == (0, 0)


def ignore_once(gate: Gate, folder: Path) -> int:
    calls.leave_a_mark(folder)
    ran = len(list(folder.iterdir()))
    if ran == 1:
        calls.ignore_interrupts(gate)
    return ran


async def ignore_once_async(gate: Gate, folder: Path) -> int:
    calls.leave_a_mark(folder)
    ran = len(list(folder.iterdir()))
    if ran == 1:
        await ignore_cancelling(gate)
    return ran


@pytest.mark.ways("processes", "processes+threads")
def test_an_async_function_that_is_interrupted_does_not_go_on_later(
    way: Any, new_gate: Callable[[], Gate]
) -> None:
    """It runs on the worker's own loop, which the next call uses too."""
    gate, later = new_gate(), new_gate()
    pool = way.make(workers=1)
    future = pool.submit(sleep_long, gate)
    gate.await_arrivals()
    assert future.interrupt(grace=60)
    assert isinstance(future.exception(), treadle.TaskInterrupted)
    future = pool.submit(sleep_long, later)
    later.await_arrivals()
    assert pool.stats().workers[0].restarts == 0
    assert future.interrupt(grace=60)
    assert isinstance(future.exception(), treadle.TaskInterrupted)
    assert pool.submit(tasks_of_the_loop).result() == 1


async def sleep_long(gate: Gate) -> None:
    # From another thread, once this one has come to its sleep. The loop itself holds on to what sleeps.
    threading.Timer(0.05, gate.arrive).start()
    await asyncio.sleep(3600)


async def tasks_of_the_loop() -> int:
    return len(asyncio.all_tasks())


async def compute_on(gate: Gate) -> None:
    calls.run_on(gate)


@LOOPS
def test_a_coroutine_that_holds_its_loop_up_is_interrupted_where_it_is(
    way: Any, new_gate: Callable[[], Gate]
) -> None:
    gate, other = new_gate(), new_gate()
    pool = way.make(workers=2)
    neighbour = pool.submit(way.of(other), "kept")
    other.await_arrivals()
    future = pool.submit(compute_on, gate)
    gate.await_arrivals()
    assert future.interrupt(grace=60)
    assert isinstance(future.exception(), treadle.TaskInterrupted)
    other.open()
    assert neighbour.result() == "kept"
    assert pool.stats().workers[0].restarts == 0


async def clean_up(gate: Gate, folder: Path) -> None:
    gate.arrive()
    try:
        await asyncio.Event().wait()
    finally:
        # Longer than the signal takes to come again.
        await asyncio.sleep(0.1)
        calls.leave_a_mark(folder)


@LOOPS
def test_a_coroutine_that_is_cancelled_may_clean_up(way: Any, gate: Gate, marks: Path) -> None:
    pool = way.make(workers=1)
    future = pool.submit(clean_up, gate, marks)
    gate.await_arrivals()
    assert future.interrupt(grace=60)
    assert isinstance(future.exception(), treadle.TaskInterrupted)
    assert len(list(marks.iterdir())) == 1


@BOTH
def test_workers_are_replaced_after_their_tasks_however_many_they_run(way: Any) -> None:
    with way.make(workers=4, max_tasks_per_child=5) as pool:
        futures = [pool.submit(way.of(calls.process_id)) for _ in range(60)]
        ran = collections.Counter(future.result() for future in futures)
        assert max(ran.values()) <= 5
        assert len(ran) >= 12
        stats = pool.stats()
        assert (stats.worker_deaths, stats.lost) == (0, 0)


@BOTH
def test_there_is_a_row_of_numbers_for_each_process(way: Any, new_gate: Callable[[], Gate]) -> None:
    gate = new_gate()
    pool = way.make(workers=6)
    held = [pool.submit(way.of(gate)) for _ in range(5)]
    gate.await_arrivals(5)
    stats = pool.stats()
    assert [worker.worker for worker in stats.workers] == [0, 1]
    assert all(os.path.exists(f"/proc/{worker.ident}") for worker in stats.workers)
    assert sum(worker.running or 0 for worker in stats.workers) == stats.running == 5
    assert {worker.state for worker in stats.workers} == {"busy"}
    assert all((worker.memory_bytes or 0) > 0 for worker in stats.workers)
    gate.open()
    for future in held:
        future.result()
    assert pool.stats().running == 0


def speak(number: int) -> int:
    logging.getLogger("choir").warning("number %d", number)
    return number


async def speak_async(number: int) -> int:
    await asyncio.sleep(0)
    logging.getLogger("choir").warning("number %d", number)
    await asyncio.to_thread(logging.getLogger("choir").warning, "thread of %d", number)
    return number


@BOTH
def test_what_is_logged_names_its_own_task(caplog: pytest.LogCaptureFixture, way: Any) -> None:
    with caplog.at_level(logging.WARNING), way.make(workers=4) as pool:
        call = speak_async if way.is_async else speak
        futures = [pool.submit(call, number) for number in range(40)]
        assert [future.result() for future in futures] == list(range(40))
    records = [record for record in caplog.records if record.name == "choir"]
    assert len(records) == (80 if way.is_async else 40)
    for record in records:
        number = int(record.getMessage().split()[-1])
        assert record.treadle_task == number + 1  # type: ignore[attr-defined]
        assert record.processName == f"treadle-{record.treadle_worker}"  # type: ignore[attr-defined]


def speak_elsewhere(done: Gate) -> None:
    """From a thread of its own, which belongs to no task."""
    thread = threading.Thread(target=logging.getLogger("choir").warning, args=("elsewhere",))
    thread.start()
    thread.join()
    done.arrive()


@THREADS
def test_what_another_thread_logs_names_no_task(
    caplog: pytest.LogCaptureFixture, way: Any, gate: Gate
) -> None:
    with caplog.at_level(logging.WARNING), way.make(workers=2) as pool:
        pool.submit(speak_elsewhere, gate).result()
        gate.await_arrivals()
    (record,) = [record for record in caplog.records if record.name == "choir"]
    assert record.treadle_task == 0  # type: ignore[attr-defined]


@BOTH
def test_dump_shows_what_each_process_runs(way: Any, gate: Gate) -> None:
    pool = way.make(workers=4)
    run_on = calls.wait_for_ever if way.is_async else calls.run_on
    futures = [pool.submit(run_on, gate) for _ in range(4)]
    gate.await_arrivals(4)
    told = calls.dump_with(pool, calls.frame_of(run_on), times=4)
    assert "4 of 4 busy" in told
    assert "worker 1 (pid" in told
    for future in futures:
        assert future.interrupt(grace=60)
        assert isinstance(future.exception(), treadle.TaskInterrupted)


def share_of_cores() -> float:
    return treadle.usable_cores()


async def share_of_cores_async() -> float:
    return treadle.usable_cores()


@BOTH
def test_the_cores_are_divided_among_the_processes(way: Any) -> None:
    with way.make(workers=4) as pool:
        call = share_of_cores_async if way.is_async else share_of_cores
        assert pool.submit(call).result() == max(1.0, treadle.usable_cores() / 2)


@THREADS
def test_a_chunk_runs_on_one_thread(way: Any) -> None:
    with way.make(workers=4) as pool:
        told = list(pool.map(place_of, range(200), chunksize=20))
        assert [number for number, *_ in told] == list(range(200))
        for start in range(0, 200, 20):
            assert (
                len({place for _, *place in told[start : start + 20] for place in [tuple(place)]})
                == 1
            )
        assert pool.stats().submitted == 10


def place_of(number: int) -> tuple[int, int, int]:
    return number, os.getpid(), threading.get_ident()


@LOOPS
def test_a_map_over_coroutines_runs_them_side_by_side(way: Any, gate: Gate) -> None:
    with way.make(workers=4) as pool:
        results = pool.map(way.of(gate), range(4), chunksize=4)
        gate.await_arrivals(4)
        gate.open()
        assert list(results) == [0, 1, 2, 3]


@BOTH
def test_a_cancelled_await_reaches_the_worker(way: Any, gate: Gate) -> None:
    async def main(pool: treadle.Executor) -> None:
        run_on = calls.wait_for_ever if way.is_async else calls.run_on
        call = pool.asubmit(run_on, gate)
        await asyncio.to_thread(gate.await_arrivals)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await pool.asubmit(way.of(calls.double), 4) == 8

    with way.make(workers=1) as pool:
        asyncio.run(main(pool))


@BOTH
def test_big_values_come_and_go_from_every_place(way: Any) -> None:
    with way.make(workers=4) as pool:
        data = [bytes([number]) * 300_000 for number in range(40)]
        futures = [pool.submit(way.of(calls.double), one) for one in data]
        assert all(future.result() == 2 * one for future, one in zip(futures, data, strict=True))
        shared = pool.share(data[7])
        assert pool.submit(way.of(calls.double), shared).result() == 2 * data[7]


@BOTH
def test_a_hybrid_that_would_wait_for_itself_is_found(way: Any) -> None:
    with way.make(workers=2) as pool:
        error = pool.submit(way.of(calls.give), pool).exception()
        assert isinstance(error, treadle.PayloadError)
        assert "wait for ever" in str(error)
