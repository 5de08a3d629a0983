"""Tiny tasks on worker threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benches.whole.pools import THREADS, opened
from benches.whole.tasks import identity
from benches.whole.workload import Requirement, Sample, Workload, calibrated, timed

MOST = 20_000
BASELINE = "ThreadPoolExecutor"


@contextmanager
def open_pool(name: str, workers: int) -> Iterator[Sample]:
    """Samples the time of one task, submitted and collected."""
    with opened(THREADS, name, workers) as pool:

        def run(count: int) -> float:
            return timed(lambda: pool.collect(pool.submit_all(identity, range(count))))

        yield calibrated(run, MOST)


WORKLOADS = (
    Workload(
        group="threads",
        name="threads-tiny",
        title="tiny tasks on threads, submit and result",
        contenders=tuple(THREADS),
        open=open_pool,
        requirements=(Requirement(15, 30, against=BASELINE),),
        baseline=BASELINE,
    ),
)
