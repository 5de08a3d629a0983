"""Useful work: tasks of 10 ms, against workers that never wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benches.whole.pools import PROCESSES, opened
from benches.whole.tasks import work
from benches.whole.workload import Requirement, Sample, Workload, timed

SECONDS = 0.010
TASKS_PER_WORKER = 50
IDEAL = "ideal"


@contextmanager
def open_pool(name: str, workers: int) -> Iterator[Sample]:
    """Samples the time of one task; the ideal is not measured but defined: 10 ms / workers."""
    if name == IDEAL:
        yield lambda: SECONDS / workers
        return
    count = TASKS_PER_WORKER * workers
    with opened(PROCESSES, name, workers) as pool:

        def sample() -> float:
            return timed(lambda: pool.collect(pool.submit_all(work, [SECONDS] * count))) / count

        sample()
        yield sample


WORKLOADS = (
    Workload(
        group="ideal",
        name="ideal-10ms",
        title="tasks of 10 ms against workers that never wait",
        contenders=(*PROCESSES, IDEAL),
        open=open_pool,
        requirements=(Requirement(0.98, 1.0, against=IDEAL),),
        remark="a task works for 10 ms by the clock, so a busy machine does not lengthen it",
    ),
)
