"""Importing treadle stays cheap: what it must not load, for a program that only runs tasks pays for none of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import treadle

#: Each of these costs between 3 and 60 ms, as much as the package itself.
HEAVY = {
    "asyncio",
    "concurrent.futures.process",
    "dataclasses",
    "inspect",
    "json",
    "multiprocessing",
    "socket",
    "subprocess",
    "treadle._laboratory",
    "treadle.comparing",
    "treadle.measuring",
    "treadle.strategies.processes",
}


def test_the_import_loads_nothing_heavy() -> None:
    code = "import sys, concurrent.futures.thread; before = set(sys.modules); import treadle; print(*set(sys.modules) - before)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert set(found.stdout.split()) <= {"treadle", "__future__"}, "what is not used is not loaded"


def test_an_executor_loads_nothing_heavy() -> None:
    code = (
        "import sys, concurrent.futures.thread; before = set(sys.modules); import treadle; treadle.Executor, treadle.Future; "
        "print(*set(sys.modules) - before)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(found.stdout.split())
    assert "treadle._core" in loaded
    assert not loaded & HEAVY


def test_every_name_is_there_before_it_is_used() -> None:
    code = (
        "import treadle; assert set(treadle.__all__) <= set(dir(treadle)); "
        "print(*(f'{name}={getattr(treadle, name).__name__}' for name in treadle.__all__))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    told = dict(pair.split("=") for pair in found.stdout.split())
    assert told.pop("errors") == "treadle.errors"
    assert all(name == own for name, own in told.items())
    with pytest.raises(AttributeError, match="has no attribute 'Pool'"):
        treadle.Pool  # noqa: B018


def test_a_worker_loads_no_pool_machinery() -> None:
    code = "import sys\nimport treadle._worker.zygote, treadle._worker.main\nprint(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert not set(found.stdout.split()) & {
        "multiprocessing",
        "concurrent.futures.process",
        "asyncio",
        "treadle.executor",
        "treadle.strategies",
    }


def test_the_main_module_is_found_without_the_extension() -> None:
    """In a sub-interpreter, which cannot load it."""
    code = "import sys\nimport treadle._worker.main_module, treadle._subinterpreter\nprint(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "treadle._core" not in found.stdout.split()
