"""The arithmetic: regret with its interval from rounds of a duel, and the summary over workloads.

A round holds the seconds of one whole batch under each finalist, run next to each other. Whoever
picks the smallest of noisy means and then quotes that same mean flatters it (the winner's curse).
So each round is judged by a winner that the *other* rounds chose: the regret of round i is the log
ratio of the advised plan's seconds to those of the plan that was fastest in all rounds but i.

*Assumes*: rounds are independent of each other; within a round the machine is the same for all.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Two-sided 95 % quantiles of Student's t by degrees of freedom; beyond, the normal one is 2 % off.
STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
    2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048,
    2.045, 2.042,
)  # fmt: skip
NORMAL = 1.96

LIMIT_MOST, LIMIT_FEW, SHARE_FEW, SHARE_CLASS = 0.30, 0.10, 0.90, 0.95
"""What is required: none above the first, the share of the third below the second, and of classes."""


@dataclass(frozen=True)
class Regret:
    """The share of throughput that the advice loses, with its 95 % interval; negative is noise.

    `best` is the index of the fastest finalist over all rounds. `censored`: the advised plan was cut
    off, so that the truth is at least `share`.
    """

    share: float
    low: float
    high: float
    best: int
    rounds: int
    censored: bool = False


def regret(rounds: Sequence[Sequence[float]], advised: int) -> Regret:
    """The regret of finalist `advised` from rounds of seconds, one column a finalist.

    Raises ValueError for fewer than two rounds, which say nothing of the noise.
    """
    if len(rounds) < 2:
        raise ValueError(f"a regret needs two rounds at least, not {len(rounds)}")
    logs = [[math.log(seconds) for seconds in row] for row in rounds]
    totals = [sum(column) for column in zip(*logs, strict=True)]
    ratios = []
    for row in logs:
        others = [total - own for total, own in zip(totals, row, strict=True)]
        ratios.append(row[advised] - row[_smallest(others, advised)])
    mean = statistics.fmean(ratios)
    half = student(len(ratios) - 1) * statistics.stdev(ratios) / math.sqrt(len(ratios))
    low, high = lost(mean - half), lost(mean + half)
    return Regret(lost(mean), low, high, _smallest(totals, advised), len(rounds))


def _smallest(values: Sequence[float], favoured: int) -> int:
    """The index of the smallest value; `favoured` among equals."""
    least = min(values)
    return favoured if values[favoured] == least else values.index(least)


def student(freedom: int) -> float:
    """Student's two-sided 95 % quantile."""
    return STUDENT[freedom - 1] if freedom <= len(STUDENT) else NORMAL


def lost(log_ratio: float) -> float:
    """The share of throughput lost when a batch takes exp(`log_ratio`) times as long."""
    return 1.0 - math.exp(-log_ratio)


@dataclass(frozen=True)
class Summary:
    """The corpus in a few figures. Shares are of the workloads; times are seconds.

    `median` has a 95 % interval by bootstrap over workloads. A workload for which nothing was
    decided counts as above every limit; it is in no median.
    """

    workloads: int
    undecided: int
    median: float
    median_interval: tuple[float, float]
    under_few: float
    worst: float
    classes_right: float
    errors: int
    error_median: float | None
    error_p90: float | None
    decision_median_s: float
    decision_p90_s: float
    decision_most_s: float


@dataclass(frozen=True)
class Judged:
    """One workload's outcome, as far as the summary needs it; `regret` is None if undecided."""

    regret: Regret | None
    class_right: bool
    errors: tuple[float, ...]
    decision_s: float


def summarise(judged: Sequence[Judged], seed: int) -> Summary:
    """The summary of at least one workload; `seed` is that of the bootstrap."""
    found = [one.regret for one in judged if one.regret is not None]
    # What looks faster than the best of the grid is not: both are the same plan but for noise.
    shares = [max(0.0, one.share) for one in found]
    errors = [error for one in judged for error in one.errors]
    times = [one.decision_s for one in judged]
    undecided = len(judged) - len(found)
    return Summary(
        workloads=len(judged),
        undecided=undecided,
        median=statistics.median(one.share for one in found) if found else math.inf,
        median_interval=_median_interval(found, seed) if found else (math.inf, math.inf),
        under_few=sum(share < LIMIT_FEW for share in shares) / len(judged),
        worst=math.inf if undecided else max(shares),
        classes_right=sum(one.class_right for one in judged) / len(judged),
        errors=len(errors),
        error_median=statistics.median(errors) if errors else None,
        error_p90=quantile(errors, 0.9) if errors else None,
        decision_median_s=statistics.median(times),
        decision_p90_s=quantile(times, 0.9),
        decision_most_s=max(times),
    )


def _median_interval(found: Sequence[Regret], seed: int) -> tuple[float, float]:
    """95 % of the medians of workloads drawn anew, each moved within its own interval."""
    chance = random.Random(seed)
    medians = []
    for _draw in range(1000):
        drawn = chance.choices(found, k=len(found))
        medians.append(
            statistics.median(
                chance.gauss(one.share, (one.high - one.low) / (2 * NORMAL)) for one in drawn
            )
        )
    return quantile(medians, 0.025), quantile(medians, 0.975)


def quantile(values: Sequence[float], share: float) -> float:
    """The quantile of `values`, interpolated between neighbours."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def requirements(summary: Summary) -> list[tuple[str, str, bool]]:
    """Each requirement: its words, what was measured, whether it is met."""
    low, high = summary.median_interval
    worst = "undecided" if math.isinf(summary.worst) else f"{summary.worst:.1%}"
    return [
        (
            "the median regret is 0 within noise",
            f"{summary.median:.2%} ({low:.2%} to {high:.2%})",
            low <= 0.0,
        ),
        (
            f"{SHARE_FEW:.0%} of the workloads lose under {LIMIT_FEW:.0%}",
            f"{summary.under_few:.1%}",
            summary.under_few >= SHARE_FEW,
        ),
        (f"none loses over {LIMIT_MOST:.0%}", worst, summary.worst <= LIMIT_MOST),
        (
            f"the class is right for {SHARE_CLASS:.0%}",
            f"{summary.classes_right:.1%}",
            summary.classes_right >= SHARE_CLASS,
        ),
    ]
