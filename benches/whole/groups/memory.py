"""Memory: the proportional set size of an idle worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from benches.whole.fresh import sampled, sampled_bare
from benches.whole.pools import PROCESSES
from benches.whole.workload import Requirement, Sample, Workload


def workload(name: str, measure: Callable[[str, int], float], remark: str) -> Workload:
    """The idle workers of a program in a fresh interpreter."""

    @contextmanager
    def open_pool(contender: str, workers: int) -> Iterator[Sample]:
        yield lambda: measure(contender, workers)

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
    workload("memory-idle-bare", sampled_bare, "the main module imports next to nothing"),
    workload(
        "memory-idle",
        partial(sampled, "memory"),
        "the main module imports half of the standard library",
    ),
    workload(
        "memory-idle-numpy",
        partial(sampled, "memory-numpy"),
        "the main module imports NumPy too",
    ),
)
