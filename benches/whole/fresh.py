"""Samples taken in a fresh interpreter, for what depends on what a process did before.

    python -m benches.whole.fresh start|memory|memory-numpy|waiting CONTENDER WORKERS

prints the sample: seconds, or bytes. With ``memory-numpy`` the main module imports NumPy, as programs do that have work for
several processes; the peers' workers import the main module each for itself.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benches.whole.pools import PROCESSES, Pool, opened
from benches.whole.tasks import identity, worker_pid
from benches.whole.workload import timed

if sys.argv[1:2] == ["memory-numpy"]:
    import numpy  # noqa: F401 - what it costs a worker is measured

ROOT = Path(__file__).resolve().parents[2]


def sampled(measure: str, name: str, workers: int) -> float:
    """Takes the sample `measure` of the pool called `name` in a process of its own."""
    return _printed("benches.whole.fresh", measure, name, str(workers))


def sampled_bare(name: str, workers: int) -> float:
    """The memory of the idle workers of the pool called `name`, in a program of its own whose main module is bare."""
    return _printed("benches.whole.bare", name, str(workers))


def _printed(*arguments: str) -> float:
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(lines[-1])
    return float(done.stdout.split()[-1])


def second_start(name: str, workers: int) -> float:
    """Seconds from creating a second pool to its first result; the first pool is closed."""
    with opened(PROCESSES, name, workers) as pool:
        pool.call(identity, 1)
    second: list[Pool] = []

    def start() -> None:
        second.append(PROCESSES[name](workers))
        second[0].call(identity, 1)

    seconds = timed(start)
    second[0].close()
    return seconds


def idle_memory(name: str, workers: int, function: Callable[[float], int] = worker_pid) -> float:
    """Mean proportional set size of the idle workers, in bytes (Linux), after calls of `function`, which takes seconds and gives the pid."""
    with opened(PROCESSES, name, workers) as pool:
        pids: set[int] = set()
        for _attempt in range(20):
            pids.update(pool.collect(pool.submit_all(function, [0.05] * workers)))
            if len(pids) == workers:
                break
        return sum(map(proportional_set_size, pids)) / len(pids)


def proportional_set_size(pid: int) -> int:
    """PSS of process `pid` in bytes: its pages, shared ones divided among those who share them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{pid}/smaps_rollup has no Pss line")


def waiting_calls(name: str, workers: int) -> float:
    """Bytes for each of many calls that wait."""
    # Not at the top: what the main module imports is measured, and this brings asyncio.
    from benches.whole.waiting_calls import waiting_memory

    return waiting_memory(name, workers)


MEASURES = {
    "start": second_start,
    "memory": idle_memory,
    "memory-numpy": idle_memory,
    "waiting": waiting_calls,
}

if __name__ == "__main__":
    print(MEASURES[sys.argv[1]](sys.argv[2], int(sys.argv[3])))
