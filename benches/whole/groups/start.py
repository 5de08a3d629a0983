"""Start-up: from creating a second pool to its first result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benches.whole.fresh import sampled
from benches.whole.pools import PROCESSES
from benches.whole.workload import Requirement, Sample, Workload


@contextmanager
def open_pool(name: str, workers: int) -> Iterator[Sample]:
    """Samples in a fresh interpreter."""
    yield lambda: sampled("start", name, workers)


WORKLOADS = (
    Workload(
        group="start",
        name="start-second",
        title="a second pool, creation to first result",
        contenders=tuple(PROCESSES),
        open=open_pool,
        requirements=(Requirement(5, 10),),
        remark="each sample in a fresh interpreter; the first pool is closed before",
    ),
)
