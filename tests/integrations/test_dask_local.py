"""Dask's local schedulers on an executor."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
import treadle

dask = pytest.importorskip("dask", reason="Dask is not installed")

pytestmark = pytest.mark.timeout(300)

PLANS = [
    ("threads", {"threads": 3}),
    ("processes", {"processes": 2}),
    ("threads", {"processes": 2}),
    ("processes", {"threads": 2}),
]


def where(value: int) -> tuple[int, int, str]:
    return value * 2, os.getpid(), threading.current_thread().name


def total(values: list[Any]) -> int:
    return sum(value for value, *_ in values)


def complain(value: int) -> None:
    raise LookupError(f"{value} is bad")


@pytest.mark.parametrize(("scheduler", "plan"), PLANS, ids=str)
def test_a_graph_runs_on_the_executor(scheduler: str, plan: dict[str, int]) -> None:
    with (
        treadle.Executor(**plan, name="ours") as pool,
        dask.config.set(pool=pool, scheduler=scheduler),
    ):
        parts = [dask.delayed(where)(number) for number in range(60)]
        assert dask.delayed(total)(parts).compute() == sum(range(0, 120, 2))
        assert pool.stats().completed > 0
        for _, process, thread in dask.compute(*parts):
            if "threads" in plan:
                assert process == os.getpid()
                assert thread.startswith("ours")
            else:
                assert process != os.getpid()
        with pytest.raises(LookupError, match="3 is bad"):
            dask.delayed(complain)(3).compute()
        # The pool is the program's: Dask leaves it running.
        assert pool.submit(abs, -1).result() == 1


def test_dask_asks_how_many_workers_there_are() -> None:
    with treadle.Executor(threads=3) as pool:
        assert pool._max_workers == 3
    with treadle.Executor(processes=2) as pool:
        assert pool._max_workers == 2
