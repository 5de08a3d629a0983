"""Tiny tasks: submit them all, then take every result. What is timed is the pool itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from benches.whole.pools import PROCESSES, opened
from benches.whole.tasks import identity
from benches.whole.workload import Requirement, Sample, Workload, calibrated, timed

MOST = 20_000  # tasks in a sample, as in the research that set the table's figures

Opener = Callable[[str, int], AbstractContextManager[Sample]]


def of(arguments: Sequence[Any]) -> Opener:
    """Samples the time of one task of `identity` over `arguments`."""

    @contextmanager
    def open_pool(name: str, workers: int) -> Iterator[Sample]:
        with opened(PROCESSES, name, workers) as pool:

            def run(count: int) -> float:
                chosen = arguments[:count]
                return timed(lambda: pool.collect(pool.submit_all(identity, chosen)))

            yield calibrated(run, len(arguments))

    return open_pool


WORKLOADS = (
    Workload(
        group="tiny",
        name="tiny-scalars",
        title="tiny tasks, submit and result, integers",
        contenders=tuple(PROCESSES),
        open=of(range(MOST)),
        requirements=(Requirement(40, 120),),
    ),
    Workload(
        group="tiny",
        name="tiny-pickled",
        title="tiny tasks, submit and result, arguments that need pickle",
        contenders=tuple(PROCESSES),
        open=of([{"number": number, "name": "a name"} for number in range(MOST)]),
        requirements=(Requirement(20, 60),),
    ),
)
