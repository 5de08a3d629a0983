"""What the crash tests share: a watchdog, a FIFO that tells that a call has come, a marker to find processes by."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import treadle

sys.path.insert(0, str(Path(__file__).parent))

#: A test here takes seconds; this only turns a hang into a failure.
WATCHDOG_S = 100


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives every test of this folder its watchdog."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(WATCHDOG_S))


class Arrivals:
    """A FIFO: calls write a byte into it, the test blocks until they have."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def expect(self, count: int = 1) -> None:
        """Blocks until so many calls have come."""
        while count:
            count -= len(os.read(self._descriptor, count))

    def close(self) -> None:
        """Takes no more."""
        os.close(self._descriptor)


@pytest.fixture
def arrivals(tmp_path: Path) -> Iterator[Arrivals]:
    """One FIFO."""
    made = Arrivals(tmp_path / "arrivals")
    yield made
    made.close()


@pytest.fixture
def pool_of() -> Iterator[Callable[..., treadle.Executor]]:
    """Makes executors of processes, and kills them after the test: some hang on purpose."""
    made: list[treadle.Executor] = []

    def make(workers: int = 2, **options: object) -> treadle.Executor:
        made.append(treadle.Executor(processes=workers, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for pool in made:
        pool.kill_workers()
        pool.shutdown()
