"""Measures the three programs and writes what was found into their READMEs.

    python examples/measure.py                all three: about a quarter of an hour on two cores
    python examples/measure.py images         one of them

The tables are those that each program's own `measure` prints; here they are put between two marks in its README, with the
day and how busy the machine was. Nothing is written for a program whose measurement failed.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MODULES = {"crawler": "crawler", "images": "images", "server": "live"}
FIRST, LAST = "<!-- measured -->", "<!-- end of measured -->"
LISTEN_S = 3.0  # before a measurement: how busy is the machine without it?


def processor_times() -> tuple[int, int]:
    """Clock ticks of all processors since they started: at work (for anybody, the hypervisor's others too), and in all."""
    line = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    ticks = [int(word) for word in line]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def busy_share() -> float:
    """The share of the processors' time that is used now, from 0 to 1."""
    before = processor_times()
    time.sleep(LISTEN_S)
    after = processor_times()
    return (after[0] - before[0]) / max(1, after[1] - before[1])


def measured(name: str, options: list[str]) -> str | None:
    """What a program's measurement prints, with what it was measured on; None if it failed."""
    busy = busy_share()
    module = MODULES[name]
    print(f"{name}: the machine is {busy:.0%} busy before", file=sys.stderr)
    done = subprocess.run(
        [sys.executable, "-m", module, "measure", *options],
        cwd=FOLDER / name,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    print(done.stdout, flush=True)
    if done.returncode != 0:
        return None
    cores = len(os.sched_getaffinity(0))
    day = datetime.now(timezone.utc).date().isoformat()
    return (
        f"{done.stdout.strip()}\n\n"
        f"Measured on {day}: {cores} cores of a shared virtual machine, CPython {platform.python_version()};"
        f" before it began, others kept the cores {busy:.0%} busy."
    )


def between_marks(text: str, new: str) -> str:
    """The text with what stands between the two marks replaced.

    Raises:
        ValueError: it does not have the marks.
    """
    head, first, rest = text.partition(FIRST)
    _old, last, tail = rest.partition(LAST)
    if not first or not last:
        raise ValueError(f"there is no place between {FIRST} and {LAST}")
    return f"{head}{FIRST}\n{new}\n{LAST}{tail}"


def main() -> int:
    """Measures what was asked for; the exit code is 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=", ".join(MODULES))
    parser.add_argument(
        "--store", metavar="DSN", help="a PostgreSQL for the crawler; it is emptied"
    )
    parser.add_argument("--folder", metavar="PATH", help="where images makes its photographs")
    options = parser.parse_args()
    unknown = sorted(set(options.programs) - set(MODULES))
    if unknown:
        parser.error(f"there is no program {unknown[0]}; there are {', '.join(MODULES)}")
    own = {"crawler": ("--store", options.store), "images": ("--folder", options.folder)}
    failed = False
    for name in options.programs or MODULES:
        option, value = own.get(name, ("", None))
        found = measured(name, [option, value] if value else [])
        if found is None:
            print(f"error: the measurement of {name} failed", file=sys.stderr)
            failed = True
            continue
        page = FOLDER / name / "README.md"
        page.write_text(between_marks(page.read_text(encoding="utf-8"), found), encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
