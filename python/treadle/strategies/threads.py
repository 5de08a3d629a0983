"""Threads of this process, fed by the engine's queue.

::

    submit ─► _core.ThreadPool: queue ─► thread: work() ─► call ─► Future

Threads start when a call finds none idle, up to the plan's number. They end with the pool, or when the executor is dropped.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from treadle import _core, _coroutine, errors, holding, strategies
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

#: What the meters do for each call: looks at the clock, additions to histograms.
_METERED = (2, 2)


class Threads(Bounded):
    """A pool of threads."""

    #: What :class:`Stats` calls the engine.
    engine = "threads"

    def __init__(self, plan: Plan, settings: Settings) -> None:
        super().__init__(plan, settings)
        self._pool = _core.ThreadPool(strategies.metered)
        self._crew = self._make_crew()

    def _make_crew(self) -> Crew:
        """The threads of this pool."""
        return Crew(self._pool, self.settings, self.plan.threads or 1)

    def _enter(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: TaskOptions,
    ) -> Future:
        entered = self._pool.submit(
            function, arguments, keywords or None, options.timeout, options.retries
        )
        if entered is None:
            raise self._crew.why_closed()
        future: Future
        future, idle = entered
        self._crew.after_submit(idle, options.timeout is not None)
        return future

    def native(self) -> tuple[Any, Callable[[int, bool], object] | None]:
        if self._room is not None:
            return self.submit, None
        return self._pool, self._crew.after_submit

    def stop_now(self) -> None:
        self.shutdown(wait=False, cancel_futures=True)
        for thread, _ in self._pool.running():
            _interrupt_thread(thread)

    def interrupt(self, future: Future, grace: float) -> bool:
        thread = self._pool.thread_of(future)
        return thread is not None and _interrupt_thread(thread)

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        self._pool.close()
        self._crew.closed.set()
        if cancel_futures:
            self._pool.cancel_all()
        if wait:
            self._crew.join()

    def broken(self) -> str:
        return str(self._crew.broken or "")

    def threads(self) -> list[threading.Thread]:
        """The threads that live now."""
        return self._crew.members()

    def live(self) -> Any:
        return self._pool

    def stats(self) -> Stats:
        submitted, done, retried, timed_out, waiting = self._pool.counts()
        oldest_s, told = self._pool.meters()
        functions = by_function(
            [
                FunctionStats(name, Histogram.of(wait), Histogram.of(duration))
                for name, wait, duration in told
            ]
        )
        wait, duration = added_up(functions)
        shares = holding.shares()
        running = dict(self._pool.running())
        workers = []
        marks = self._crew.marks
        for number, thread in enumerate(self._crew.members()):
            seconds = running.get(thread.ident or 0)
            state = "idle" if seconds is None else "busy" if seconds >= 0 else "overdue"
            used = usage(f"/proc/self/task/{thread.native_id}/stat")
            workers.append(
                WorkerStats(
                    number,
                    thread.ident or 0,
                    state,
                    running_s=abs(seconds or 0.0),
                    cpu_s=None if used is None else used.cpu_s,
                    lock_share=None if shares is None else shares.of(marks.get(thread)),
                )
            )
        return Stats(
            self.plan,
            self.engine,
            submitted=submitted,
            completed=done,
            retried=retried,
            timed_out=timed_out,
            running=len(running),
            queued=waiting,
            cancelled=max(0, submitted - done - waiting - len(running)),
            workers=tuple(workers),
            oldest_s=oldest_s,
            limit=self.settings.max_pending,
            wait=wait,
            duration=duration,
            functions=functions,
            overhead_s=done * _core.meter_cost(*_METERED) if strategies.metered else None,
        )

    def dump(self) -> str:
        frames = sys._current_frames()
        running = dict(self._pool.running())
        lines = [
            f"threads: {len(running)} of {self.plan.threads} busy, {self._pool.counts()[4]} calls waiting\n"
        ]
        for thread in self._crew.members():
            seconds = running.get(thread.ident or 0)
            state = "idle" if seconds is None else f"busy for {abs(seconds):.3f} s"
            if seconds is not None and seconds < 0:
                state += ", over its timeout"
            lines.append(f"\n{thread.name} ({thread.ident}): {state}\n")
            frame = frames.get(thread.ident or 0)
            if frame is not None and seconds is not None:
                lines.extend(traceback.format_stack(frame))
        return "".join(lines)


def _interrupt_thread(thread: int) -> bool:
    """Raises ``TaskInterrupted`` at the thread's next Python instruction; a call that blocks in C does not see it before."""
    import ctypes

    raised = ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(errors.TaskInterrupted)
    )
    return bool(raised)


class Crew:
    """The threads themselves. They hold this and the queue, never the strategy, so that a dropped executor can end."""

    #: What the standard library calls a broken pool of this kind: a module of ``concurrent.futures``, its class, and what it says.
    broken_as = ("thread", "BrokenThreadPool", "the thread pool is not usable anymore")

    def __init__(self, pool: _core.ThreadPool, settings: Settings, size: int) -> None:
        self._pool = pool
        self._settings = settings
        self._size = size
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        #: Each thread as the watch of the interpreter lock knows it.
        self.marks: dict[threading.Thread, holding.Mark] = {}
        self._started = 0
        self._left = 0
        self._clock: threading.Thread | None = None
        self._tick = threading.Event()
        self.closed = threading.Event()
        self.broken: errors.TreadleError | None = None

    def members(self) -> list[threading.Thread]:
        with self._lock:
            return [thread for thread in self._threads if thread.is_alive()]

    def why_closed(self) -> Exception:
        """The error of a call that came too late."""
        return self.broken or refusal()

    def after_submit(self, idle: int, timed: bool) -> None:
        """What a submitted call may ask for: one more thread, a look at its deadline; -1 means that it came too late."""
        if idle < 0:
            raise self.why_closed()
        if idle == 0:
            self.grow()
        if timed:
            self.watch_deadlines()

    def grow(self) -> None:
        """Starts one more thread, unless there are as many as planned."""
        if self._started - self._left >= self._size:
            return
        with self._lock:
            if self._started - self._left >= self._size:
                return
            number = self._started
            thread = threading.Thread(target=self._run, name=f"{self._settings.name}_{number}")
            self._started += 1
            self._count()
            self._threads.append(thread)
        try:
            thread.start()
        except BaseException:
            with self._lock:
                self._threads.remove(thread)
                self._left += 1
                self._count()
                alone = not self._threads
            if alone:
                raise

    def _enter(self) -> None:
        """What a thread does before it takes its first call; whatever it raises breaks the pool."""
        if self._settings.initializer is not None:
            self._settings.initializer(*self._settings.initargs)

    def _leave(self) -> None:
        """What a thread does when it takes no more calls, or when it could not enter."""
        _coroutine.close_loop()

    def _count(self) -> None:
        """Tells the queue whether a call that finds no idle thread has to ask for one; the lock is held."""
        self._pool.set_complete(self._started - self._left >= self._size)

    def _run(self) -> None:
        me = threading.current_thread()
        self.marks[me] = holding.mark()
        try:
            self._serve()
        finally:
            del self.marks[me]

    def _serve(self) -> None:
        try:
            try:
                self._enter()
            except BaseException as error:
                self._break(error)
                return
            replaced = not self._pool.work()
        finally:
            self._leave()
        if replaced:
            # This thread's task was over its time and another thread took its place meanwhile.
            with self._lock:
                self._threads = [
                    thread for thread in self._threads if thread is not threading.current_thread()
                ]

    def _break(self, error: BaseException) -> None:
        import logging

        module, name, consequence = self.broken_as
        if isinstance(error, errors.PoolBroken):
            reason = str(error)
        else:
            reason = f"the initializer raised {type(error).__name__}: {error}"
            logging.getLogger("concurrent.futures").critical(
                "Exception in initializer:", exc_info=error
            )
        kind = errors.as_standard(errors.PoolBroken, module, name)
        broken = kind(f"{reason}; {consequence}")
        if error.__cause__ is None:
            error.__cause__ = errors.RemoteTraceback(f'\n"""\n{traceback.format_exc()}"""')
        # Its own traceback holds this thread's frames, and they hold the pool: nothing would be freed before a full collection.
        broken.__cause__ = error.with_traceback(None)
        self.broken = broken
        self._pool.close()
        self._pool.fail_all(broken)

    def watch_deadlines(self) -> None:
        """Has a thread that keeps the deadlines of tasks with a timeout."""
        self._tick.set()
        if self._clock is not None:
            return
        with self._lock:
            if self._clock is None:
                self._clock = threading.Thread(
                    target=self._keep_deadlines, name=f"{self._settings.name}_clock", daemon=True
                )
                self._clock.start()

    def _keep_deadlines(self) -> None:
        while not (
            self.closed.is_set() and not self._pool.running() and not self._pool.counts()[4]
        ):
            overdue, next_s = self._pool.expire()
            for _ in overdue:
                with self._lock:
                    self._left += 1
                    self._count()
                if self._pool.counts()[4]:
                    self.grow()
            # A task that starts later than now is over its time later than now: looking again after a short nap is exact enough.
            self._tick.wait(0.05 if next_s is None else min(0.05, max(0.001, next_s)))
            self._tick.clear()
            if next_s is None and not self._pool.running() and not self._pool.counts()[4]:
                self._tick.wait()

    def join(self) -> None:
        self._tick.set()
        overdue = {ident for ident, seconds in self._pool.running() if seconds < 0}
        for thread in self.members():
            if thread is not threading.current_thread() and thread.ident not in overdue:
                thread.join()
