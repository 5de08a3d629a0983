"""Takes the samples of one workload: every contender in turn, in a new random order each time.

*Guarantees* a contender that is absent, lacks what the workload needs, fails or hangs is named with
its reason and leaves the others alone. *Assumes* the main thread: the watchdog is an alarm signal.
"""

from __future__ import annotations

import random
import signal
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from benches.whole.workload import Sample, Workload

WATCHDOG_S = 120  # per step; the slowest step of the slowest peer takes about 10 s


@dataclass
class Outcome:
    """What one workload gave: samples by contender, and why others gave none."""

    workload: Workload
    samples: dict[str, list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def medians(self) -> dict[str, float]:
        """The median sample of each contender."""
        return {name: statistics.median(taken) for name, taken in self.samples.items()}

    def ratio(self, name: str) -> tuple[float, float, float] | None:
        """The baseline's median over that of `name`, with the lowest and highest paired ratio."""
        base, own = self.samples.get(self.workload.baseline), self.samples.get(name)
        if not base or not own:
            return None
        paired = [theirs / ours for theirs, ours in zip(base, own, strict=True)]
        return statistics.median(base) / statistics.median(own), min(paired), max(paired)


@contextmanager
def watchdog() -> Iterator[None]:
    """Raises TimeoutError in the main thread when the block takes longer than WATCHDOG_S."""

    def expired(_signal: int, _frame: object) -> None:
        raise TimeoutError(f"nothing came for {WATCHDOG_S} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(WATCHDOG_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def reason(error: Exception) -> str:
    """Why a contender gives no figures, in a line."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    return f"{type(error).__name__}: {error}".splitlines()[0]


def run(workload: Workload, workers: int, repetitions: int, chance: random.Random) -> Outcome:
    """Opens and warms every contender, then takes `repetitions` samples of each, interleaved."""
    outcome = Outcome(workload)
    stacks: dict[str, ExitStack] = {}
    ready: dict[str, Sample] = {}
    try:
        for name in workload.contenders:
            stacks[name] = ExitStack()
            try:
                with watchdog():
                    ready[name] = stacks[name].enter_context(workload.open(name, workers))
            except Exception as error:
                outcome.absent[name] = reason(error)
        for _repetition in range(repetitions):
            for name in chance.sample(sorted(ready), len(ready)):
                try:
                    with watchdog():
                        outcome.samples.setdefault(name, []).append(ready[name]())
                except Exception as error:
                    # A median over fewer repetitions would not be paired with the others.
                    del ready[name]
                    outcome.samples.pop(name, None)
                    outcome.absent[name] = reason(error)
    finally:
        for name, stack in stacks.items():
            try:
                with watchdog():
                    stack.close()
            except Exception as error:
                outcome.samples.pop(name, None)
                outcome.absent[name] = f"did not close: {reason(error)}"
    return outcome
