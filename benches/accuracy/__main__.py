"""`python -m benches.accuracy`: measures the advice on the corpus, prints it, keeps it if asked.

The report goes to stdout (or, with --json, one JSON object); progress goes to stderr. Exit code 0:
the requirements are met; 1: one is not; 2: usage, or the corpus' libraries are not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from benches import corpus, site
from benches.accuracy import advice, grid, outcome, report
from benches.accuracy.batch import Runner
from benches.accuracy.regret import requirements
from benches.corpus.workload import ADDRESS, Workload
from benches.whole import machine

RESULTS = Path(__file__).resolve().parents[1] / "results"
BUDGET_S = 30.0  # of the race: compare's default


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benches.accuracy",
        description="What following compare's advice costs, over the workload corpus.",
        epilog=f"modules: {', '.join(corpus.MODULES)}",
    )
    parser.add_argument("--only", metavar="NAME,…", help="only these modules, or workloads by name")
    parser.add_argument("--list", action="store_true", help="print the workloads and end")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help=f"default {BUDGET_S:g}")
    parser.add_argument(
        "--quick", action="store_true", help="half the budget, a short grid and duel"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="measure again what an earlier run did"
    )
    parser.add_argument("--seed", type=int, help="of all orders, compare's included")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("--save", action="store_true", help="keep both in benches/results/")
    return parser.parse_args()


def chosen(only: str | None, known: list[Workload]) -> list[Workload]:
    """The workloads that --only names; raises ValueError for a name that is none."""
    if not only:
        return known
    names = [name for name in only.split(",") if name]
    for name in names:
        if name not in {*corpus.MODULES, *(one.name for one in known)}:
            raise ValueError(
                f"there is no workload or module {name!r}\nhint: --list prints the workloads"
            )
    return [one for one in known if one.name in names or one.module in names]


def measured(
    one: Workload, settings: dict[str, Any], cores: int, seed: int
) -> tuple[outcome.Outcome, float]:
    """Asks, then measures; with the seconds that it took."""
    started = time.perf_counter()
    times = grid.Times(settings["grid_s"], settings["duel_s"], settings["least_rounds"])
    advised = advice.ask(one, settings["budget"], seed, outcome.FOLDER)
    runner = Runner(one.target, outcome.FOLDER / f"{one.name}.log")
    try:
        chance = random.Random(f"{seed} {one.name}")
        found = grid.measure(one, runner.batch, cores, advised.plan, times, chance)
    finally:
        runner.close()
    return (
        outcome.Outcome(
            name=one.name,
            module=one.module,
            classes=one.classes,
            because=one.because,
            kinds=one.kinds,
            inputs=len(list(one.inputs())),
            advice=advised,
            measured=found,
        ),
        time.perf_counter() - started,
    )


def main() -> int:
    """Runs what the command line asks for; returns the exit code."""
    asked = options()
    try:
        workloads = chosen(asked.only, corpus.workloads())
    except ImportError as error:
        print(
            f"error: {error}\nhint: `make accuracy` installs the libraries first", file=sys.stderr
        )
        return 2
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if asked.list:
        for one in workloads:
            print(f"{one.module:12} {one.name:18} {' or '.join(one.classes)}")
        return 0
    seed = random.SystemRandom().randrange(2**32) if asked.seed is None else asked.seed
    settings = {
        "budget": asked.budget or (BUDGET_S / 2 if asked.quick else BUDGET_S),
        "grid_s": 8.0 if asked.quick else grid.Times.grid_s,
        "duel_s": 5.0 if asked.quick else grid.Times.duel_s,
        "least_rounds": 3 if asked.quick else grid.LEAST_ROUNDS,
    }
    facts = {**machine.facts(), "seed": seed}
    outcome.FOLDER.mkdir(parents=True, exist_ok=True)
    site.raise_open_files()

    pieces = [report.header(facts, settings)]
    if not asked.json:
        print(pieces[0], flush=True)
    outcomes: list[outcome.Outcome] = []
    with site.server() as address:
        os.environ[ADDRESS] = address
        for number, one in enumerate(workloads, start=1):
            known = None if asked.fresh else outcome.load(one, settings)
            taken = "kept from an earlier run"
            if known is None:
                known, seconds = measured(one, settings, facts["usable_cores"], seed)
                outcome.keep(known, one, settings)
                taken = f"{seconds:.0f} s"
            print(f"[{number}/{len(workloads)}] {one.name}: {taken}", file=sys.stderr, flush=True)
            outcomes.append(known)
            pieces.append(report.line(known))
            if not asked.json:
                print(pieces[-1], flush=True)
    summary = report.summarised(outcomes, seed)
    pieces.append("\n" + report.summary_text(outcomes, summary))
    data = report.data(facts, settings, outcomes, summary)
    print(json.dumps(data, indent=1) if asked.json else pieces[-1])
    if asked.save:
        path = RESULTS / f"{machine.stem(facts, 'accuracy')}.txt"
        path.write_text("\n".join(pieces) + "\n")
        path.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
        print(f"saved {path} and its .json", file=sys.stderr)
    return int(not all(met for _words, _found, met in requirements(summary)))


if __name__ == "__main__":
    sys.exit(main())
