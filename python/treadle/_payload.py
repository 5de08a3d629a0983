"""How a call becomes bytes, and what is said when it cannot; the parts that must be Python.

The engine calls these by name, in the parent and in workers. What every task needs is in the engine; here is what is rare: functions seen for the first
time, exceptions, failures.
"""

from __future__ import annotations

import pickle
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from treadle import errors

# ---- functions and calls


def _main_can_be_imported() -> bool:
    """Whether a worker can import this program's main module (not so in a REPL, a notebook, ``-c``)."""
    main = sys.modules.get("__main__")
    return main is not None and (
        getattr(main, "__spec__", None) is not None or getattr(main, "__file__", None) is not None
    )


def by_reference(function: Callable[..., Any]) -> tuple[bytes, str] | None:
    """The pickle and the name of a function that a worker can import; None for any other."""
    name = getattr(function, "__qualname__", None)
    module = getattr(function, "__module__", None)
    if not isinstance(name, str) or (module is not None and not isinstance(module, str)):
        return None
    if module == "__main__" and not _main_can_be_imported():
        return None
    if "<lambda>" in name or "<locals>" in name:
        return None
    try:
        return pickle.dumps(function, 5), f"{module}.{name}"
    except Exception:
        return None


def load_function(pickled: bytes) -> Callable[..., Any]:
    """The function of :func:`by_reference`, in a worker."""
    function: Callable[..., Any] = pickle.loads(pickled)
    return function


def dump_call_otherwise(
    function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], error: BaseException
) -> bytes:
    """A call that pickle refused, by value if cloudpickle is installed; else raises the error that explains."""
    return _dump_otherwise((function, arguments, keywords), error, function, arguments, keywords)


def dump_chunk_otherwise(function: Any, items: list[Any], error: BaseException) -> bytes:
    """A chunk that pickle refused, as :func:`dump_call_otherwise`."""
    return _dump_otherwise((function, items), error, function, tuple(items), {})


def _dump_otherwise(
    whole: Any,
    error: BaseException,
    function: Any,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
) -> bytes:
    reduced = _dump_with_multiprocessing(whole)
    if reduced is not None:
        return reduced
    try:
        import cloudpickle
    except ImportError:
        cloudpickle = None
    if cloudpickle is not None:
        try:
            by_value: bytes = cloudpickle.dumps(whole, 5)
            return by_value
        except Exception as second:
            error = second
    from treadle import _pickling

    raise _pickling.explain_call(
        function, arguments, keywords, error, have_cloudpickle=cloudpickle is not None
    ) from error


def _dump_with_multiprocessing(whole: Any) -> bytes | None:
    """With the reductions of ``multiprocessing`` (sockets, connections), when the program uses it."""
    reduction = sys.modules.get("multiprocessing.reduction")
    if reduction is None:
        return None
    import copyreg
    import io

    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, 5)
    pickler.dispatch_table = {**copyreg.dispatch_table, **reduction.ForkingPickler._extra_reducers}
    try:
        pickler.dump(whole)
    except Exception:
        return None
    return stream.getvalue()


def unreadable_call(error: BaseException) -> BaseException:
    """The exception of a task whose call could not be rebuilt in the worker."""
    if isinstance(error, errors.TaskInterrupted):
        # The interruption came while the arguments were read: it says by itself what happened.
        return error
    text = f"the call could not be rebuilt in the worker: {type(error).__name__}: {error}"
    if isinstance(error, AttributeError) and "__mp_main__" in str(error):
        text += (
            "\n\nhint: workers import the main module once, at their start; define the function at its top level, "
            "outside `if __name__ == '__main__':`"
        )
    made = _as_broken_process_pool(errors.PayloadError)(text)
    made.__cause__ = error
    return made


def _as_broken_process_pool(kind: type[errors.TreadleError]) -> Callable[..., BaseException]:
    """This kind of error as what a program catches that was written for the standard library's pool of processes."""
    return errors.as_standard(kind, "process", "BrokenProcessPool")


# ---- results and exceptions


class PartialChunk:
    """The results of a chunk up to the item that raised, and that item's exception."""

    __slots__ = ("exception", "results", "seconds")

    def __init__(self, seconds: float, results: list[Any], exception: bytes) -> None:
        self.seconds = seconds
        self.results = results
        self.exception = exception

    def __reduce__(self) -> tuple[Any, ...]:
        return PartialChunk, (self.seconds, self.results, self.exception)


def partial_chunk(seconds: float, results: list[Any], error: BaseException) -> PartialChunk:
    """A chunk that ended at an item that raised."""
    return PartialChunk(seconds, results, dump_exception(error))


def partial_results(timed: list[Any]) -> PartialChunk:
    """A chunk whose results do not pickle together: those before the first that does not pickle, and what is wrong with it."""
    seconds, *results = timed
    for place, result in enumerate(results):
        try:
            pickle.dumps(result, 5)
        except Exception as error:
            return PartialChunk(
                seconds, results[:place], dump_exception(unpicklable_result(result, error))
            )
    return PartialChunk(
        seconds,
        [],
        dump_exception(errors.PayloadError("the results of a chunk cannot be pickled together")),
    )


def dump_result_otherwise(result: Any, error: BaseException) -> bytes:
    """A result that pickle refused, by value if cloudpickle is installed; else raises the error that explains."""
    if not isinstance(error, Exception):
        raise error
    try:
        import cloudpickle

        by_value: bytes = cloudpickle.dumps(result, 5)
        return by_value
    except Exception:
        raise unpicklable_result(result, error) from error


def unpicklable_result(result: Any, error: BaseException) -> BaseException:
    """The exception of a task whose result cannot travel."""
    if isinstance(error, errors.TaskInterrupted):
        return error
    if not isinstance(error, Exception):
        # SystemExit, KeyboardInterrupt: the result's class asked for that, nothing is to be explained.
        return error
    from treadle import _pickling

    made = _pickling.explain_result(result, error)
    made.__cause__ = error
    return made


def unpicklable_value(value: Any, error: BaseException) -> BaseException:
    """The error of a value that cannot be shared."""
    from treadle import _pickling

    problem = _pickling.find_problem(value, "value")
    text = f"the value cannot be shared: {problem.sentence() if problem else error}"
    return errors.PayloadError(text if problem is None else f"{text}\n\nhint: {problem.hint}")


def dump_exception(error: BaseException) -> bytes:
    """An exception and its traceback as bytes, whatever the exception is made of."""
    import traceback

    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception as trouble:
        text = f"{type(error).__name__}: (its traceback could not be formatted: {trouble})\n"
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    pickled = None
    try:
        pickled = pickle.dumps(error, 5)
        # Many exceptions pickle and cannot be unpickled: learn it here, where the object still is.
        pickle.loads(pickled)
    except Exception:
        pickled = None
        try:
            import cloudpickle

            pickled = cloudpickle.dumps(error, 5)
            pickle.loads(pickled)
        except Exception:
            pickled = None
    return pickle.dumps((pickled, kind, str_of(error), text), 5)


def str_of(error: BaseException) -> str:
    """The exception's text, even when its ``__str__`` raises."""
    try:
        return str(error)
    except Exception:
        return "(its text could not be made)"


def load_exception(pickled: bytes, buffers: list[Any] = []) -> BaseException:  # noqa: B006
    """The exception of :func:`dump_exception`, with the worker's traceback as its cause."""
    inner, kind, message, text = pickle.loads(pickled, buffers=buffers)
    error = None
    if inner is not None:
        try:
            error = pickle.loads(inner)
        except Exception as trouble:
            text += f"\n(the exception itself could not be unpickled here: {type(trouble).__name__}: {trouble})\n"
    if not isinstance(error, BaseException):
        error = errors.PayloadError(
            f"the task raised {kind}: {message}\n\nhint: that exception cannot be pickled, so this one stands in its place; "
            "give it arguments that pickle, or a __reduce__"
        )
    error.__cause__ = errors.RemoteTraceback(f'\n"""\n{text}"""')
    return error


def unreadable_result(error: BaseException) -> BaseException:
    """The exception of a task whose result cannot be rebuilt in this process."""
    made = _as_broken_process_pool(errors.PayloadError)(
        f"the result could not be rebuilt in this process: {type(error).__name__}: {error}\n\n"
        "hint: the worker pickled it; look at the __reduce__ or __setstate__ of its class"
    )
    made.__cause__ = error
    return made


def may_run_again(error: BaseException) -> bool:
    """Whether ``retries`` is for this failure: not for an interrupted call, nor for one that asked the program to end."""
    return isinstance(error, Exception) and not isinstance(error, errors.TaskInterrupted)


# ---- failures that the engine reports


def worker_died(worker: int, pid: int, ending: str, deaths: int) -> BaseException:
    """One worker died while it ran the task."""
    return _as_broken_process_pool(errors.WorkerDied)(worker, pid, ending, deaths)


def timed_out(seconds: float, pid: int) -> BaseException:
    """A process worker was killed because its task was over its time."""
    return errors.TaskTimeout(
        f"the task ran longer than its timeout of {seconds:g} s; its worker (pid {pid}) was replaced"
    )


def thread_timed_out(seconds: float, thread: int) -> BaseException:
    """A task of a thread is over its time."""
    return errors.TaskTimeout(
        f"the task ran longer than its timeout of {seconds:g} s; a thread cannot be stopped, so it runs on (thread {thread}) and "
        "another takes its place\n\nhint: give the call itself a time-out, or use processes, which can be stopped"
    )


def interrupted() -> BaseException:
    """A process worker was killed for ``interrupt``."""
    return errors.TaskInterrupted(
        "the task was interrupted; it did not stop by itself, so its worker was replaced"
    )


def pool_broken(reason: str) -> BaseException:
    """The pool can run nothing any more."""
    return _as_broken_process_pool(errors.PoolBroken)(f"the pool is broken: {reason}")


def shut_down() -> BaseException:
    """``submit`` after ``shutdown``."""
    from treadle import strategies

    return strategies.refusal()


def no_memory(message: str) -> BaseException:
    """No shared memory for a payload or a result."""
    return errors.PayloadMemoryError(message)


def forked(message: str) -> BaseException:
    """A pool was used in a fork of the process that made it."""
    return errors.PoolBroken(message)


def not_started(message: str) -> BaseException:
    """The pool's machinery could not be started."""
    return _as_broken_process_pool(errors.PoolBroken)(message)


def unreadable_reply(what: str) -> BaseException:
    """A worker wrote bytes that are no reply."""
    return errors.PayloadError(
        f"the worker's reply could not be read: {what}\n\nhint: native code in the worker may have damaged its memory"
    )


def run_callback(future: Any, callback: Callable[[Any], Any]) -> None:
    """Runs a callback of a future that had ended already, as the standard library does."""
    try:
        callback(future)
    except Exception:
        import concurrent.futures._base

        concurrent.futures._base.LOGGER.exception("exception calling callback for %r", future)


def deliver_note(worker: int, pickled: bytes) -> None:
    """What a worker logged or warned, handed to this process's logging."""
    told = pickle.loads(pickled)
    warning = told.get("treadle_warning")
    if warning is not None:
        import warnings

        text, category, filename, lineno, line = warning
        warnings.showwarning(f"{text} (in worker {worker})", category, filename, lineno, None, line)
        return
    import logging

    record = logging.makeLogRecord(told)
    record.treadle_worker = worker
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


# ---- coroutines in threads and processes

_loops = threading.local()


def run_coroutine(coroutine: types.CoroutineType[Any, Any, Any]) -> Any:
    """Runs a coroutine to its end on this worker's own event loop."""
    loop = getattr(_loops, "loop", None)
    if loop is None:
        import asyncio

        loop = _loops.loop = asyncio.new_event_loop()
    return loop.run_until_complete(coroutine)


def close_loop() -> None:
    """Closes this thread's event loop, if it has one; not from inside a coroutine that it runs."""
    loop = getattr(_loops, "loop", None)
    if loop is None or loop.is_running():
        return
    _loops.loop = None
    import asyncio

    try:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def is_coroutine(value: Any) -> bool:
    """Whether a call returned a coroutine that has to be awaited."""
    return type(value) is types.CoroutineType


# ---- failures of the choice


def choice_failed(kind: str, message: str, hint: str | None, detail: str | None) -> BaseException:
    """A comparison that could not be made."""
    text = "\n\n".join(part for part in (message, detail, hint and f"hint: {hint}") if part)
    return errors.MeasureError(text, kind)


def record_failed(message: str, hint: str | None) -> BaseException:
    """A decision that cannot be found or read."""
    return errors.RecordError(message if hint is None else f"{message}\n\nhint: {hint}")
