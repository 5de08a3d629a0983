"""Submit, result, exception, cancel: the contract of one call, for every strategy."""

from __future__ import annotations

import concurrent.futures
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contract_calls as calls
import pytest
import treadle
from contract_calls import HYBRIDS, Gate

EVERY = pytest.mark.ways(
    "serial", "threads", "processes", "spawn", "coroutines", "interpreters", *HYBRIDS
)
#: A serial plan runs each call inside ``submit``: nothing ever waits, so there is nothing to cancel, to hold or to stop.
CONCURRENT = pytest.mark.ways("threads", "processes", "coroutines", "interpreters", *HYBRIDS)


@EVERY
def test_a_call_gives_its_result(way: Any) -> None:
    with way.make() as pool:
        future = pool.submit(way.of(calls.add), 1, 2, third=3)
        assert isinstance(future, concurrent.futures.Future)
        assert isinstance(future, treadle.Future)
        assert future.result() == 6
        assert future.exception() is None
        assert future.done()
        assert not future.cancelled()
        assert not future.running()
        assert not future.cancel()


def test_arguments_arrive_as_they_were_given(way: Any) -> None:
    with way.make() as pool:
        keywords_of = way.of(calls.keywords_of)
        assert pool.submit(keywords_of).result() == ((), {})
        assert pool.submit(keywords_of, 1, fn=2, self=3).result() == ((1,), {"fn": 2, "self": 3})
        assert pool.submit(keywords_of, function=1, timeout=2).result() == (
            (),
            {"function": 1, "timeout": 2},
        )
        assert pool.submit(keywords_of, *range(300)).result() == (tuple(range(300)), {})


@EVERY
def test_an_exception_arrives_as_itself_with_its_traceback(way: Any) -> None:
    with way.make() as pool:
        future = pool.submit(way.of(calls.complain), "too bad")
        error = future.exception()
        assert type(error) is calls.Complaint
        assert error.args == ("too bad",)
        with pytest.raises(calls.Complaint, match="too bad") as caught:
            future.result()
        told = "".join(traceback.format_exception(caught.type, caught.value, caught.tb))
        assert "in complain\n" in told
        assert "raise Complaint(text)" in told
        # And the pool goes on.
        assert pool.submit(way.of(calls.double), 4).result() == 8


def test_the_cause_of_an_exception_is_told(way: Any) -> None:
    with way.make() as pool:
        error = pool.submit(way.of(calls.complain_with_cause)).exception()
        assert isinstance(error, calls.Complaint)
        told = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        assert "KeyError: 'missing'" in told
        assert "direct cause" in told


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("timeout", [None, 60.0])
def test_an_exception_that_would_end_a_program_fails_one_call(
    way: Any, kind: type[BaseException], timeout: float | None
) -> None:
    if way.name == "serial" and kind is KeyboardInterrupt:
        pytest.skip("in the caller's own thread it is the caller's own Ctrl-C")
    if way.name == "serial" and timeout:
        pytest.skip("a serial plan refuses timeouts")
    with way.make() as pool:
        future = pool.options(timeout=timeout).submit(way.of(raise_this), kind)
        assert type(future.exception()) is kind
        assert pool.submit(way.of(calls.double), 4).result() == 8


def raise_this(kind: type[BaseException]) -> None:
    raise kind("stop")


def test_many_calls_each_give_their_own_result(way: Any) -> None:
    with way.make() as pool:
        double = way.of(calls.double)
        futures = [pool.submit(double, number) for number in range(5000)]
        assert [future.result() for future in futures] == [2 * number for number in range(5000)]


@CONCURRENT
def test_a_cancelled_call_never_runs(way: Any, gate: Gate, marks: Path) -> None:
    with way.make(workers=1) as pool:
        first = pool.submit(way.of(gate), "held")
        gate.await_arrivals()
        waiting = [pool.submit(way.of(calls.leave_a_mark), marks) for _ in range(50)]
        assert first.running()
        assert not first.cancel()
        cancelled = waiting[::2]
        assert all(future.cancel() for future in cancelled)
        assert all(future.cancel() for future in cancelled), "cancelling twice is no error"
        gate.open()
        assert first.result() == "held"
        for future in cancelled:
            assert future.cancelled()
            assert future.done()
            with pytest.raises(concurrent.futures.CancelledError):
                future.result()
            with pytest.raises(concurrent.futures.CancelledError):
                future.exception()
        for future in waiting[1::2]:
            assert future.result() is None
    assert len(list(marks.iterdir())) == 25


@CONCURRENT
def test_cancel_races_with_the_start_and_never_does_both(way: Any, marks: Path) -> None:
    with way.make(workers=2) as pool:
        mark = way.of(calls.leave_a_mark)
        futures = [pool.submit(mark, marks) for _ in range(600)]
        cancelled = sum(future.cancel() for future in reversed(futures))
    ran = sum(not future.cancelled() for future in futures)
    assert ran + cancelled == 600
    assert len(list(marks.iterdir())) == ran


@CONCURRENT
def test_result_waits_no_longer_than_it_may(way: Any, gate: Gate) -> None:
    with way.make() as pool:
        future = pool.submit(way.of(gate))
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(timeout=0.01)
        with pytest.raises(concurrent.futures.TimeoutError):
            future.exception(timeout=0)
        gate.open()
        assert future.result() is None


@CONCURRENT
def test_threads_may_submit_and_wait_together(way: Any) -> None:
    trouble: list[BaseException] = []

    def use(pool: treadle.Executor, first: int) -> None:
        try:
            futures = [pool.submit(way.of(calls.double), first + k) for k in range(300)]
            assert [future.result() for future in futures] == [2 * (first + k) for k in range(300)]
        except BaseException as error:
            trouble.append(error)

    with way.make() as pool:
        threads = [threading.Thread(target=use, args=(pool, 1000 * k)) for k in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert trouble == []


@CONCURRENT
def test_several_threads_may_wait_for_one_call(way: Any, gate: Gate) -> None:
    with way.make() as pool:
        future = pool.submit(way.of(gate), 7)
        gate.await_arrivals()
        seen: list[Any] = []
        threads = [threading.Thread(target=lambda: seen.append(future.result())) for _ in range(5)]
        for thread in threads:
            thread.start()
        gate.open()
        for thread in threads:
            thread.join()
        assert seen == [7] * 5


@CONCURRENT
def test_max_pending_holds_submit_back(way: Any, gate: Gate) -> None:
    with way.make(workers=1, max_pending=2) as pool:
        first = [pool.submit(way.of(gate), number) for number in range(2)]
        gate.await_arrivals()
        submitted = threading.Event()
        later: list[Any] = []

        def submit_one_more() -> None:
            later.append(pool.submit(way.of(calls.double), 21))
            submitted.set()

        thread = threading.Thread(target=submit_one_more)
        thread.start()
        # That it has not come yet proves little; that the counts never show a third call does more.
        assert not submitted.wait(0.1)
        assert pool.stats().submitted == 2
        gate.open()
        assert submitted.wait(60)
        assert [future.result() for future in first] == [0, 1]
        assert later[0].result() == 42
        thread.join()


@CONCURRENT
def test_max_pending_counts_cancelled_calls_as_ended(way: Any, gate: Gate) -> None:
    with way.make(workers=1, max_pending=2) as pool:
        held = pool.submit(way.of(gate))
        gate.await_arrivals()
        for _ in range(10):
            assert pool.submit(way.of(calls.double), 1).cancel()
        gate.open()
        held.result()


@CONCURRENT
def test_more_calls_than_max_pending_all_run(way: Any) -> None:
    with way.make(max_pending=3) as pool:
        double = way.of(calls.double)
        futures = [pool.submit(double, number) for number in range(500)]
        assert [future.result() for future in futures] == [2 * number for number in range(500)]


def test_a_call_whose_result_nobody_reads_runs(way: Any, marks: Path) -> None:
    with way.make() as pool:
        for _ in range(20):
            pool.submit(way.of(calls.leave_a_mark), marks)
    assert len(list(marks.iterdir())) == 20


@pytest.mark.ways("threads", "processes", "interpreters", *HYBRIDS)
def test_calls_whose_results_nobody_reads_do_not_stand_still(
    way: Any, new_gate: Callable[[], Gate]
) -> None:
    """More bytes of results than a result ring takes: somebody has to empty it although nobody waits."""
    last = new_gate()
    pool = way.make(workers=1)
    futures = [pool.submit(way.of(calls.give), b"x" * 900) for _ in range(1500)]
    futures.append(pool.submit(way.of(last)))
    last.await_arrivals()
    last.open()
    assert futures[-1].result() is None


@pytest.mark.ways("processes", *HYBRIDS)
def test_a_hundred_thousand_calls_may_wait(way: Any, gate: Gate) -> None:
    with way.make(workers=2) as pool:
        held = [pool.submit(way.of(gate)), pool.submit(way.of(gate))]
        gate.await_arrivals(2)
        double = way.of(calls.double)
        futures = [pool.submit(double, number) for number in range(100_000)]
        stats = pool.stats()
        assert stats.queued == 100_000
        assert stats.running == 2
        gate.open()
        assert all(future.result() == 2 * number for number, future in enumerate(futures))
        assert held[0].result() is None


@CONCURRENT
def test_a_hundred_thousand_waiting_calls_can_be_cancelled(way: Any, gate: Gate) -> None:
    count = 100_000 if way.name != "coroutines" else 20_000
    pool = way.make(workers=1)
    held = pool.submit(way.of(gate))
    gate.await_arrivals()
    double = way.of(calls.double)
    futures = [pool.submit(double, number) for number in range(count)]
    pool.shutdown(wait=False, cancel_futures=True)
    gate.open()
    pool.shutdown()
    assert held.result() is None
    assert all(future.cancelled() for future in futures)
    stats = pool.stats()
    assert (stats.submitted, stats.completed, stats.cancelled) == (count + 1, 1, count)


def test_calls_that_come_at_once_get_a_thread_each(new_gate: Callable[[], Gate]) -> None:
    """One idle thread is not counted for several calls: a second one that waits for the first would never begin."""
    for _ in range(20):
        with treadle.Executor(threads=2) as pool:
            pool.submit(int).result()
            gates = [new_gate(), new_gate()]
            held = [pool.submit(gate) for gate in gates]
            for gate in gates:
                gate.await_arrivals()
            for gate in gates:
                gate.open()
            for future in held:
                future.result()
