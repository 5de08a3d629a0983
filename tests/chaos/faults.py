"""Workers that kill themselves at a named step of the protocol (the kill points of ``treadle-shm``), through the whole engine.

The extension must be built with the feature ``treadle-shm/fault``; ``make chaos`` does that into a folder of its own.
"""

from __future__ import annotations

import collections
import os
import random
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jobs
import numpy
import treadle
from load import Load, Tally, Wrong

#: Workers of one pool that die at the point; the others, and all replacements, live.
_DEATHS = 2
#: Most rounds of load until they are dead. The steps of a rare meeting (a wake-up in the very moment of falling asleep) are not always met.
_ROUNDS = 6
#: The plans in turn: a worker that runs one call at a time, and one that runs several. As many calls a death may cost.
_PLANS: list[tuple[dict[str, int], int]] = [
    ({"processes": 3}, 1),
    ({"processes": 3, "threads": 3}, 3),
]
_SOURCE = Path(__file__).parents[2] / "crates/treadle-shm/src/fault.rs"


def points() -> list[str]:
    """The names in ``fault::POINTS``."""
    table = re.search(r"POINTS: &\[&str\] = &\[(.*?)\]", _SOURCE.read_text(), re.DOTALL)
    if table is None:
        raise Wrong(f"{_SOURCE} has no table POINTS")
    return re.findall('"([a-z-]+)"', table.group(1))


def arm(path: str, point: str, deaths: int) -> None:
    """Initializer: the first few workers are to die at the point; it runs before the engine passes any."""
    for turn in range(deaths):
        try:
            os.close(os.open(f"{path}.{turn}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            continue
        os.environ["TREADLE_FAULT"] = point
        os.environ["TREADLE_FAULT_MARK"] = f"{path}.died"
        return
    os.environ.pop("TREADLE_FAULT", None)


def _died(armed: Path) -> int:
    """How many workers died at the point: each leaves a file before."""
    return len(list(armed.parent.glob(f"{armed.name}.died-*")))


def _calls(load: Load, bursts: Iterable[int], function: Callable[..., Any], *more: Any) -> None:
    """Bursts of calls of ``function(number, …)``, each taken before the next, and checked."""
    for burst in bursts:
        calls = [load.pool.submit(function, number, *more) for number in range(burst)]
        for number, call in enumerate(calls):
            try:
                if not numpy.array_equal(call.result(timeout=60), function(number, *more)):
                    raise Wrong("a wrong value")
            except treadle.WorkerDied:
                load.tally.died += 1


def _settle(pool: treadle.Executor) -> None:
    """Waits for the calls of a map that ended early."""
    until = time.monotonic() + 60
    while (stats := pool.stats()).running or stats.queued:
        if time.monotonic() > until:
            raise Wrong(f"a hang: {stats}")
        time.sleep(0.005)


def _chunks(load: Load) -> None:
    """Chunks of several items: what was finished of one is kept when its worker dies."""
    for _ in range(4):
        try:
            values = list(load.pool.map(jobs.scaled, range(400), chunksize=100))
        except treadle.WorkerDied:
            load.tally.died += 1
            _settle(load.pool)
            continue
        if values != [3 * number + 1 for number in range(400)]:
            raise Wrong("wrong values of a map")


def _die_at(
    plan: dict[str, int], point: str, nth: int, seed: int, folder: Path
) -> tuple[int, Tally]:
    """How many workers died at the point, and what became of the calls."""
    armed = folder / f"armed-{seed}"
    with treadle.Executor(
        treadle.Plan(**plan), initializer=arm, initargs=(str(armed), f"{point}:{nth}", _DEATHS)
    ) as pool:
        load = Load(pool, seed, folder)
        for _ in range(_ROUNDS):
            load.round()
            # One at a time, so that both sides fall asleep in between; and a few right after a burst, while the workers doze, so that
            # one of them wakes the others.
            _calls(load, [1] * 20 + [30, 3] * 30, jobs.scaled)
            # Results that no ring takes.
            _calls(load, [6] * 10, jobs.filled, 20_000)
            _chunks(load)
            if _died(armed) >= _DEATHS:
                break
        load.finish()
    return _died(armed), load.tally


def faults(count: int, seed: int, folder: Path) -> str:
    chance = random.Random(seed)
    reached: collections.Counter[str] = collections.Counter()
    tasks = lost = pools = 0
    for turn in range(count):
        plan, at_once = _PLANS[turn % len(_PLANS)]
        for point in points():
            # Late passings too: by then the queue and the ring have wrapped.
            nth = chance.choice([1, 2, 3, 10, 50])
            seed = chance.getrandbits(48)
            try:
                deaths, tally = _die_at(plan, point, nth, seed, folder)
            except Wrong as error:
                raise Wrong(
                    f"{plan} {point}:{nth} with seed {seed} (turn {turn}): {error}"
                ) from error
            if tally.died > _DEATHS * at_once:
                raise Wrong(
                    f"{plan} {point}:{nth}: {_DEATHS} deaths cost {tally.died} calls (turn {turn})"
                )
            reached[point] += deaths
            tasks += tally.tasks
            lost += tally.died
            pools += 1
    missed = [point for point in points() if not reached[point]]
    if len(missed) == len(points()):
        raise Wrong(
            "no kill point was reached: this extension is built without the feature treadle-shm/fault; run make chaos"
        )
    return f"{sum(reached.values())} deaths in {pools} pools, {tasks} tasks, {lost} lost; {dict(reached)}; never reached: {missed}"
