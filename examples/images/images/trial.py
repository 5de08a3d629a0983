"""What `treadle compare` measures for the batch: one photograph developed into a folder for trials.

    python -m images decide

has the plan decided over photographs of 12 megapixels that are made for it; with a folder, over those in there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from images import photographs
from images.developing import Developed, develop

FOLDER = Path(__file__).resolve().parents[1]
DECISION = "develop"
TRIALS = Path(tempfile.gettempdir()) / f"images-trial-{os.getuid()}"
COUNT, WIDTH, HEIGHT = 60, 4000, 3000


def camera() -> list[str]:
    """The paths of photographs as a camera makes them, in a folder for trials; made where they are not there."""
    return [str(path) for path in photographs.make(TRIALS / "camera", COUNT, WIDTH, HEIGHT)]


def develop_once(source: str) -> Developed:
    """Develops a photograph as the batch does; the same files are written again at each call."""
    name = Path(source).name
    for kind in ("pictures", "thumbnails"):
        (TRIALS / kind).mkdir(parents=True, exist_ok=True)
    path = Path(source)
    return develop(
        path, TRIALS / "pictures" / f"{name}.webp", TRIALS / "thumbnails" / f"{name}.webp"
    )


def decide(folder: Path | None, budget: float, memory: str) -> int:
    """Compares the plans and keeps the decision here; returns the exit code of `treadle compare`."""
    command = shutil.which("treadle", path=os.path.dirname(sys.executable)) or "treadle"
    items = "images.trial:camera" if folder is None else str(folder.resolve() / "*.jpg")
    try:
        return subprocess.run(
            [
                *(command, "compare", "images.trial:develop_once"),
                *("--items", items, "--budget", f"{budget:g}"),
                *("--target", f"errors=0,memory={memory}", "--save", DECISION),
            ],
            cwd=FOLDER,
            env=os.environ | {"PYTHONPATH": str(FOLDER)},
            check=False,
        ).returncode
    finally:
        shutil.rmtree(TRIALS, ignore_errors=True)
