"""What `treadle compare` measures for the batch: one photograph developed into a folder for trials.

    python -m images decide FOLDER

has the plan decided over the photographs of a folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from images.developing import Developed, develop

FOLDER = Path(__file__).resolve().parents[1]
DECISION = "develop"
TRIALS = Path(tempfile.gettempdir()) / f"images-trial-{os.getuid()}"


def develop_once(source: str) -> Developed:
    """Develops a photograph as the batch does; the same files are written again at each call."""
    name = Path(source).name
    for kind in ("pictures", "thumbnails"):
        (TRIALS / kind).mkdir(parents=True, exist_ok=True)
    path = Path(source)
    return develop(
        path, TRIALS / "pictures" / f"{name}.webp", TRIALS / "thumbnails" / f"{name}.webp"
    )


def decide(folder: Path, budget: float, memory: str) -> int:
    """Compares the plans and keeps the decision in this folder; returns the exit code of `treadle compare`."""
    command = shutil.which("treadle", path=os.path.dirname(sys.executable)) or "treadle"
    try:
        return subprocess.run(
            [
                *(command, "compare", "images.trial:develop_once"),
                *("--items", str(folder / "*.jpg"), "--budget", f"{budget:g}"),
                *("--target", f"errors=0,memory={memory}", "--save", DECISION),
            ],
            cwd=FOLDER,
            env=os.environ | {"PYTHONPATH": str(FOLDER)},
            check=False,
        ).returncode
    finally:
        shutil.rmtree(TRIALS, ignore_errors=True)
