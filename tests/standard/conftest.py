"""How the interpreter's own tests are run: excluded ones are skipped by name, each of the others must leave nothing behind."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Iterator
from unittest import mock

import exclusions
import pytest
import substitution


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what the table excludes, with its reason."""
    for item in items:
        if item.nodeid.split("::")[0].endswith("test_standard.py") and item.parent is not None:
            entry = exclusions.exclusion_of(item.parent.name, item.name)
            if entry is not None:
                item.add_marker(pytest.mark.skip(reason=f"excluded: {entry.reason}"))


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """The tests expect a program whose logging nobody has set up: the test runner's own handlers are away meanwhile."""
    with mock.patch.object(logging.root, "handlers", []):
        return (yield)


@pytest.fixture(autouse=True)
def in_place(request: pytest.FixtureRequest) -> Iterator[None]:
    """treadle's classes are in place while the test runs; afterwards no thread and no child process is left, by the interpreter's own checks."""
    modules = getattr(request.module, "MODULES", [])
    with substitution.substituted(modules, request.node.name):
        yield
    support = sys.modules.get("test.support")
    if support is not None:
        left, support.environment_altered = support.environment_altered, False  # type: ignore[attr-defined]
        assert not left, "the test left threads or child processes behind (see its warnings)"
