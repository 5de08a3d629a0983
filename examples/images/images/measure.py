"""The measurement: the same batch under several plans, and on the standard library's pool.

    python -m images measure

prints the tables that the README shows: photographs of 12 megapixels, then small ones, where what a pool costs can be
seen. Beside the pools run as many serial programs as there are cores, with no pool: two cores need not be worth two.
The runs are interleaved, so that a slow minute of the machine falls on all of them; medians count. The two pools of
processes are compared round by round as well. `--folder` says where the files are: on a disk it may be the folder's lock that is measured.
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
from images.memory import Watch, parse
from images.trial import FOLDER

SMALL_COUNT, LARGE_COUNT = 4000, 200
LIMIT = "1GiB"
LOOK_S = 1.0  # between two looks at the memory: a look walks all pages, and twenty a second took 8 % of two cores
APART = "apart"  # no pool at all: so many serial programs beside each other, each with its part of the files


class Way(NamedTuple):
    """A plan and the pool that runs it; or `APART`."""

    plan: str
    pool: str = "treadle"


class Run(NamedTuple):
    """One run: files a second, and the peak memory of all its processes in bytes."""

    rate: float
    memory: int


def start(source: Path, target: Path, way: Way) -> subprocess.Popen[str]:
    """A process that develops a folder."""
    command = [sys.executable, "-m", "images", "develop", str(source), "--target", str(target)]
    command += ["--plan", way.plan, "--pool", way.pool, "--memory", LIMIT, "--json"]
    return subprocess.Popen(
        command, cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def run_once(source: Path, way: Way) -> Run:
    """Develops a folder in a process of its own."""
    target = source.parent / "developed"
    process = start(source, target, way)
    with Watch(process.pid, LOOK_S) as watch:
        out, _nothing = process.communicate()
    shutil.rmtree(target, ignore_errors=True)
    if process.returncode != 0:
        raise BatchError(f"the batch under {way.plan} on the {way.pool} pool failed")
    outcome: dict[str, Any] = json.loads(out)
    return Run(outcome["developed"] / outcome["seconds"], watch.peak)


def run_apart(source: Path, count: int) -> Run:
    """Develops a folder by `count` serial programs at the same time: what the machine itself gives so many workers."""
    paths = sorted(source.iterdir())
    parts = [source.parent / f"part-{number}" for number in range(count)]
    for number, part in enumerate(parts):
        part.mkdir()
        for path in paths[number::count]:
            os.link(path, part / path.name)
    try:
        processes = [start(part, part.with_suffix(".developed"), Way("serial")) for part in parts]
        outs = [process.communicate()[0] for process in processes]
    finally:
        for part in parts:
            shutil.rmtree(part, ignore_errors=True)
            shutil.rmtree(part.with_suffix(".developed"), ignore_errors=True)
    if any(process.returncode for process in processes):
        raise BatchError("a serial batch beside others failed")
    return Run(len(paths) / max(json.loads(out)["seconds"] for out in outs), 0)


def table(title: str, runs: dict[Way, list[Run]], count: int, cores: int) -> str:
    """The medians in Markdown."""
    serial = statistics.median(run.rate for run in runs[Way("serial")])
    lines = [
        f"{title}, {count:,} files, limit {LIMIT}; medians of {len(runs[Way('serial')])}:",
        "",
        f"| plan | pool | files/s (lowest to highest) | x serial | of {cores} | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for way, each in runs.items():
        rates = sorted(run.rate for run in each)
        rate, peak = statistics.median(rates), max(run.memory for run in each) / 2**20
        name, pool = (f"{cores} programs", "none") if way.plan == APART else way
        lines.append(
            f"| {name} | {pool} | {rate:.1f} ({rates[0]:.1f} to {rates[-1]:.1f}) | {rate / serial:.2f}"
            f" | {rate / serial / cores:.0%} | {f'{peak:.0f} MiB' if peak else ''} |"
        )
    return "\n".join(lines) + "\n"


def pools(runs: dict[Way, list[Run]], cores: int) -> str:
    """The pools of processes against each other, round by round: whoever else is at the machine is so in a whole round."""
    ours, theirs = (runs[Way(f"processes={cores}", pool)] for pool in ("treadle", "standard"))
    ratios = sorted(one.rate / other.rate for one, other in zip(ours, theirs, strict=True))
    return (
        f"processes={cores}: {statistics.median(ratios):.2f} times the files/s of the standard library's pool "
        f"(by round {', '.join(f'{ratio:.2f}' for ratio in ratios)}).\n"
    )


def main(options: argparse.Namespace) -> int:
    """`python -m images measure`: the tables on stdout; exit code 1 if a run went over its memory limit."""
    cores = len(os.sched_getaffinity(0))
    ways = [Way("serial"), Way(f"processes={cores}"), Way(f"processes={cores}", "standard")]
    if not options.short:
        ways += [Way(f"threads={cores}"), Way(APART)]
    rounds = 1 if options.short else options.rounds
    sizes = [("Photographs of 12 megapixels", 4000, 3000, 8 if options.short else LARGE_COUNT)]
    sizes.append(("Small ones of 64 x 48 pixels", 64, 48, 200 if options.short else SMALL_COUNT))
    over = False
    with tempfile.TemporaryDirectory(prefix="images-", dir=options.folder) as folder:
        for title, width, height, count in sizes:
            source = Path(folder) / f"{width}" / "photographs"
            photographs.make(source, count, width, height)
            runs: dict[Way, list[Run]] = {way: [] for way in ways}
            for number in range(rounds):
                for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                    print(f"{title}: {way.plan}, {way.pool}", file=sys.stderr)
                    run = run_apart(source, cores) if way.plan == APART else run_once(source, way)
                    runs[way].append(run)
            print(table(title, runs, count, cores))
            print(pools(runs, cores))
            limit = parse(LIMIT)
            over = over or any(run.memory > limit for each in runs.values() for run in each)
    return int(over)
