"""Sub-interpreters of this process, each with a lock of its own, each run by one thread of the pool.

::

    submit ─► pickle ─► _core.ThreadPool: queue ─► thread ═► its sub-interpreter: call ═► outcome ─► Future

The queue, and with it cancelling, deadlines, retries and meters, is that of :mod:`treadle.strategies.threads`. What differs is that a thread crosses into its
sub-interpreter for each call (:mod:`treadle._subinterpreter` is what it finds there), and that calls and outcomes cross as pickles.

*Guarantees*: what cannot be pickled, or rebuilt on the other side, fails its own call.

*Assumes*: ``concurrent.interpreters`` of CPython 3.14 or later. A call that is over its time runs on, and so does its interpreter, until the call ends: neither
can be killed.
"""

from __future__ import annotations

import importlib
import os
import pickle
import platform
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from treadle import _core, _outcome, _payload, _subinterpreter, errors
from treadle.future import Future
from treadle.plan import Plan
from treadle.strategies import Settings, TaskOptions
from treadle.strategies.processes import main_module
from treadle.strategies.threads import Crew, Threads

#: How often an interruption looks again for a call that a thread has taken and not yet brought to its interpreter, in seconds.
_ON_THE_WAY_S = 0.0002

_BOOT = """\
import sys
sys.path[:] = {path!r}
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
spec = ModuleSpec("treadle", None, is_package=True)
spec.submodule_search_locations.append({folder!r})
sys.modules["treadle"] = module_from_spec(spec)
del ModuleSpec, module_from_spec, spec
from treadle._subinterpreter import begin
begin({names!r}, {arguments!r}, {main!r}, {descriptor!r})
"""


def boot_source(main: tuple[str, str] = ("none", ""), descriptor: int | None = None) -> str:
    """The program that makes a fresh sub-interpreter fit to run calls of this one; see :func:`treadle._subinterpreter.begin`."""
    import treadle

    return _BOOT.format(
        path=[entry for entry in sys.path if isinstance(entry, str)],
        folder=os.path.dirname(os.path.abspath(treadle.__file__)),
        names=sorted(treadle.__all__),
        arguments=[str(argument) for argument in sys.argv],
        main=main,
        descriptor=descriptor,
    )


def standard_library(plan: Plan) -> Any:
    """The module ``concurrent.interpreters``.

    Raises:
        PlanError: where there is none; the message names the version that has it, and a plan that runs here.
    """
    try:
        return importlib.import_module("concurrent.interpreters")
    except ImportError:
        have = f"{platform.python_implementation()} {platform.python_version()}"
        raise errors.PlanError(
            f"the plan {plan} needs CPython 3.14 or later, whose standard library has concurrent.interpreters; this is {have}\n\n"
            f"hint: processes={plan.interpreters} runs the same calls here, each process with a lock of its own"
        ) from None


class Interpreters(Threads):
    """A pool of threads with a sub-interpreter each."""

    engine = "interpreters"

    has_chunks = True

    #: Crossing costs 40 to 160 us of CPU (docs/design/2026-11-22-interpreters.md), so a chunk of this length spends under one percent on it.
    chunk_seconds = 0.02

    def __init__(self, plan: Plan, settings: Settings) -> None:
        self._standard = standard_library(plan)
        # What the sub-interpreters make of the main module names it __mp_main__.
        if "__main__" in sys.modules:
            sys.modules.setdefault("__mp_main__", sys.modules["__main__"])
        _payload.look_at_main()
        super().__init__(plan, settings)

    def _make_crew(self) -> Crew:
        settings = self.settings
        initializer = None
        if settings.initializer is not None:
            arguments = settings.initargs
            initializer = _Call.of(settings.initializer, (settings.initializer, arguments, {}))
        self._hosts = _Hosts(
            self._pool, settings, self.plan.interpreters or 1, self._standard, initializer
        )
        return self._hosts

    def _enter(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: TaskOptions,
    ) -> Future:
        return self._send(function, (function, arguments, keywords), False, options)

    def submit_chunk(
        self, function: Callable[..., Any], items: list[Any], single: bool, options: TaskOptions
    ) -> Future:
        call = function, (function, items, single), True, options
        if self._room is None:
            return self._send(*call)
        self._room.acquire()
        return self._holding_room(self._send, *call)

    def _send(
        self,
        function: Callable[..., Any],
        whole: tuple[Any, ...],
        chunk: bool,
        options: TaskOptions,
    ) -> Future:
        try:
            call = _Call.of(function, whole, chunk)
        except Exception as error:
            if self._crew.closed.is_set():
                raise self._crew.why_closed() from None
            future: Future = _core.pending_future()
            future._start()
            future._fail(error)
            return future
        return super()._enter(call, (), {}, options)

    def native(self) -> tuple[Any, Callable[[int, bool], object] | None]:
        return self.submit, None

    def interrupt(self, future: Future, grace: float) -> bool:
        while True:
            thread = self._pool.thread_of(future)
            if thread is None:
                return False
            host = self._hosts.by_thread.get(thread)
            number = host.number if host is not None else 0
            # Read while the thread had this call, so it is this call's.
            if host is not None and number and self._pool.thread_of(future) == thread:
                host.interrupt(number)
                return True
            time.sleep(_ON_THE_WAY_S)

    def stop_now(self) -> None:
        self.shutdown(wait=False, cancel_futures=True)
        for host in list(self._hosts.by_thread.values()):
            number = host.number
            if number:
                host.interrupt(number)

    def dump(self) -> str:
        running = dict(self._pool.running())
        lines = [
            f"interpreters: {len(running)} of {self.plan.interpreters} busy, {self._pool.counts()[4]} calls waiting\n"
        ]
        for thread in self._crew.members():
            ident = thread.ident or 0
            seconds = running.get(ident)
            host = self._hosts.by_thread.get(ident)
            state = "idle" if seconds is None else f"busy for {abs(seconds):.3f} s"
            if seconds is not None and host is not None and host.function:
                state += f" in {host.function}"
            if seconds is not None and seconds < 0:
                state += ", over its timeout"
            lines.append(f"\n{thread.name} ({ident}): {state}\n")
        if running:
            lines.append("\nStacks inside sub-interpreters cannot be read from outside them.\n")
        return "".join(lines)


class _Call:
    """A call or a chunk as the queue has it: what it runs, as bytes, and its name."""

    __slots__ = ("chunk", "func", "needs_main", "payload")

    #: For the message of a time-out.
    runs_in = "a sub-interpreter"

    def __init__(self, function: Any, payload: bytes, chunk: bool, needs_main: bool) -> None:
        self.func = function
        self.payload = payload
        self.chunk = chunk
        self.needs_main = needs_main

    @classmethod
    def of(cls, function: Any, whole: tuple[Any, ...], chunk: bool = False) -> _Call:
        """Pickles a call ``(function, arguments, keywords)`` or a chunk ``(function, items, single)``.

        Raises:
            PayloadError: when it cannot be pickled.
        """
        try:
            payload = pickle.dumps(whole, 5)
            needs_main = b"__main__" in payload
            if needs_main:
                # Asked for what it learns of the main module.
                _payload.by_reference(function)
                if _payload.main_by_value:
                    raise _payload.only_by_value()
        except Exception as error:
            _, given, rest = whole
            arguments, keywords = (tuple(given), {}) if chunk else (given, rest)
            payload = _payload.dump_by_value(whole, error, function, arguments, keywords)
            needs_main = False
        return cls(function, payload, chunk, needs_main)

    def __call__(self) -> Any:
        """Runs it in this thread's sub-interpreter; returns its result, or raises its exception."""
        return _here.host.run(self)


class _Here(threading.local):
    """What belongs to a thread of a pool."""

    host: _Host


_here = _Here()


class _Host:
    """One sub-interpreter. Made, used and closed by one thread; only :meth:`interrupt` is for others."""

    def __init__(self, standard: Any) -> None:
        self._standard = standard
        self._lock = threading.Lock()
        self._last = 0
        #: The call that runs now; 0 for none.
        self.number = 0
        #: What it is called.
        self.function = ""
        try:
            self._interpreter = standard.create()
        except Exception as error:
            raise errors.PoolBroken(f"a sub-interpreter could not be started: {error}") from error
        listened, self._strikes = os.pipe()
        try:
            self._interpreter.exec(boot_source(main_module(), listened))
        except Exception as error:
            os.close(listened)
            self.close()
            raise errors.PoolBroken(
                f"a sub-interpreter could not be made ready: {error}"
            ) from error

    def run(self, call: _Call) -> Any:
        """The result of a call, or the :class:`treadle._payload.Chunk` of a chunk; raises the call's exception."""
        self._last += 1
        self.function = _payload.name_of(call.func)
        self.number = self._last
        try:
            code, told = self._interpreter.call(
                _subinterpreter.run, self._last, call.chunk, call.needs_main, call.payload
            )
        except (self._standard.ExecutionFailed, self._standard.NotShareableError) as error:
            raise errors.PayloadError(
                f"the sub-interpreter did not answer: {error}\n\nhint: there may be no memory for the call or its result"
            ) from error
        finally:
            self.number = 0
        if code == _subinterpreter.FAILED:
            raised = _outcome.load_exception(told)
            if isinstance(raised, errors.TaskInterrupted) and not raised.args:
                raised.args = (
                    f"the task ({self.function}) was interrupted in its sub-interpreter",
                )
            try:
                raise raised
            finally:
                # The traceback refers to this frame.
                del raised
        if code == _subinterpreter.CHUNK:
            return _chunk(told)
        try:
            return pickle.loads(told)
        except BaseException as error:
            raise _outcome.unreadable_result(error) from error

    def interrupt(self, number: int) -> None:
        """Raises ``TaskInterrupted`` in the call of that number, if it runs still."""
        with self._lock:
            if self._strikes >= 0:
                os.write(self._strikes, number.to_bytes(8, "little"))

    def close(self) -> None:
        """Ends the sub-interpreter; waits for threads that calls have left in it."""
        try:
            self._interpreter.call(_subinterpreter.leave)
        except Exception:
            # It never got ready, or a call left what cannot be closed: it goes with the interpreter.
            pass
        with self._lock:
            os.close(self._strikes)
            self._strikes = -1
        try:
            self._interpreter.close()
        except Exception:
            # There is nobody to tell, and the process's end frees it.
            pass


def _chunk(told: bytes) -> _payload.Chunk:
    """What a chunk brought, up to a result that cannot be rebuilt here."""
    seconds, results, pieces, failure = pickle.loads(told)
    error = None
    if results is None:
        results = []
        for piece in pieces:
            try:
                results.append(pickle.loads(piece))
            except BaseException as trouble:
                error = _outcome.unreadable_result(trouble)
                return _payload.Chunk(None, results, error)
    if failure is not None:
        error = _outcome.load_exception(failure)
    return _payload.Chunk(seconds, results, error)


class _Hosts(Crew):
    """The threads, each with its sub-interpreter."""

    broken_as = (
        "interpreter",
        "BrokenInterpreterPool",
        "the interpreter pool is not usable anymore",
    )

    def __init__(
        self,
        pool: _core.ThreadPool,
        settings: Settings,
        size: int,
        standard: Any,
        initializer: _Call | None,
    ) -> None:
        super().__init__(pool, settings, size)
        self._standard = standard
        self._initializer = initializer
        #: The sub-interpreters in use, by their thread's number.
        self.by_thread: dict[int, _Host] = {}

    def _enter(self) -> None:
        _here.host = self.by_thread[threading.get_ident()] = _Host(self._standard)
        if self._initializer is not None:
            self._initializer()

    def _leave(self) -> None:
        host = self.by_thread.pop(threading.get_ident(), None)
        if host is not None:
            host.close()
