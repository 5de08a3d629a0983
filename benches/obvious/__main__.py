"""The bench: the wall time of the whole command, from its start to the verdict, and where it goes.

    python -m benches.obvious                 five comparisons of each case
    python -m benches.obvious --times 3 --save

Two cases: the demo's pages over HTTP from a local server (an async function), and naps of 50 ms. In both, many
at a time are more than forty times as fast as one after the other. Printed are the median and the range of the
wall times, the medians of the parts that the command tells of itself (``took`` in its JSON; the rest is
starting the command and writing), and the counts that stand behind them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches import site
from benches.whole import machine

TREADLE = Path(sys.executable).with_name("treadle")
RESULTS = Path(__file__).resolve().parents[1] / "results"
PAGES = 2000
#: The kernel averages its pressure over ten seconds: so long the machine rests before each comparison, as a user's does.
REST_S = 10.0


@dataclass(frozen=True)
class Found:
    """One comparison."""

    wall_s: float
    took: dict[str, float | None]
    plan: str
    confidence: str
    times: float
    processes: int
    rounds: int


def compared(words: list[str], folder: Path) -> Found:
    """Runs ``treadle compare`` once."""
    result = folder / "comparison.json"
    command = [str(TREADLE), "compare", *words, "--json", str(result)]
    environment = {**os.environ, "TREADLE_NOISE": "ignore"}
    time.sleep(REST_S)
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=machine.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    wall_s = time.perf_counter() - started
    if done.returncode != 0:
        sys.exit(f"treadle compare ended with {done.returncode}:\n{done.stderr}")
    found: dict[str, Any] = json.loads(result.read_text())
    chosen = next(one for one in found["candidates"] if one["outcome"] == "chosen")
    return Found(
        wall_s=wall_s,
        took=found["took"],
        plan="+".join(f"{name}={size}" for name, size in chosen["plan"].items() if size),
        confidence=found["decision"]["confidence"],
        times=chosen["speedup"][0] if chosen["speedup"] else 1.0,
        processes=sum(one["measured_per_s"] is not None for one in found["candidates"]),
        rounds=found["race"]["rounds"],
    )


def lines(name: str, found: list[Found]) -> Iterator[str]:
    """The report of a case."""
    walls = [one.wall_s for one in found]
    yield (
        f"{name:8}{statistics.median(walls):6.2f} s   {min(walls):5.2f} to {max(walls):5.2f}   "
        + "   ".join(
            f"{part.removesuffix('_s')} {statistics.median([one.took[part] or 0.0 for one in found]):.2f}"
            for part in found[0].took
        )
    )
    for one in found:
        yield (
            f"{'':8}{one.wall_s:6.2f} s   {one.plan}, {one.times:.0f} times serial, confidence {one.confidence}; "
            f"{one.processes} plans raced, {one.rounds} counted rounds"
        )


def main() -> None:
    """Prints the report; keeps it in benches/results/ if asked."""
    parser = argparse.ArgumentParser(prog="python -m benches.obvious", description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="comparisons of each case")
    parser.add_argument("--save", action="store_true", help="keep the report in benches/results/")
    arguments = parser.parse_args()
    site.raise_open_files()
    now = datetime.datetime.now(datetime.timezone.utc)
    facts = machine.facts()
    text = [
        "wall time of `treadle compare`, from its start to its end; median, range, and the median seconds of its parts",
        f"{machine.processor()}, {machine.usable_cores()} usable cores, Python {sys.version.split()[0]}, "
        f"commit {facts['commit']}, {now:%Y-%m-%dT%H:%M:%S}Z, load average {os.getloadavg()[0]:.2f}",
        "",
    ]
    print("\n".join(text), flush=True)
    with tempfile.TemporaryDirectory() as folder, site.server() as address:
        pages = Path(folder) / "pages.txt"
        pages.write_text("".join(f"{address}/page/{page}\n" for page in range(PAGES)))
        cases = {
            "fetch": ["demo/fetch.py:fetch", "--items", f"lines:{pages}"],
            "nap": ["benches.obvious.cases:nap", "--items", "range:2000"],
        }
        for name, words in cases.items():
            found = [compared(words, Path(folder)) for _ in range(arguments.times)]
            for line in lines(name, found):
                print(line, flush=True)
                text.append(line)
    if arguments.save:
        model = "-".join(machine.processor().lower().split()[:2])
        path = RESULTS / (
            f"{now:%Y-%m-%d}-obvious-{model}-{machine.usable_cores()}cores-python{sys.version.split()[0]}.txt"
        )
        path.write_text("\n".join(text) + "\n")
        print(f"kept in {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
