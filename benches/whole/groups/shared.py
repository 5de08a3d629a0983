"""One array for many tasks: sent with each by the peers, shared once by treadle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy

from benches.whole.array_tasks import first
from benches.whole.pools import PROCESSES, Futures, opened
from benches.whole.workload import TREADLE, Requirement, Sample, Workload, timed

TASKS = 20
COUNT = 1_250_000  # float64: 10 MB


@contextmanager
def open_pool(name: str, workers: int) -> Iterator[Sample]:
    """Samples the time of 20 tasks that are all given the same array."""
    array = numpy.ones(COUNT)
    with opened(PROCESSES, name, workers) as pool:
        given = array
        if name == TREADLE:
            assert isinstance(pool, Futures)
            put = getattr(pool.executor, "share", None)
            if put is None:
                raise NotImplementedError("this treadle has no way to share an object once")
            given = put(array)

        def sample() -> float:
            return timed(lambda: pool.collect(pool.submit_all(first, [given] * TASKS)))

        sample()
        yield sample


WORKLOADS = (
    Workload(
        group="shared",
        name="shared-array",
        title="one array of 10 MB to 20 tasks",
        contenders=tuple(PROCESSES),
        open=open_pool,
        requirements=(Requirement(50, 120),),
        remark="treadle shares it once, before the timing; the peers can only send it with each",
    ),
)
