"""Coroutines on one event loop in a thread of its own.

::

    submit ─► deque ─► loop: start ─► asyncio.Task ─► Future        at most ``coroutines`` tasks at a time

A burst of submissions costs one wake of the loop: only the first of a burst calls ``call_soon_threadsafe``.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from treadle import _core, errors
from treadle._payload import name_of
from treadle._usage import usage
from treadle.future import Future
from treadle.plan import Plan
from treadle.strategies import Settings, Stats, Strategy, TaskOptions, WorkerStats, refusal


class Coroutines(Strategy):
    """An event loop that runs a bounded number of coroutines at a time."""

    def __init__(self, plan: Plan, settings: Settings) -> None:
        super().__init__(plan, settings)
        self._loop = _Loop(settings, plan.coroutines or 1)
        self._room = (
            threading.BoundedSemaphore(settings.max_pending) if settings.max_pending else None
        )

    def submit(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: TaskOptions,
    ) -> Future:
        _refuse_plain(function)
        if self._room is not None:
            self._room.acquire()
        return self._enter(function, arguments, keywords, options)

    def submit_now(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: TaskOptions,
    ) -> Future | None:
        _refuse_plain(function)
        if self._room is not None and not self._room.acquire(blocking=False):
            return None
        return self._enter(function, arguments, keywords, options)

    def _enter(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: TaskOptions,
    ) -> Future:
        """Submits a call for which room was taken."""
        future: Future = _core.pending_future()
        try:
            self._loop.put(_Job(future, function, arguments, keywords, options))
        except BaseException:
            if self._room is not None:
                self._room.release()
            raise
        if self._room is not None:
            room = self._room
            future.add_done_callback(lambda _: room.release())
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
            workers=(WorkerStats(0, ident, state, loop.completed, cpu_s=cpu_s),),
            limit=self.settings.max_pending,
        )

    def longest(self, most: int) -> list[tuple[str, float]]:
        # In the order in which they were started.
        now, running = time.monotonic(), list(self._loop.running.values())
        return [(name_of(job.function), now - job.since) for job in running[:most]]

    def dump(self) -> str:
        return self._loop.dump()


def _refuse_plain(function: Any) -> None:
    if not is_async(function):
        raise errors.PlanError(
            f"{getattr(function, '__qualname__', function)!s} is not an async function, and a plan of coroutines runs only those\n\n"
            "hint: use threads=… for a function that blocks, or processes=… for one that computes"
        )


def is_async(function: Any) -> bool:
    """Whether calling it gives a coroutine: an async function, also behind ``functools.partial`` or as ``__call__``."""
    call = getattr(type(function), "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


class _Job:
    __slots__ = ("arguments", "function", "future", "keywords", "options", "since", "task")

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
        self.since = 0.0


class _Loop:
    """The loop's thread. It holds no reference to the strategy, so that a dropped executor can end."""

    def __init__(self, settings: Settings, limit: int) -> None:
        self._settings = settings
        self._limit = limit
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._up = threading.Event()
        self._over: asyncio.Event | None = None
        self._woken = False
        self._closed = False
        self._broken: BaseException | None = None
        self.thread: threading.Thread | None = None
        self.waiting: deque[_Job] = deque()
        self.running: dict[Future, _Job] = {}
        self.submitted = 0
        self.completed = 0
        self.cancelled = 0
        self.retried = 0
        self.timed_out = 0

    def put(self, job: _Job) -> None:
        if self._process != os.getpid():
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
            self._wake()

    def _wake(self) -> None:
        """Under the lock: gets the loop to look, once for a burst."""
        if not self._woken and self._loop is not None:
            self._woken = True
            self._loop.call_soon_threadsafe(self._look)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._up.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        if self._settings.initializer is not None:
            try:
                self._settings.initializer(*self._settings.initargs)
            except BaseException as error:
                self._broken = error
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
        """On the loop: starts what may start."""
        with self._lock:
            self._woken = False
        while self.waiting and len(self.running) < self._limit:
            job = self.waiting.popleft()
            if not job.future._start():
                self.cancelled += 1
                continue
            job.since = time.monotonic()
            assert self._loop is not None
            job.task = self._loop.create_task(self._carry_out(job))
            self.running[job.future] = job
        if self._closed and not self.waiting and not self.running and self._over is not None:
            self._over.set()

    async def _carry_out(self, job: _Job) -> None:
        future = job.future
        tries_left = job.options.retries
        try:
            while True:
                try:
                    result = await self._call(job)
                except asyncio.CancelledError:
                    future._fail(
                        errors.TaskInterrupted(
                            f"the task ({name_of(job.function)}) was interrupted"
                        )
                    )
                    return
                except Exception as error:
                    if tries_left == 0:
                        future._fail(error)
                        return
                    tries_left -= 1
                    self.retried += 1
                except BaseException as error:
                    future._fail(error)
                    return
                else:
                    future._finish(result)
                    return
        finally:
            self.completed += 1
            del self.running[future]
            self._look()

    async def _call(self, job: _Job) -> Any:
        call = job.function(*job.arguments, **job.keywords)
        limit = job.options.timeout
        if limit is None:
            return await call
        inner = asyncio.ensure_future(_caught(call))
        done, _ = await _wait_cancelling(inner, limit)
        if done:
            result, error = inner.result()
            if error is not None:
                raise error
            return result
        self.timed_out += 1
        raise errors.TaskTimeout(
            f"the task ({name_of(job.function)}) ran longer than its timeout of {limit:g} s and was cancelled"
        )

    def interrupt(self, future: Future) -> bool:
        job = self.running.get(future)
        if job is None or job.task is None or self._loop is None:
            return False
        self._loop.call_soon_threadsafe(job.task.cancel)
        return True

    def close(self, cancel_waiting: bool, cancel_running: bool = False) -> None:
        if self._process != os.getpid():
            return
        with self._lock:
            self._closed = True
            waiting = list(self.waiting) if cancel_waiting else []
            running = list(self.running.values()) if cancel_running else []
        for job in waiting:
            job.future.cancel()
        for job in running:
            if job.task is not None and self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(job.task.cancel)
        with self._lock:
            if self._loop is not None and not self._loop.is_closed():
                self._woken = False
                self._wake()

    def join(self) -> None:
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()

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


async def _caught(call: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    """The call's result or exception; a loop would end at a ``SystemExit`` or ``KeyboardInterrupt`` that leaves a task."""
    try:
        return await call, None
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return None, error


async def _wait_cancelling(inner: asyncio.Future[Any], limit: float) -> tuple[bool, None]:
    """Waits for a task up to ``limit`` seconds; cancels it when the time is over or this wait is cancelled."""
    try:
        done, _ = await asyncio.wait([inner], timeout=limit)
    except asyncio.CancelledError:
        inner.cancel()
        await asyncio.gather(inner, return_exceptions=True)
        raise
    if done:
        return True, None
    inner.cancel()
    await asyncio.gather(inner, return_exceptions=True)
    return False, None
