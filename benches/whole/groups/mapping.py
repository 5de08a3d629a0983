"""`map` of a tiny function: with each pool's default settings, and at each one's best chunk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benches.whole.pools import PROCESSES, Pool, opened
from benches.whole.tasks import identity
from benches.whole.workload import Requirement, Sample, Workload, calibrated, timed

MOST = 20_000
CHUNKS = (16, 64, 256, 1024)  # the optimum of every pool lay within these in the research


def run_with(pool: Pool, chunk: int | None, count: int) -> float:
    """Seconds to map over `count` integers."""
    return timed(lambda: pool.map(identity, range(count), chunk))


@contextmanager
def open_default(name: str, workers: int) -> Iterator[Sample]:
    """Samples the time of one item with the pool's default chunk."""
    with opened(PROCESSES, name, workers) as pool:
        yield calibrated(lambda count: run_with(pool, None, count), MOST)


@contextmanager
def open_best(name: str, workers: int) -> Iterator[Sample]:
    """Samples the time of one item with the chunk that was fastest in three trials of each."""
    with opened(PROCESSES, name, workers) as pool:
        pool.map(identity, range(1000), CHUNKS[0])
        best = min(
            CHUNKS, key=lambda chunk: min(run_with(pool, chunk, MOST) for _trial in range(3))
        )
        yield lambda: run_with(pool, best, MOST) / MOST


WORKLOADS = (
    Workload(
        group="map",
        name="map-default",
        title="map of a tiny function, default settings",
        contenders=tuple(PROCESSES),
        open=open_default,
        requirements=(Requirement(50, 200),),
    ),
    Workload(
        group="map",
        name="map-best-chunk",
        title="map of a tiny function, every pool at its best fixed chunk",
        contenders=tuple(PROCESSES),
        open=open_best,
        requirements=(Requirement(2, 6), Requirement(1, 2, against="multiprocessing.Pool")),
        remark=f"chunks tried: {', '.join(map(str, CHUNKS))}",
    ),
)
