"""The grid of plans of a workload, its screening, and the duel of the best.

Screening runs plans once, down the sizes of each strategy, and ends a batch that takes more than
twice as long as the best so far. It leaves a strategy whose curve falls away: below a size that was
in time, one that was cut is the last; of a strategy that is cut at its two largest sizes only one
in the middle is tried. A second pass, in random order, looks again at what is near the best.
The duel then runs the advised plan and the best few of the grid in fresh rounds, from which
alone the regret is computed.

*Guarantees*: the advised plan is in the duel, wherever the grid saw it.
*Assumes*: throughput over the size of a strategy has one hump.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benches.accuracy.advice import label
from benches.accuracy.regret import Regret, lost, regret
from benches.corpus.workload import Workload

Plan = dict[str, int]
Batch = Callable[[Plan, float], dict[str, Any]]
"""Runs one batch under a plan with a limit in seconds: `benches.accuracy.batch` has the answers."""

SCREEN_FACTOR = 2.0  # a plan this much slower than the best is out, whatever the noise
SLACK_S = 0.3  # beyond that: the start of a few processes, which differs from batch to batch
KEEP_FACTOR = 1.25  # in the second pass: plans are compared to 5 %, batches scatter by some 10 %
FINALISTS = 2  # of the grid, beside the advised plan
MOST_S = 20.0  # a batch longer than this is cut: its plan is out of the question
CUT_FACTOR = 5.0  # in the duel; an advised plan that is cut has a regret of 80 % at least
LEAST_ROUNDS, MOST_ROUNDS = 5, 15
PRECISE = 0.02  # half of the interval: a fifth of the 10 % that is asked about
SETTLED = 0.05  # an interval that ends below this is good news enough (compare's own equivalence)


@dataclass(frozen=True)
class Times:
    """Seconds granted to the parts; each ends with the pass that goes beyond its time."""

    grid_s: float = 16.0
    duel_s: float = 10.0
    least_rounds: int = LEAST_ROUNDS


@dataclass
class Measured:
    """What the grid and the duel gave. Seconds are those of whole batches."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    cut: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    finalists: list[str] = field(default_factory=list)
    rounds: list[list[float]] = field(default_factory=list)
    regret: Regret | None = None

    @property
    def best(self) -> str:
        """The fastest of the duel, or of the grid where none was needed."""
        if self.regret is not None:
            return self.finalists[self.regret.best]
        return min(self.seconds, key=lambda name: statistics.median(self.seconds[name]))


def plans(one: Workload, cores: int, advised: Plan | None) -> list[Plan]:
    """Serial, threads, processes, coroutines and hybrids that could be best for this workload.

    Where nothing waits, by construction, more workers than a few for each core cannot be.
    """
    waits = bool({"io-bound", "mixed"} & set(one.classes))
    most = 256 if waits else max(8, 4 * cores)
    threads = [size for size in _doubling(2) if size <= most]
    processes = [size for size in _doubling(1) if size <= max(4, 2 * cores) * (2 if waits else 1)]
    found: list[Plan] = [{}]
    found += [{"threads": size} for size in threads]
    found += [{"processes": size} for size in processes]
    if waits and not one.is_async:
        found += [{"processes": cores, "threads": size} for size in (8, 32)]
    if one.is_async:
        loops = (8, 32, 128, 512, 1000) if waits else (2, 16, 128)
        found += [{"coroutines": size} for size in loops]
        found += [{"processes": cores, "coroutines": size} for size in (32, 256)]
    if advised is not None and advised not in found:
        found.append(advised)
    return found


def _doubling(size: int) -> list[int]:
    sizes = []
    while size <= 1024:
        sizes.append(size)
        size *= 2
    return sizes


def measure(
    one: Workload,
    batch: Batch,
    cores: int,
    advised: Plan | None,
    times: Times,
    chance: random.Random,
) -> Measured:
    """The grid, the duel and the regret; without advice, the grid alone."""
    found = Measured()
    by_name = {label(plan): plan for plan in plans(one, cores, advised)}
    screen(by_name, batch, None if advised is None else label(advised), times, chance, found)
    if advised is None or not found.seconds:
        return found
    name = label(advised)
    ranked = sorted(found.seconds, key=lambda known: statistics.median(found.seconds[known]))
    if name in found.failed:
        return found
    best_s = statistics.median(found.seconds[ranked[0]])
    near = [
        known
        for known in ranked
        if statistics.median(found.seconds[known]) <= KEEP_FACTOR * best_s and known != name
    ][:FINALISTS]
    found.finalists = [name, *near]
    duel(by_name, batch, best_s, times, chance, found)
    return found


def screen(
    by_name: dict[str, Plan],
    batch: Batch,
    first: str | None,
    times: Times,
    chance: random.Random,
    found: Measured,
) -> None:
    """Two passes over the plans, the second over those that are near the best."""
    started = time.perf_counter()

    def tried(name: str) -> str:
        """Runs a batch; how it ended: seconds, cut_s or error."""
        known = [min(taken) for taken in found.seconds.values()]
        limit_s = min([MOST_S, *(SCREEN_FACTOR * best + SLACK_S for best in known)])
        answer = batch(by_name[name], limit_s)
        [(how, figure)] = answer.items()
        if how == "seconds":
            found.seconds.setdefault(name, []).append(figure)
        else:
            (found.cut if how == "cut_s" else found.failed)[name] = figure
        return how

    # The advised plan sets the limit for the rest, which saves most of the time of slow ones.
    if first is not None:
        tried(first)
    for names in strategies(by_name, chance):
        descend([name for name in names if name != first], tried)
    if not found.seconds:
        return
    best = min(min(taken) for taken in found.seconds.values())
    near = [name for name, taken in found.seconds.items() if min(taken) <= KEEP_FACTOR * best]
    if len(near) < 2:
        return
    for name in chance.sample(near, len(near)):
        if time.perf_counter() - started > times.grid_s:
            return
        tried(name)


def strategies(by_name: dict[str, Plan], chance: random.Random) -> list[list[str]]:
    """The plans of each strategy, the largest first; the strategies in random order."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(by_name, key=lambda name: math.prod(by_name[name].values()), reverse=True):
        groups.setdefault(tuple(by_name[name]), []).append(name)
    return chance.sample(list(groups.values()), len(groups))


def descend(names: list[str], tried: Callable[[str], str]) -> None:
    """Tries sizes from the largest on, and leaves them as the module says."""
    in_time = False
    cut = 0
    for number, name in enumerate(names):
        how = tried(name)
        in_time = in_time or how == "seconds"
        if how == "cut_s":
            if in_time:
                return
            cut += 1
        if cut == 2:
            rest = names[number + 1 :]
            middle = (len(rest) - 1) // 2
            if rest and tried(rest[middle]) == "seconds":
                descend(rest[:middle], tried)
                descend(rest[middle + 1 :], tried)
            return


def duel(
    by_name: dict[str, Plan],
    batch: Batch,
    best_s: float,
    times: Times,
    chance: random.Random,
    found: Measured,
) -> None:
    """Fresh rounds of the finalists in random order until the regret is precise or settled.

    With one finalist there is nothing to compare: the advised plan has no rival, its regret is 0.
    """
    if len(found.finalists) == 1:
        found.regret = Regret(0.0, 0.0, 0.0, 0, 0)
        return
    limit_s = max(CUT_FACTOR * best_s, MOST_S / 4)
    started = time.perf_counter()
    while len(found.rounds) < MOST_ROUNDS:
        enough = len(found.rounds) >= times.least_rounds
        if enough and time.perf_counter() - started > times.duel_s:
            break
        taken: dict[str, float] = {}
        for name in chance.sample(found.finalists, len(found.finalists)):
            answer = batch(by_name[name], limit_s)
            if "error" in answer:
                found.failed[name] = answer["error"]
                return
            if "cut_s" in answer and name == found.finalists[0]:
                share = 1.0 - best_s / limit_s
                found.regret = Regret(share, share, 1.0, 1, len(found.rounds) + 1, censored=True)
                return
            taken[name] = answer.get("seconds", limit_s)
        found.rounds.append([taken[name] for name in found.finalists])
        if len(found.rounds) < 2:
            continue
        found.regret = regret(found.rounds, 0)
        half = (found.regret.high - found.regret.low) / 2
        if len(found.rounds) >= times.least_rounds and (
            half <= PRECISE or found.regret.high <= SETTLED
        ):
            break


def slower(found: Measured) -> dict[str, float]:
    """Throughput lost against the best plan of the grid, by plan, from the grid's own batches."""
    medians = {name: statistics.median(taken) for name, taken in found.seconds.items()}
    least = min(medians.values())
    return {name: lost(math.log(seconds / least)) for name, seconds in medians.items()}
