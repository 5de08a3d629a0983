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
#: A call shorter than this (seconds) is not tried: the loop around it (0.3 µs) would be measured too.
SHORTEST_CALL_S = 5e-6
#: A block shorter than this (seconds) measures the threads' start and the 5 ms switch interval instead.
BLOCK_S = 0.06
#: Least pairs for an interval; Student's factor falls from 12.7 (two pairs) to 4.3 (three).
LEAST_PAIRS = 3
#: Most pairs: the interval narrows little after this.
MOST_PAIRS = 7
#: Longest the pilot may take, seconds, however much time is left.
LONGEST_S = 4.0
#: Part of the unused inputs that a pilot may use up when none may be run twice; the race needs the others.
ONCE_SHARE = 0.2
#: Student's t, two-sided 95 %, by degrees of freedom (pairs - 1).
_STUDENT = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447}

Call = tuple[int, tuple[Any, ...]]


def fresh(count: int, used: list[int]) -> list[int]:
    """Inputs for a pilot that may run none twice: `ONCE_SHARE` of those not `used`, spread evenly over them."""
    known = set(used)
    left = [index for index in range(count) if index not in known]
    wanted = int(len(left) * ONCE_SHARE)
    return [left[step * len(left) // wanted] for step in range(wanted)]


def run(
    function: Callable[..., Any],
    calls: list[Call],
    mean_wall_s: float,
    cpu_share: float,
    seconds_left: float,
    position: Position,
    once: bool = False,
) -> tuple[dict[str, Any] | None, int]:
    """``{"threads": 2, "speedup", "interval": [low, high]}``, or None where it would tell nothing.

    The second value is how many of `calls` were begun, from the first on. With `once` none is made twice: the
    two sides of a pair have different inputs.
    """
    if cpu_share <= CPU_SHARE or not calls or mean_wall_s < SHORTEST_CALL_S:
        return None, 0
    size = max(2, math.ceil(BLOCK_S / mean_wall_s))
    size += size % 2
    available = min(seconds_left, LONGEST_S)
    pairs = MOST_PAIRS
    if once:
        size = min(size, len(calls) // (2 * LEAST_PAIRS) // 2 * 2)
        if size * mean_wall_s < BLOCK_S / 2:
            return None, 0
        pairs = min(pairs, len(calls) // (2 * size))
    if LEAST_PAIRS * 2 * size * mean_wall_s > available:
        return None, 0
    logarithms: list[float] = []
    started = time.perf_counter()
    for pair in range(pairs):
        spent = time.perf_counter() - started
        if pair >= LEAST_PAIRS and spent * (pair + 1) / pair > available:
            break
        if once:
            first, second = (
                calls[start : start + size] for start in (2 * pair * size, (2 * pair + 1) * size)
            )
        else:
            place = (pair * size) % len(calls)
            first = second = [calls[(place + step) % len(calls)] for step in range(size)]
        if pair % 2:
            together = _two_threads(function, first, position)
            alone = _one_thread(function, second, position)
        else:
            alone = _one_thread(function, first, position)
            together = _two_threads(function, second, position)
        logarithms.append(math.log(max(alone, 1e-9) / max(together, 1e-9)))
    position.idle()
    mean = statistics.fmean(logarithms)
    half = _STUDENT[len(logarithms) - 1] * statistics.stdev(logarithms) / math.sqrt(len(logarithms))
    found = {
        "threads": 2,
        "speedup": math.exp(mean),
        "interval": [math.exp(mean - half), math.exp(mean + half)],
        "pairs": len(logarithms),
    }
    return found, 2 * size * len(logarithms)


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
