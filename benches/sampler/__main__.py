"""The bench: overhead on the measured thread at several rates, and the error against known truth.

Overhead: the same work, in short blocks with the sampler and without, in pairs of random order; CPU seconds
of the measured thread, so that what others do on the machine counts little. The interval is a bootstrap's
over the pairs' ratios.

*Assumes*: a work block of 20 ms is long against the switch from one kind to the other.
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
from pathlib import Path

import treadle
from treadle import _core

from benches.sampler import known
from benches.whole.machine import processor, usable_cores

#: Instants a second: in production, in the profile, and far beyond.
RATES = (100.0, 1000.0, 5000.0)
#: Loops in a block: some 20 ms.
LOOPS = 400_000
#: Pairs of blocks for each rate; their ratios spread by a few percent on a busy machine.
PAIRS = 400
RESAMPLES = 2000
#: Seconds for a profile: somewhat more than half goes to the calls, so 2,000 looks and more at 1 kHz.
PROFILE_S = 5.0


def work() -> float:
    """CPU seconds of a block of pure Python."""
    began = time.thread_time()
    total = 0
    for number in range(LOOPS):
        total += number & 3
    return time.thread_time() - began


def block(meter: _core.Meter) -> float:
    """CPU seconds of a block within a call of the meter, which samples or was closed."""
    meter.begin()
    spent = work()
    meter.end()
    return spent


def overhead(rate: float, pairs: int, source: random.Random) -> tuple[float, float, float, float]:
    """(overhead, low, high, the sampler's CPU): shares, the overhead with its 95 % interval."""
    ratios = []
    cpu = []
    for _ in range(pairs):
        spent = {}
        kinds = [True, False]
        source.shuffle(kinds)
        for sampled in kinds:
            # Both kinds come after the same start, which makes the thread wait for others.
            meter = _core.Meter(rate)
            if meter.absent is not None:
                raise SystemExit(f"the lock is not watched: {meter.absent}")
            if not sampled:
                meter.close()
            spent[sampled] = block(meter)
            if tally := meter.tally():
                cpu.append(tally["sampler_cpu_s"] / tally["elapsed_s"])
            meter.close()
        ratios.append(spent[True] / spent[False] - 1)
    medians = sorted(
        statistics.median(source.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES)
    )
    return (
        statistics.median(ratios),
        medians[int(0.025 * RESAMPLES)],
        medians[int(0.975 * RESAMPLES)],
        statistics.median(cpu),
    )


def report(pairs: int, seconds: float, seed: int) -> list[str]:
    """The lines of the report."""
    source = random.Random(seed)
    meter = _core.Meter(1000.0)
    lines = [
        f"{processor()}, {usable_cores()} usable cores, {platform.system()} {platform.release()}",
        f"Python {platform.python_version()}, lock found by {meter.source}; "
        f"{datetime.date.today()}, load averages {', '.join(f'{load:.2f}' for load in os.getloadavg())}; "
        f"seed {seed}",
        "",
        f"Overhead on the measured thread's CPU time, median of {pairs} pairs of blocks, 95 % interval",
    ]
    meter.close()
    for rate in RATES:
        found, low, high, cpu = overhead(rate, pairs, source)
        lines.append(
            f"  {rate:6.0f} Hz  {found:+7.2%}  ({low:+.2%} to {high:+.2%}); "
            f"the sampler itself {cpu:.1%} of another core"
        )
    lines += ["", "Where the time goes: found (true), in percent of a task's time"]
    lines.append(f"  {'':24}{'looks':>6}  " + "  ".join(f"{name:>12}" for name in known.PARTS))
    worst = 0.0
    for function, true_shares in known.TRUTH.items():
        profile = treadle.measure(function, range(2000), max_seconds=seconds).json
        if profile["split"] is None:
            raise SystemExit(f"{function.__name__}: {profile['split_absent']}")
        found_shares = known.shares(profile)
        cells = [
            f"{100 * found_shares[name]:5.1f} ({100 * true_shares[name]:4.1f})"
            for name in known.PARTS
        ]
        error = max(abs(found_shares[name] - true_shares[name]) for name in known.PARTS)
        worst = max(worst, error)
        looks = profile["split"]["samples"]
        lines.append(
            f"  {function.__name__:24}{looks:6}  " + "  ".join(f"{cell:>12}" for cell in cells)
        )
    lines.append(f"  largest error: {100 * worst:.1f} points")
    return lines


def main() -> int:
    """Prints the report, and writes it where asked."""
    parser = argparse.ArgumentParser(prog="python -m benches.sampler", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the pairs")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--out", type=Path, help="also write the report to this file")
    options = parser.parse_args()
    pairs = PAIRS // 10 if options.quick else PAIRS
    text = "\n".join(report(pairs, PROFILE_S, options.seed)) + "\n"
    sys.stdout.write(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
