"""The profile: the function run one input at a time in this process, every reading taken around each call.

Meanwhile a native thread looks at random instants whether the call holds the interpreter lock. Where that
cannot be, the profile says why, and two threads are tried against one.

*Guarantees*: no input is run twice, but for that trial, which with ``once`` has inputs of its own.

*Assumes*: nothing else runs in this process. What the readings themselves cost is measured on a call that
does nothing, and taken off.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import math
import mmap
import os
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from treadle import _pickling
from treadle._core import Meter, trim_heap
from treadle._laboratory import failure, pilot, readings
from treadle._laboratory.calls import arguments
from treadle._laboratory.position import Position
from treadle._laboratory.refusal import Refusal
from treadle._laboratory.serialisation import Account
from treadle._laboratory.target import Target

#: Part of the time given to the serial run; the rest is for serialisation, the pilot and starting a worker.
SERIAL_SHARE = 0.55
#: With this many inputs or more the first call is warm-up, counted apart (imports, caches, connections).
WARM_UP_FROM = 3
#: Values of each role whose serialisation is measured; more would only add time to the profile.
SERIALISED = 8
#: Seconds given to serialisation in all, so that huge values do not eat the profile.
SERIALISATION_S = 1.5
#: Calls that do nothing, to learn what the readings cost: enough for a stable median, about 2 ms.
CALIBRATION_CALLS = 200
#: Calls after which the threads of the process are counted (the count costs about 10 µs a call).
THREAD_COUNTS = 50

#: Instants a second at which the sampler looks: 2,000 in a sample of two seconds, for some 3 % of another core.
RATE_HZ = 1000.0
#: Fewer looks than this tell nothing of the split (the engine draws the same line).
LEAST_SAMPLES = 20
#: A sample goes on until its mean is known (95 %) within this share of it: that decides what plans are raced, and what
#: each input takes decides how blocks are compared. Of tasks that wait, so many are enough then: their spread from
#: six values is known within a third, and the race tries the sizes beside the one that the mean proposes.
FEW_WAITING = 6
MEAN_KNOWN = 0.5
#: Half of a share's 95 % interval at which the split is known well enough for a race to be planned.
SHARE_KNOWN = 0.03

Progress = Callable[[dict[str, Any]], None]


def sample_indices(count: int, wanted: int) -> list[int]:
    """At most `wanted` indices spread evenly over ``range(count)``, in order, the first being 0."""
    taken = max(1, min(count, wanted))
    return [position * count // taken for position in range(taken)]


class Family:
    """Tells a call that came back in another process: a child that the function forked and did not end."""

    def __init__(self) -> None:
        self._own = os.getpid()
        self._word = mmap.mmap(-1, 1)  # shared with children

    def one_came_back(self) -> None:
        """Ends this process if it is such a child; the one that it was forked from is told."""
        if os.getpid() != self._own:
            self._word[0] = 1
            os._exit(1)

    @property
    def grown(self) -> bool:
        """Whether there was one."""
        return self._word[0] == 1


class _Run:
    """The calls made so far and what was read around them."""

    def __init__(self, position: Position, star: bool, progress: Progress) -> None:
        self.meter = Meter(RATE_HZ)
        self.family = Family()
        atexit.register(self.meter.close)
        self.position = position
        self.star = star
        self.progress = progress
        self.walls: list[float] = []
        self.failed_walls: list[float] = []
        self.thread: list[float] = []
        self.others: list[float] = []  # of other threads, and of programs that were waited for
        self._children_s = _children_cpu()
        self.queued: list[float] = []
        self.pauses: list[int] = []
        self.used: list[int] = []
        self.measured_indices: list[int] = []
        self.errors = 0
        self.calls = 0
        self.first_call_s = 0.0
        self.first_error: dict[str, Any] | None = None
        self.exception_problem: _pickling.PicklingProblem | None = None
        self.arguments = Account("args")
        self.results = Account("result")
        self.serialised = 0
        self.serialisation_s = 0.0
        self.native_threads = 0
        self.queue_known = False
        self.overhead = (0.0, 0.0, 0.0)
        self._told = time.monotonic()

    def close(self) -> None:
        """Ends the sampler."""
        self.meter.close()
        atexit.unregister(self.meter.close)

    def calibrate(self) -> None:
        """Learns what the readings add to each clock."""
        read = []
        for _ in range(CALIBRATION_CALLS):
            self.meter.begin()
            read.append(self.meter.end()[:3])
            self.meter.drop()
        wall, thread, others = (statistics.median(column) for column in zip(*read, strict=True))
        self.overhead = wall, thread, others

    def note(self, index: int, warm_up: bool, exception: BaseException | None) -> None:
        """Books one call, just ended."""
        seconds, thread, others, queued, pauses = self.meter.end()
        wall = max(0.0, seconds - self.overhead[0])
        before, self._children_s = self._children_s, _children_cpu()
        programs = self._children_s - before
        self.calls += 1
        self.used.append(index)
        if self.calls == 1:
            self.first_call_s = wall
        if exception is not None or warm_up:
            self.meter.drop()
        if exception is not None:
            self.errors += 1
            self._note_error(index, exception)
            self.failed_walls.append(wall)
        elif not warm_up:
            self.walls.append(wall)
            self.thread.append(max(0.0, thread - self.overhead[1]))
            self.others.append(max(0.0, others - self.overhead[2]) + programs)
            self.queued.append(max(0.0, queued or 0.0))
            self.queue_known = queued is not None
            self.pauses.append(pauses)
            self.measured_indices.append(index)
        if self.calls <= THREAD_COUNTS:
            self.count_threads()
        self.position.done(self.calls)

    def waits(self) -> bool:
        """Whether tasks compute for less of their time than matters."""
        return sum(self.thread) + sum(self.others) < pilot.CPU_SHARE * sum(self.walls)

    def mean_known(self) -> bool:
        """Whether there are `FEW_WAITING` tasks, and their mean is known within `MEAN_KNOWN` of itself."""
        count = len(self.walls)
        if count < FEW_WAITING:
            return False
        error = statistics.stdev(self.walls) / math.sqrt(count)
        return 1.96 * error <= MEAN_KNOWN * statistics.fmean(self.walls)

    def split_known(self) -> bool:
        """Whether the looks at the lock so far tell each share within `SHARE_KNOWN`, or there are none."""
        if self.meter.absent is not None:
            return True
        tally = self.meter.tally()
        assert tally is not None
        for these, others in (
            (
                tally["held_running"] + tally["held_ready"],
                tally["free_running"] + tally["free_ready"],
            ),
            (tally["held_blocked"], tally["free_blocked"]),
        ):
            # Agresti and Coull's interval, of the share among all looks.
            count = self.meter.samples() + 4
            share = (these + 2) / (these + others + 4)
            weight = (these + others) / count
            half = 1.96 * weight * math.sqrt(share * (1 - share) / (these + others + 4))
            if half > SHARE_KNOWN:
                return False
        return self.meter.samples() >= LEAST_SAMPLES

    def _note_error(self, index: int, exception: BaseException) -> None:
        if self.first_error is None:
            self.first_error = {"index": index, **failure.describe(exception)}
            self.exception_problem = _pickling.find_round_trip_problem(exception, "exception")

    def count_threads(self) -> None:
        """Threads that the kernel sees and ``threading`` does not: those of native libraries, not the sampler."""
        seen = readings.operating_system_threads()
        if seen is not None:
            own = threading.active_count() + (self.meter.absent is None)
            self.native_threads = max(self.native_threads, seen - own)

    def serialise(self, item: Any, result: Any, failed: bool) -> None:
        """Measures what this call's argument and result cost to send."""
        if self.serialised >= SERIALISED or self.serialisation_s > SERIALISATION_S:
            return
        self.serialised += 1
        started = time.perf_counter()
        self.arguments.add(arguments(item, self.star))
        if not failed:
            self.results.add(result)
        self.serialisation_s += time.perf_counter() - started

    def tell(self, total: int) -> None:
        """Progress, four times a second at most."""
        now = time.monotonic()
        if now - self._told > 0.25:
            self._told = now
            self.progress({"phase": "profile", "done": self.calls, "count": total})


@dataclass(frozen=True)
class Enough:
    """When a sample may end before its time: after so many seconds, with so many tasks, the split known.

    Tasks that compute shall have told their mean by then. Those that wait may be fewer, if they have: a race of waiting
    tasks shows at once how many of them run together, which is all that more of them would help to foretell.
    """

    seconds: float
    count: int

    def reached(self, run: _Run, elapsed: float) -> bool:
        """Whether it may end now."""
        if elapsed < self.seconds:
            return False
        counted = len(run.walls) >= self.count
        if run.waits():
            return (counted or run.mean_known()) and run.split_known()
        return counted and run.mean_known() and run.split_known()


async def _drive(
    run: _Run,
    target: Target,
    items: list[Any],
    indices: list[int],
    until: float,
    limit: Enough | None,
) -> None:
    """The serial loop; for a plain function nothing in it ever waits."""
    function, is_async, star = target.function, target.is_async, run.star
    meter, began = run.meter, time.perf_counter()
    enough = len(indices) >= WARM_UP_FROM
    every = max(1, len(indices) // SERIALISED)
    for number, index in enumerate(indices):
        now = time.perf_counter()
        if number and (now >= until or (limit is not None and limit.reached(run, now - began))):
            break
        item = items[index]
        given = arguments(item, star)
        result: Any = None
        raised: BaseException | None = None
        run.position.at(index)
        meter.begin()
        try:
            result = await function(*given) if is_async else function(*given)
        except BaseException as exception:
            raised = exception
        run.note(index, enough and number == 0, raised)
        run.family.one_came_back()
        if run.family.grown:
            raise Refusal(
                "target-forked",
                f"input {index}: the function forked, and its child came back from the call",
                "end the child inside the function, with os._exit(), or start a program with subprocess",
            )
        if number == 0 and inspect.iscoroutine(result):
            result.close()
            raise Refusal(
                "target-coroutine",
                f"{target.name} is a plain function that returned a coroutine",
                "name the async function itself, so that it is awaited",
            )
        if number % every == 0:
            run.serialise(item, result, raised is not None)
        del result, raised
        run.tell(len(indices))
    run.position.idle()


def run_plain(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine that never waits, without a loop, so that the function may start its own."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("a plain function's loop waited")


def profile(
    target: Target,
    items: list[Any],
    star: bool,
    position: Position,
    max_seconds: float,
    max_count: int,
    progress: Progress,
    *,
    once: bool = False,
    enough: Enough | None = None,
) -> dict[str, Any]:
    """Runs the sample and gives the protocol's ``profile`` object; times in seconds, sizes in bytes.

    With `once`, no input is run twice. With `enough`, the sample may end before `max_seconds`.
    """
    run = _Run(position, star, progress)
    try:
        return _profile(run, target, items, max_seconds, max_count, once, enough)
    finally:
        run.close()


def _profile(
    run: _Run,
    target: Target,
    items: list[Any],
    max_seconds: float,
    max_count: int,
    once: bool,
    enough: Enough | None,
) -> dict[str, Any]:
    started = time.perf_counter()
    run.calibrate()
    indices = sample_indices(len(items), max_count)
    trim_heap()
    readings.reset_peak()
    baseline = readings.resident_bytes()
    driver = _drive(run, target, items, indices, started + SERIAL_SHARE * max_seconds, enough)
    if target.is_async:
        asyncio.run(driver)
    else:
        run_plain(driver)
    peak = readings.peak_resident_bytes()
    trim_heap()
    growth = max(0, readings.resident_bytes() - baseline)
    run.count_threads()
    tally = run.meter.tally()
    sampled = tally is not None and run.meter.samples() >= LEAST_SAMPLES

    good = bool(run.walls)
    walls = run.walls or run.failed_walls
    if not good:  # only the warm-up call succeeded, or none
        walls = walls or [run.first_call_s]
    left = max_seconds - (time.perf_counter() - started)
    trial_of_two = None
    used = run.used
    if good and not target.is_async and not sampled:
        cpu_share = (sum(run.thread) + sum(run.others)) / max(sum(run.walls), 1e-9)
        taken = pilot.fresh(len(items), used) if once else run.measured_indices
        trial_of_two, called = pilot.run(
            target.function,
            [(index, arguments(items[index], run.star)) for index in taken],
            _mean(run.walls),
            cpu_share,
            left,
            run.position,
            once,
        )
        if once:
            used = used + taken[:called]
    function_problem = _pickling.find_round_trip_problem(target.function, "function")
    return {
        "count": run.calls,
        "measured": len(run.walls),
        "wall_s": _mean(walls),
        "walls": walls,
        "measured_inputs": run.measured_indices,
        "cpus": run.thread,
        "natives": run.others,
        "queues": run.queued if run.queue_known else [],
        "pauses": _mean([float(count) for count in run.pauses]) if good else None,
        "tally": tally if good else None,
        "lock_absent": run.meter.absent,
        "used": used,
        "thread_cpu_s": _mean(run.thread),
        "process_cpu_s": _mean(run.thread) + _mean(run.others),
        "run_queue_s": _mean(run.queued) if run.queue_known else None,
        "errors": run.errors,
        "first_error": run.first_error,
        "all_failed": run.errors == run.calls,
        **run.arguments.to_json("argument"),
        **run.results.to_json("result"),
        "dumps_s": run.arguments.to_json("x")["x_dumps_s"] + run.results.to_json("x")["x_dumps_s"],
        "loads_s": run.arguments.to_json("x")["x_loads_s"] + run.results.to_json("x")["x_loads_s"],
        "pickle": {
            "function": _problem(function_problem),
            "argument": _problem(run.arguments.problem),
            "result": _problem(run.results.problem),
            "exception": _problem(run.exception_problem),
        },
        "peak_rss_bytes": max(peak, baseline),
        "rss_growth_bytes": growth,
        "baseline_rss_bytes": baseline,
        "modules": _modules(),
        "pilot": trial_of_two,
        "native_threads": run.native_threads,
        "first_call_s": run.first_call_s,
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _problem(problem: _pickling.PicklingProblem | None) -> dict[str, str] | None:
    return None if problem is None else problem.to_json()


def _children_cpu() -> float:
    """CPU seconds of ended children that were waited for: programs that the function ran."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _modules() -> list[str]:
    """Top-level names of what the function has imported, beyond the standard library and Treadle."""
    own = {"treadle"} | set(sys.stdlib_module_names)
    names = {name.partition(".")[0] for name, module in list(sys.modules.items()) if module}
    return sorted(name for name in names - own if not name.startswith("_"))
