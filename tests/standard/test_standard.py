"""The interpreter's own tests of concurrent.futures, run against treadle's executors and futures."""

from __future__ import annotations

import inspect
import re
import sys

import exclusions
import pytest
import substitution
import treadle

if not substitution.shipped():
    pytest.skip(
        f"this interpreter ({sys.version.split()[0]}) comes without {substitution.PACKAGE}",
        allow_module_level=True,
    )

MODULES = substitution.load()
CLASSES = substitution.classes(MODULES)
# The test runner finds the interpreter's classes as if they were written here.
globals().update(CLASSES)

TESTS = [(name, test) for name, one in CLASSES.items() for test in substitution.tests_of(one)]
VERSION = sys.version_info[:2]


def test_the_interpreters_tests_are_there() -> None:
    """What is run is the whole suite: every kind of executor, and futures."""
    names = " ".join(CLASSES)
    for part in ("ThreadPool", "ProcessPoolForkserver", "ProcessPoolSpawn", "FutureTests"):
        assert part in names
    for one in CLASSES.values():
        executor = getattr(one, "executor_type", treadle.ThreadPoolExecutor)
        assert issubclass(executor, treadle.Executor), f"{one} tests {executor}"
    run = [pair for pair in TESTS if exclusions.exclusion_of(*pair) is None]
    assert len(run) > 150, f"only {len(run)} of {len(TESTS)} tests are run"


def source_of(one: type, test: str) -> str:
    """A test's text, with that of the methods of its class that it calls."""
    text = inspect.getsource(getattr(one, test))
    called = {getattr(one, name, None) for name in re.findall(r"self\.(_\w+)\(", text)}
    return text + "".join(inspect.getsource(method) for method in called if method is not None)


@pytest.mark.parametrize("entry", exclusions.EXCLUSIONS, ids=lambda entry: entry.test)
def test_no_exclusion_is_stale(entry: exclusions.Exclusion) -> None:
    """Each exclusion excludes a test that this interpreter has, and that uses what it is said to use."""
    if not entry.since <= VERSION <= entry.until:
        pytest.skip(f"for Python {entry.since} to {entry.until}")
    excluded = [pair for pair in TESTS if entry.matches(*pair)]
    assert excluded, "no test of this interpreter matches: remove the entry"
    for name, test in excluded:
        if not entry.private:
            assert getattr(CLASSES[name], "ctx", None) == "fork", f"{name} does not ask for fork"
            continue
        text = source_of(CLASSES[name], test)
        for attribute in entry.private:
            assert attribute in text, f"{name}.{test} does not use {attribute}"
            assert not hasattr(treadle.ProcessPoolExecutor, attribute), f"treadle has {attribute}"
