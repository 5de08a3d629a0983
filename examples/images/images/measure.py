"""The measurement: the same batch under several plans, and on the standard library's pool.

    python -m images measure

prints the table that the README shows: photographs of 12 megapixels, then small ones, where what a pool costs can be
seen. The runs are interleaved, so that a slow minute of the machine falls on all of them; medians count.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from images import photographs
from images.errors import BatchError
from images.memory import Watch
from images.trial import FOLDER


class Way(NamedTuple):
    """A plan and the pool that runs it."""

    plan: str
    pool: str = "treadle"


class Run(NamedTuple):
    """One run: files a second, and the peak memory of all its processes in bytes."""

    rate: float
    memory: int


def run_once(source: Path, way: Way, limit: str, options: tuple[str, ...] = ()) -> Run:
    """Develops a folder in a process of its own."""
    target = source.parent / "developed"
    command = [sys.executable, "-m", "images", "develop", str(source), "--target", str(target)]
    command += ["--plan", way.plan, "--pool", way.pool, "--memory", limit, "--json", *options]
    process = subprocess.Popen(
        command, cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with Watch(process.pid) as watch:
        out, _nothing = process.communicate()
    shutil.rmtree(target, ignore_errors=True)
    if process.returncode != 0:
        raise BatchError(f"the batch under {way.plan} on the {way.pool} pool failed")
    outcome: dict[str, Any] = json.loads(out)
    return Run(outcome["developed"] / outcome["seconds"], watch.peak)


def table(title: str, runs: dict[Way, list[Run]], count: int, limit: str) -> str:
    """The medians in Markdown."""
    serial = statistics.median(run.rate for run in runs[Way("serial")])
    lines = [
        f"{title}, {count:,} files, limit {limit}; medians of {len(runs[Way('serial')])}:",
        "",
        "| plan | pool | files/s (lowest to highest) | x serial | peak memory |",
        "|---|---|---|---|---|",
    ]
    for way, each in runs.items():
        rates = sorted(run.rate for run in each)
        rate, peak = statistics.median(rates), max(run.memory for run in each) / 2**20
        lines.append(
            f"| {way.plan} | {way.pool} | {rate:.1f} ({rates[0]:.1f} to {rates[-1]:.1f})"
            f" | {rate / serial:.2f} | {peak:.0f} MiB |"
        )
    return "\n".join(lines) + "\n"


def main(options: argparse.Namespace) -> int:
    """`python -m images measure`: the tables on stdout; exit code 1 if a run went over its memory limit."""
    cores = len(os.sched_getaffinity(0))
    ways = [Way("serial"), Way(f"processes={cores}"), Way(f"processes={cores}", "standard")]
    if not options.short:
        ways.append(Way(f"threads={cores}"))
    rounds = 1 if options.short else options.rounds
    sizes = [("Photographs of 12 megapixels", 4000, 3000, 24 if options.short else 60)]
    sizes.append(("Small ones of 160 x 120 pixels", 160, 120, 300 if options.short else 3000))
    over = False
    with tempfile.TemporaryDirectory(prefix="images-") as folder:
        for title, width, height, count in sizes:
            source = Path(folder) / f"{width}" / "photographs"
            photographs.make(source, count, width, height)
            runs: dict[Way, list[Run]] = {way: [] for way in ways}
            for number in range(rounds):
                for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                    print(f"{title}: {way.plan}, {way.pool}", file=sys.stderr)
                    runs[way].append(run_once(source, way, "1GiB"))
            print(table(title, runs, count, "1 GiB"))
            over = over or any(run.memory > 2**30 for each in runs.values() for run in each)
    return int(over)
