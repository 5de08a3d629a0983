"""One way to run tasks for each test of the contract, and what holds and releases the tasks."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import treadle

sys.path.insert(0, str(Path(__file__).parent))

from contract_calls import HYBRIDS, Awaited, Gate

#: A test here takes a second or two; this only turns a hang into a failure.
WATCHDOG_S = 100

WAYS = ("serial", "threads", "processes", "spawn", "coroutines", "interpreters", *HYBRIDS)

#: Why a way cannot be tested here; a way that is not listed can.
ABSENT = (
    {}
    if importlib.util.find_spec("concurrent.interpreters")
    else {"interpreters": "plans of interpreters need CPython 3.14"}
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives every test of this folder its watchdog."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(WATCHDOG_S))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "ways(*names): the strategies that a test is for; default: all but spawn"
    )


class Way:
    """One strategy: how its executor is made, and what a function looks like that it can run."""

    def __init__(self, name: str, cleanup: list[Callable[[], None]]) -> None:
        self.name = name
        self._cleanup = cleanup

    def make(self, workers: int = 2, **options: Any) -> treadle.Executor:
        """An executor with so many workers; it is shut down after the test."""
        if self.name == "serial":
            executor = treadle.Executor(treadle.Plan(), **options)
        elif self.name == "spawn":
            executor = treadle.Executor(processes=workers, mp_context="spawn", **options)
        else:
            executor = treadle.Executor(**self.sizes(workers), **options)
        # Last, when every gate is open.
        self._cleanup.insert(0, lambda: executor.shutdown(wait=True, cancel_futures=True))
        return executor

    def sizes(self, workers: int) -> dict[str, int]:
        """The plan that runs so many tasks at a time. A hybrid has one process for up to three of them, else two."""
        processes, _, within = self.name.partition("+")
        if not within:
            return {self.name: workers}
        count = 2 if workers >= 4 and workers % 2 == 0 else 1
        return {processes: count, within: workers // count}

    @property
    def is_async(self) -> bool:
        """Whether it runs async functions on a loop, and no others."""
        return self.name.endswith("coroutines")

    def of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as this strategy takes it."""
        return Awaited(function) if self.is_async else function

    @property
    def in_processes(self) -> bool:
        return self.name in ("processes", "spawn", *HYBRIDS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "way" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("ways")
        names = marker.args if marker else tuple(name for name in WAYS if name != "spawn")
        ways = [
            pytest.param(name, marks=pytest.mark.skip(reason=ABSENT[name]))
            if name in ABSENT
            else name
            for name in names
        ]
        metafunc.parametrize("way", ways, indirect=True)


@pytest.fixture
def cleanup() -> Iterator[list[Callable[[], None]]]:
    """What is done after the test, the last first."""
    steps: list[Callable[[], None]] = []
    yield steps
    while steps:
        steps.pop()()


@pytest.fixture
def way(request: pytest.FixtureRequest, cleanup: list[Callable[[], None]]) -> Way:
    """The strategy under test."""
    return Way(request.param, cleanup)


@pytest.fixture
def new_gate(tmp_path: Path, cleanup: list[Callable[[], None]]) -> Callable[[], Gate]:
    """Makes closed gates; each is opened before the executors are shut down."""
    made: list[Gate] = []

    def make() -> Gate:
        gate = Gate.make(tmp_path / f"gate-{len(made)}")
        made.append(gate)
        cleanup.append(gate.open)
        return gate

    return make


@pytest.fixture
def gate(new_gate: Callable[[], Gate]) -> Gate:
    """One closed gate."""
    return new_gate()


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """A folder where calls leave a file for each run."""
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder
