"""Other programs, run by subprocess."""

from __future__ import annotations

import subprocess
import sys

from benches.corpus import material
from benches.corpus.workload import workload


def pauses() -> list[str]:
    """300 pauses of a tenth of a second."""
    return ["0.1"] * 300


@workload(
    pauses, "io-bound", because="the caller waits 100 ms for a child that waits; a fork costs few"
)
def run_pause(seconds: str) -> int:
    """Runs a program that waits for something."""
    return subprocess.run(["sleep", seconds], check=True).returncode


def scripts() -> list[str]:
    """40 texts of 400 KB."""
    return [material.text(seed, 400_000) for seed in range(40)]


SORT = "import sys; words = sys.stdin.read().split(); words.sort(); print(len(set(words)))"


@workload(
    scripts,
    "io-bound",
    "cpu-bound-releasing",
    # On the border: from inside the caller it is waiting (for a pipe and a child), on the machine
    # it is a core in use without this interpreter's lock. Either word leads to threads.
    because="all of the work is done by a child process",
)
def run_filter(text: str) -> int:
    """Counts different words in another interpreter."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", SORT],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)
