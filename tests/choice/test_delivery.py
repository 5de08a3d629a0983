"""A function and its inputs reach the measuring process from modules, scripts and shells."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[[str, str], Path]

SCRIPT = """
import sys
from treadle._laboratory import delivery

class Point:
    def __init__(self, x):
        self.x = x

def double(point):
    return 2 * point.x

shift = 3
anonymous = lambda point: point.x + shift

if __name__ == "__main__":
    delivery.write(sys.argv[1], globals()[sys.argv[2]], [Point(x) for x in range(6)])
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in `folder`, with Treadle importable."""
    import treadle._pickling as module

    source = str(Path(module.__file__).parents[1])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
    )


def load(laboratory: Any, **more: Any) -> dict[str, Any]:
    """The delivery, loaded."""
    found: dict[str, Any] = laboratory.ask(
        "load", target=None, items=None, pickled="delivery", star=False, limit=1000, **more
    )
    return found


@pytest.mark.parametrize("plan", [{}, {"processes": 2}], ids=str)
def test_from_a_script(plan: dict[str, int], laboratory: Any, write: Write, tmp_path: Path) -> None:
    write("points.py", SCRIPT)
    ran = run(tmp_path, "points.py", "delivery", "double")
    assert ran.returncode == 0, ran.stderr
    found = load(laboratory)
    assert found["target"].endswith(":double") and found["count"] == 6
    laboratory.ask("plan", plan=plan)
    block = laboratory.ask("block", first=0, count=6, seconds=60.0)
    assert (block["count"], block["errors"]) == (6, 0), block


def test_from_a_module_run_as_main(laboratory: Any, write: Write, tmp_path: Path) -> None:
    write("pack_of_points/__init__.py", "")
    write("pack_of_points/points.py", SCRIPT)
    ran = run(tmp_path, "-m", "pack_of_points.points", "delivery", "double")
    assert ran.returncode == 0, ran.stderr
    assert load(laboratory)["count"] == 6
    laboratory.ask("plan", plan={})
    assert laboratory.ask("block", first=0, count=6, seconds=60.0)["errors"] == 0


def test_a_lambda_goes_by_value(laboratory: Any, write: Write, tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    write("points.py", SCRIPT)
    ran = run(tmp_path, "points.py", "delivery", "anonymous")
    assert ran.returncode == 0, ran.stderr
    assert load(laboratory)["count"] == 6
    laboratory.ask("plan", plan={})
    assert laboratory.ask("block", first=0, count=6, seconds=60.0)["errors"] == 0


def test_a_function_of_a_shell_goes_by_value(laboratory: Any, tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    program = (
        "from treadle._laboratory import delivery\n"
        "def double(x): return 2 * x\n"
        "delivery.write('delivery', double, [1, 2, 3])\n"
    )
    ran = run(tmp_path, "-c", program)
    assert ran.returncode == 0, ran.stderr
    assert load(laboratory)["count"] == 3
    laboratory.ask("plan", plan={})
    assert laboratory.ask("block", first=0, count=3, seconds=60.0)["errors"] == 0


def test_a_script_without_its_guard_is_refused(
    laboratory: Any, write: Write, tmp_path: Path
) -> None:
    write(
        "unguarded.py",
        "from treadle._laboratory import delivery\n"
        "import os\n"
        "def double(x): return 2 * x\n"
        "if os.environ.get('TREADLE_LABORATORY'): raise RuntimeError('measured from within')\n"
        "delivery.write('delivery', double, [1])\n",
    )
    ran = run(tmp_path, "unguarded.py")
    assert ran.returncode == 0, ran.stderr
    refused = laboratory.refused(
        "load", target=None, items=None, pickled="delivery", star=False, limit=10
    )
    assert refused["kind"] == "target-raised" and "__main__" in refused["hint"]


def test_what_cannot_travel_even_by_value_is_named(write: Write, tmp_path: Path) -> None:
    pytest.importorskip("treadle.errors")
    write(
        "locked.py",
        "import threading\n"
        "from treadle._laboratory import delivery\n"
        "def use(lock): pass\n"
        "if __name__ == '__main__':\n"
        "    delivery.write('delivery', use, [threading.Lock()])\n",
    )
    ran = run(tmp_path, "locked.py")
    assert ran.returncode != 0
    assert "args[0] is a _thread.lock" in ran.stderr and "hint:" in ran.stderr
