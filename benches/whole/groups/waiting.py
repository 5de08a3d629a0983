"""Other ways to take results: `as_completed`, `wait` and callbacks."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benches.whole.pools import PROCESSES, opened
from benches.whole.tasks import identity
from benches.whole.workload import Requirement, Sample, Workload, calibrated, timed

MOST = 4_000
# The pools whose handles are futures of concurrent.futures.
CONTENDERS = ("treadle", "ProcessPoolExecutor", "loky", "pebble")


def as_completed(futures: list[Any]) -> None:
    """Takes the results in the order in which they come."""
    for future in concurrent.futures.as_completed(futures):
        future.result()


def wait(futures: list[Any]) -> None:
    """Waits for all."""
    concurrent.futures.wait(futures)


def callbacks(futures: list[Any]) -> None:
    """Adds a callback to each and waits until all were called."""
    left = len(futures)
    lock, finished = threading.Lock(), threading.Event()

    def called(_future: Any) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left == 0:
                finished.set()

    for future in futures:
        future.add_done_callback(called)
    finished.wait()


def workload(collect: Callable[[list[Any]], None]) -> Workload:
    """Tiny tasks whose results are taken by `collect`."""

    @contextmanager
    def open_pool(name: str, workers: int) -> Iterator[Sample]:
        with opened(PROCESSES, name, workers) as pool:

            def run(count: int) -> float:
                return timed(lambda: collect(pool.submit_all(identity, range(count))))

            yield calibrated(run, MOST)

    return Workload(
        group="waiting",
        name=f"waiting-{collect.__name__}",
        title=f"tiny tasks, results by {collect.__name__}",
        contenders=CONTENDERS,
        open=open_pool,
        requirements=(Requirement(10, 30),),
        remark="the other pools have no futures to wait for",
    )


WORKLOADS = tuple(workload(collect) for collect in (as_completed, wait, callbacks))
