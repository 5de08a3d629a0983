"""Coroutines on one event loop in a thread of its own.

::

    submit ─► deque ─► loop: start ─► asyncio.Task ─► Future        at most ``coroutines`` tasks at a time

The loop is woken only by a call that it could start at once, and once for a burst of them; in a full plan the task that ends starts the next one.

*Guarantees*: each call runs in an ``asyncio.Task`` and a context of its own, which begins as the initializer left it; a call over its time is cancelled and its end awaited.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import io
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from types import FunctionType
from typing import Any

from treadle import _core, errors, holding, strategies
from treadle._payload import name_of
from treadle._usage import usage
from treadle.future import Future
from treadle.plan import Plan
from treadle.strategies import (
    Bounded,
    FunctionStats,
    Histogram,
    Settings,
    Stats,
    TaskOptions,
    WorkerStats,
    added_up,
    by_function,
    refusal,
)


class Coroutines(Bounded):
    """An event loop that runs a bounded number of coroutines at a time."""

    def __init__(self, plan: Plan, settings: Settings) -> None:
        super().__init__(plan, settings)
        self._loop = _Loop(settings, plan.coroutines or 1)

    def submit(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: TaskOptions,
    ) -> Future:
        # Before it takes room, for which it might wait.
        refuse_plain(function)
        return super().submit(function, arguments, keywords, options)

    def submit_now(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: TaskOptions,
    ) -> Future | None:
        refuse_plain(function)
        return super().submit_now(function, arguments, keywords, options)

    def _enter(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: TaskOptions,
    ) -> Future:
        future: Future = _core.pending_future()
        self._loop.put(_Job(future, function, arguments, keywords, options))
        return future

    def interrupt(self, future: Future, grace: float) -> bool:
        return self._loop.interrupt(future)

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        self._loop.close(cancel_futures)
        if wait:
            self._loop.join()

    def stop_now(self) -> None:
        self._loop.close(cancel_waiting=True, cancel_running=True)

    def stats(self) -> Stats:
        loop = self._loop
        state = "absent" if loop.thread is None else "busy" if loop.running else "idle"
        ident = (loop.thread.ident or 0) if loop.thread is not None else 0
        used = usage(f"/proc/self/task/{loop.thread.native_id}/stat") if loop.thread else None
        cpu_s = None if used is None else used.cpu_s
        functions = loop.functions()
        wait, duration = added_up(functions)
        shares = holding.shares()
        lock_share = None if shares is None else shares.of(loop.mark)
        return Stats(
            self.plan,
            "event loop",
            submitted=loop.submitted,
            completed=loop.completed,
            cancelled=loop.cancelled,
            retried=loop.retried,
            timed_out=loop.timed_out,
            running=len(loop.running),
            queued=len(loop.waiting),
            workers=(
                WorkerStats(0, ident, state, loop.completed, cpu_s=cpu_s, lock_share=lock_share),
            ),
            oldest_s=loop.oldest_s(),
            limit=self.settings.max_pending,
            wait=wait,
            duration=duration,
            functions=functions,
            overhead_s=None if loop.meters is None else loop.completed * _seconds_for_each(),
        )

    def longest(self, most: int) -> list[tuple[str, float]]:
        # In the order in which they were started.
        now, running = time.monotonic(), list(self._loop.running.values())
        return [(name_of(job.function), now - job.since) for job in running[:most]]

    def dump(self) -> str:
        return self._loop.dump()


def refuse_plain(function: Any, blocking: str = "threads=…") -> None:
    """Raises ``PlanError`` for a function that is not async; ``blocking`` is the plan that fits one that blocks."""
    if type(function) is FunctionType and function.__code__.co_flags & inspect.CO_COROUTINE:
        return  # nearly always, and fifty times as fast as to look closely
    if not is_async(function):
        raise errors.PlanError(
            f"{getattr(function, '__qualname__', function)!s} is not an async function, and a plan of coroutines runs only those\n\n"
            f"hint: use {blocking} for a function that blocks, or processes=… for one that computes"
        )


def is_async(function: Any) -> bool:
    """Whether calling it gives a coroutine: an async function, also behind ``functools.partial`` or as ``__call__``."""
    call = getattr(type(function), "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


@functools.cache
def _seconds_for_each() -> float:
    """What the meters cost for each call, measured once in this process."""
    meters, count = _core.TaskMeters(), 2000
    began = time.perf_counter()
    for _ in range(count):
        meters.ended(refuse_plain, time.monotonic(), time.monotonic())
    return (time.perf_counter() - began) / count


class _Job:
    """One call: waiting, then running in ``task``."""

    __slots__ = (
        "arguments",
        "expired",
        "function",
        "future",
        "interrupted",
        "keywords",
        "options",
        "since",
        "submitted",
        "task",
    )

    def __init__(
        self,
        future: Future,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: TaskOptions,
    ) -> None:
        self.future = future
        self.function = function
        self.arguments = arguments
        self.keywords = keywords
        self.options = options
        self.task: asyncio.Task[None] | None = None
        self.submitted = time.monotonic()
        self.since = 0.0
        self.expired = self.interrupted = False

    def expire(self) -> None:
        """On the loop: its time is over."""
        self.expired = True
        if self.task is not None:
            self.task.cancel()

    def over_time(self) -> errors.TaskTimeout:
        """The error of that."""
        return errors.TaskTimeout(
            f"the task ({name_of(self.function)}) ran longer than its timeout of {self.options.timeout:g} s and was cancelled"
        )

    def try_again(self) -> None:
        """Forgets what stopped the last run."""
        if self.expired:
            self.expired = False
            # From 3.11 on a task counts the requests to cancel it, and time-outs inside the call look at the count.
            uncancel = getattr(self.task, "uncancel", None)
            if uncancel is not None:
                uncancel()


class _Loop:
    """The loop's thread. It holds no reference to the strategy, so that a dropped executor can end."""

    def __init__(self, settings: Settings, limit: int) -> None:
        self._settings = settings
        self._limit = limit
        self._forks = strategies.forks
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._up = threading.Event()
        self._over: asyncio.Event | None = None
        #: Each call runs in a copy of it: what the initializer has left.
        self._context = contextvars.Context()
        self._woken = False
        self._closed = False
        self._broken: BaseException | None = None
        self.thread: threading.Thread | None = None
        #: The thread as the watch of the interpreter lock knows it.
        self.mark: holding.Mark | None = None
        self.waiting: deque[_Job] = deque()
        self.running: dict[Future, _Job] = {}
        self.submitted = 0
        self.completed = 0
        self.cancelled = 0
        self.retried = 0
        self.timed_out = 0
        self.meters = _core.TaskMeters() if strategies.metered else None

    def put(self, job: _Job) -> None:
        if self._forks != strategies.forks:
            raise errors.PoolBroken(
                "this executor was made before this process was forked, and its loop is not in this process\n\n"
                "hint: make an executor of its own in the forked process"
            )
        with self._lock:
            if self._broken is not None:
                raise errors.PoolBroken(
                    f"the initializer raised {type(self._broken).__name__}: {self._broken}"
                )
            if self._closed:
                raise refusal()
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, name=f"{self._settings.name}_loop")
                self.thread.start()
                self._up.wait()
            self.submitted += 1
            self.waiting.append(job)
            # In a full plan the next task that ends finds it: see `_end`.
            if len(self.running) < self._limit:
                self._wake()

    def _wake(self) -> None:
        """Under the lock: gets the loop to look, once for a burst."""
        if not self._woken and self._loop is not None:
            self._woken = True
            self._loop.call_soon_threadsafe(self._look)

    def _run(self) -> None:
        self.mark = holding.mark()
        try:
            asyncio.run(self._serve())
        finally:
            self.mark = None
            self._up.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        if self._settings.initializer is not None:
            try:
                self._settings.initializer(*self._settings.initargs)
            except BaseException as error:
                self._broken = error
        self._context = contextvars.copy_context()
        self._up.set()
        if self._broken is None:
            await self._over.wait()
            return
        with self._lock:
            broken = errors.PoolBroken(
                f"the initializer raised {type(self._broken).__name__}: {self._broken}"
            )
            broken.__cause__ = self._broken
            waiting, self.waiting = self.waiting, deque()
        for job in waiting:
            job.future._fail(broken)

    def _look(self) -> None:
        """On the loop: starts what may start, after it was woken."""
        with self._lock:
            self._woken = False
        self._start()

    def _start(self) -> None:
        """On the loop: starts what may start."""
        waiting, running = self.waiting, self.running
        loop = self._loop
        assert loop is not None
        while waiting and len(running) < self._limit:
            job = waiting.popleft()
            if not job.future._start():
                self.cancelled += 1
                continue
            job.since = time.monotonic()
            running[job.future] = job
            # Not in the context of whoever woke the loop, or of the task that has just ended here.
            job.task = self._context.run(loop.create_task, self._carry_out(job))
        if self._closed and not waiting and not running and self._over is not None:
            self._over.set()

    async def _carry_out(self, job: _Job) -> None:
        loop, limit, tries_left = self._loop, job.options.timeout, job.options.retries
        assert loop is not None
        timer: asyncio.TimerHandle | None = None
        result: Any = None
        failure: BaseException | None = None
        try:
            while True:
                if limit is not None:
                    timer = loop.call_later(limit, job.expire)
                try:
                    result = await job.function(*job.arguments, **job.keywords)
                except asyncio.CancelledError:
                    if job.interrupted or not job.expired:
                        tries_left = 0
                        failure = errors.TaskInterrupted(
                            f"the task ({name_of(job.function)}) was interrupted"
                        )
                except Exception as error:
                    failure = error
                except BaseException as error:
                    tries_left = 0
                    failure = error
                if timer is not None:
                    timer.cancel()
                if job.interrupted:
                    tries_left = 0
                elif job.expired:
                    # Whatever the call made of it.
                    self.timed_out += 1
                    failure = job.over_time()
                if failure is None:
                    job.future._finish(result)
                    return
                if tries_left == 0:
                    job.future._fail(failure)
                    return
                tries_left -= 1
                self.retried += 1
                failure = None
                job.try_again()
        finally:
            self._end(job)
            # The failure's traceback holds this frame, and the future holds the failure.
            result = failure = None
            del job

    def _end(self, job: _Job) -> None:
        """On the loop: a task has ended, and the next ones may start."""
        if self.meters is not None:
            self.meters.ended(job.function, job.submitted, job.since)
        # Under the lock: whoever puts a call into a full plan wakes nobody, because what is waiting then is seen below.
        with self._lock:
            self.completed += 1
            del self.running[job.future]
        if self.waiting or self._closed:
            self._start()

    def interrupt(self, future: Future) -> bool:
        job = self.running.get(future)
        if job is None or job.task is None or self._loop is None:
            return False
        job.interrupted = True
        self._loop.call_soon_threadsafe(job.task.cancel)
        return True

    def close(self, cancel_waiting: bool, cancel_running: bool = False) -> None:
        if self._forks != strategies.forks:
            return
        with self._lock:
            self._closed = True
            waiting = list(self.waiting) if cancel_waiting else []
            running = list(self.running.values()) if cancel_running else []
        for job in waiting:
            job.future.cancel()
        for job in running:
            if job.task is not None and self._loop is not None and not self._loop.is_closed():
                job.interrupted = True
                self._loop.call_soon_threadsafe(job.task.cancel)
        with self._lock:
            if self._loop is not None and not self._loop.is_closed():
                self._woken = False
                self._wake()

    def join(self) -> None:
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()

    def oldest_s(self) -> float | None:
        """How long the first call that waits has waited."""
        try:
            return max(0.0, time.monotonic() - self.waiting[0].submitted)
        except IndexError:
            return None

    def functions(self) -> tuple[FunctionStats, ...]:
        """The times of calls that ended, for each function."""
        found = [] if self.meters is None else self.meters.read()
        return by_function(
            [
                FunctionStats(name, Histogram.of(wait), Histogram.of(duration))
                for name, wait, duration in found
            ]
        )

    def dump(self) -> str:
        out = io.StringIO()
        running = list(self.running.values())
        out.write(
            f"coroutines: {len(running)} of {self._limit} running, {len(self.waiting)} calls waiting\n"
        )
        now = time.monotonic()
        for job in running:
            out.write(
                f"\n{getattr(job.function, '__qualname__', job.function)}: running for {now - job.since:.3f} s\n"
            )
            if job.task is not None:
                out.writelines(traceback.format_list(_stack(job.task)))
        return out.getvalue()


def _stack(task: asyncio.Task[None]) -> list[traceback.FrameSummary]:
    """Where a task waits: the frames of its function and of what that awaits, down to the last that is Python's.

    ``Task.get_stack`` has the outermost frame alone, which is this module's own.
    """
    frames = []
    waits: Any = task.get_coro()
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None)
        if frame is not None and frame.f_code.co_filename != __file__:
            frames.append((frame, frame.f_lineno))
        waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
    return list(traceback.StackSummary.extract(frames))
