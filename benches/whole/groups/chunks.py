"""Is treadle's `map` without `chunksize` as fast as its own best fixed chunk?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benches.whole.pools import PROCESSES, opened
from benches.whole.tasks import work
from benches.whole.workload import TREADLE, Requirement, Sample, Workload, timed

BEST = "treadle, best fixed chunk"
CHUNKS = (1, 4, 16, 64, 256)

LENGTHS: dict[str, tuple[str, list[float]]] = {
    "1us": ("tasks of 1 us", [1e-6] * 20_000),
    "100us": ("tasks of 100 us", [100e-6] * 2_000),
    "10ms": ("tasks of 10 ms", [10e-3] * 40),
    # One in twenty is a thousand times longer.
    "mixed": ("mixed lengths: one in twenty 1,000 times longer", ([10e-6] * 19 + [10e-3]) * 20),
}


def workload(key: str) -> Workload:
    """The comparison for one of LENGTHS."""
    title, lengths = LENGTHS[key]

    @contextmanager
    def open_pool(name: str, workers: int) -> Iterator[Sample]:
        with opened(PROCESSES, TREADLE, workers) as pool:

            def run(chunk: int | None) -> float:
                return timed(lambda: pool.map(work, lengths, chunk)) / len(lengths)

            run(None)
            chunk = None
            if name == BEST:
                chunk = min(CHUNKS, key=lambda size: min(run(size) for _trial in range(3)))
            yield lambda: run(chunk)

    return Workload(
        group="chunks",
        name=f"chunks-{key}",
        title=f"map without chunksize against its own best chunk, {title}",
        contenders=(TREADLE, BEST),
        open=open_pool,
        requirements=(Requirement(0.9, 1.0, against=BEST),),
        baseline=BEST,
        remark=f"chunks tried: {', '.join(map(str, CHUNKS))}",
    )


WORKLOADS = tuple(workload(key) for key in LENGTHS)
