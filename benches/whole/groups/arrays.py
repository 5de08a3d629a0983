"""Big NumPy arrays as argument and as result, warm, beside a plain copy of the same size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy

from benches.whole.array_tasks import first, produced
from benches.whole.pools import PROCESSES, opened
from benches.whole.workload import Requirement, Sample, Workload, timed

MEMCPY = "memcpy"
WARM_UP = 3  # calls: the arenas of shared memory have then been touched


def _warm(call: Callable[[], object]) -> Sample:
    """A sample of `call` right after another one: the contenders in between have emptied the caches, for a plain copy as for
    every pool."""

    def sample() -> float:
        call()
        return timed(call)

    return sample


def workload(megabytes: int, direction: str) -> Workload:
    """One array of `megabytes` (10**6 bytes), going to a worker or coming from it."""
    count = megabytes * 125_000  # float64

    @contextmanager
    def open_pool(name: str, workers: int) -> Iterator[Sample]:
        array = numpy.ones(count)
        if name == MEMCPY:
            target = numpy.empty_like(array)
            numpy.copyto(target, array)
            yield _warm(lambda: numpy.copyto(target, array))
            return
        with opened(PROCESSES, name, workers) as pool:

            def call() -> None:
                if direction == "argument":
                    pool.call(first, array)
                else:
                    pool.call(produced, count)

            for _call in range(WARM_UP * workers):
                call()
            yield _warm(call)

    return Workload(
        group="arrays",
        name=f"array-{megabytes}MB-{direction}",
        title=f"a NumPy array of {megabytes} MB as {direction}, warm",
        contenders=(*PROCESSES, MEMCPY),
        open=open_pool,
        requirements=(Requirement(20, 40), Requirement(1.5, 1.0, against=MEMCPY, at_most=True)),
    )


WORKLOADS = tuple(
    workload(megabytes, direction)
    for megabytes in (10, 100)
    for direction in ("argument", "result")
)
