"""The ways to run tasks, over one contract.

*Guarantees*, for every strategy: a submitted call's future ends, with the call's result, its exception, or an error that says why there is
neither; ``shutdown(wait=True)`` returns when no worker is left; the interpreter's exit waits for submitted calls as the standard library does.
"""

from __future__ import annotations

import abc
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from treadle import _core
from treadle.errors import PoolShutDown
from treadle.future import Future
from treadle.plan import Plan

__all__ = [
    "Bounded",
    "FunctionStats",
    "Histogram",
    "Settings",
    "Sizes",
    "Stats",
    "Strategy",
    "TaskOptions",
    "Transfer",
    "WorkerStats",
    "make",
]

#: Switched off only by what measures the meters (``benches/meters``): pools that are made meanwhile count no times and no sizes.
metered = True


class TaskOptions(NamedTuple):
    """What may be asked of one task: seconds it may run, and how often it is run again."""

    timeout: float | None = None
    retries: int = 0


class Settings(NamedTuple):
    """What an executor was asked beside its plan; see :class:`treadle.Executor`."""

    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    mp_context: Any = None
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    name: str = "treadle"
    max_pending: int | None = None
    native_threads: int | None = None
    client: Any = None


class WorkerStats(NamedTuple):
    """One worker: its number, process or thread id (0 while it is being started), state (starting, idle, busy, absent, overdue), finished
    tasks, restarts of its place, the seconds for which its task has run (of several, the oldest), its CPU seconds, the resident bytes of its
    process (None for a thread, or where the system does not tell), the share of the last seconds for which it held the interpreter lock (0 to
    1; None where that is not known, see :mod:`treadle.holding`), and how many tasks it runs (None where the strategy does not say)."""

    worker: int
    ident: int
    state: str
    tasks: int | None = None
    restarts: int = 0
    running_s: float = 0.0
    cpu_s: float | None = None
    memory_bytes: int | None = None
    lock_share: float | None = None
    running: int | None = None


class Histogram(NamedTuple):
    """How often a time fell between two bounds: ``counts[i]`` times up to ``bounds_s[i]`` and above the bound before; the last count is
    above all bounds. ``sum_s`` is the sum of the times."""

    bounds_s: tuple[float, ...]
    counts: tuple[int, ...]
    sum_s: float

    @classmethod
    def of(cls, found: tuple[list[float], list[int], float]) -> Histogram:
        """From what the engine gives."""
        bounds, counts, total = found
        return cls(tuple(bounds), tuple(counts), total)

    def plus(self, other: Histogram | None) -> Histogram:
        """Both together."""
        if other is None:
            return self
        pairs = zip(self.counts, other.counts, strict=True)
        return Histogram(
            self.bounds_s, tuple(one + more for one, more in pairs), self.sum_s + other.sum_s
        )


class Sizes(NamedTuple):
    """How often a size fell between two bounds, as :class:`Histogram`; in bytes."""

    bounds_bytes: tuple[int, ...]
    counts: tuple[int, ...]
    sum_bytes: int

    @classmethod
    def of(cls, found: tuple[list[int], list[int], int]) -> Sizes:
        """From what the engine gives."""
        bounds, counts, total = found
        return cls(tuple(bounds), tuple(counts), total)

    def plus(self, other: Sizes | None) -> Sizes:
        """Both together."""
        if other is None:
            return self
        pairs = zip(self.counts, other.counts, strict=True)
        return Sizes(
            self.bounds_bytes,
            tuple(one + more for one, more in pairs),
            self.sum_bytes + other.sum_bytes,
        )


class Transfer(NamedTuple):
    """What has travelled in one direction, one count for each payload (a call or a chunk going out, a record coming back).

    ``in_band`` is the size of the pickle, or of the coded values; ``out_of_band`` that of the buffers beside it, of payloads that have any.
    ``time`` is what this process spent: going out, from the begin of pickling until the payload stood in shared memory, without waiting for
    room; coming back, rebuilding the result when it is asked for. Payloads of numbers and short text are not timed: coding one takes some
    30 nanoseconds, less than the look at the clock.
    """

    in_band: Sizes
    out_of_band: Sizes
    time: Histogram

    @classmethod
    def of(cls, found: tuple[Any, Any, Any]) -> Transfer:
        """From what the engine gives."""
        in_band, out_of_band, time = found
        return cls(Sizes.of(in_band), Sizes.of(out_of_band), Histogram.of(time))

    def plus(self, other: Transfer | None) -> Transfer:
        """Both together."""
        if other is None:
            return self
        return Transfer(
            self.in_band.plus(other.in_band),
            self.out_of_band.plus(other.out_of_band),
            self.time.plus(other.time),
        )


class FunctionStats(NamedTuple):
    """The ended tasks of one function: its name, or ``other`` for all beyond the first :data:`MOST_FUNCTIONS`; the histograms as in :class:`Stats`."""

    function: str
    wait: Histogram | None = None
    duration: Histogram | None = None
    turnaround: Histogram | None = None


def by_function(found: list[FunctionStats]) -> tuple[FunctionStats, ...]:
    """One for each name: a function that was defined twice, or a lambda, comes more than once."""
    named: dict[str, FunctionStats] = {}
    for one in found:
        known = named.get(one.function)
        if known is not None:
            one = FunctionStats(
                one.function,
                *(
                    mine.plus(theirs) if mine is not None else theirs
                    for mine, theirs in zip(known[1:], one[1:], strict=True)
                ),
            )
        named[one.function] = one
    return tuple(named.values())


def added_up(functions: Iterable[FunctionStats]) -> tuple[Histogram, Histogram]:
    """The waits and the durations of all functions together."""
    wait = duration = Histogram.of(_core.empty_histogram())
    for one in functions:
        wait = one.wait.plus(wait) if one.wait is not None else wait
        duration = one.duration.plus(duration) if one.duration is not None else duration
    return wait, duration


class Stats(NamedTuple):
    """A pool at an instant. Counts are tasks since the pool's start; ``running`` and ``queued`` are now.

    ``oldest_s`` is the age of the oldest task that no worker has, ``limit`` the most unfinished tasks (None: no limit). The histograms are
    of tasks that ended: ``wait`` from submission to start (of the last run, where a task ran again), ``duration`` from start to end,
    ``turnaround`` from submission until the answer was here; None where the strategy does not take them. ``functions`` has them for each function. ``arguments`` and ``results`` are what has
    travelled to and from the workers; None where nothing travels.

    ``overhead_s`` is the CPU seconds that these meters have cost: what they cost for a task, measured in this process, times the tasks. None where
    nothing is measured.
    """

    plan: Plan
    engine: str
    submitted: int = 0
    completed: int = 0
    cancelled: int = 0
    lost: int = 0
    retried: int = 0
    timed_out: int = 0
    running: int = 0
    queued: int = 0
    worker_deaths: int = 0
    payload_bytes: int = 0
    workers: tuple[WorkerStats, ...] = ()
    oldest_s: float | None = None
    limit: int | None = None
    wait: Histogram | None = None
    duration: Histogram | None = None
    turnaround: Histogram | None = None
    functions: tuple[FunctionStats, ...] = ()
    arguments: Transfer | None = None
    results: Transfer | None = None
    overhead_s: float | None = None


class Strategy(abc.ABC):
    """One way to run tasks."""

    #: Whether :meth:`submit_chunk` exists: handing several items over at once saves something.
    has_chunks = False

    #: How long a chunk of :meth:`submit_chunk` should take; None: as long as :mod:`treadle.mapping` says.
    chunk_seconds: float | None = None

    def __init__(self, plan: Plan, settings: Settings) -> None:
        self.plan = plan
        self.settings = settings
        self.concurrency = plan.concurrency
        #: What keeps the calls of event loops for which there is no room; see :mod:`treadle.awaiting`.
        self.entrance: Any = None
        _alive.add(self)

    def accept(self, options: TaskOptions) -> None:  # noqa: B027
        """Raises ``PlanError`` for options of a task that this strategy cannot keep at all."""

    @abc.abstractmethod
    def submit(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: TaskOptions,
    ) -> Future:
        """Schedules one call."""

    def submit_now(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: TaskOptions,
    ) -> Future | None:
        """As :meth:`submit`, and ``None`` where that would wait for room (``max_pending``)."""
        return self.submit(function, arguments, keywords, options)

    def native(self) -> tuple[Any, Callable[[int, bool], object] | None]:
        """Where the engine's ``submit`` sends calls: a pool of ``_core``, or :meth:`submit` of this strategy.

        The second, for a pool of threads, is called with the number of idle threads (-1 when the pool is closed) and
        whether the call has a timeout, after a call that found none idle.
        """
        return self.submit, None

    def live(self) -> Any:
        """The engine's pool that watchers look at without the interpreter's lock; None: they are told :meth:`stats`."""
        return None

    def longest(self, most: int) -> list[tuple[str, float]]:
        """Names and seconds of the tasks that have run longest, where one worker runs many."""
        return []

    def submit_chunk(
        self, function: Callable[..., Any], items: list[Any], single: bool, options: TaskOptions
    ) -> Future:
        """Schedules the calls ``function(item)`` (``single``) or ``function(*item)`` as one task.

        Its result is a :class:`treadle._payload.Chunk`.
        """
        raise NotImplementedError(
            f"the strategy {self.plan.strategy} hands over one call at a time"
        )

    def split_chunk(self, future: Future) -> int | None:
        """Takes back what a chunk has not begun, if somebody has nothing to do: the place of its first item."""
        return None

    def share(self, value: Any) -> Any:
        """A stand-in for a value in the arguments of calls; in this process, the value itself."""
        return value

    @abc.abstractmethod
    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """Takes no more calls; see :meth:`treadle.Executor.shutdown`."""

    def broken(self) -> str:
        """Why the pool can run nothing any more; empty while it can."""
        return ""

    @abc.abstractmethod
    def stats(self) -> Stats:
        """The meters now."""

    @abc.abstractmethod
    def dump(self) -> str:
        """What every worker is doing now."""

    def interrupt(self, future: Future, grace: float) -> bool:
        """Stops a running call if that can be done; see :meth:`treadle.Future.interrupt`."""
        return False

    def end_workers(self, force: bool) -> None:
        """Ends the pool and its processes."""
        from treadle.errors import PlanError

        raise PlanError(
            f"only processes can be ended from outside; this executor's plan is {self.plan}"
        )

    def stop_now(self) -> None:
        """Cancels what waits and interrupts what runs, because the program was interrupted."""
        self.shutdown(wait=False, cancel_futures=True)

    def abandon(self) -> None:
        """The executor was dropped without ``shutdown``."""
        self.shutdown(wait=False, cancel_futures=False)


class Bounded(Strategy):
    """A strategy whose ``max_pending`` is kept here: a call takes room before it enters, and gives it back when its future has ended."""

    def __init__(self, plan: Plan, settings: Settings) -> None:
        super().__init__(plan, settings)
        most = settings.max_pending
        self._room = threading.BoundedSemaphore(most) if most else None

    @abc.abstractmethod
    def _enter(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: TaskOptions,
    ) -> Future:
        """Schedules one call, for which room was taken."""

    def submit(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: TaskOptions,
    ) -> Future:
        if self._room is None:
            return self._enter(function, arguments, keywords, options)
        self._room.acquire()
        return self._holding_room(self._enter, function, arguments, keywords, options)

    def submit_now(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: TaskOptions,
    ) -> Future | None:
        if self._room is None:
            return self._enter(function, arguments, keywords, options)
        if not self._room.acquire(blocking=False):
            return None
        return self._holding_room(self._enter, function, arguments, keywords, options)

    def _holding_room(self, enter: Callable[..., Future], *call: Any) -> Future:
        """What ``enter(*call)`` gives, for which room was taken: it is given back when that has failed or its future has ended."""
        room = self._room
        assert room is not None
        try:
            future = enter(*call)
        except BaseException:
            room.release()
            raise
        # It holds the room and not this strategy, so that a dropped executor can end.
        future.add_done_callback(lambda _: room.release())
        return future


_alive: weakref.WeakSet[Strategy] = weakref.WeakSet()


def living() -> list[Strategy]:
    """The strategies whose executors are in use."""
    while True:
        try:
            return list(_alive)
        except RuntimeError:
            # Another thread made one meanwhile. No lock: this runs in finalisers and in forked children too.
            continue


#: Called with each strategy whose executor is shut down or dropped.
_at_end: list[Callable[[Strategy], object]] = []


def on_end(listener: Callable[[Strategy], object]) -> None:
    """Has `listener` called with each strategy at its end; the same one is kept once."""
    if listener not in _at_end:
        _at_end.append(listener)


def note_end(strategy: Strategy) -> None:
    """The executor of this strategy was shut down or dropped."""
    if _interpreter_ends.is_set():
        return
    for listener in _at_end:
        listener(strategy)


#: Set when the interpreter's exit has begun: no pool takes calls any more.
_interpreter_ends = threading.Event()


def refusal() -> RuntimeError:
    """The error of a call that comes too late."""
    if _interpreter_ends.is_set():
        # Nobody shut this pool down: the standard library's own error and words.
        return RuntimeError("cannot schedule new futures after interpreter shutdown")
    return PoolShutDown("cannot schedule new futures after shutdown")


def _finish_all() -> None:
    """At the interpreter's exit: every submitted call ends first, as with the standard library's pools."""
    _interpreter_ends.set()
    interrupted = _ended_by_ctrl_c()
    for strategy in living():
        if interrupted:
            strategy.stop_now()
        strategy.shutdown(wait=True, cancel_futures=False)


def _ended_by_ctrl_c() -> bool:
    """Whether the program ends because nobody caught a ``KeyboardInterrupt``: then work is to be stopped, not waited for."""
    # In a session of commands the last exception may be old news.
    session = hasattr(sys, "ps1") or sys.flags.interactive
    last = getattr(sys, "last_type", None)
    return not session and isinstance(last, type) and issubclass(last, KeyboardInterrupt)


#: How many forks lie between the first process and this one: a pool that was made at another count is a picture of its parent's.
forks = 0


def _note_fork() -> None:
    global forks
    forks += 1
    _core.note_fork()


# A forked child has a picture of its parent's pools, and none of their workers.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)

# The hook that the standard library's pools use: it runs before threads are joined, while new ones may still start.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]


def make(plan: Plan, settings: Settings, options: TaskOptions) -> Strategy:
    """The strategy of a plan.

    Raises:
        PlanError: for settings or options that the strategy cannot keep, or an engine that is not installed.
    """
    strategy = plan.strategy
    if strategy == "threads":
        from treadle.strategies.threads import Threads

        return Threads(plan, settings)
    if strategy == "processes":
        from treadle.strategies.processes import Processes

        return Processes(plan, settings)
    if strategy == "hybrid":
        from treadle.strategies.hybrid import Hybrid

        return Hybrid(plan, settings)
    if strategy == "coroutines":
        from treadle.strategies.coroutines import Coroutines

        return Coroutines(plan, settings)
    if strategy == "interpreters":
        from treadle.strategies.interpreters import Interpreters

        return Interpreters(plan, settings)
    if strategy == "serial":
        from treadle.strategies.serial import Serial

        return Serial(plan, settings)
    if strategy == "dask":
        from treadle.strategies.dask import Dask

        return Dask(plan, settings, options)
    from treadle.strategies.ray import Ray

    return Ray(plan, settings, options)
