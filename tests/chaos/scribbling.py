"""Workers that write random bytes over the pool's shared memory, as native code with a stray pointer does, and die or go on.

What must hold: the parent neither crashes nor hangs; a call that was not hit ends with its value; the others end with an error, or the
pool breaks with one that says what happened.
"""

from __future__ import annotations

import collections
import concurrent.futures
import ctypes
import os
import random
from pathlib import Path

import jobs
import treadle
from load import WATCHDOG_S, Wrong


def scribble(what: str, seed: int, words: int, then: str) -> int:
    """Overwrites words of this worker's mappings of one kind. Runs in a worker.

    Args:
        what: ``board`` or ``arena``.
        words: how many 8-byte words are overwritten.
        then: ``die`` or ``go on``.
    """
    chance = random.Random(seed)
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if f"memfd:treadle-{what}" in line and " rw-s " in line:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            ranges.append((start, end))
    for _ in range(words if ranges else 0):
        start, end = chance.choice(ranges)
        # Half of the words near the start, where the header, the slots and lanes are; small numbers find deeper checks.
        span = (end - start) // 8
        place = start + 8 * chance.randrange(min(span, 512) if chance.random() < 0.3 else span)
        value = chance.getrandbits(64) >> chance.randrange(64)
        ctypes.c_uint64.from_address(place).value = value
    if then == "die":
        os._exit(9)
    return len(ranges)


def _one(chance: random.Random) -> tuple[str, collections.Counter[str]]:
    what = chance.choice(["board", "board", "arena"])
    then = chance.choice(["die", "go on"])
    words = chance.choice([1, 10, 100, 5000])
    ended: collections.Counter[str] = collections.Counter()
    pool = treadle.Executor(processes=2)
    expected = {}
    data = bytes(range(256)) * 256
    try:
        for number in range(20):
            expected[pool.submit(jobs.scaled, number)] = 3 * number + 1
        seed = chance.getrandbits(32)
        vandal = pool.submit(scribble, what, seed, words, then)
        for number in range(150):
            expected[pool.submit(jobs.scaled, number)] = 3 * number + 1
            if number % 10 == 0:
                expected[pool.submit(jobs.reversed_bytes, data)] = data[::-1]
    except treadle.PoolBroken:
        ended["refused"] += 1
    for future, value in expected.items():
        try:
            got = future.result(timeout=WATCHDOG_S)
        except (treadle.WorkerDied, treadle.PoolBroken) as error:
            ended[type(error).__name__] += 1
        except concurrent.futures.TimeoutError as error:
            if not future.done():
                raise Wrong(
                    f"a hang after {words} words over the {what} ({then}, seed {seed}): {pool.stats()}"
                ) from error
            ended[type(error).__name__] += 1
        except Exception as error:
            # A call or a reply whose bytes were hit.
            ended[type(error).__name__] += 1
        else:
            ended["value" if got == value else "other value"] += 1
    vandal.exception(timeout=WATCHDOG_S)
    pool.kill_workers()
    pool.shutdown()
    return f"{what} {then}", ended


def scribbling(count: int, seed: int, folder: Path) -> str:
    chance = random.Random(seed)
    total: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for _ in range(count):
        kind, ended = _one(chance)
        total[kind].update(ended)
        total[kind]["pools"] += 1
    return "; ".join(f"{kind}: {dict(ended)}" for kind, ended in sorted(total.items()))
