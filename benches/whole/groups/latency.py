"""Latency: one task at a time, submitted and waited for."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benches.whole.pools import PROCESSES, opened
from benches.whole.tasks import identity
from benches.whole.workload import Requirement, Sample, Workload, timed

CALLS = 400  # in a sample: enough for a 99th percentile of four calls


def at(quantile: Callable[[list[float]], float]) -> Callable:
    """Samples `quantile` of the seconds from submit to result."""

    @contextmanager
    def open_pool(name: str, workers: int) -> Iterator[Sample]:
        with opened(PROCESSES, name, workers) as pool:

            def sample() -> float:
                return quantile([timed(lambda: pool.call(identity, 1)) for _call in range(CALLS)])

            sample()
            yield sample

    return open_pool


def p99(seconds: list[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(seconds, n=100)[98]


WORKLOADS = (
    Workload(
        group="latency",
        name="latency-p50",
        title="latency of one task at a time, median",
        contenders=tuple(PROCESSES),
        open=at(statistics.median),
        requirements=(Requirement(15, 50),),
    ),
    Workload(
        group="latency",
        name="latency-p99",
        title="latency of one task at a time, 99th percentile",
        contenders=tuple(PROCESSES),
        open=at(p99),
    ),
)
