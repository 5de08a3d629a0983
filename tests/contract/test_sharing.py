"""Values shared once with every worker of an executor."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import treadle

numpy = pytest.importorskip("numpy")


def total(array: Any, number: int) -> tuple[float, bool]:
    return float(array.sum()) + number, array.flags.writeable


def look(table: dict[str, Any], key: str) -> Any:
    return table[key]


def identity(value: Any) -> int:
    return id(value)


def test_a_shared_array_arrives_read_only_and_right() -> None:
    array = numpy.arange(1_000_000, dtype=float)
    with treadle.Executor(processes=2) as pool:
        shared = pool.share(array)
        assert pool.submit(total, array, 1).result() == (array.sum() + 1, True)
        answers = [pool.submit(total, shared, number).result() for number in range(20)]
        assert answers == [(array.sum() + number, False) for number in range(20)]


def test_a_shared_value_is_rebuilt_once_in_a_worker() -> None:
    with treadle.Executor(processes=1) as pool:
        shared = pool.share({"big": numpy.zeros(100_000), "small": 7})
        assert len({pool.submit(identity, shared).result() for _ in range(5)}) == 1
        assert pool.submit(look, shared, "small").result() == 7
        other = pool.share({"small": 8})
        assert pool.submit(look, other, "small").result() == 8
        assert pool.submit(look, shared, "small").result() == 7


def test_a_shared_value_survives_the_death_of_a_worker() -> None:
    import os

    with treadle.Executor(processes=1) as pool:
        shared = pool.share(numpy.ones(100_000))
        assert pool.submit(total, shared, 0).result() == (100_000.0, False)
        with pytest.raises(treadle.WorkerDied):
            pool.submit(os._exit, 3).result()
        assert pool.submit(total, shared, 0).result() == (100_000.0, False)


def test_what_cannot_be_shared_is_named() -> None:
    import threading

    with (
        treadle.Executor(processes=1) as pool,
        pytest.raises(treadle.PayloadError, match=r"value\['lock'\]"),
    ):
        pool.share({"lock": threading.Lock()})


def test_in_one_process_it_is_the_value_itself() -> None:
    value = [1, 2, 3]
    with treadle.Executor(threads=2) as pool:
        assert pool.share(value) is value


def test_a_shared_value_means_nothing_elsewhere() -> None:
    with treadle.Executor(processes=1) as pool:
        shared = pool.share([1, 2, 3])
        with pytest.raises(treadle.PayloadError, match="belongs to the workers"):
            pickle.loads(pickle.dumps(shared))
