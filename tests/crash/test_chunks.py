"""Chunks of ``map``: what a death costs inside one, results of every kind and size, and the rest of a chunk given to others."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import treadle

Make = Callable[..., treadle.Executor]


class Unpicklable:
    def __reduce__(self) -> Any:
        raise pickle.PicklingError("not this one")


def _refuse() -> None:
    raise ValueError("not here")


class Unreadable:
    def __reduce__(self) -> Any:
        return _refuse, ()


def text_of(value: int) -> str:
    return f"{value} " * 10


def record_of(value: int) -> dict[str, Any]:
    return {"value": value, "square": [value, value * value]}


def bytes_of(value: int) -> bytes:
    return bytes([value % 251]) * (20_000 if value % 3 == 0 else 4_000)


def buffer_of(value: int) -> bytearray:
    return bytearray([value % 251]) * 5_000


class Carried:
    """Bytes that travel beside the pickle."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Carried, (pickle.PickleBuffer(self.data),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Carried) and bytes(self.data) == bytes(other.data)


def carried_of(value: int) -> Any:
    return [Carried(bytes([value % 251]) * 30_000), value, Carried(b"short")]


def mixed_of(value: int) -> Any:
    return [text_of, record_of, bytes_of, carried_of, buffer_of][value % 5](value)


def huge_of(value: int) -> str:
    return "x" * 200_000 + str(value)


def long_list_of(value: int) -> list[int]:
    return list(range(30_000 + value))


KINDS = [
    text_of,
    record_of,
    bytes_of,
    buffer_of,
    carried_of,
    mixed_of,
    huge_of,
    long_list_of,
]


@pytest.mark.parametrize("call", KINDS, ids=lambda call: call.__name__)
def test_results_of_every_kind_and_size_come_back(
    pool_of: Make, call: Callable[[int], Any]
) -> None:
    pool = pool_of(2)
    numbers = range(200 if call not in (huge_of, long_list_of) else 20)
    for size in (None, 7, 200):
        for number, result in zip(numbers, pool.map(call, numbers, chunksize=size), strict=True):
            assert result == call(number)


class FatalAt:
    """Gives what ``call`` gives, and dies at one item."""

    def __init__(self, call: Callable[[int], Any], fatal: int) -> None:
        self.call, self.fatal = call, fatal

    def __call__(self, value: int) -> Any:
        if value == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.call(value)


def results_and_error(results: Iterator[Any]) -> tuple[list[Any], BaseException | None]:
    seen = []
    try:
        for result in results:
            seen.append(result)
    except Exception as error:
        return seen, error
    return seen, None


@pytest.mark.parametrize("call", KINDS, ids=lambda call: call.__name__)
@pytest.mark.parametrize("fatal", [0, 1, 13, 39])
def test_a_death_costs_only_the_item_that_ran(
    pool_of: Make, call: Callable[[int], Any], fatal: int
) -> None:
    pool = pool_of(2)
    seen, error = results_and_error(pool.map(FatalAt(call, fatal), range(40), chunksize=40))
    assert seen == [call(number) for number in range(fatal)]
    assert isinstance(error, treadle.WorkerDied), error
    assert "SIGKILL" in str(error)
    assert list(pool.map(call, range(10), chunksize=5)) == [call(number) for number in range(10)]


class Failing:
    """Gives what ``call`` gives, and what ``make`` gives at one item."""

    def __init__(self, call: Callable[[int], Any], make: Callable[[], Any], bad: int) -> None:
        self.call, self.make, self.bad = call, make, bad

    def __call__(self, value: int) -> Any:
        return self.make() if value == self.bad else self.call(value)


@pytest.mark.parametrize("call", [text_of, record_of, carried_of], ids=lambda call: call.__name__)
@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (_refuse, ValueError, "not here"),
        (Unpicklable, treadle.PayloadError, "not this one"),
        (Unreadable, treadle.PayloadError, "not here"),
    ],
    ids=["raises", "does not pickle", "does not unpickle"],
)
def test_a_failure_in_a_chunk_costs_only_its_item(
    pool_of: Make,
    call: Callable[[int], Any],
    make: Callable[[], Any],
    kind: type[Exception],
    told: str,
) -> None:
    pool = pool_of(2)
    for bad in (0, 5, 29):
        function = Failing(call, make, bad)
        seen, error = results_and_error(pool.map(function, range(30), chunksize=30))
        assert seen == [call(number) for number in range(bad)]
        assert isinstance(error, kind), error
        assert told in str(error)


class Meeting:
    """Short items, and at the end two that wait for each other: they end only if two workers run them at the same time."""

    def __init__(self, folder: Path, first: int) -> None:
        self.folder, self.first = str(folder), first

    def __call__(self, value: int) -> int:
        if value >= self.first:
            me, other = value, 2 * self.first + 1 - value
            Path(self.folder, str(me)).touch()
            while not Path(self.folder, str(other)).exists():
                pass
        return value


@pytest.mark.parametrize("ordered", [True, False])
def test_the_rest_of_a_long_chunk_goes_to_a_worker_with_nothing_to_do(
    pool_of: Make, tmp_path: Path, ordered: bool
) -> None:
    pool = pool_of(2)
    # The input is of unknown length, so that chunks have grown to their full size when the two come.
    first = 20_000
    items = itertools.takewhile(lambda value: value < first + 2, itertools.count())
    results = pool.map(Meeting(tmp_path, first), items, ordered=ordered, timeout=60)
    assert sorted(results) == list(range(first + 2))


class Awaiting:
    """The first item ends only after a much later one has begun."""

    def __init__(self, folder: Path, later: int) -> None:
        self.folder, self.later = str(folder), later

    def __call__(self, value: int) -> int:
        told = Path(self.folder, "told")
        if value == self.later:
            told.touch()
        while value == 0 and not told.exists():
            pass
        return value


@pytest.mark.parametrize("size", [None, 2])
def test_a_long_first_item_does_not_stop_the_others(
    pool_of: Make, tmp_path: Path, size: int | None
) -> None:
    pool = pool_of(2)
    results = pool.map(Awaiting(tmp_path, 90), range(400), chunksize=size, timeout=60)
    assert list(results) == list(range(400))


def test_kills_under_chunks_lose_no_result_that_came_before(pool_of: Make) -> None:
    pool = pool_of(2)
    for fatal in (17, 301, 302, 640, 999):
        seen, error = results_and_error(pool.map(FatalAt(record_of, fatal), range(1000)))
        assert seen == [record_of(number) for number in range(fatal)]
        assert isinstance(error, treadle.WorkerDied)
    assert pool.stats().worker_deaths == 5
