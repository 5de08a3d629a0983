"""asubmit and amap under every event loop: asyncio, uvloop, AnyIO on both of its backends, Trio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import contract_calls as calls
import pytest
import treadle
from contract_calls import Gate

CONCURRENT = pytest.mark.ways("threads", "processes", "coroutines")


class Library:
    """One event loop's ways: how it runs, does two things at once, stops after a time, and steps out into a thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        if name in ("uvloop", "trio"):
            self.module = pytest.importorskip(name)
        elif name != "asyncio":
            self.module = pytest.importorskip("anyio")
        if name.endswith("trio"):
            pytest.importorskip("trio")

    @property
    def cancelled(self) -> type[BaseException]:
        """What is raised in a task that is cancelled."""
        if self.name.endswith("trio"):
            import trio

            return trio.Cancelled
        return asyncio.CancelledError

    def run(self, main: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Runs a coroutine function to its end."""
        if self.name == "asyncio":
            return asyncio.run(main(*arguments))  # type: ignore[arg-type]
        if self.name == "uvloop":
            loop = self.module.new_event_loop()
            try:
                return loop.run_until_complete(main(*arguments))
            finally:
                loop.close()
        if self.name == "trio":
            return self.module.run(main, *arguments)
        return self.module.run(main, *arguments, backend=self.name.removeprefix("anyio-"))

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        """The result of a blocking call, in a thread."""
        if self.name == "trio":
            return await self.module.to_thread.run_sync(call)
        if self.name.startswith("anyio"):
            return await self.module.to_thread.run_sync(call)
        return await asyncio.get_running_loop().run_in_executor(None, call)

    async def together(self, *jobs: Callable[[], Awaitable[Any]]) -> list[Any]:
        """The results of all, run at the same time."""
        if self.name in ("asyncio", "uvloop"):
            return list(await asyncio.gather(*(job() for job in jobs)))
        results: dict[int, Any] = {}

        async def one(place: int, job: Callable[[], Awaitable[Any]]) -> None:
            results[place] = await job()

        opened = (
            self.module.open_nursery() if self.name == "trio" else self.module.create_task_group()
        )
        async with opened as group:
            for place, job in enumerate(jobs):
                group.start_soon(one, place, job)
        return [results[place] for place in range(len(jobs))]

    async def stop_after(self, seconds: float, job: Callable[[], Awaitable[Any]]) -> bool:
        """Runs the job under a deadline; whether that has stopped it."""
        if self.name in ("asyncio", "uvloop"):
            try:
                await asyncio.wait_for(job(), seconds)
            except asyncio.TimeoutError:
                return True
            return False
        with self.module.move_on_after(seconds) as scope:
            await job()
        return bool(scope.cancelled_caught)

    async def cancel_when(
        self, arrived: Callable[[], Any], job: Callable[[], Awaitable[Any]]
    ) -> list[type[BaseException]]:
        """Runs the job, cancels its task when the blocking call `arrived` is over, and waits; what was raised in the job."""
        seen: list[type[BaseException]] = []

        async def watched() -> None:
            try:
                await job()
            except BaseException as error:
                seen.append(type(error))
                raise

        if self.name in ("asyncio", "uvloop"):
            task = asyncio.ensure_future(watched())
            await self.in_thread(arrived)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            return seen
        opened = (
            self.module.open_nursery() if self.name == "trio" else self.module.create_task_group()
        )
        async with opened as group:
            group.start_soon(watched)
            await self.in_thread(arrived)
            group.cancel_scope.cancel()
        return seen


@pytest.fixture(params=["asyncio", "uvloop", "anyio-asyncio", "anyio-trio", "trio"])
def library(request: pytest.FixtureRequest) -> Library:
    """The library under test."""
    return Library(request.param)


def test_results_and_exceptions_arrive(way: Any, library: Library) -> None:
    async def main(pool: treadle.Executor) -> None:
        assert await pool.asubmit(way.of(calls.add), 1, 2, third=3) == 6
        with pytest.raises(calls.Complaint, match="bad"):
            await pool.asubmit(way.of(calls.complain), "bad")
        submitted = [pool.asubmit(way.of(calls.double), number) for number in range(300)]
        assert [await call for call in submitted] == list(range(0, 600, 2))
        assert all(call.done() and not call.cancelled() for call in submitted)
        assert submitted[3].result() == 6
        # Awaiting once more gives the result once more.
        assert await submitted[3] == 6

    with way.make() as pool:
        library.run(main, pool)


def test_calls_of_several_tasks_run_together(way: Any, library: Library) -> None:
    async def main(pool: treadle.Executor) -> None:
        async def one(number: int) -> list[int]:
            return [await pool.asubmit(way.of(calls.add), number, step) for step in range(20)]

        jobs = [lambda number=number: one(number) for number in range(10)]
        results = await library.together(*jobs)
        assert results == [[number + step for step in range(20)] for number in range(10)]

    with way.make() as pool:
        library.run(main, pool)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("buffersize", [None, 3])
def test_amap_gives_every_result(
    way: Any, library: Library, ordered: bool, buffersize: int | None
) -> None:
    async def main(pool: treadle.Executor) -> None:
        results = pool.amap(
            way.of(calls.double), range(150), ordered=ordered, buffersize=buffersize
        )
        found = [result async for result in results]
        assert (found if ordered else sorted(found)) == list(range(0, 300, 2))
        assert [result async for result in pool.amap(way.of(calls.double), [])] == []
        with pytest.raises(calls.Complaint):
            async for _ in pool.amap(
                way.of(calls.complain_at), itertools.count(), itertools.repeat(7), ordered=ordered
            ):
                pass

    with way.make() as pool:
        library.run(main, pool)


def _running(way: Any) -> Callable[..., Any]:
    """A call that runs until it is stopped."""
    return calls.wait_for_ever if way.name == "coroutines" else calls.run_on


@CONCURRENT
def test_cancelling_the_awaiting_task_reaches_the_worker(
    way: Any, library: Library, gate: Gate
) -> None:
    async def main(pool: treadle.Executor) -> None:
        seen = await library.cancel_when(
            gate.await_arrivals, lambda: pool.asubmit(_running(way), gate)
        )
        assert seen == [library.cancelled]
        # The only worker is free again: what ran has been stopped.
        assert await pool.asubmit(way.of(calls.double), 4) == 8

    pool = way.make(workers=1)
    library.run(main, pool)


@CONCURRENT
def test_a_deadline_reaches_the_worker(way: Any, library: Library, gate: Gate) -> None:
    async def main(pool: treadle.Executor) -> None:
        async def job() -> None:
            await pool.asubmit(_running(way), gate)

        assert await library.stop_after(0.2, job)
        assert await pool.asubmit(way.of(calls.double), 4) == 8

    pool = way.make(workers=1)
    # So that the deadline finds it running.
    assert pool.submit(way.of(calls.double), 1).result() == 2
    library.run(main, pool)


@CONCURRENT
def test_a_call_that_waits_is_taken_back(
    way: Any, library: Library, gate: Gate, marks: Path
) -> None:
    async def main(pool: treadle.Executor) -> None:
        held = pool.asubmit(way.of(gate), 1)
        await library.in_thread(gate.await_arrivals)
        waiting = pool.asubmit(way.of(calls.leave_a_mark), marks)
        assert waiting.cancel()
        assert waiting.cancelled()
        assert not waiting.cancel()
        with pytest.raises((asyncio.CancelledError, concurrent.futures.CancelledError)):
            await waiting
        gate.open()
        assert await held == 1

    with way.make(workers=1) as pool:
        library.run(main, pool)
    assert list(marks.iterdir()) == []


@CONCURRENT
def test_leaving_amap_early_stops_what_runs(way: Any, library: Library, gate: Gate) -> None:
    async def main(pool: treadle.Executor) -> None:
        async def job() -> None:
            async for _ in pool.amap(_running(way), itertools.repeat(gate), buffersize=4):
                pass

        seen = await library.cancel_when(gate.await_arrivals, job)
        assert seen == [library.cancelled]
        assert await pool.asubmit(way.of(calls.double), 4) == 8

    pool = way.make(workers=1)
    library.run(main, pool)


@CONCURRENT
def test_a_full_pool_does_not_hold_the_loop_up(
    way: Any, library: Library, gate: Gate, marks: Path
) -> None:
    async def main(pool: treadle.Executor) -> None:
        held = [pool.asubmit(way.of(gate), number) for number in range(2)]
        await library.in_thread(gate.await_arrivals)
        # Here a call that waited in `submit` would wait for ever.
        later = [pool.asubmit(way.of(calls.double), number) for number in range(30)]
        assert later.pop().cancel()
        gate.open()
        assert [await call for call in held] == [0, 1]
        assert [await call for call in later] == [2 * number for number in range(29)]

    with way.make(workers=1, max_pending=2) as pool:
        library.run(main, pool)


def test_outside_of_a_loop_the_error_says_what_to_do(way: Any, library: Library) -> None:
    async def main(pool: treadle.Executor) -> None:
        # A thread of a program whose loop runs elsewhere.
        def step_out() -> None:
            with pytest.raises(RuntimeError, match=r"no running event loop[^$]*hint: call submit"):
                pool.asubmit(way.of(calls.double), 4)

        await library.in_thread(step_out)
        assert await pool.asubmit(way.of(calls.double), 4) == 8

    with way.make() as pool:
        library.run(main, pool)
        with pytest.raises(RuntimeError, match="hint: call submit"):
            pool.asubmit(way.of(calls.double), 4)


@CONCURRENT
def test_a_loop_that_has_ended_is_no_trouble(way: Any, library: Library, gate: Gate) -> None:
    left: list[Any] = []

    async def main(pool: treadle.Executor) -> None:
        left.append(pool.asubmit(way.of(gate), 1))
        await library.in_thread(gate.await_arrivals)

    with way.make(workers=1) as pool:
        library.run(main, pool)
        gate.open()
        # The call ends after the loop it was made on.
        assert pool.submit(way.of(calls.double), 4).result() == 8
        assert not left[0].done()

        async def again(pool: treadle.Executor) -> None:
            assert await pool.asubmit(way.of(calls.double), 5) == 10

        library.run(again, pool)


def test_two_loops_in_two_threads(way: Any, library: Library) -> None:
    async def main(pool: treadle.Executor, start: int) -> list[int]:
        return [
            result async for result in pool.amap(way.of(calls.double), range(start, start + 50))
        ]

    found: dict[int, list[int]] = {}
    with way.make() as pool:
        threads = [
            threading.Thread(
                target=lambda start=start: found.update({start: library.run(main, pool, start)})
            )
            for start in (0, 1000)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {
        start: [2 * number for number in range(start, start + 50)] for start in (0, 1000)
    }


@pytest.mark.ways("threads")
def test_trio_as_a_guest_of_asyncio(way: Any) -> None:
    """Both libraries in one thread: each call belongs to the one whose task makes it."""
    trio = pytest.importorskip("trio")

    async def guest(pool: treadle.Executor) -> int:
        return await pool.asubmit(calls.double, 4) + await pool.asubmit(calls.double, 5)

    async def host(pool: treadle.Executor) -> None:
        loop = asyncio.get_running_loop()
        over: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest,
            pool,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=lambda outcome: over.set_result(outcome.unwrap()),
        )
        assert await pool.asubmit(calls.double, 3) == 6
        assert await over == 18

    with way.make() as pool:
        asyncio.run(host(pool))


@pytest.mark.ways("coroutines")
def test_a_plan_of_coroutines_on_the_loop_that_the_program_chose(way: Any) -> None:
    uvloop = pytest.importorskip("uvloop")
    if sys.version_info >= (3, 14):
        pytest.skip("from 3.14 on there is no policy to choose the loop by")

    async def loop_of() -> str:
        return type(asyncio.get_running_loop()).__module__

    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    try:
        with way.make() as pool:
            assert pool.submit(loop_of).result().startswith("uvloop")
            assert list(pool.map(way.of(calls.double), range(50))) == list(range(0, 100, 2))
            over = pool.options(timeout=0.05).submit(calls.doze, 60)
            with pytest.raises(treadle.TaskTimeout):
                over.result()
    finally:
        asyncio.set_event_loop_policy(before)
