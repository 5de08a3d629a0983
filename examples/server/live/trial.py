"""What `treadle compare` measures for the server: the forecast, over the whole data set.

python -m live decide
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from live import dataset, reports

FOLDER = Path(__file__).resolve().parents[1]
DECISION = "report"


@lru_cache(maxsize=1)
def sales() -> dataset.Sales:
    """The data set, made once in each process."""
    return dataset.make()


def report(rounds: int) -> dict[str, Any]:
    """A forecast as the server makes it."""
    return reports.run(sales(), 0, "forecast", {"rounds": rounds})


def rounds() -> list[int]:
    """Inputs as clients send them: most ask for the usual number of resamplings."""
    return [400, 400, 200, 600] * 25


def decide(budget: float) -> int:
    """Compares the plans and keeps the decision in this folder; returns the exit code of `treadle compare`."""
    command = shutil.which("treadle", path=os.path.dirname(sys.executable)) or "treadle"
    return subprocess.run(
        [
            *(command, "compare", "live.trial:report", "--items", "live.trial:rounds"),
            *("--budget", f"{budget:g}", "--target", "errors=0", "--save", DECISION),
        ],
        cwd=FOLDER,
        env=os.environ | {"PYTHONPATH": str(FOLDER)},
        check=False,
    ).returncode
