"""The meters of this program's pools as text that Prometheus reads: the families, and the ledger that keeps counts true.

Names follow OpenTelemetry's way of naming, in the form of Prometheus. A label holds a pool's name, its strategy, a function's name, a state, an
outcome or a direction; never a process id, a task or an argument. Pools of one name and strategy are added up. Functions have series of their own up
to so many of a pool (``functions.rs``); the others are ``other`` together.

*Guarantees*: a counter never falls: what a pool had counted when it ended stays in the sums.
*Assumes*: a pool ends by ``shutdown`` or is read once more before it vanishes; what a pool counts after its last reading and
without ``shutdown`` is lost.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from treadle import holding, strategies
from treadle._usage import usage
from treadle.strategies import FunctionStats, Histogram, Sizes, Stats, Strategy, Transfer

#: What the text is, for the header of an answer.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Key(NamedTuple):
    """What pools are told apart by."""

    pool: str
    strategy: str


@dataclass
class _Sums:
    """What only grows, for the pools of one key."""

    counts: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0.0
    overhead_s: float = 0.0
    functions: tuple[FunctionStats, ...] = ()
    arguments: Transfer | None = None
    results: Transfer | None = None

    def add(self, other: _Sums) -> None:
        self.counts.update(other.counts)
        self.cpu_s += other.cpu_s
        self.overhead_s += other.overhead_s
        self.functions = strategies.by_function([*self.functions, *other.functions])
        if other.arguments is not None:
            self.arguments = other.arguments.plus(self.arguments)
        if other.results is not None:
            self.results = other.results.plus(self.results)


class _Reading:
    """A pool's last reading. CPU time of workers is kept by worker, because a new worker in an old place begins at zero."""

    def __init__(self, strategy: Strategy) -> None:
        self.pool = weakref.ref(strategy)
        self.key = Key(strategy.settings.name, strategy.plan.strategy)
        self.stats = strategy.stats()
        self._cpu: dict[int, float] = {}
        self._overhead_s = 0.0
        self._counts: Counter[str] = Counter()
        self.take(self.stats)

    def take(self, stats: Stats) -> None:
        self.stats = stats
        # A task that is over its time is counted so before it counts as ended: a difference of the two may dip.
        self._counts |= _counts(stats)
        self._overhead_s = max(self._overhead_s, stats.overhead_s or 0.0)
        for worker in stats.workers:
            if worker.cpu_s is not None and worker.ident:
                self._cpu[worker.ident] = max(worker.cpu_s, self._cpu.get(worker.ident, 0.0))

    def sums(self) -> _Sums:
        stats = self.stats
        return _Sums(
            Counter(self._counts),
            sum(self._cpu.values()),
            self._overhead_s,
            stats.functions,
            stats.arguments,
            stats.results,
        )


def _counts(stats: Stats) -> Counter[str]:
    """The counters of a pool, each ended task under one outcome."""
    # Processes count a time-out among the lost, the others among the completed.
    lost_to_time = min(stats.lost, stats.timed_out)
    return Counter(
        submitted=stats.submitted,
        answered=max(0, stats.completed - (stats.timed_out - lost_to_time)),
        cancelled=stats.cancelled,
        timeout=stats.timed_out,
        lost=stats.lost - lost_to_time,
        retried=stats.retried,
        deaths=stats.worker_deaths,
        restarts=sum(worker.restarts for worker in stats.workers),
    )


class Ledger:
    """Reads the living pools and keeps the sums of those that are gone. Any thread may call it."""

    def __init__(self) -> None:
        # Re-entered when an executor is dropped while the pools are read.
        self._lock = threading.RLock()
        self._readings: dict[int, _Reading] = {}
        self._gone: dict[Key, _Sums] = {}

    def note(self, strategy: Strategy) -> None:
        """Reads one pool, which is about to end."""
        with self._lock:
            self._read(strategy)

    def _read(self, strategy: Strategy) -> _Reading:
        known = self._readings.get(id(strategy))
        if known is not None and known.pool() is strategy:
            known.take(strategy.stats())
            return known
        if known is not None:
            self._bury(known)
        reading = self._readings[id(strategy)] = _Reading(strategy)
        return reading

    def _bury(self, reading: _Reading) -> None:
        self._gone.setdefault(reading.key, _Sums()).add(reading.sums())

    def read(self) -> tuple[dict[Key, _Sums], dict[Key, list[Stats]]]:
        """The sums of all pools there ever were, and the living pools as they are now."""
        with self._lock:
            for strategy in strategies.living():
                self._read(strategy)
            for number, reading in list(self._readings.items()):
                if reading.pool() is None:
                    self._bury(reading)
                    del self._readings[number]
            sums: dict[Key, _Sums] = {}
            for key, gone in self._gone.items():
                sums.setdefault(key, _Sums()).add(gone)
            living: dict[Key, list[Stats]] = {}
            for reading in list(self._readings.values()):
                sums.setdefault(reading.key, _Sums()).add(reading.sums())
                living.setdefault(reading.key, []).append(reading.stats)
            return sums, living


#: One for the program, so that every endpoint tells the same.
ledger = Ledger()

_Labels = tuple[tuple[str, str], ...]


class _Family:
    """One metric with its samples, as text."""

    def __init__(self, name: str, kind: str, told: str) -> None:
        self.name = name
        self.lines = [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]

    def add(self, labels: _Labels, value: float, suffix: str = "") -> None:
        inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
        self.lines.append(f"{self.name}{suffix}{{{inside}}} {_number(value)}")

    def add_histogram(self, labels: _Labels, found: Histogram | Sizes) -> None:
        bounds, counts, total_sum = found
        below = 0
        for bound, count in zip(bounds, counts, strict=False):
            below += count
            self.add((*labels, ("le", repr(float(bound)))), below, "_bucket")
        total = sum(counts)
        self.add((*labels, ("le", "+Inf")), total, "_bucket")
        self.add(labels, total_sum, "_sum")
        self.add(labels, total, "_count")

    @property
    def empty(self) -> bool:
        return len(self.lines) == 2


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


def text(own_cpu_s: float = 0.0) -> str:
    """All families. `own_cpu_s` is the CPU time that telling them has cost so far."""
    sums, living = ledger.read()
    meters_s = sum(found.overhead_s for found in sums.values())
    families = [
        *_counters(sums),
        *_travelled(sums),
        *_gauges(living),
        *_lock(living),
        *_process(own_cpu_s, meters_s),
    ]
    return "".join(f"{line}\n" for family in families if not family.empty for line in family.lines)


def _labels(key: Key, *more: tuple[str, str]) -> _Labels:
    return (("pool", key.pool), ("strategy", key.strategy), *more)


def _counters(sums: dict[Key, _Sums]) -> Iterable[_Family]:
    submitted = _Family(
        "treadle_executor_task_submitted_total",
        "counter",
        "Tasks submitted since the program began.",
    )
    completed = _Family(
        "treadle_executor_task_completed_total",
        "counter",
        "Tasks ended: answered with a result or an exception, cancelled, over their time, or lost with their worker.",
    )
    retried = _Family("treadle_executor_task_retried_total", "counter", "Tasks run once more.")
    restarts = _Family(
        "treadle_executor_worker_restarts_total",
        "counter",
        "Workers started in a place that had one before.",
    )
    deaths = _Family(
        "treadle_executor_worker_deaths_total",
        "counter",
        "Worker processes that ended unasked.",
    )
    cpu = _Family(
        "treadle_executor_cpu_time_seconds_total",
        "counter",
        "CPU time of the workers, imports and start included, at the last reading.",
    )
    wait = _Family(
        "treadle_executor_task_wait_time_seconds",
        "histogram",
        "From submission until a worker had the task.",
    )
    duration = _Family(
        "treadle_executor_task_duration_seconds",
        "histogram",
        "From then until the task ended, in its worker.",
    )
    turnaround = _Family(
        "treadle_executor_task_turnaround_seconds",
        "histogram",
        "From submission until the answer was here: waiting, running and both ways.",
    )
    for key, found in sorted(sums.items()):
        counts = found.counts
        submitted.add(_labels(key), counts["submitted"])
        for outcome in ("answered", "cancelled", "timeout", "lost"):
            completed.add(_labels(key, ("outcome", outcome)), counts[outcome])
        retried.add(_labels(key), counts["retried"])
        if key.strategy in ("processes", "hybrid"):
            restarts.add(_labels(key), counts["restarts"])
            deaths.add(_labels(key), counts["deaths"])
        if found.cpu_s:
            cpu.add(_labels(key), found.cpu_s)
        for one in found.functions:
            for family, histogram in (
                (wait, one.wait),
                (duration, one.duration),
                (turnaround, one.turnaround),
            ):
                if histogram is not None:
                    family.add_histogram(_labels(key, ("function", one.function)), histogram)
    return submitted, completed, retried, restarts, deaths, cpu, wait, duration, turnaround


def _gauges(living: dict[Key, list[Stats]]) -> Iterable[_Family]:
    pools = _Family("treadle_executor_count", "gauge", "Executors that live now.")
    tasks = _Family(
        "treadle_executor_task_count", "gauge", "Unfinished tasks now, by what they do."
    )
    oldest = _Family(
        "treadle_executor_queue_oldest_age_seconds",
        "gauge",
        "Age of the oldest task that no worker has.",
    )
    limit = _Family(
        "treadle_executor_queue_limit",
        "gauge",
        "Most unfinished tasks; submitting waits beyond it.",
    )
    workers = _Family("treadle_executor_worker_count", "gauge", "Workers now, by state.")
    most = _Family("treadle_executor_worker_max", "gauge", "Tasks that can run at once.")
    memory = _Family(
        "treadle_executor_memory_usage_bytes",
        "gauge",
        "Resident memory of the worker processes, added up; what they share counts for each.",
    )
    payloads = _Family(
        "treadle_executor_payload_size_bytes",
        "gauge",
        "Payloads of unfinished tasks in shared memory, and values that were shared.",
    )
    for key, found in sorted(living.items()):
        pools.add(_labels(key), len(found))
        tasks.add(_labels(key, ("state", "queued")), sum(stats.queued for stats in found))
        tasks.add(_labels(key, ("state", "running")), sum(stats.running for stats in found))
        ages = [stats.oldest_s for stats in found if stats.oldest_s is not None]
        if ages:
            oldest.add(_labels(key), max(ages))
        if all(stats.limit is not None for stats in found):
            limit.add(_labels(key), sum(stats.limit or 0 for stats in found))
        states = Counter(worker.state for stats in found for worker in stats.workers)
        for state in ("starting", "idle", "busy", "overdue", "absent"):
            if states[state] or state in ("idle", "busy"):
                workers.add(_labels(key, ("state", state)), states[state])
        most.add(_labels(key), sum(stats.plan.concurrency for stats in found))
        sizes = [worker.memory_bytes for stats in found for worker in stats.workers]
        known = [size for size in sizes if size is not None]
        if known:
            memory.add(_labels(key), sum(known))
        if key.strategy in ("processes", "hybrid"):
            payloads.add(_labels(key), sum(stats.payload_bytes for stats in found))
    return pools, tasks, oldest, limit, workers, most, memory, payloads


def _travelled(sums: dict[Key, _Sums]) -> Iterable[_Family]:
    size = _Family(
        "treadle_transfer_size_bytes",
        "histogram",
        "Payloads to the workers and records with results from them, in the pickle (band in) and beside it (band out).",
    )
    duration = _Family(
        "treadle_transfer_duration_seconds",
        "histogram",
        "Time of this process for pickling and copying a payload, and for rebuilding a result.",
    )
    for key, found in sorted(sums.items()):
        for direction, told in (("argument", found.arguments), ("result", found.results)):
            if told is None:
                continue
            label = ("direction", direction)
            size.add_histogram(_labels(key, label, ("band", "in")), told.in_band)
            size.add_histogram(_labels(key, label, ("band", "out")), told.out_of_band)
            duration.add_histogram(_labels(key, label), told.time)
    return size, duration


def _lock(living: dict[Key, list[Stats]]) -> Iterable[_Family]:
    """Who holds the interpreter lock; nothing until enough was seen, or where it cannot be."""
    held = _Family(
        "treadle_gil_held_ratio",
        "gauge",
        "Share of the last seconds in which any thread of this process held the interpreter lock.",
    )
    by_pool = _Family(
        "treadle_executor_gil_held_ratio",
        "gauge",
        "Share of the last seconds in which a thread of these executors held it.",
    )
    shares = holding.shares()
    if shares is not None:
        held.add((("interpreter", "main"),), shares.held)
    for key, found in sorted(living.items()):
        own = [worker.lock_share for stats in found for worker in stats.workers]
        known = [share for share in own if share is not None]
        # Without the youngest threads it would be too small a sum.
        if known and len(known) == len(own):
            by_pool.add(_labels(key), sum(known))
    return held, by_pool


def _process(own_cpu_s: float, meters_s: float) -> Iterable[_Family]:
    """This process, by the names that every Prometheus client uses, and what telling costs."""
    cpu = _Family("process_cpu_seconds_total", "counter", "CPU time of this process.")
    cpu.add((), time.process_time())
    memory = _Family("process_resident_memory_bytes", "gauge", "Resident memory of this process.")
    used = usage("/proc/self/stat")
    if used is not None:
        memory.add((), used.memory_bytes)
    own = _Family(
        "treadle_observer_cpu_time_seconds_total",
        "counter",
        "CPU time that Treadle's own watching has cost: answering here, looking who holds the lock, and the meters of the executors.",
    )
    own.add((("part", "endpoint"),), own_cpu_s)
    own.add((("part", "lock"),), holding.cpu_s())
    own.add((("part", "meters"),), meters_s)
    return cpu, memory, own
