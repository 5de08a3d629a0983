"""``map``: order, laziness, bounds, exceptions, early ends; for every strategy."""

from __future__ import annotations

import concurrent.futures
import itertools
from collections.abc import Callable, Iterator
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


class Counted:
    """Numbers without an end, and how many of them were read."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[int]:
        for number in itertools.count():
            self.read += 1
            yield number


@EVERY
def test_results_come_in_the_order_of_the_inputs(way: Any) -> None:
    with way.make() as pool:
        assert list(pool.map(way.of(calls.double), range(1000))) == list(range(0, 2000, 2))


@pytest.mark.parametrize("chunksize", [None, 1, 3, 1000])
@pytest.mark.parametrize("buffersize", [None, 1, 5])
@pytest.mark.parametrize("ordered", [True, False])
def test_every_setting_gives_every_result_once(
    way: Any, chunksize: int | None, buffersize: int | None, ordered: bool
) -> None:
    with way.make() as pool:
        results = list(
            pool.map(
                way.of(calls.double),
                range(100),
                chunksize=chunksize,
                buffersize=buffersize,
                ordered=ordered,
            )
        )
        if ordered:
            assert results == list(range(0, 200, 2))
        assert sorted(results) == list(range(0, 200, 2))


def test_several_iterables_end_with_the_shortest(way: Any) -> None:
    with way.make() as pool:
        add = way.of(calls.add)
        assert list(pool.map(add, [1, 2, 3], (10, 20), itertools.count(100))) == [111, 123]
        assert list(pool.map(add, range(50), range(50), range(50))) == [3 * k for k in range(50)]


def test_nothing_gives_nothing(way: Any) -> None:
    with way.make() as pool:
        assert list(pool.map(way.of(calls.double), [])) == []
        assert list(pool.map(way.of(calls.double), iter(()), ordered=False)) == []
        assert list(pool.map(way.of(calls.add), [], [1])) == []


def test_an_input_that_is_a_tuple_is_one_argument(way: Any) -> None:
    with way.make() as pool:
        assert list(pool.map(way.of(calls.give), [(1, 2), (3,), ()])) == [(1, 2), (3,), ()]
        assert list(pool.map(way.of(calls.give), [[1], {}, None], chunksize=3)) == [[1], {}, None]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("buffersize", [None, 8])
def test_inputs_are_read_only_as_far_as_is_needed(
    way: Any, ordered: bool, buffersize: int | None
) -> None:
    numbers = Counted()
    with way.make() as pool:
        results = pool.map(way.of(calls.double), numbers, buffersize=buffersize, ordered=ordered)
        first = list(itertools.islice(results, 20))
        if ordered:
            assert first == list(range(0, 40, 2))
        results.close()
    # Without a bound of the caller's own: some per worker, or chunks of tasks that take no time.
    assert numbers.read <= (20 + 1 + buffersize if buffersize else 1_000_000)


@CONCURRENT
def test_a_bounded_map_runs_no_further_ahead(way: Any, gate: Gate) -> None:
    numbers = Counted()
    pool = way.make(workers=2)
    results = pool.map(way.of(gate), numbers, buffersize=5)
    gate.await_arrivals(2)
    assert numbers.read == 5
    gate.open()
    assert list(itertools.islice(results, 10)) == list(range(10))
    assert numbers.read <= 15
    results.close()


@CONCURRENT
def test_the_first_calls_are_submitted_before_the_first_result_is_asked_for(
    way: Any, marks: Path
) -> None:
    with way.make() as pool:
        results = pool.map(way.of(calls.mark_and_give), [marks] * 3, range(3))
        pool.shutdown(wait=True)
        assert len(list(marks.iterdir())) >= 1
        assert next(results) == 0


@EVERY
@pytest.mark.parametrize("chunksize", [None, 7])
def test_an_exception_comes_in_its_place_and_ends_the_map(way: Any, chunksize: int | None) -> None:
    with way.make() as pool:
        results = pool.map(
            way.of(calls.complain_at), range(100), itertools.repeat(33), chunksize=chunksize
        )
        assert list(itertools.islice(results, 33)) == list(range(33))
        with pytest.raises(calls.Complaint, match="33 is bad"):
            next(results)
        with pytest.raises(StopIteration):
            next(results)
        assert list(pool.map(way.of(calls.double), range(10))) == list(range(0, 20, 2))


@pytest.mark.parametrize("chunksize", [None, 7])
def test_an_exception_ends_an_unordered_map(way: Any, chunksize: int | None) -> None:
    with way.make() as pool:
        results = pool.map(
            way.of(calls.complain_at),
            range(100),
            itertools.repeat(33),
            chunksize=chunksize,
            ordered=False,
        )
        seen = []
        with pytest.raises(calls.Complaint, match="33 is bad"):
            seen.extend(results)
        assert len(set(seen)) == len(seen)
        assert 33 not in seen


@pytest.mark.parametrize("ordered", [True, False])
def test_an_exception_of_the_inputs_reaches_the_reader(way: Any, ordered: bool) -> None:
    def broken() -> Iterator[int]:
        yield from range(2000)
        raise OSError("no more inputs")

    with way.make() as pool:
        with pytest.raises(OSError, match="no more inputs"):
            list(pool.map(way.of(calls.double), broken(), ordered=ordered))
        assert pool.submit(way.of(calls.double), 2).result() == 4


@CONCURRENT
@pytest.mark.parametrize("ordered", [True, False])
def test_a_map_that_ends_early_cancels_what_waits(
    way: Any, new_gate: Callable[[], Gate], marks: Path, ordered: bool
) -> None:
    gate = new_gate()
    pool = way.make(workers=1)
    passed = pool.submit(way.of(calls.double), 1)
    assert passed.result() == 2
    results = pool.map(
        way.of(calls.mark_and_give), [marks] * 50, range(50), chunksize=1, ordered=ordered
    )
    next(results)
    held = pool.submit(way.of(gate))
    later = pool.map(
        way.of(calls.mark_and_give), [marks] * 50, itertools.count(100), ordered=ordered
    )
    list(results)
    gate.await_arrivals()
    before = len(list(marks.iterdir()))
    assert before == 50
    with pytest.raises(concurrent.futures.TimeoutError):
        next(pool.map(way.of(calls.mark_and_give), [marks] * 5, range(5), timeout=0.01))
    # A generator that was never begun has nothing to close, in the standard library too: begin it.
    gate.open()
    assert held.result() is None
    assert sorted(later) == list(range(100, 150))
    assert len(list(marks.iterdir())) == 100


@CONCURRENT
@pytest.mark.parametrize("ordered", [True, False])
def test_a_map_takes_no_longer_than_it_may(way: Any, gate: Gate, ordered: bool) -> None:
    pool = way.make()
    results = pool.map(way.of(gate), range(3), timeout=0.05, ordered=ordered)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)
    gate.open()


@pytest.mark.ways("threads", "processes", "interpreters")
def test_unordered_results_come_as_they_end(way: Any, new_gate: Callable[[], Gate]) -> None:
    gates = [new_gate() for _ in range(2)]
    pool = way.make(workers=2)
    results = pool.map(pass_gate, gates, [0, 1], ordered=False, chunksize=1)
    gates[1].open()
    assert next(results) == 1
    gates[0].open()
    assert next(results) == 0
    with pytest.raises(StopIteration):
        next(results)


def pass_gate(gate: Gate, value: int) -> int:
    result: int = gate.wait(value)
    return result


@pytest.mark.parametrize("chunksize", [None, 1, 4])
def test_each_item_of_a_map_is_retried_by_itself(
    way: Any, marks: Path, chunksize: int | None
) -> None:
    with way.make() as pool:
        results = pool.options(retries=2).map(
            way.of(calls.fail_first_of),
            itertools.repeat(marks),
            itertools.repeat(1),
            range(12),
            chunksize=chunksize,
        )
        assert list(results) == list(range(12))


@pytest.mark.ways("threads", "processes", "interpreters")
def test_the_timeout_of_a_task_is_not_that_of_its_chunk(way: Any) -> None:
    with way.make(workers=1) as pool:
        results = pool.options(timeout=2.0).map(
            calls.nap, itertools.repeat(0.15), range(20), chunksize=20
        )
        assert list(results) == list(range(20))


@pytest.mark.ways("processes", "interpreters")
@pytest.mark.parametrize("plan_chunk", [1, 16])
def test_the_plan_may_say_the_chunk(plan_chunk: int, way: Any) -> None:
    with treadle.Executor(treadle.Plan(**{way.name: 2, "chunk": plan_chunk})) as pool:
        ids = list(pool.map(calls.process_id, range(64)))
        assert len(ids) == 64
        assert pool.stats().submitted == 64 // plan_chunk


@pytest.mark.ways("processes", "interpreters")
def test_a_result_that_does_not_pickle_fails_its_own_item(way: Any) -> None:
    with way.make() as pool:
        results = pool.map(unpicklable_at, range(20), itertools.repeat(11), chunksize=5)
        assert list(itertools.islice(results, 11)) == list(range(11))
        with pytest.raises(treadle.PayloadError):
            next(results)


def unpicklable_at(value: int, bad: int) -> Any:
    # A generator: neither pickle nor cloudpickle takes it.
    return (value for _ in ()) if value == bad else value


@pytest.mark.parametrize("size", [0, -1, True, "3", 2.5])
def test_impossible_chunks_are_refused(way: Any, size: Any) -> None:
    with way.make() as pool, pytest.raises(ValueError, match="chunksize"):
        pool.map(way.of(calls.double), range(3), chunksize=size)


@pytest.mark.parametrize("size", [0, -1, "3", 2.5])
def test_impossible_buffers_are_refused(way: Any, size: Any) -> None:
    # As the standard library refuses them: a wrong type is a TypeError.
    error = ValueError if isinstance(size, int) else TypeError
    with way.make() as pool, pytest.raises(error, match="buffersize"):
        pool.map(way.of(calls.double), range(3), buffersize=size)


def test_progress_is_told_on_stderr(way: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with way.make() as pool:
        assert list(pool.map(way.of(calls.double), range(5), progress=True)) == [0, 2, 4, 6, 8]
    told = capsys.readouterr()
    assert told.out == ""
    assert "5 of 5 (100 %)" in told.err


def test_map_after_shutdown_is_refused(way: Any) -> None:
    pool = way.make()
    pool.shutdown()
    with pytest.raises(RuntimeError):
        pool.map(way.of(calls.double), range(3))
