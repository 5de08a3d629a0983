"""The command: `python -m images {photographs,develop,decide,measure}`."""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import re
import sys
import time
from pathlib import Path

import treadle

from images import measure, memory, photographs, trial
from images.batch import Batch, Outcome
from images.developing import Settings
from images.errors import BatchError
from images.progress import Bar

KNOWN_PLANS = "write decided, serial, threads=N, processes=N or processes=N,threads=N"


def plan_of(text: str) -> treadle.Plan:
    """A plan as it is written on the command line."""
    if text == "decided":
        with treadle.Executor.decided(trial.DECISION, trial.FOLDER) as executor:
            return executor.plan
    try:
        sizes = [part.partition("=") for part in text.split(",") if text != "serial"]
        plan = treadle.Plan.from_mapping({name.strip(): int(size) for name, _, size in sizes})
    except treadle.PlanError as error:
        raise BatchError(str(error)) from error
    except ValueError as error:
        raise BatchError(f"there is no plan {text!r}", KNOWN_PLANS) from error
    if plan.coroutines is not None:
        raise BatchError(
            f"{plan} is a plan for functions that await; developing computes", KNOWN_PLANS
        )
    return plan


def executor_of(plan: treadle.Plan, limit: int, standard: bool) -> concurrent.futures.Executor:
    """The executor, whose workers keep to their share of `limit` bytes."""
    share = memory.share(limit, plan)
    if not standard:
        return treadle.Executor(
            plan, initializer=memory.restrict, initargs=(share,), name="develop"
        )
    if plan.processes is None:
        raise BatchError(
            f"the standard pool here is one of processes, not {plan}", "add --plan processes=N"
        )
    return concurrent.futures.ProcessPoolExecutor(
        plan.processes, initializer=memory.restrict, initargs=(share,)
    )


def develop(options: argparse.Namespace) -> int:
    """Develops a folder; the exit code is 0 also if files were damaged."""
    settings = Settings(options.side, options.thumbnail_side, options.quality, options.contrast)
    plan = plan_of(options.plan)
    batch = Batch(options.source, options.target or options.source / "developed", settings)
    bar = Bar()
    began = time.monotonic()
    with executor_of(plan, options.memory, options.pool == "standard") as executor:
        outcome = batch.run(executor, plan.concurrency, bar.show)
    # From the pool's making to its end: so pools can be compared.
    outcome = outcome._replace(seconds=time.monotonic() - began)
    if options.json:
        told = outcome._asdict() | {"sheets": [str(path) for path in outcome.sheets]}
        print(json.dumps(told | {"plan": str(plan), "pool": options.pool}))
    else:
        tell(outcome, plan, batch.target)
    return 0


def tell(outcome: Outcome, plan: treadle.Plan, target: Path) -> None:
    """What a run did, in words."""
    rate = outcome.developed / outcome.seconds if outcome.seconds else 0
    print(f"{outcome.developed:,} developed in {outcome.seconds:.1f} s ({rate:.1f}/s) under {plan}")
    if outcome.before:
        print(f"{outcome.before:,} were done before")
    for name, problem in outcome.problems:
        print(f"  skipped {name}: {problem}")
    print(f"pictures, thumbnails and {len(outcome.sheets)} contact sheets are in {target}")


def amount(text: str) -> int:
    """An amount of memory."""
    try:
        return memory.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def size(text: str) -> tuple[int, int]:
    """A picture's width and height, as `4000x3000`."""
    found = re.fullmatch(r"([1-9][0-9]*)x([1-9][0-9]*)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT")
    return int(found[1]), int(found[2])


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def parser() -> argparse.ArgumentParser:
    """All that can be said on the command line."""
    whole = argparse.ArgumentParser(prog="python -m images", description=__doc__)
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB")

    one = verbs.add_parser("photographs", help="make a folder of photographs")
    one.add_argument("folder", type=Path)
    one.add_argument("--count", type=positive, default=200)
    one.add_argument("--size", type=size, default=(4000, 3000), metavar="WxH")
    one.set_defaults(
        run=lambda options: photographs.make(options.folder, options.count, *options.size) and 0
    )

    one = verbs.add_parser("develop", help="develop the JPEG files of a folder, or go on with it")
    one.add_argument("source", type=Path)
    one.add_argument("--target", type=Path, help="SOURCE/developed")
    one.add_argument("--plan", default="decided", help="decided, serial, threads=N, processes=N")
    one.add_argument("--pool", choices=("treadle", "standard"), default="treadle")
    one.add_argument("--memory", type=amount, default=2**30, help="for all processes (1GiB)")
    one.add_argument("--side", type=positive, default=1600, help="longer side of a picture (1600)")
    one.add_argument("--thumbnail-side", type=positive, default=192, help="of a thumbnail (192)")
    one.add_argument("--quality", type=int, default=82, choices=range(1, 101), metavar="1…100")
    one.add_argument("--contrast", type=float, default=0.35, help="of the tone curve (0.35)")
    one.add_argument("--json", action="store_true", help="the result as JSON")
    one.set_defaults(run=develop)

    one = verbs.add_parser("decide", help="have treadle compare the plans, and keep the decision")
    one.add_argument(
        "folder", type=Path, nargs="?", help="photographs that stand for the real ones (made)"
    )
    one.add_argument("--budget", type=float, default=60.0, metavar="SECONDS")
    one.add_argument("--memory", default="1GiB", help="a target for the comparison (1GiB)")
    one.set_defaults(
        run=lambda options: trial.decide(options.folder, options.budget, options.memory)
    )

    one = verbs.add_parser("measure", help="the same batch under several plans; print the table")
    one.add_argument("--short", action="store_true", help="few photographs, three plans")
    one.add_argument("--rounds", type=positive, default=2, help="of which the median counts (2)")
    one.add_argument("--folder", type=Path, help="where the photographs are made (the system's)")
    one.set_defaults(run=measure.main)
    return whole


def main() -> int:
    """Runs a verb; turns what went wrong into one message and an exit code."""
    options = parser().parse_args()
    try:
        return int(options.run(options))
    except (BatchError, treadle.TreadleError) as error:
        print(f"error: {error}", file=sys.stderr)
        hint = getattr(error, "hint", "")
        if hint:
            print(f"hint: {hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
