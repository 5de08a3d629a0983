"""`python -m benches.whole`: runs the workloads, prints the ratios, keeps the results if asked.

The report goes to stdout (or, with --json, one JSON object); progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

from benches.whole import machine, report
from benches.whole.groups import GROUPS, WORKLOADS
from benches.whole.interleave import Outcome, run
from benches.whole.workload import Workload

RESULTS = Path(__file__).resolve().parents[1] / "results"
REPETITIONS, QUICK_REPETITIONS = 9, 3


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benches.whole",
        description="Treadle against its peers, alternating in one run.",
        epilog=f"groups: {', '.join(GROUPS)}",
    )
    parser.add_argument("--only", metavar="GROUP,…", help="only these groups, or workloads by name")
    parser.add_argument("--quick", action="store_true", help="3 repetitions, without 100 MB arrays")
    parser.add_argument("--repetitions", type=int, metavar="N", help=f"default {REPETITIONS}")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="default 2")
    parser.add_argument("--seed", type=int, help="of the order of the contenders")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("--save", action="store_true", help="keep both in benches/results/")
    parser.add_argument("--check", action="store_true", help="exit 1 when a requirement is not met")
    return parser.parse_args()


def chosen(only: str | None, quick: bool) -> list[Workload]:
    """The workloads that --only names; raises ValueError for a name that is none."""
    names = [name for name in (only or ",".join(GROUPS)).split(",") if name]
    known = {*GROUPS, *(workload.name for workload in WORKLOADS)}
    for name in names:
        if name not in known:
            raise ValueError(
                f"there is no group or workload {name!r}\nhint: groups are {', '.join(GROUPS)}"
            )
    return [
        workload
        for workload in WORKLOADS
        if (workload.group in names or workload.name in names)
        and not (quick and workload.name.startswith("array-100MB"))
    ]


def save(facts: dict[str, Any], text: str, data: dict[str, Any]) -> Path:
    """Writes the report and its data, named by date and machine; returns the report's path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    stem = machine.stem(facts)
    (RESULTS / f"{stem}.json").write_text(json.dumps(data, indent=1) + "\n")
    path = RESULTS / f"{stem}.txt"
    path.write_text(text)
    return path


def main() -> int:
    """Runs what the command line asks for; returns the exit code."""
    asked = options()
    try:
        workloads = chosen(asked.only, asked.quick)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    repetitions = asked.repetitions or (QUICK_REPETITIONS if asked.quick else REPETITIONS)
    seed = random.SystemRandom().randrange(2**32) if asked.seed is None else asked.seed
    facts = machine.describe(asked.workers, repetitions, seed)

    pieces = [machine.header(facts)]
    if not asked.json:
        print(pieces[0] + "\n", flush=True)
    chance = random.Random(seed)
    outcomes: list[Outcome] = []
    for number, workload in enumerate(workloads, start=1):
        print(f"[{number}/{len(workloads)}] {workload.name}", file=sys.stderr, flush=True)
        outcomes.append(run(workload, asked.workers, repetitions, chance))
        pieces.append(report.block(outcomes[-1]))
        if not asked.json:
            print(pieces[-1] + "\n", flush=True)
    pieces.append(report.summary(outcomes))
    data = report.data(facts, outcomes)
    print(json.dumps(data, indent=1) if asked.json else pieces[-1])
    if asked.save:
        path = save(facts, "\n\n".join(pieces) + "\n", data)
        print(f"saved {path} and its .json", file=sys.stderr)
    return int(asked.check and False in report.verdicts(outcomes))


if __name__ == "__main__":
    sys.exit(main())
