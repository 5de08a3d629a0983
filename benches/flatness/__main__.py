"""`python -m benches.flatness`: cost per task for 1,000 to 1,000,000 queued tasks and for 1 to 64 workers.

Every sample runs in an interpreter of its own, and the samples of a table in turn, in a new random order each time. Instructions come from the
processor's counters where the system shows them, system calls from ``strace`` where it is installed; what is missing is said.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benches.whole import machine
from benches.whole.__main__ import RESULTS

QUEUED = (1_000, 10_000, 100_000, 1_000_000)
WORKERS = (1, 2, 4, 8, 16, 32, 64)
#: System calls are counted at two numbers of calls: the difference is the calls', without start and end.
TRACED = (5_000, 55_000)


def sample(kind: str, number: int, calls: int | None = None, prefix: tuple[str, ...] = ()) -> Any:
    """One sample, from an interpreter of its own."""
    environment = dict(os.environ)
    if calls is not None:
        environment["FLATNESS_CALLS"] = str(calls)
    words = [*prefix, sys.executable, "-m", "benches.flatness.sample", kind, str(number)]
    ended = subprocess.run(
        words, capture_output=True, text=True, cwd=machine.ROOT, env=environment, timeout=1200
    )
    if ended.returncode != 0:
        raise RuntimeError(f"{kind} {number}: {ended.stderr[-2000:]}")
    return json.loads(ended.stdout)


def system_calls(workers: int) -> float | None:
    """System calls for each task on so many workers, of all processes together."""
    if shutil.which("strace") is None:
        return None
    counts = []
    with tempfile.TemporaryDirectory() as folder:
        for calls in TRACED:
            out = Path(folder, str(calls))
            try:
                sample("workers", workers, calls, ("strace", "-f", "-qq", "-c", "-o", str(out)))
            except (OSError, RuntimeError, subprocess.TimeoutExpired):
                return None
            (total,) = re.findall(r"^100\.00\s.*?(\d+)\s+(?:\d+\s+)?total$", out.read_text(), re.M)
            counts.append(int(total))
    return (counts[1] - counts[0]) / (TRACED[1] - TRACED[0])


def medians(samples: list[Any]) -> Any:
    """The median of each figure over samples of the same shape."""
    first = samples[0]
    if isinstance(first, dict):
        return {key: medians([one[key] for one in samples]) for key in first}
    known = [one for one in samples if one is not None]
    return statistics.median(known) if known else None


def measure(
    kind: str, numbers: tuple[int, ...], repetitions: int, chance: random.Random
) -> dict[int, Any]:
    """The samples of one table, in turn."""
    found: dict[int, list[Any]] = {number: [] for number in numbers}
    for repetition in range(repetitions):
        for number in chance.sample(numbers, len(numbers)):
            print(f"{kind} {number} ({repetition + 1}/{repetitions})", file=sys.stderr, flush=True)
            found[number].append(sample(kind, number))
    return {number: medians(samples) for number, samples in found.items()}


def _count(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _row(name: str, told: dict[str, Any], calls: float | None = None) -> str:
    return (
        f"  {name:>22}  {told['seconds'] * 1e6:9.2f} us  {told['cpu_seconds'] * 1e6:9.2f} us  {_count(told['switches'], 3):>8}  "
        f"{_count(told['instructions'], 0):>9}  {_count(calls, 3):>8}"
    )


_HEAD = f"  {'':>22}  {'time':>12}  {'CPU time':>12}  {'sleeps':>8}  {'instr.':>9}  {'sys.':>8}"


def table_of_queue(title: str, found: dict[int, Any]) -> str:
    """What queued calls cost."""
    lines = [title, _HEAD]
    for number, told in found.items():
        lines.append(_row(f"{number:,} submit", told["submit"]))
        lines.append(_row(f"{number:,} run, result", told["run"]))
    for number, told in found.items():
        lines.append(f"  {number:>22,}  {told['bytes']:9.0f} bytes for each queued call")
    return "\n".join(lines)


def table_of_workers(found: dict[int, Any]) -> str:
    """What a call costs on so many workers."""
    lines = ["calls on so many workers, for each call", _HEAD]
    for number, told in found.items():
        lines.append(_row(f"{number} workers", told["run"], told.get("system_calls")))
    return "\n".join(lines)


def main() -> int:
    """Runs the tables; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benches.flatness", description="Cost per task."
    )
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument("--quick", action="store_true", help="to 100,000 calls and 16 workers")
    parser.add_argument("--only", choices=("queued", "threads", "workers"), help="one table only")
    parser.add_argument("--seed", type=int, help="of the order of the samples")
    parser.add_argument("--save", action="store_true", help="keep the report in benches/results/")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if asked.seed is None else asked.seed
    chance = random.Random(seed)
    queued = QUEUED[:3] if asked.quick else QUEUED
    workers = WORKERS[:5] if asked.quick else WORKERS
    facts = machine.describe(2, asked.repetitions, seed)
    facts["method"] = (
        "each sample in a fresh interpreter, in turn in a random order; medians; sleeps are voluntary context switches of all processes; "
        "system calls are counted by strace, of all processes"
    )
    pieces = [machine.header(facts)]
    data: dict[str, Any] = {"schema": 1, "machine": facts}
    if asked.only in (None, "queued"):
        data["queued"] = measure("queued", queued, asked.repetitions, chance)
        pieces.append(
            table_of_queue("calls queued for two processes, for each call", data["queued"])
        )
    if asked.only in (None, "threads"):
        data["threads"] = measure("threads", queued, asked.repetitions, chance)
        pieces.append(
            table_of_queue("calls queued for two threads, for each call", data["threads"])
        )
    if asked.only in (None, "workers"):
        data["workers"] = measure("workers", workers, asked.repetitions, chance)
        for number, told in data["workers"].items():
            print(f"system calls of {number} workers", file=sys.stderr, flush=True)
            told["system_calls"] = system_calls(number)
        pieces.append(table_of_workers(data["workers"]))
        if all(told["run"]["instructions"] is None for told in data["workers"].values()):
            pieces.append("instructions: this machine shows no hardware counters")
    text = "\n\n".join(pieces)
    print(text)
    if asked.save:
        RESULTS.mkdir(parents=True, exist_ok=True)
        label = re.sub(r"[^a-z0-9]+", "-", str(facts["processor"]).lower()).strip("-")
        stem = f"{str(facts['date'])[:10]}-flatness-{label}-{facts['usable_cores']}cores-python{facts['python']}"
        (RESULTS / f"{stem}.json").write_text(json.dumps(data, indent=1) + "\n")
        (RESULTS / f"{stem}.txt").write_text(text + "\n")
        print(f"saved {RESULTS / stem}.txt and its .json", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
