"""What a workload is: who takes part, how a sample is taken, and what the speed table requires."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

BASELINE = "ProcessPoolExecutor"
TREADLE = "treadle"

Sample = Callable[[], float]
"""Takes one sample: seconds (or bytes) for one unit of the workload. Smaller is better."""


@dataclass(frozen=True)
class Requirement:
    """A line of the speed table: treadle's ratio to `against`, and the figure it must reach.

    The ratio is `against` / treadle, larger is better; or, with `at_most`, treadle / `against`.
    """

    required: float
    go_for: float
    against: str = BASELINE
    at_most: bool = False

    def ratio(self, medians: dict[str, float]) -> float | None:
        """The measured ratio; None where either side was not measured."""
        ours, theirs = medians.get(TREADLE), medians.get(self.against)
        if ours is None or theirs is None:
            return None
        return ours / theirs if self.at_most else theirs / ours

    def met(self, ratio: float) -> bool:
        """Whether `ratio` reaches the required figure."""
        return ratio <= self.required if self.at_most else ratio >= self.required


@dataclass(frozen=True)
class Workload:
    """One named measurement. `open(contender, workers)` gives the way to take a sample of it."""

    group: str
    name: str
    title: str
    contenders: tuple[str, ...]
    open: Callable[[str, int], AbstractContextManager[Sample]]
    requirements: tuple[Requirement, ...] = ()
    baseline: str = BASELINE
    unit: str = "s"
    remark: str = ""


def calibrated(run: Callable[[int], float], most: int, seconds: float = 0.2) -> Sample:
    """A sample of about `seconds`: the time of one task in `run(count)`, which gives the total.

    The count doubles until a run is long enough or `most` is reached; a run before that warms the
    pool, for one that waits for the workers' start would end the doubling at once. A contender a
    hundred times slower runs fewer tasks, not a hundred times longer.
    """
    count = min(64, most)
    run(count)
    while run(count) < seconds / 2 and count < most:
        count = min(2 * count, most)
    return lambda: run(count) / count


def timed(action: Callable[[], object]) -> float:
    """Seconds that `action` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
