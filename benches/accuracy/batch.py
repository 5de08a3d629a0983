"""Times one whole batch of a workload under a plan, each in a process of its own.

    python -m benches.accuracy.batch MODULE:FUNCTION

reads a JSON object a line, `{"plan": {...}, "limit_s": 20}`, and answers each with a line:
`{"seconds": 1.23}`, `{"cut_s": 20.0}` when it was ended at the limit, or `{"error": "..."}`.

This process imports the workload's module and makes its inputs once, and forks for every batch: a
batch meets the module imported, as the user's program has it, and nothing else of an earlier one;
its workers start anew. The clock runs from before the pool is made to the last result, so that
start-up counts, as it does for whoever runs the batch.

*Guarantees*: a batch ends with every process that it started, at the limit at the latest.
*Assumes*: the forking process runs no thread of its own (BLAS sees to its own ones).
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benches.corpus.workload import Workload, of_module

ROOT = Path(__file__).resolve().parents[2]


def run(
    function: Callable[..., Any], items: list[Any], plan: dict[str, int], is_async: bool
) -> float:
    """Seconds from before the pool is made until the last result is here."""
    if not plan:
        started = time.perf_counter()
        if is_async:
            asyncio.run(one_by_one(function, items))
        else:
            for item in items:
                function(item)
        return time.perf_counter() - started
    import treadle

    started = time.perf_counter()
    with treadle.Executor(treadle.Plan.from_mapping(plan)) as executor:
        for _result in executor.map(function, items):
            pass
        return time.perf_counter() - started


async def one_by_one(function: Callable[..., Any], items: list[Any]) -> None:
    """Awaits one call after the other."""
    for item in items:
        await function(item)


def forked(one: Workload, items: list[Any], plan: dict[str, int], limit_s: float) -> dict[str, Any]:
    """The answer for one batch, run in a forked child that leads a process group."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.close(reading)
        try:
            answer: dict[str, Any] = {"seconds": run(one.function, items, plan, one.is_async)}
        except BaseException as error:
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    try:
        os.setpgid(child, child)
    except OSError:
        pass  # the child was faster
    try:
        ready, _, _ = select.select([reading], [], [], limit_s)
        if not ready:
            return {"cut_s": limit_s}
        answered = os.read(reading, 1 << 16)
        return json.loads(answered) if answered else {"error": "the process ended without a word"}
    finally:
        os.close(reading)
        # Its helpers (a zygote, workers) are of its group; they have nothing left to do.
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)


def main(target: str) -> None:
    """Answers until standard input ends."""
    module_name, _colon, name = target.partition(":")
    module = importlib.import_module(module_name)
    [one] = [found for found in of_module(module) if found.name == name]
    items = list(one.inputs())
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a function prints is no answer
    for line in sys.stdin:
        asked = json.loads(line)
        print(
            json.dumps(forked(one, items, asked["plan"], asked["limit_s"])),
            file=answers,
            flush=True,
        )


class Runner:
    """That process, seen from the one that asks."""

    def __init__(self, target: str, log: Path) -> None:
        """Starts it; what it says beside its answers goes to `log`."""
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benches.accuracy.batch", target],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._log = log

    def batch(self, plan: dict[str, int], limit_s: float) -> dict[str, Any]:
        """One batch: see the module. Raises RuntimeError when the process has gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"plan": plan, "limit_s": limit_s}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(f"the process that runs batches ended; see {self._log}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


if __name__ == "__main__":
    main(sys.argv[1])
