"""Memory: the proportional set size of an idle worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benches.whole.fresh import sampled
from benches.whole.pools import PROCESSES
from benches.whole.workload import Requirement, Sample, Workload


@contextmanager
def open_pool(name: str, workers: int) -> Iterator[Sample]:
    """Samples in a fresh interpreter."""
    yield lambda: sampled("memory", name, workers)


WORKLOADS = (
    Workload(
        group="memory",
        name="memory-idle",
        title="memory (PSS) of an idle worker",
        contenders=tuple(PROCESSES),
        open=open_pool,
        requirements=(Requirement(2, 3),),
        unit="B",
        remark="each sample in a fresh interpreter, whose main module imports little",
    ),
)
