"""Memory: the proportional set size of an idle worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benches.whole.fresh import sampled
from benches.whole.pools import PROCESSES
from benches.whole.workload import Requirement, Sample, Workload


def workload(name: str, measure: str, remark: str) -> Workload:
    """The idle workers of a program in a fresh interpreter."""

    @contextmanager
    def open_pool(contender: str, workers: int) -> Iterator[Sample]:
        yield lambda: sampled(measure, contender, workers)

    return Workload(
        group="memory",
        name=name,
        title="memory (PSS) of an idle worker",
        contenders=tuple(PROCESSES),
        open=open_pool,
        requirements=(Requirement(2, 3),),
        unit="B",
        remark=remark,
    )


WORKLOADS = (
    workload("memory-idle", "memory", "the main module imports the standard library only"),
    workload("memory-idle-numpy", "memory-numpy", "the main module imports NumPy too"),
)
