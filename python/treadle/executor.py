"""Executor: one ``concurrent.futures.Executor`` for every plan.

The picture of a call's path::

    submit ─► strategy ─► (threads) queue ─► thread ─► Future
                      └─► (processes) payload ─► slot ─► worker ─► record ─► Future
                      └─► (coroutines) loop ─► task ─► Future
                      └─► (interpreters) queue ─► thread ─► its sub-interpreter ─► Future
                      └─► (serial) called at once

The plan decides only which strategy stands in the middle; what callers see is the same.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from treadle import _core, _watching, _worker, strategies
from treadle.errors import PayloadError, PlanError
from treadle.plan import Plan, whole_number
from treadle.strategies import Settings, Stats, Strategy, TaskOptions

if TYPE_CHECKING:
    import asyncio

__all__ = ["Executor", "ProcessPoolExecutor", "ThreadPoolExecutor"]

Result = TypeVar("Result")

_UNSET: Any = type("Unset", (), {"__repr__": lambda self: "..."})()


def _seconds(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PlanError(f"{name} must be a number of seconds, not {value!r}")
    if not value > 0:
        raise PlanError(f"{name} must be above 0 seconds, not {value!r}")
    return float(value)


class _Calls(_core.Submitter):
    """What an executor and its views share: submitting under some per-task options."""

    _strategy: Strategy
    _options: TaskOptions

    def _use(self, strategy: Strategy, options: TaskOptions) -> None:
        strategy.accept(options)
        self._strategy = strategy
        self._options = options
        target, grow = strategy.native()
        self._bind(target, strategy.submit_now, grow, options, options.timeout, options.retries)

    def map(
        self,
        fn: Callable[..., Result],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        progress: bool = False,
    ) -> Iterator[Result]:
        """Calls ``fn`` with the items of the iterables and yields the results.

        The inputs are read lazily: only as many calls are in flight as keep the workers busy.

        Args:
            timeout: seconds from this call until the last result; then the iterator raises ``TimeoutError``.
            chunksize: items that a process worker takes at a time; ``None`` means measured (chunks of about two milliseconds).
            buffersize: most calls submitted and not yet yielded; ``None`` means enough to keep the workers busy.
            ordered: False yields results as they come.
            progress: shows count, rate and time left: on stderr, or under the cell of a notebook.

        Raises:
            PlanError: for a ``chunksize`` or ``buffersize`` below 1, or a ``chunksize`` that is no whole number.
            TypeError: for a ``buffersize`` that is no whole number.
        """
        from treadle import mapping

        chunksize = whole_number("chunksize", chunksize)
        if buffersize is not None and not hasattr(buffersize, "__index__"):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise PlanError(f"buffersize must be None or > 0, not {buffersize!r}")
        return mapping.run(
            self._strategy,
            fn,
            iterables,
            self._options,
            timeout,
            chunksize,
            buffersize,
            ordered,
            progress,
        )

    def asubmit(
        self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any
    ) -> asyncio.Future[Result]:
        """Schedules the call; await what is returned for its result. Call it in a coroutine.

        Under asyncio it is an ``asyncio.Future`` of the running loop; under Trio an object to await, with its ``cancel``, ``cancelled``, ``done``
        and ``result``. Cancelling it, or the task or scope that awaits it, reaches the worker: a call that no worker has is taken back, a running
        one is interrupted. It never holds up the loop: while ``max_pending`` or the memory for payloads is reached, the call waits outside the
        pool, behind those that came before it.

        Raises:
            PoolShutDown: after :meth:`shutdown`; a call that waits outside the pool then ends with it.
            PoolBroken: when the pool can run nothing any more.
            RuntimeError: when no event loop runs in this thread.
        """
        from treadle import awaiting

        bridge = awaiting.bridge()
        # Once a call waits outside, those after it do so too, so that they keep their order.
        if not self._strategy.entrance:
            future = self._submit_now(fn, *args, **kwargs)
            if future is not None:
                return bridge.awaitable(future)
        return awaiting.entrance(self._strategy).queue(bridge, self.submit, fn, args, kwargs)

    def amap(
        self,
        fn: Callable[..., Result],
        *iterables: Iterable[Any],
        buffersize: int | None = None,
        ordered: bool = True,
    ) -> AsyncIterator[Result]:
        """Calls ``fn`` with the items of the iterables and yields the results; ``async for`` them.

        Leaving the loop early, or cancelling the task that runs it, stops the calls in flight.

        Args:
            buffersize: most calls submitted and not yet yielded; ``None`` means enough to keep the workers busy, and 64 at least.
            ordered: False yields results as they come.

        Raises:
            PlanError: for a ``buffersize`` that is no whole number from 1 on.
        """
        from treadle import awaiting

        window = whole_number("buffersize", buffersize) or max(64, 4 * self._strategy.concurrency)
        items = zip(*iterables, strict=False)
        return awaiting.results(self.asubmit, fn, items, window, ordered)


class View(_Calls):
    """The same pool under other per-task options; made by :meth:`Executor.options`."""

    def __init__(self, strategy: Strategy, options: TaskOptions) -> None:
        self._use(strategy, options)

    def options(self, *, timeout: float | None = _UNSET, retries: int = _UNSET) -> View:
        """A view of the same pool with these options instead."""
        return View(self._strategy, _changed(self._options, timeout, retries))


def _changed(options: TaskOptions, timeout: Any, retries: Any) -> TaskOptions:
    return TaskOptions(
        timeout=options.timeout if timeout is _UNSET else _seconds("timeout", timeout),
        retries=options.retries if retries is _UNSET else whole_number("retries", retries, 0) or 0,
    )


class Executor(_Calls, concurrent.futures.Executor):
    """Runs calls as its plan says.

    ::

        Executor(threads=50)
        Executor(processes=8)
        Executor(coroutines=1000)  # async functions, on a loop of its own
        Executor(processes=2, threads=8)  # each process runs eight at a time
        Executor(processes=2, coroutines=100)  # each process runs a loop
        Executor(interpreters=8)  # sub-interpreters (CPython 3.14 and later)
        Executor(dask="tcp://…")  # an existing cluster, or a distributed.Client, or "local"
        Executor(ray="auto")  # the same with Ray
        Executor(Plan(processes=8))  # the plan as data
        Executor.decided("thumbnails")  # the plan recorded in treadle.toml
        Executor()  # threads, sized as the standard library sizes them

    Args:
        plan: the plan; or give its sizes by keyword.
        threads, processes, coroutines, interpreters, dask, ray, chunk: see :class:`Plan`.
        initializer, initargs: called in each worker before its first task.
        mp_context: how processes start: ``"forkserver"`` (a zygote of our own; the default) or ``"spawn"``, or a context of
            ``multiprocessing`` with that start method.
        max_tasks_per_child: a process worker is replaced after this many tasks.
        max_memory_per_child: a process worker is replaced when it has grown by this many bytes since its start.
        name: for threads' names and for what is watched.
        timeout: seconds a task may run, from its start.
        retries: how often a task is run again after it raised, lost its worker, or was over its time (in a thread it cannot be:
                the call that is over its time runs on).
        max_pending: most unfinished calls; ``submit`` waits beyond it.
        native_threads: threads that BLAS and OpenMP may use in a process worker; default: usable cores divided by workers.

    Raises:
        PlanError: for a plan or option that cannot be, or an engine that is not installed.
        TypeError: for an ``initializer`` that cannot be called.
        PoolBroken: no cluster answers at the address.
    """

    def __init__(
        self,
        plan: Plan | None = None,
        /,
        *,
        threads: int | None = None,
        processes: int | None = None,
        coroutines: int | None = None,
        interpreters: int | None = None,
        dask: Any = None,
        ray: str | None = None,
        chunk: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        mp_context: Any = None,
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        name: str = "",
        timeout: float | None = None,
        retries: int = 0,
        max_pending: int | None = None,
        native_threads: int | None = None,
    ) -> None:
        client = None
        if dask is not None and not isinstance(dask, str):
            from treadle.strategies.dask import address_of

            client, dask = dask, address_of(dask)
        sizes = {
            "threads": threads,
            "processes": processes,
            "coroutines": coroutines,
            "interpreters": interpreters,
            "dask": dask,
            "ray": ray,
            "chunk": chunk,
        }
        given = {key: value for key, value in sizes.items() if value is not None}
        if plan is None:
            plan = Plan(**given)
            if plan.strategy == "serial":
                plan = Plan(threads=min(32, (_default_count() or 1) + 4), chunk=plan.chunk)
        elif not isinstance(plan, Plan):
            raise PlanError(
                f"the plan must be a treadle.Plan, not {plan!r}\n\n"
                "hint: give sizes by keyword, as Executor(processes=8), or a name to Executor.decided"
            )
        elif given:
            raise PlanError(
                f"give a Plan or sizes by keyword, not both (also given: {', '.join(given)})"
            )
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        settings = Settings(
            initializer=initializer,
            initargs=tuple(initargs),
            mp_context=mp_context,
            max_tasks_per_child=whole_number("max_tasks_per_child", max_tasks_per_child),
            max_memory_per_child=whole_number("max_memory_per_child", max_memory_per_child),
            name=name or "treadle",
            max_pending=whole_number("max_pending", max_pending),
            native_threads=whole_number("native_threads", native_threads),
            client=client,
        )
        task_options = TaskOptions(
            timeout=_seconds("timeout", timeout), retries=whole_number("retries", retries, 0) or 0
        )
        self._plan = plan
        self._use(strategies.make(plan, settings, task_options), task_options)
        _watching.show(self._strategy)

    @classmethod
    def decided(
        cls, decision: str, /, directory: str | os.PathLike[str] | None = None, **options: Any
    ) -> Executor:
        """An executor with the plan recorded under the name ``decision`` in the nearest ``treadle.toml``.

        Args:
            directory: where to begin looking, upwards; default: the current one.
            options: as for :class:`Executor`.

        Raises:
            RecordError: when there is no such decision; the message names the file and what it holds.
        """
        from treadle import record

        return cls(record.decided(decision, directory), **options)

    @property
    def plan(self) -> Plan:
        """The plan in force."""
        return self._plan

    def options(self, *, timeout: float | None = _UNSET, retries: int = _UNSET) -> View:
        """A view of this pool whose ``submit`` and ``map`` use these per-task options.

        Args:
            timeout: seconds a task may run, from its start; ``None`` for no limit.
            retries: how often a task is run again after it raised, lost its worker, or was over its time (in a thread it cannot be:
                the call that is over its time runs on).
        """
        return View(self._strategy, _changed(self._options, timeout, retries))

    def share(self, value: Any) -> Any:
        """Hands a value to all workers once: pass what this returns as an argument, and the function gets the value.

        For a big value that many calls read. In worker processes its buffers (a NumPy array's data) are read-only and not copied; they stay
        in shared memory as long as the executor. Dask and Ray keep it in their own store; in the other plans this is the value itself.

        Raises:
            PayloadError: when the value cannot be pickled.
            PayloadMemoryError: when there is no shared memory for it.
        """
        return self._strategy.share(value)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls; the workers leave after the last one.

        Args:
            wait: return only when they have left.
            cancel_futures: cancel the calls that no worker has.
        """
        self._strategy.shutdown(wait=wait, cancel_futures=cancel_futures)
        strategies.note_end(self._strategy)

    def terminate_workers(self) -> None:
        """Ends the pool and its worker processes with SIGTERM; unfinished calls fail.

        Raises:
            PlanError: the plan has no worker processes.
        """
        self._strategy.end_workers(force=False)

    def kill_workers(self) -> None:
        """Ends the pool and its worker processes with SIGKILL; unfinished calls fail.

        Raises:
            PlanError: the plan has no worker processes.
        """
        self._strategy.end_workers(force=True)

    def stats(self) -> Stats:
        """The pool's meters at this instant, immutable."""
        return self._strategy.stats()

    def dump(self) -> str:
        """What every worker is doing now: its state, and the stack of each thread that is busy, as text. A sub-interpreter shows none."""
        return self._strategy.dump()

    @property
    def _max_workers(self) -> int:
        # Programs that are given an executor (Dask's local schedulers) read it, although it is private in the standard library's.
        return self._strategy.concurrency

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            # Ctrl-C is to stop the work, not to wait for it.
            self._strategy.stop_now()
        self.shutdown(wait=True)

    def __del__(self) -> None:
        strategy = self.__dict__.get("_strategy")
        if strategy is not None:
            strategy.abandon()
            strategies.note_end(strategy)

    def __reduce__(self) -> NoReturn:
        raise PayloadError(
            "an executor cannot be sent to another process: a task that waited for a task of its own pool could wait for ever\n\n"
            "hint: submit from this process, or make an executor of its own in the worker"
        )

    def __repr__(self) -> str:
        return f"<treadle.{type(self).__name__} {self._plan}>"


def _default_count() -> int | None:
    if _worker.current is not None:
        # A pool inside a worker gets the worker's share of the machine, unless it is asked for more.
        return max(1, int(_core.usable_cores()))
    count: Callable[[], int | None] = getattr(os, "process_cpu_count", os.cpu_count)
    return count()


_pools_of_threads = itertools.count()


class _DropIn(Executor):
    """What programs read of the standard library's executors although it is private there."""

    @property
    def _broken(self) -> str | bool:
        return self._strategy.broken() or False


class ThreadPoolExecutor(_DropIn):
    """``concurrent.futures.ThreadPoolExecutor`` with treadle's engine; same arguments, same order."""

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **options: Any,
    ) -> None:
        if max_workers is None:
            max_workers = min(32, (_default_count() or 1) + 4)
        if max_workers <= 0:
            raise PlanError("max_workers must be greater than 0")
        # The standard library's default name, which logs and debuggers show.
        prefix = thread_name_prefix or f"ThreadPoolExecutor-{next(_pools_of_threads)}"
        options.setdefault("name", prefix)
        super().__init__(threads=max_workers, initializer=initializer, initargs=initargs, **options)

    @property
    def _threads(self) -> set[threading.Thread]:
        strategy: Any = self._strategy
        return set(strategy.threads())


class ProcessPoolExecutor(_DropIn):
    """``concurrent.futures.ProcessPoolExecutor`` with treadle's engine; same arguments, same order."""

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        **options: Any,
    ) -> None:
        if max_workers is None:
            max_workers = _default_count() or 1
        if max_workers <= 0:
            raise PlanError("max_workers must be greater than 0")
        super().__init__(
            processes=max_workers,
            mp_context=mp_context,
            initializer=initializer,
            initargs=initargs,
            max_tasks_per_child=max_tasks_per_child,
            **options,
        )
