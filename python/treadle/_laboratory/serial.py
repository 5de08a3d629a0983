"""The profile: the function run one input at a time in this process, every reading taken around each call.

*Assumes*: nothing else runs in this process. What the readings themselves cost is measured on a call that
does nothing, and taken off.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from treadle import _pickling
from treadle._laboratory import failure, pilot, readings
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

Progress = Callable[[dict[str, Any]], None]


class Readings:
    """The four clocks around one call, in seconds."""

    __slots__ = ("_queue", "process", "queued", "thread", "wall")

    def __init__(self, queue: readings.RunQueue) -> None:
        self._queue = queue
        self.wall = self.thread = self.process = self.queued = 0.0

    def begin(self) -> None:
        """Reads the clocks, the wall clock last, so that it sees nothing but the call."""
        self.queued = self._queue.seconds()
        self.process = time.process_time()
        self.thread = time.thread_time()
        self.wall = time.perf_counter()

    def end(self) -> None:
        """Reads them again, the wall clock first; each field then holds its difference."""
        self.wall = time.perf_counter() - self.wall
        self.thread = time.thread_time() - self.thread
        self.process = time.process_time() - self.process
        self.queued = self._queue.seconds() - self.queued


@dataclass(frozen=True)
class Sampling:
    """What bounds the sample besides its time and its count."""

    #: Run no input twice: the pilot then has inputs of its own.
    once: bool = False
    #: The sample may end after so many seconds, if it holds `enough_count` calls by then.
    enough_s: float = math.inf
    enough_count: int = 0


def sample_indices(count: int, wanted: int) -> list[int]:
    """At most `wanted` indices spread evenly over ``range(count)``, in order, the first being 0."""
    taken = max(1, min(count, wanted))
    return [position * count // taken for position in range(taken)]


class _Run:
    """The calls made so far and what was read around them."""

    def __init__(self, position: Position, star: bool, progress: Progress) -> None:
        self.queue = readings.RunQueue()
        self.clocks = Readings(self.queue)
        self.position = position
        self.star = star
        self.progress = progress
        self.walls: list[float] = []
        self.failed_walls: list[float] = []
        self.thread: list[float] = []
        self.process: list[float] = []
        self.queued: list[float] = []
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
        self.overhead = Readings(self.queue)
        self._told = time.monotonic()

    def calibrate(self) -> None:
        """Learns what the readings add to each clock."""
        clocks = Readings(self.queue)
        read: list[tuple[float, float, float]] = []
        for _ in range(CALIBRATION_CALLS):
            clocks.begin()
            clocks.end()
            read.append((clocks.wall, clocks.thread, clocks.process))
        wall, thread, process = (statistics.median(column) for column in zip(*read, strict=True))
        self.overhead.wall, self.overhead.thread, self.overhead.process = wall, thread, process

    def note(self, index: int, warm_up: bool, result: Any, exception: BaseException | None) -> None:
        """Books one call whose clocks have just been read."""
        clocks, overhead = self.clocks, self.overhead
        wall = max(0.0, clocks.wall - overhead.wall)
        self.calls += 1
        if self.calls == 1:
            self.first_call_s = wall
        if exception is not None:
            self.errors += 1
            self._note_error(index, exception)
            self.failed_walls.append(wall)
        elif not warm_up:
            self.walls.append(wall)
            self.thread.append(max(0.0, clocks.thread - overhead.thread))
            self.process.append(max(0.0, clocks.process - overhead.process))
            self.queued.append(max(0.0, clocks.queued))
            self.measured_indices.append(index)
        if self.calls <= THREAD_COUNTS:
            self.count_threads()
        self.position.done(self.calls)

    def _note_error(self, index: int, exception: BaseException) -> None:
        if self.first_error is None:
            self.first_error = {"index": index, **failure.describe(exception)}
            self.exception_problem = _pickling.find_round_trip_problem(exception, "exception")

    def count_threads(self) -> None:
        """Threads that the kernel sees and ``threading`` does not: those of native libraries."""
        seen = readings.operating_system_threads()
        if seen is not None:
            self.native_threads = max(self.native_threads, seen - threading.active_count())

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


def arguments(item: Any, star: bool) -> tuple[Any, ...]:
    """The argument list of the call on `item`."""
    return item if star and isinstance(item, tuple) else (item,)


async def _drive(
    run: _Run,
    target: Target,
    items: list[Any],
    indices: list[int],
    until: float,
    sampling: Sampling,
) -> None:
    """The serial loop; for a plain function nothing in it ever waits."""
    function, is_async, star = target.function, target.is_async, run.star
    clocks = run.clocks
    enough = len(indices) >= WARM_UP_FROM
    every = max(1, len(indices) // SERIALISED)
    enough_from = time.perf_counter() + sampling.enough_s
    for number, index in enumerate(indices):
        now = time.perf_counter()
        if number and (now >= until or (now >= enough_from and number >= sampling.enough_count)):
            break
        item = items[index]
        given = arguments(item, star)
        result: Any = None
        raised: BaseException | None = None
        run.position.at(index)
        clocks.begin()
        try:
            result = await function(*given) if is_async else function(*given)
        except BaseException as exception:
            raised = exception
        clocks.end()
        run.note(index, enough and number == 0, result, raised)
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
    sampling: Sampling = Sampling(),
) -> dict[str, Any]:
    """Runs the sample and gives the protocol's ``profile`` object; times in seconds, sizes in bytes."""
    started = time.perf_counter()
    run = _Run(position, star, progress)
    run.calibrate()
    indices = sample_indices(len(items), max_count)
    readings.reset_peak()
    baseline = readings.resident_bytes()
    children_before = _children_cpu()
    driver = _drive(run, target, items, indices, started + SERIAL_SHARE * max_seconds, sampling)
    if target.is_async:
        asyncio.run(driver)
    else:
        run_plain(driver)
    children = _children_cpu() - children_before
    peak = readings.peak_resident_bytes()
    growth = max(0, readings.resident_bytes() - baseline)
    run.count_threads()
    queue_known = run.queue.available
    run.queue.close()

    good = bool(run.walls)
    walls = run.walls or run.failed_walls
    if not good:  # only the warm-up call succeeded, or none
        walls = walls or [run.first_call_s]
    left = max_seconds - (time.perf_counter() - started)
    trial_of_two = None
    used = indices[: run.calls]
    if good and not target.is_async:
        cpu_share = sum(run.process) / max(sum(run.walls), 1e-9)
        taken = run.measured_indices
        if sampling.once:
            taken = pilot.fresh(len(items), used)
        trial_of_two, called = pilot.run(
            target.function,
            [(index, arguments(items[index], star)) for index in taken],
            _mean(run.walls),
            cpu_share,
            left,
            position,
            sampling.once,
        )
        if sampling.once:
            used = used + taken[:called]
    function_problem = _pickling.find_round_trip_problem(target.function, "function")
    return {
        "count": run.calls,
        "measured": len(run.walls),
        "wall_s": _mean(walls),
        "walls": walls,
        "thread_cpu_s": _mean(run.thread),
        "process_cpu_s": _mean(run.process),
        "children_cpu_s": children / max(1, run.calls),
        "run_queue_s": _mean(run.queued) if queue_known else None,
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
        "used": used,
        "native_threads": run.native_threads,
        "first_call_s": run.first_call_s,
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _problem(problem: _pickling.PicklingProblem | None) -> dict[str, str] | None:
    return None if problem is None else problem.to_json()


def _children_cpu() -> float:
    """CPU seconds of ended children that were waited for: programs that the function ran."""
    try:
        import resource
    except ImportError:
        return 0.0
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _modules() -> list[str]:
    """Top-level names of what the function has imported, beyond the standard library and Treadle."""
    own = {"treadle"} | set(sys.stdlib_module_names)
    names = {name.partition(".")[0] for name, module in list(sys.modules.items()) if module}
    return sorted(name for name in names - own if not name.startswith("_"))
