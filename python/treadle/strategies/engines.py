"""What the adapters to Dask and Ray share: calls that another engine schedules and runs.

::

    submit ─► payload (bytes, references) ─► engine: run_on_worker ─► answer
    Future ◄─ settle ◄─ collector ◄─ queue ◄─ the engine's own callback

A call travels as one pickle, made here by cloudpickle. References of the engine in the arguments (a Dask future, a Ray object) travel beside it, so that
the engine brings their values to the worker. What runs there travels by value: treadle need not be installed on the cluster.

*Guarantees*: as every strategy; and what an engine cannot do is refused when the executor is made or the call is submitted, never left out in silence.

*Assumes*: the engine calls back once for every call that ends, is cancelled or is lost.
"""

from __future__ import annotations

import abc
import functools
import io
import itertools
import os
import pickle
import queue
import threading
from collections.abc import Callable
from typing import Any

from treadle import _core, _outcome, _payload, errors
from treadle.future import Future
from treadle.plan import Plan
from treadle.strategies import Bounded, Settings, Stats, TaskOptions, refusal

__all__ = ["Answer", "Call", "Engine", "missing", "run_on_worker"]

#: What a worker sends back: results (pickled), the failure after them (pickled), seconds taken.
Answer = tuple[bytes, "bytes | None", "float | None"]

#: Options of an executor that only pools of its own can keep.
_NOT_KEPT = (
    "initializer",
    "mp_context",
    "max_tasks_per_child",
    "max_memory_per_child",
    "native_threads",
)


def missing(engine: str, extra: str, error: ImportError) -> errors.PlanError:
    """The error of a plan whose engine is not installed."""
    return errors.PlanError(
        f"the plan needs {engine}, and that is not installed here ({error})\n\n"
        f"hint: pip install 'treadle[{extra}]'"
    )


class Call:
    """One call, or one chunk of them, that the engine has."""

    __slots__ = (
        "began",
        "chunk",
        "function",
        "future",
        "handle",
        "interrupted",
        "number",
        "payload",
        "references",
        "tries_left",
    )

    def __init__(self, number: int, function: str, future: Future, chunk: bool, tries: int) -> None:
        self.number = number
        self.function = function
        self.future = future
        self.chunk = chunk
        self.tries_left = tries
        self.payload = b""
        self.references: list[Any] = []
        self.handle: Any = None
        #: What the engine told of the place where it runs; None until it has begun, or where the engine does not tell.
        self.began: Any = None
        self.interrupted = False


class Engine(Bounded):
    """Calls that another engine schedules and runs."""

    has_chunks = True

    #: A call costs an engine one to three milliseconds (docs/guide/engines.md), so a chunk of this length spends some percent on that.
    chunk_seconds: float | None = 0.1

    #: The engine's name, for messages.
    engine = ""

    #: Whether the engine tells when it has begun a call.
    tells_begin = False

    def __init__(self, plan: Plan, settings: Settings, options: TaskOptions) -> None:
        self._refuse(settings)
        self.accept(options)
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._calls: dict[int, Call] = {}
        self._ended: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._closed = False
        self._counts = dict.fromkeys(
            ("submitted", "completed", "cancelled", "lost", "retried", "payload_bytes"), 0
        )
        workers = self._connect(plan, settings)
        super().__init__(plan, settings)
        self.concurrency = max(1, workers)
        self._collector = threading.Thread(target=self._collect, name=f"{settings.name}_collector")
        self._collector.start()

    # ---- what an engine has to offer

    @abc.abstractmethod
    def _connect(self, plan: Plan, settings: Settings) -> int:
        """Connects to the engine, or starts it; returns how many calls it runs at a time."""

    @abc.abstractmethod
    def _disconnect(self) -> None:
        """Undoes :meth:`_connect`."""

    @abc.abstractmethod
    def _pickler(self) -> type[pickle.Pickler]:
        """A pickler that takes functions by value where it must."""

    @abc.abstractmethod
    def _is_reference(self, value: Any) -> bool:
        """Whether the value stands for one that the engine keeps."""

    @abc.abstractmethod
    def _send(self, call: Call) -> Any:
        """Hands the call to the engine; returns the engine's handle.

        The engine's callback puts the call into ``self._ended`` when it has ended, in whatever way.
        """

    @abc.abstractmethod
    def _answers(self, calls: list[Call]) -> list[Answer | BaseException]:
        """What has become of ended calls: the worker's answer, or why there is none."""

    @abc.abstractmethod
    def _withdraw(self, call: Call, force: bool) -> None:
        """Tells the engine that nobody waits for the call any more; with ``force``, that it shall not run on."""

    # ---- the contract

    def accept(self, options: TaskOptions) -> None:
        if options.timeout is not None:
            raise errors.PlanError(
                f"{self.engine} has no time limit for one task, so timeout={options.timeout:g} cannot be kept\n\n"
                "hint: wait with future.result(timeout=…), which leaves the task running, or use processes=…, which stops it"
            )

    def _refuse(self, settings: Settings) -> None:
        given = [name for name in _NOT_KEPT if getattr(settings, name) is not None]
        if given:
            raise errors.PlanError(
                f"{', '.join(given)} cannot be kept by {self.engine}, whose workers treadle does not start\n\n"
                f"hint: configure {self.engine}'s own workers, or use processes=… on this machine"
            )

    def _enter(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: TaskOptions,
    ) -> Future:
        return self._hand_in(function, [(arguments, keywords)], False, options)

    def submit_chunk(
        self, function: Callable[..., Any], items: list[Any], single: bool, options: TaskOptions
    ) -> Future:
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            ((item,) if single else item, {}) for item in items
        ]
        if self._room is None:
            return self._hand_in(function, calls, True, options)
        self._room.acquire()
        return self._holding_room(self._hand_in, function, calls, True, options)

    def _hand_in(
        self,
        function: Callable[..., Any],
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]],
        chunk: bool,
        options: TaskOptions,
    ) -> Future:
        """Hands calls to the engine, as one task."""
        future: Future = _core.pending_future()
        if self._process != os.getpid():
            raise errors.PoolBroken(
                f"this executor was made before this process was forked, and its connection to {self.engine} is the parent's\n\n"
                "hint: make an executor of its own in the forked process"
            )
        with self._lock:
            if self._closed:
                raise refusal()
            call = Call(
                next(self._numbers), _payload.name_of(function), future, chunk, options.retries
            )
            self._calls[call.number] = call
            self._counts["submitted"] += 1
        future.add_done_callback(functools.partial(self._leave, call))
        try:
            call.payload, call.references = self._dump((function, calls))
        except Exception as error:
            self._fail(call, _unpicklable(function, calls, error))
            return future
        with self._lock:
            self._counts["payload_bytes"] += len(call.payload)
        self._hand_over(call)
        return future

    def _dump(self, value: Any) -> tuple[bytes, list[Any]]:
        """The value as bytes, and the engine's references in it, which the bytes name by their place."""
        references: list[Any] = []
        is_reference = self._is_reference

        class WithReferences(self._pickler()):  # type: ignore[misc]
            def persistent_id(self, part: Any) -> int | None:
                if not is_reference(part):
                    return None
                references.append(part)
                return len(references) - 1

        file = io.BytesIO()
        WithReferences(file, protocol=5).dump(value)
        return file.getvalue(), references

    def _hand_over(self, call: Call) -> None:
        try:
            call.handle = self._send(call)
        except Exception as error:
            broken = errors.PoolBroken(
                f"{self.engine} did not take the call ({call.function}): {type(error).__name__}: {error}"
            )
            broken.__cause__ = error
            self._fail(call, broken)
            return
        if call.future.cancelled():
            # By a shutdown in another thread, before the engine had it.
            self._withdraw(call, force=False)

    def _leave(self, call: Call, future: Future) -> None:
        """A call's future has ended: the first of its callbacks."""
        with self._lock:
            self._calls.pop(call.number, None)
            if future.cancelled():
                self._counts["cancelled"] += 1
        if future.cancelled() and call.handle is not None:
            self._withdraw(call, force=False)
        if self._closed:
            self._ended.put(None)

    def _fail(self, call: Call, error: BaseException) -> None:
        if call.future.running() or call.future._start():
            with self._lock:
                self._counts["completed"] += 1
            call.future._fail(error)

    # ---- the collector

    def _collect(self) -> None:
        """Reads what has ended, until the pool is closed and nothing is left."""
        while not (self._closed and not self._calls):
            ended = [self._ended.get()]
            try:
                while True:
                    ended.append(self._ended.get_nowait())
            except queue.Empty:
                pass
            calls = [call for call in ended if call is not None and not call.future.done()]
            if not calls:
                continue
            try:
                answers = self._answers(calls)
            except BaseException as error:
                answers = [error] * len(calls)
            for call, answer in zip(calls, answers, strict=True):
                self._settle(call, answer)
            del ended, calls, answers
        self._disconnect()

    def _settle(self, call: Call, answer: Answer | BaseException) -> None:
        outcome: Any = None
        failure: BaseException | None = None
        seconds: float | None = None
        if isinstance(answer, BaseException):
            failure = answer
            if isinstance(answer, errors.WorkerDied):
                with self._lock:
                    self._counts["lost"] += 1
        else:
            try:
                outcome = pickle.loads(answer[0])
            except BaseException as error:
                failure = _outcome.unreadable_result(error)
            else:
                failure = None if answer[1] is None else _outcome.load_exception(answer[1])
                seconds = answer[2]
        if failure is not None and call.interrupted:
            failure = errors.TaskInterrupted(f"the task ({call.function}) was interrupted")
        if failure is not None and call.tries_left > 0 and _outcome.may_run_again(failure):
            call.tries_left -= 1
            call.began = None
            with self._lock:
                self._counts["retried"] += 1
            self._hand_over(call)
            return
        if not (call.future.running() or call.future._start()):
            return  # cancelled meanwhile
        if call.chunk and outcome is not None:
            with self._lock:
                self._counts["completed"] += 1
            call.future._finish(
                _payload.Chunk(None if failure is not None else seconds, outcome, failure)
            )
        elif failure is not None:
            self._fail(call, failure)
        else:
            with self._lock:
                self._counts["completed"] += 1
            call.future._finish(outcome[0])

    # ---- the end

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        if self._process != os.getpid():
            return
        with self._lock:
            self._closed = True
            waiting = list(self._calls.values()) if cancel_futures else []
        for call in waiting:
            call.future.cancel()
        self._ended.put(None)
        if wait and self._collector is not threading.current_thread():
            self._collector.join()

    def stop_now(self) -> None:
        with self._lock:
            self._closed = True
            calls = list(self._calls.values())
        for call in calls:
            if not call.future.cancel():
                self._withdraw(call, force=True)
                self._fail(call, errors.TaskInterrupted("the program was interrupted (Ctrl-C)"))
        self._ended.put(None)

    def end_workers(self, force: bool) -> None:
        raise errors.PlanError(
            f"the workers belong to {self.engine}, and treadle does not end them; this executor's plan is {self.plan}\n\n"
            "hint: cancel futures, or end the workers with the cluster's own commands"
        )

    # ---- the meters

    def stats(self) -> Stats:
        with self._lock:
            running = sum(call.future.running() for call in self._calls.values())
            now = Stats(
                self.plan,
                self.engine,
                running=running,
                queued=len(self._calls) - running,
                limit=self.settings.max_pending,
            )
            counts: dict[str, Any] = dict(self._counts)
            return now._replace(**counts)

    def _calls_told(self) -> str:
        """The calls in the engine, as text."""
        with self._lock:
            calls = list(self._calls.values())
        running = sum(call.future.running() for call in calls)
        told = (
            f"{running} of {self.concurrency} busy, {len(calls) - running} calls waiting"
            if self.tells_begin
            else f"{len(calls)} calls waiting or running"
        )
        lines = [f"{self.plan.strategy}: {told}\n"]
        lines += [f"  {call.function}: running\n" for call in calls if call.future.running()]
        return "".join(lines)


def _unpicklable(function: Callable[..., Any], calls: list[Any], error: Exception) -> BaseException:
    """The error of a call that cannot travel."""
    from treadle import _pickling

    arguments, keywords = calls[0] if len(calls) == 1 else (tuple(calls), {})
    made = _pickling.explain_call(function, arguments, keywords, error, have_cloudpickle=True)
    made.__cause__ = error
    return made


def _worker_function() -> Callable[..., Answer]:
    """What runs in an engine's worker; a function made in a function, which pickles by value."""

    def run_on_worker(payload: bytes, *values: Any) -> Answer:
        import asyncio
        import inspect
        import io
        import pickle
        import time
        import traceback

        class WithReferences(pickle.Unpickler):
            def persistent_load(self, place: int) -> Any:
                return values[place]

        def dumped(value: Any) -> bytes:
            try:
                return pickle.dumps(value, 5)
            except Exception as first:
                try:
                    import cloudpickle
                except ImportError:
                    raise first from None
                return bytes(cloudpickle.dumps(value, 5))

        def told(error: BaseException) -> bytes:
            # The form of treadle's own workers: the exception if it survives the way, its kind, its words, its traceback.
            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            try:
                words = str(error)
            except Exception:
                words = "(its text could not be made)"
            pickled = None
            try:
                pickled = dumped(error)
                pickle.loads(pickled)
            except Exception:
                pickled = None
            kind = f"{type(error).__module__}.{type(error).__qualname__}"
            return pickle.dumps((pickled, kind, words, text), 5)

        async def awaited(coroutine: Any) -> Any:
            return await coroutine

        begun = time.perf_counter()
        results: list[Any] = []
        failure = None
        try:
            function, calls = WithReferences(io.BytesIO(payload)).load()
            for arguments, keywords in calls:
                result = function(*arguments, **keywords)
                if inspect.iscoroutine(result):
                    result = asyncio.run(awaited(result))
                results.append(result)
        except BaseException as error:
            failure = told(error)
        seconds = time.perf_counter() - begun
        try:
            return dumped(results), failure, seconds
        except Exception as whole:
            # One of them cannot travel; those before it can.
            trouble: BaseException = whole
            kept = []
            for result in results:
                try:
                    dumped(result)
                except Exception as error:
                    trouble = pickle.PicklingError(
                        f"the result, a {type(result).__name__}, cannot be pickled: {error}"
                    )
                    trouble.__cause__ = error
                    break
                kept.append(result)
            return dumped(kept), told(trouble), seconds

    return run_on_worker


run_on_worker = _worker_function()
