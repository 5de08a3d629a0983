"""The bench: tasks of 10 microseconds on pools with meters and on pools without, in pairs of random order.

A sample is the CPU seconds of all the pool's processes for each task, so that what others do on the machine counts little; beside it stands the
time by the clock. An overhead is the median over the pairs' ratios, its interval a bootstrap's. Without meters a pool reads no clock for a
task (unless it has a timeout) and counts no times and no sizes.

*Assumes*: a block of tasks is long against the switch from one pool to the other.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import treadle
from treadle import strategies

from benches.flatness import counters
from benches.meters.tasks import atask, task
from benches.whole.machine import processor, usable_cores

#: Tasks in a block: some 30 ms.
TASKS = 2000
PAIRS, QUICK_PAIRS = 300, 30
RESAMPLES = 2000
#: Pools of each kind, made one after the other in random order: one pool may be luckier with its processors than another for all its life.
POOLS = 15
PLANS = {"threads": 2, "processes": 2, "coroutines": 100}
#: What a task does, in seconds, and how many rounds of its loop that takes here.
TASK_S = 10e-6


def calibrate() -> int:
    """The rounds that take :data:`TASK_S`."""
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        task(20_000)
        best = min(best, time.perf_counter() - began)
    return max(1, round(20_000 * TASK_S / best))


def pool_of(plan: dict[str, int], metered: bool) -> treadle.Executor:
    """A warm pool with meters or without."""
    strategies.metered = metered
    try:
        pool = treadle.Executor(**plan)
        list(pool.map(_function(plan), [1] * 200))
    finally:
        strategies.metered = True
    return pool


def _function(plan: dict[str, int]) -> Callable[..., Any]:
    return atask if "coroutines" in plan else task


def block(pool: treadle.Executor, plan: dict[str, int], rounds: int) -> tuple[float, float]:
    """Seconds of CPU and by the clock for each task."""
    function = _function(plan)
    pids = [os.getpid()]
    if "processes" in plan:
        pids += [worker.ident for worker in pool.stats().workers]
    cpu, began = counters.cpu_seconds(pids), time.perf_counter()
    for future in [pool.submit(function, rounds) for _ in range(TASKS)]:
        future.result()
    took = time.perf_counter() - began
    return (counters.cpu_seconds(pids) - cpu) / TASKS, took / TASKS


def interval(ratios: list[float], source: random.Random) -> tuple[float, float, float]:
    """The median and its 95 % interval."""
    medians = sorted(
        statistics.median(source.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES)
    )
    low, high = medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES)]
    return statistics.median(ratios), low, high


def compared(plan: dict[str, int], pairs: int, rounds: int, source: random.Random) -> list[str]:
    """The lines of one plan."""
    cpu: list[float] = []
    wall: list[float] = []
    costs: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(POOLS):
        kinds = [True, False]
        source.shuffle(kinds)
        pools = {metered: pool_of(plan, metered) for metered in kinds}
        try:
            for _ in range(max(1, pairs // POOLS)):
                taken = {}
                source.shuffle(kinds)
                for metered in kinds:
                    taken[metered] = block(pools[metered], plan, rounds)
                    costs[metered].append(taken[metered][0])
                cpu.append(taken[True][0] / taken[False][0] - 1)
                wall.append(taken[True][1] / taken[False][1] - 1)
            told = pools[True].stats()
        finally:
            for pool in pools.values():
                pool.shutdown()
    (name,) = plan
    lines = [
        f"{name}: {statistics.median(costs[True]) * 1e6:.2f} us of CPU for a task with meters, "
        f"{statistics.median(costs[False]) * 1e6:.2f} us without"
    ]
    for label, ratios in (("CPU time", cpu), ("by the clock", wall)):
        found, low, high = interval(ratios, source)
        lines.append(f"  {label:13} {found:+7.2%}  ({low:+.2%} to {high:+.2%})")
    if told.overhead_s is not None and told.completed:
        each = told.overhead_s / told.completed
        lines.append(f"  stats().overhead_s says {each * 1e9:.0f} ns a task")
    return lines


def main() -> int:
    """Runs it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benches.meters", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PAIRS} pairs")
    parser.add_argument("--pairs", type=int, metavar="N", help=f"default {PAIRS}")
    parser.add_argument("--only", choices=[*PLANS], help="one plan only")
    parser.add_argument("--seed", type=int, help="of the order")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the report there too")
    asked = parser.parse_args()
    pairs = asked.pairs or (QUICK_PAIRS if asked.quick else PAIRS)
    seed = random.SystemRandom().randrange(2**32) if asked.seed is None else asked.seed
    source = random.Random(seed)
    rounds = calibrate()
    lines = [
        f"{processor()}, {usable_cores()} usable cores, {platform.system()} {platform.release()}",
        f"Python {platform.python_version()}; {datetime.date.today()}, "
        f"load averages {', '.join(f'{load:.2f}' for load in os.getloadavg())}; seed {seed}",
        f"tasks of {TASK_S * 1e6:.0f} us ({rounds} rounds); {pairs} pairs of blocks of {TASKS} tasks; median of the pairs, 95 % interval",
        "",
    ]
    for name, size in PLANS.items():
        if asked.only in (None, name):
            print(name, file=sys.stderr, flush=True)
            lines += compared({name: size}, pairs, rounds, source)
    text = "\n".join(lines)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
