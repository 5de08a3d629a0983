"""The reports: heavy work over the data set, in plain Python as such code is found in the wild.

They run in worker processes. A report tells how far it is through a log record, which treadle brings to the server's
process; cancelling raises an exception inside it at its next Python instruction.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import sys
from collections.abc import Callable
from typing import Any

import numpy

from live.dataset import DAYS, STORES, Sales, region_of
from live.errors import Refused

PROGRESS = logging.getLogger("live.progress")
WEEK, HORIZON = 7, 14  # days
LEVELS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
TRENDS = (0.0, 0.01, 0.05)
SEASONS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4)


def forecast(sales: Sales, tell: Callable[[float], None], rounds: int = 400) -> dict[str, Any]:
    """For each store: weekly revenue with a 90 % interval from `rounds` resamplings, and two weeks ahead. In cents."""
    stores = {}
    for store in range(STORES):
        mine = sales.store == store
        daily = numpy.bincount(sales.day[mine], weights=sales.amount[mine], minlength=DAYS).tolist()
        weeks = [sum(daily[first : first + WEEK]) for first in range(0, DAYS - WEEK, WEEK)]
        chance = random.Random(store)
        means = sorted(
            sum(chance.choice(weeks) for _ in weeks) / len(weeks) for _round in range(rounds)
        )
        stores[str(store)] = {
            "region": region_of(store),
            "week": sum(weeks) / len(weeks),
            "low": means[int(0.05 * rounds)],
            "high": means[int(0.95 * rounds)],
            "next": smoothed(daily),
        }
        tell((store + 1) / STORES)
    return {"stores": stores, "rounds": rounds}


def smoothed(daily: list[float]) -> list[float]:
    """The next days by Holt and Winters' smoothing with a weekly season; its three weights are the best of a grid."""
    best: tuple[float, list[float]] | None = None
    for weights in itertools.product(LEVELS, TRENDS, SEASONS):
        wrong, coming = fit(daily, *weights)
        if best is None or wrong < best[0]:
            best = wrong, coming
    assert best is not None
    return [round(value, 1) for value in best[1]]


def fit(
    daily: list[float], level_weight: float, trend_weight: float, season_weight: float
) -> tuple[float, list[float]]:
    """The sum of squared errors of one day ahead, and the days to come."""
    level, trend, wrong = sum(daily[:WEEK]) / WEEK, 0.0, 0.0
    season = [day - level for day in daily[:WEEK]]
    for number, day in enumerate(daily[WEEK:], start=WEEK):
        place = number % WEEK
        error = day - (level + trend + season[place])
        wrong += error * error
        before = level
        level += trend + level_weight * error
        trend += trend_weight * (level - before - trend)
        season[place] += season_weight * (day - level - season[place])
    days = range(len(daily), len(daily) + HORIZON)
    return wrong, [level + (step + 1) * trend + season[day % WEEK] for step, day in enumerate(days)]


def overview(sales: Sales, tell: Callable[[float], None]) -> dict[str, Any]:
    """Revenue, sales and the best day of each region. In cents."""
    regions: dict[str, Any] = {}
    for store in range(STORES):
        mine = sales.store == store
        daily = numpy.bincount(sales.day[mine], weights=sales.amount[mine], minlength=DAYS)
        region = regions.setdefault(region_of(store), {"revenue": 0, "sales": 0, "best": 0.0})
        region["revenue"] += int(daily.sum())
        region["sales"] += int(mine.sum())
        region["best"] = max(region["best"], float(daily.max()))
        tell((store + 1) / STORES)
    return {"regions": regions}


REPORTS: dict[str, Callable[..., dict[str, Any]]] = {"forecast": forecast, "overview": overview}


def checked(report: Any, parameters: Any) -> tuple[str, dict[str, Any]]:
    """A report's name and parameters as a client gave them.

    Raises:
        Refused: there is no such report, or it does not take these parameters.
    """
    if not isinstance(report, str) or report not in REPORTS:
        raise Refused(f"there is no report {report!r}; there are {', '.join(REPORTS)}")
    if not isinstance(parameters, dict):
        raise Refused("parameters must be an object")
    if report != "forecast" and parameters:
        raise Refused(f"the report {report} takes no parameters")
    unknown = set(parameters) - {"rounds"}
    if unknown:
        raise Refused(f"the report {report} takes rounds, not {', '.join(sorted(unknown))}")
    rounds = parameters.get("rounds", 400)
    if isinstance(rounds, bool) or not isinstance(rounds, int) or not 20 <= rounds <= 20_000:
        raise Refused("rounds must be a whole number from 20 to 20000")
    return report, parameters


def run(sales: Sales, job: int, report: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Makes a report, and tells how far it is as job number `job`."""

    def tell(share: float) -> None:
        PROGRESS.info("%.0f %%", 100 * share, extra={"job": job, "share": share})

    return REPORTS[report](sales, tell, **parameters)


def make_way() -> None:
    """The initializer of each worker: the server's loop comes first wherever both want a core.

    A lower priority alone (`os.nice`) leaves a worker its time slice of some milliseconds when the loop wakes up, and that is
    what the slow ones of light requests would wait for. A task of this policy is set aside at once. The price: where other
    programs fill the machine, reports get next to nothing.
    """
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(15)
