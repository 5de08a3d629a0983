"""The standard library's ways to wait, and asyncio's, on treadle's futures."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contract_calls as calls
import pytest
import treadle
from contract_calls import HYBRIDS, Gate
from treadle import _core

CONCURRENT = pytest.mark.ways("threads", "processes", "coroutines", "interpreters", *HYBRIDS)


@CONCURRENT
def test_wait_for_the_first(way: Any, new_gate: Callable[[], Gate]) -> None:
    gates = [new_gate() for _ in range(2)]
    pool = way.make(workers=2)
    futures = [pool.submit(way.of(gate)) for gate in gates]
    gates[1].open()
    done, rest = concurrent.futures.wait(
        futures, return_when=concurrent.futures.FIRST_COMPLETED, timeout=60
    )
    assert (done, rest) == ({futures[1]}, {futures[0]})
    gates[0].open()
    assert concurrent.futures.wait(futures, timeout=60).done == set(futures)


@CONCURRENT
def test_wait_for_the_first_exception(way: Any, gate: Gate) -> None:
    pool = way.make(workers=2)
    held = pool.submit(way.of(gate))
    bad = pool.submit(way.of(calls.complain))
    done, rest = concurrent.futures.wait(
        [held, bad], return_when=concurrent.futures.FIRST_EXCEPTION, timeout=60
    )
    assert (done, rest) == ({bad}, {held})
    assert concurrent.futures.wait([held], timeout=0.01).not_done == {held}
    gate.open()


def test_as_completed_gives_each_future_once(way: Any) -> None:
    with way.make() as pool:
        futures = [pool.submit(way.of(calls.double), number) for number in range(500)]
        seen = list(concurrent.futures.as_completed(futures, timeout=60))
        assert len(seen) == 500
        assert set(seen) == set(futures)
        assert sum(future.result() for future in seen) == 500 * 499


@CONCURRENT
def test_as_completed_gives_up_in_time(way: Any, gate: Gate) -> None:
    pool = way.make()
    held, quick = pool.submit(way.of(gate)), pool.submit(way.of(calls.double), 1)
    seen = concurrent.futures.as_completed([held, quick], timeout=1)
    assert next(seen) is quick
    with pytest.raises(concurrent.futures.TimeoutError):
        next(seen)
    gate.open()


@CONCURRENT
def test_callbacks_run_once_with_their_future(way: Any, gate: Gate) -> None:
    pool = way.make()
    told: list[Any] = []
    over = threading.Event()
    future = pool.submit(way.of(gate), 5)
    gate.await_arrivals()
    future.add_done_callback(told.append)
    future.add_done_callback(lambda ended: told.append(ended.result()))
    future.add_done_callback(lambda _: over.set())
    gate.open()
    assert over.wait(60)
    assert told == [future, 5]
    future.add_done_callback(told.append)
    assert told == [future, 5, future]


def test_a_callback_that_raises_harms_nothing(way: Any, caplog: pytest.LogCaptureFixture) -> None:
    with way.make() as pool, caplog.at_level(logging.ERROR, "concurrent.futures"):
        over = threading.Event()
        future = pool.submit(way.of(calls.double), 1)
        future.add_done_callback(lambda _: calls.complain("in a callback"))
        future.add_done_callback(lambda _: over.set())
        assert over.wait(60)
        assert future.result() == 2
    assert "exception calling callback" in caplog.text


@CONCURRENT
def test_a_callback_may_submit(way: Any) -> None:
    pool = way.make(workers=1)
    over = threading.Event()
    results: list[Any] = []

    def go_on(future: Any) -> None:
        results.append(future.result())
        if len(results) == 20:
            over.set()
        else:
            pool.submit(way.of(calls.add), results[-1], 1).add_done_callback(go_on)

    pool.submit(way.of(calls.add), 0, 1).add_done_callback(go_on)
    assert over.wait(60)
    assert results == list(range(1, 21))


def test_asyncio_can_wait(way: Any) -> None:
    async def main(pool: treadle.Executor) -> None:
        double = way.of(calls.double)
        futures = [asyncio.wrap_future(pool.submit(double, k)) for k in range(200)]
        assert await asyncio.gather(*futures) == list(range(0, 400, 2))
        assert await pool.asubmit(way.of(calls.add), 1, 2, third=3) == 6
        with pytest.raises(calls.Complaint, match="bad"):
            await pool.asubmit(way.of(calls.complain), "bad")
        assert await asyncio.gather(*(pool.asubmit(double, k) for k in range(200))) == list(
            range(0, 400, 2)
        )

    with way.make() as pool:
        asyncio.run(main(pool))


@pytest.mark.ways("serial", "threads", "processes", "interpreters")
def test_run_in_executor_works(way: Any) -> None:
    async def main(pool: treadle.Executor) -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(pool, calls.double, 4) == 8

    with way.make() as pool:
        asyncio.run(main(pool))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("buffersize", [None, 3])
def test_amap_gives_every_result(way: Any, ordered: bool, buffersize: int | None) -> None:
    async def main(pool: treadle.Executor) -> None:
        results = [
            result
            async for result in pool.amap(
                way.of(calls.double), range(100), ordered=ordered, buffersize=buffersize
            )
        ]
        assert (results if ordered else sorted(results)) == list(range(0, 200, 2))
        assert [r async for r in pool.amap(way.of(calls.double), [])] == []

    with way.make() as pool:
        asyncio.run(main(pool))


@pytest.mark.parametrize("ordered", [True, False])
def test_amap_raises_and_reads_no_more_than_it_needs(way: Any, ordered: bool) -> None:
    read = itertools.count()

    async def main(pool: treadle.Executor) -> None:
        results = pool.amap(
            way.of(calls.complain_at),
            read,
            itertools.repeat(30),
            ordered=ordered,
            buffersize=5,
        )
        with pytest.raises(calls.Complaint):
            async for _ in results:
                pass

    with way.make() as pool:
        asyncio.run(main(pool))
    if ordered:
        # Without order, others may end any number of times before the one that raises.
        assert next(read) <= 30 + 1 + 2 * 5


@CONCURRENT
def test_cancelling_the_awaiting_task_reaches_the_worker(way: Any, gate: Gate, marks: Path) -> None:
    run_on = calls.wait_for_ever if way.is_async else calls.run_on

    async def main(pool: treadle.Executor) -> None:
        loop = asyncio.get_running_loop()
        running = asyncio.ensure_future(pool.asubmit(run_on, gate))
        await loop.run_in_executor(None, gate.await_arrivals)
        waiting = asyncio.ensure_future(pool.asubmit(way.of(calls.leave_a_mark), marks))
        await asyncio.sleep(0)
        for task in (waiting, running):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        # The only worker is free again: what ran has been stopped.
        assert await pool.asubmit(way.of(calls.double), 4) == 8

    pool = way.make(workers=1)
    asyncio.run(main(pool))
    pool.shutdown()
    assert list(marks.iterdir()) == []


@CONCURRENT
def test_leaving_amap_early_stops_what_runs(way: Any, gate: Gate) -> None:
    run_on = calls.wait_for_ever if way.is_async else calls.run_on

    async def main(pool: treadle.Executor) -> None:
        loop = asyncio.get_running_loop()
        results = pool.amap(run_on, itertools.repeat(gate), buffersize=4)
        first = asyncio.ensure_future(anext_of(results))
        await loop.run_in_executor(None, gate.await_arrivals)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await pool.asubmit(way.of(calls.double), 4) == 8

    pool = way.make(workers=1)
    asyncio.run(main(pool))


async def anext_of(results: Any) -> Any:
    return await results.__anext__()


def test_a_future_made_by_hand_is_a_standard_one() -> None:
    future = treadle.Future()
    assert future.set_running_or_notify_cancel()
    future.set_result(3)
    assert future.result() == 3
    failed = treadle.Future()
    failed.set_exception(calls.Complaint("by hand"))
    with pytest.raises(calls.Complaint, match="by hand"):
        failed.result()
    cancelled = treadle.Future()
    assert cancelled.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        cancelled.result()
    with pytest.raises(concurrent.futures.CancelledError):
        cancelled.exception()


async def beat(count: int = 200) -> int:
    """Lets the loop go round so often; a test whose loop stands still ends by its watchdog."""
    for _ in range(count):
        await asyncio.sleep(0)
    return count


@CONCURRENT
def test_a_full_pool_does_not_hold_the_loop_up(way: Any, gate: Gate, marks: Path) -> None:
    async def main(pool: treadle.Executor) -> None:
        held = [pool.asubmit(way.of(gate), number) for number in range(2)]
        await asyncio.to_thread(gate.await_arrivals)
        # Far more than the pool takes: here a call that waited in `submit` would wait for ever.
        later = [pool.asubmit(way.of(calls.double), number) for number in range(50)]
        cancelled = pool.asubmit(way.of(calls.leave_a_mark), marks)
        assert await beat() == 200
        assert pool.stats().submitted <= 3
        assert not any(call.done() for call in later)
        assert cancelled.cancel()
        gate.open()
        assert await asyncio.gather(*held) == [0, 1]
        assert await asyncio.gather(*later) == [2 * number for number in range(50)]
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        # There is room again, and an error of the call itself arrives as ever.
        with pytest.raises(calls.Complaint):
            await pool.asubmit(way.of(calls.complain))

    with way.make(workers=1, max_pending=2) as pool:
        asyncio.run(main(pool))
        assert list(marks.iterdir()) == []
        assert pool.stats().submitted == 2 + 50 + 1


@CONCURRENT
def test_calls_that_wait_outside_keep_their_order(way: Any, gate: Gate, tmp_path: Path) -> None:
    order = tmp_path / "order"

    async def main(pool: treadle.Executor) -> None:
        held = pool.asubmit(way.of(gate))
        await asyncio.to_thread(gate.await_arrivals)
        waiting = []
        for number in range(20):
            waiting.append(pool.asubmit(way.of(calls.note_down), order, number))
        gate.open()
        # More that come while the first ones enter.
        for number in range(20, 40):
            waiting.append(pool.asubmit(way.of(calls.note_down), order, number))
            await beat(1)
        await asyncio.gather(held, *waiting)

    with way.make(workers=1, max_pending=1) as pool:
        asyncio.run(main(pool))
    assert order.read_text().split() == [str(number) for number in range(40)]


@CONCURRENT
def test_calls_that_wait_outside_end_with_the_pool(way: Any, gate: Gate) -> None:
    async def main(pool: treadle.Executor) -> None:
        held = pool.asubmit(way.of(gate), 1)
        await asyncio.to_thread(gate.await_arrivals)
        waiting = [pool.asubmit(way.of(calls.double), number) for number in range(5)]
        await beat()
        pool.shutdown(wait=False)
        gate.open()
        assert await held == 1
        for call in waiting:
            with pytest.raises(treadle.PoolShutDown):
                await call

    asyncio.run(main(way.make(workers=1, max_pending=1)))


@CONCURRENT
def test_amap_over_a_full_pool_does_not_hold_the_loop_up(way: Any, gate: Gate) -> None:
    async def collect(pool: treadle.Executor) -> list[int]:
        return [result async for result in pool.amap(way.of(calls.double), range(100))]

    async def main(pool: treadle.Executor) -> None:
        held = pool.asubmit(way.of(gate))
        await asyncio.to_thread(gate.await_arrivals)
        collecting = asyncio.ensure_future(collect(pool))
        assert await beat() == 200
        gate.open()
        assert await collecting == [2 * number for number in range(100)]
        await held

    with way.make(workers=1, max_pending=2) as pool:
        asyncio.run(main(pool))


@pytest.mark.ways("processes")
def test_payloads_beyond_the_limit_do_not_hold_the_loop_up(
    way: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treadle.strategies import processes

    monkeypatch.setattr(processes, "_payload_limit", lambda: 4 << 20)

    async def main(pool: treadle.Executor) -> None:
        held = pool.asubmit(gate)
        await asyncio.to_thread(gate.await_arrivals)
        waiting = [pool.asubmit(len, bytes(1 << 20)) for _ in range(20)]
        assert await beat() == 200
        assert pool.stats().submitted < 21
        gate.open()
        await held
        assert await asyncio.gather(*waiting) == [1 << 20] * 20

    with way.make(workers=1) as pool:
        asyncio.run(main(pool))


def test_callbacks_that_come_while_a_call_ends_run_once_each() -> None:
    """From many threads at the moment of the end: where there is no interpreter lock, truly at the same time."""
    for _ in range(200):
        future = _core.pending_future()
        future._start()
        told: list[int] = []
        at_once = threading.Barrier(4)

        def add(first: int, future: Any = future, told: Any = told, at_once: Any = at_once) -> None:
            at_once.wait()
            for number in range(first, first + 5):
                future.add_done_callback(lambda _, number=number: told.append(number))

        def end(future: Any = future, at_once: Any = at_once) -> None:
            at_once.wait()
            future._finish("ended")

        threads = [threading.Thread(target=add, args=(5 * k,)) for k in range(3)]
        threads.append(threading.Thread(target=end))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(told) == list(range(15))


def test_of_two_that_end_a_call_the_first_one_counts() -> None:
    """As the thread of an overdue call and the one that keeps deadlines may: what was seen once stays."""
    for _ in range(200):
        future = _core.pending_future()
        future._start()
        at_once = threading.Barrier(3)
        seen: list[Any] = []

        def end(
            how: Any, what: Any, future: Any = future, seen: Any = seen, at: Any = at_once
        ) -> None:
            at.wait()
            how(what)
            seen.append(future.exception())

        threads = [
            threading.Thread(target=end, args=(future._finish, "ended")),
            threading.Thread(target=end, args=(future._fail, calls.Complaint("late"))),
        ]
        for thread in threads:
            thread.start()
        at_once.wait()
        for thread in threads:
            thread.join()
        assert seen[0] is seen[1] is future.exception()


def test_the_condition_of_a_future_is_one(way: Any) -> None:
    """``Future._condition``, which the standard library's functions use, does what a ``threading.Condition`` does."""
    future = way.make().submit(way.of(calls.double), 1)
    condition: Any = future._condition
    assert condition is future._condition
    with pytest.raises(RuntimeError, match="un-acquired"):
        condition.notify_all()
    assert condition.acquire() is True
    assert condition.acquire(blocking=False), "it can be locked again by its owner"
    condition.release()
    condition.notify()  # nobody is there
    with pytest.raises(ValueError, match="timeout"):
        condition.acquire(timeout=-3.0)
    condition.release()
    with pytest.raises(RuntimeError):
        condition.release()
    came: list[str] = []

    def sleeper() -> None:
        with condition:
            came.append("waits")
            came.append("woken" if condition.wait(60) else "not woken")

    thread = threading.Thread(target=sleeper)
    thread.start()
    while True:
        with condition:
            if came:
                condition.notify_all()
                break
    thread.join()
    assert came == ["waits", "woken"]
    with condition:
        assert condition._is_owned()
        assert condition.wait_for(lambda: True)
        assert not condition.wait_for(lambda: False, 0)
        condition.notify()
    assert future.result() == 2
