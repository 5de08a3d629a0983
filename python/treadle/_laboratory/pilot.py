"""Two threads against one over the same inputs: does the function leave the interpreter lock to others?

Blocks alternate (serial, two threads; then two threads, serial; ...), so that a drift of the machine falls
on both sides. The speed-up is the geometric mean of the pairs' ratios; the interval is Student's, 95 %, on
their logarithms.

*Assumes*: the function may run in two threads of one process; one that may not was never safe in threads.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from treadle._laboratory.position import Position

#: Below this share of CPU in wall time, waiting decides and the lock does not matter.
CPU_SHARE = 0.2
#: A block shorter than this (seconds) measures the threads' start and the 5 ms switch interval instead.
BLOCK_S = 0.06
#: Least pairs for an interval; Student's factor falls from 12.7 (two pairs) to 4.3 (three).
LEAST_PAIRS = 3
#: Most pairs: the interval narrows little after this.
MOST_PAIRS = 7
#: Longest the pilot may take, seconds, however much time is left.
LONGEST_S = 4.0
#: Student's t, two-sided 95 %, by degrees of freedom (pairs - 1).
_STUDENT = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447}

Call = tuple[int, tuple[Any, ...]]


def run(
    function: Callable[..., Any],
    calls: list[Call],
    mean_wall_s: float,
    cpu_share: float,
    seconds_left: float,
    position: Position,
) -> dict[str, Any] | None:
    """``{"threads": 2, "speedup", "interval": [low, high]}``, or None where it would tell nothing."""
    if cpu_share <= CPU_SHARE or not calls or mean_wall_s <= 0.0:
        return None
    size = max(2, math.ceil(BLOCK_S / mean_wall_s))
    size += size % 2
    available = min(seconds_left, LONGEST_S)
    if LEAST_PAIRS * 2 * size * mean_wall_s > available:
        return None
    logarithms: list[float] = []
    started = time.perf_counter()
    for pair in range(MOST_PAIRS):
        spent = time.perf_counter() - started
        if pair >= LEAST_PAIRS and spent * (pair + 1) / pair > available:
            break
        first = (pair * size) % len(calls)
        block = [calls[(first + step) % len(calls)] for step in range(size)]
        if pair % 2:
            together = _two_threads(function, block, position)
            alone = _one_thread(function, block, position)
        else:
            alone = _one_thread(function, block, position)
            together = _two_threads(function, block, position)
        logarithms.append(math.log(max(alone, 1e-9) / max(together, 1e-9)))
    position.idle()
    mean = statistics.fmean(logarithms)
    half = _STUDENT[len(logarithms) - 1] * statistics.stdev(logarithms) / math.sqrt(len(logarithms))
    return {
        "threads": 2,
        "speedup": math.exp(mean),
        "interval": [math.exp(mean - half), math.exp(mean + half)],
        "pairs": len(logarithms),
    }


def _calls(function: Callable[..., Any], block: list[Call], position: Position) -> None:
    for index, given in block:
        position.at(index)
        try:
            function(*given)
        except BaseException:  # errors were counted by the serial run; here only the time matters
            continue


def _one_thread(function: Callable[..., Any], block: list[Call], position: Position) -> float:
    started = time.perf_counter()
    _calls(function, block, position)
    return time.perf_counter() - started


def _two_threads(function: Callable[..., Any], block: list[Call], position: Position) -> float:
    """Each thread takes every other input; the time from their common start to the later end."""
    gate = threading.Barrier(3)
    ends: list[float] = []

    def work(part: list[Call]) -> None:
        gate.wait()
        _calls(function, part, position)
        ends.append(time.perf_counter())

    threads = [
        threading.Thread(target=work, args=(block[half::2],), daemon=True) for half in range(2)
    ]
    for thread in threads:
        thread.start()
    gate.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return max(ends) - started
