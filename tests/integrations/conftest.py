"""Projects with a recorded decision, for the programs that Treadle plugs into."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORK = """
import time

def work(number):
    end = time.thread_time() + 0.004
    while time.thread_time() < end:
        pass
    return number
"""


@pytest.fixture(scope="session")
def recorded_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``work.py`` and the proposed decision ``work``."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "work.py").write_text(WORK)
    program = "import sys; from treadle import _core; sys.exit(_core.command(sys.argv))"
    subprocess.run(
        [
            *(sys.executable, "-c", program, "compare", "work.py:work", "--items", "range:200"),
            *("--budget", "2", "--profile-only", "--save", "work"),
        ],
        cwd=folder,
        env={**os.environ, "TREADLE_NOISE": "ignore"},
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def project(recorded_once: Path, pytester: pytest.Pytester) -> pytest.Pytester:
    """The pytester in a copy of that folder, with a test of its own beside it."""
    for path in recorded_once.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            copy = pytester.path / path.relative_to(recorded_once)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    pytester.makepyfile(test_own="def test_own():\n    pass\n")
    return pytester
