"""The interpreter's own tests of concurrent.futures, with treadle's classes in place of the standard library's.

::

    test.test_concurrent_futures ─► loaded while Future is treadle's ─► its mixins' executor_type ─► treadle's pools

The test classes themselves are the running interpreter's, unchanged. What is put in their place: ``executor_type`` of the mixins; the names
``Future``, ``ThreadPoolExecutor`` and ``ProcessPoolExecutor`` that the tests look up; and, for programs that a test starts, one line before the
program's text that does the same there.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures._base
import importlib
import importlib.util
import pkgutil
import unittest
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

import treadle

PACKAGE = "test.test_concurrent_futures"

#: Goes before the text of every program that a test starts.
PREAMBLE = """\
import concurrent.futures, treadle
concurrent.futures.ThreadPoolExecutor = treadle.ThreadPoolExecutor
concurrent.futures.ProcessPoolExecutor = treadle.ProcessPoolExecutor
"""

#: The tests' classes that choose the executor, and what they shall choose.
MIXINS = {
    "ThreadPoolMixin": treadle.ThreadPoolExecutor,
    "ProcessPoolForkMixin": treadle.ProcessPoolExecutor,
    "ProcessPoolForkserverMixin": treadle.ProcessPoolExecutor,
    "ProcessPoolSpawnMixin": treadle.ProcessPoolExecutor,
}

#: These run threads beside the standard library's own fork of a process pool: what is tested is a pool of threads in a program that forks.
KEEP_STANDARD_PROCESSES = frozenset({"test_hang_global_shutdown_lock"})


def shipped() -> bool:
    """Whether the running interpreter has these tests; some distributions leave them out."""
    return importlib.util.find_spec("test") is not None and (
        importlib.util.find_spec(PACKAGE) is not None
    )


def load() -> list[ModuleType]:
    """The interpreter's test modules, with treadle's classes in place."""
    # What else uses futures is loaded first, so that only the tests see the substitute.
    for name in ("asyncio", "concurrent.futures.process", "concurrent.futures.thread"):
        importlib.import_module(name)
    importlib.import_module("test.support.script_helper")
    with mock.patch.object(concurrent.futures._base, "Future", treadle.Future):
        package = importlib.import_module(PACKAGE)
        modules = [package]
        for found in pkgutil.iter_modules(getattr(package, "__path__", ())):
            if found.name == "test_interpreter_pool":
                # As below; its tests without an executor are of that pool as well.
                continue
            if found.name.startswith("test_") or found.name == "util":
                modules.append(importlib.import_module(f"{PACKAGE}.{found.name}"))
    for module in modules:
        for name, executor in MIXINS.items():
            mixin = vars(module).get(name)
            if mixin is not None:
                mixin.executor_type = executor
    return modules


def classes(modules: list[ModuleType]) -> dict[str, type[unittest.TestCase]]:
    """The test classes of the modules by name."""
    found: dict[str, type[unittest.TestCase]] = {}
    for module in modules:
        for name, value in vars(module).items():
            if not (isinstance(value, type) and issubclass(value, unittest.TestCase)):
                continue
            executor = getattr(value, "executor_type", treadle.ThreadPoolExecutor)
            if not issubclass(executor, treadle.Executor):
                # The pool of interpreters (from Python 3.14), which has no drop-in here.
                continue
            if found.setdefault(name, value) is not value:
                raise AssertionError(f"two test classes of the interpreter are called {name}")
    return found


def tests_of(one: type[unittest.TestCase]) -> list[str]:
    """The names of a class's tests."""
    return unittest.defaultTestLoader.getTestCaseNames(one)


@contextmanager
def substituted(modules: list[ModuleType], test: str) -> Iterator[None]:
    """While a test runs: the names that it looks up are treadle's."""
    with ExitStack() as stack:
        put(stack, concurrent.futures, "ThreadPoolExecutor", treadle.ThreadPoolExecutor)
        if test not in KEEP_STANDARD_PROCESSES:
            put(stack, concurrent.futures, "ProcessPoolExecutor", treadle.ProcessPoolExecutor)
        for module in modules:
            run = vars(module).get("assert_python_ok")
            if run is not None:
                put(stack, module, "assert_python_ok", after_preamble(run))
        yield


def put(stack: ExitStack, module: ModuleType, name: str, value: Any) -> None:
    stack.enter_context(mock.patch.object(module, name, value))


def after_preamble(run: Any) -> Any:
    """``assert_python_ok("-c", text)`` that runs the preamble before the text."""

    def run_after_preamble(option: str, text: str, *rest: str, **variables: str) -> Any:
        assert option == "-c", "a test starts a program in a way that is new: look at it"
        return run(option, PREAMBLE + text, *rest, **variables)

    return run_after_preamble
