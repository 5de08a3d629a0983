"""Importing treadle stays cheap: what it must not load, for a program that only runs tasks pays for none of it."""

from __future__ import annotations

import subprocess
import sys

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
    loaded = set(found.stdout.split())
    assert "treadle._core" in loaded
    assert not loaded & HEAVY


def test_a_worker_loads_no_pool_machinery() -> None:
    code = "import sys\nimport treadle._worker.zygote, treadle._worker.main\nprint(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert not set(found.stdout.split()) & {
        "multiprocessing",
        "concurrent.futures.process",
        "asyncio",
    }


def loaded_in_worker() -> list[str]:
    return [name for name in sys.modules if name.startswith("treadle")]


def test_a_worker_imports_nothing_that_its_zygote_could_have() -> None:
    """What a worker imports itself is memory of its own, and time at every start."""
    from treadle._worker import zygote

    with treadle.Executor(processes=1) as pool:
        assert "treadle._worker.main" in pool.submit(loaded_in_worker).result()
        before = set(zygote._SHARED) | {"treadle"}
    assert {"treadle._worker.main", "treadle._worker.inheritance"} <= before
