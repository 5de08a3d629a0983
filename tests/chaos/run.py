"""The chaos suite: ``python tests/chaos/run.py [--quick] [--seed N] [scenario …]``.

Every scenario is bounded by a count, never by a clock; a watchdog prints all stacks and ends a run that hangs. Seeds are printed: a
failure is tried again with ``--seed`` and the scenario's name.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faults
import killing
import lifetimes
import limits
import scribbling

#: No scenario takes a quarter of it.
WATCHDOG_S = 1200

#: Name, what runs, its count in a full and in a quick run.
SCENARIOS: list[tuple[str, Callable[[int, int, Path], str], int, int]] = [
    # First: in a process that other scenarios have swollen a leak would hide.
    ("lifetimes", lifetimes.lifetimes, 200, 20),
    ("single", killing.single_kills, 1500, 70),
    ("fast", killing.fast_kills, 1200, 60),
    ("turnover", killing.turnover, 300, 30),
    ("threaded", killing.threaded, 300, 30),
    ("looped", killing.looped, 300, 30),
    ("spawned", killing.spawned, 40, 6),
    ("all-at-once", killing.all_at_once, 450, 30),
    ("zygotes", killing.zygotes, 60, 6),
    ("stops", killing.stops, 1500, 80),
    ("storm", killing.restart_storm, 10, 2),
    ("scribbling", scribbling.scribbling, 150, 15),
    ("limits", limits.limits, 3, 1),
    ("faults", faults.faults, 5, 1),
]


def main() -> int:
    names = [name for name, *_ in SCENARIOS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="a twentieth of the kills")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument(
        "--faults",
        action="store_true",
        help="only the scenario faults, which needs the extension built with treadle-shm/fault; it is left out otherwise",
    )
    asked = parser.parse_args()
    unknown = set(asked.scenarios) - set(names)
    if unknown:
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    print(f"seed {asked.seed}", flush=True)
    failures = 0
    with tempfile.TemporaryDirectory(prefix="treadle-chaos-") as folder:
        for name, scenario, full, quick in SCENARIOS:
            if asked.scenarios and name not in asked.scenarios:
                continue
            if (name == "faults") != asked.faults:
                continue
            faulthandler.dump_traceback_later(WATCHDOG_S, exit=True)
            began = time.monotonic()
            own = Path(folder, name)
            own.mkdir()
            try:
                told = scenario(quick if asked.quick else full, asked.seed, own)
            except AssertionError as error:
                failures += 1
                told = f"FAILED: {error}"
            print(f"{name:12} {time.monotonic() - began:6.1f} s  {told}", flush=True)
            faulthandler.cancel_dump_traceback_later()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
