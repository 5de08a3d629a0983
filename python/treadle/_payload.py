"""How a call becomes bytes, and what is said when it cannot; the parts that must be Python.

The engine calls these by name, in the parent; what a worker says is in :mod:`treadle._outcome`. What every task needs is in the engine; here is what is
rare: functions seen for the first time, failures.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import Any

from treadle import _core, errors
from treadle._outcome import BY_VALUE_HINT, as_broken_process_pool

# ---- functions and calls


def main_can_be_imported() -> bool:
    """Whether a worker can import this program's main module (not so in a session of commands, a notebook, ``-c``)."""
    main = sys.modules.get("__main__")
    return main is not None and (
        getattr(main, "__spec__", None) is not None or getattr(main, "__file__", None) is not None
    )


def _was_typed_in(function: Any) -> bool:
    """Whether a function of the main module came from a prompt or a notebook's cell, although that module has a file."""
    for _ in range(100):
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is None:
            break
        function = wrapped
    name = getattr(getattr(function, "__code__", None), "co_filename", "")
    # "<stdin>", "<python-input-3>", "<ipython-input-3-…>"; a notebook's kernel names a file that is not there.
    return isinstance(name, str) and (name.startswith("<") or "ipykernel_" in name)


def look_at_main() -> None:
    """Tells the engine whether what the main module defines must travel by value. Asked where a pool or a new function is seen."""
    if not main_can_be_imported():
        _send_main_by_value()


#: Whether what the main module defines must travel by value.
main_by_value = False


def _send_main_by_value() -> None:
    global main_by_value
    main_by_value = True
    _core.send_main_by_value(True)


class _OnlyByValue(pickle.PicklingError):
    """A pickle names something of a main module that no worker can import."""


def only_by_value() -> BaseException:
    """The error of a pickle that no worker could read; a call is pickled again by value, where that can be done."""
    return _OnlyByValue(
        "it uses what was defined at a prompt, in a notebook or with -c, where no worker can import it from\n\n"
        "hint: put that into a module and import it from there"
    )


def by_reference(function: Callable[..., Any]) -> tuple[bytes, str] | None:
    """The pickle and the name of a function that a worker can import; None for any other."""
    name = getattr(function, "__qualname__", None)
    module = getattr(function, "__module__", None)
    if not isinstance(name, str) or (module is not None and not isinstance(module, str)):
        return None
    if module == "__main__":
        look_at_main()
        if not main_can_be_imported():
            return None
        if _was_typed_in(function):
            _send_main_by_value()
            return None
    if "<lambda>" in name or "<locals>" in name:
        return None
    try:
        return pickle.dumps(function, 5), f"{module}.{name}"
    except Exception:
        return None


def name_of(function: Any) -> str:
    """What a function is called in an error: its module and qualified name, or those of what it calls."""
    for _ in range(8):
        inner = getattr(function, "func", None)
        if not callable(inner) or getattr(function, "__qualname__", None) is not None:
            break
        function = inner
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        function = type(function)
        name = function.__qualname__
    module = getattr(function, "__module__", None)
    return f"{module}.{name}" if isinstance(module, str) else name


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
    reduced = None if isinstance(error, _OnlyByValue) else _dump_with_multiprocessing(whole)
    if reduced is not None:
        return reduced
    return dump_by_value(whole, error, function, arguments, keywords)


def dump_by_value(
    whole: Any,
    error: BaseException,
    function: Any,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
) -> bytes:
    """A call or a chunk that pickle refused with this error, by cloudpickle if that is installed; else raises the error that explains."""
    by_name = not isinstance(error, _OnlyByValue)
    try:
        import cloudpickle
    except ImportError:
        cloudpickle = None
    if cloudpickle is not None:
        try:
            by_value: bytes = cloudpickle.dumps(whole, 5)
            return by_value
        except errors.PayloadError as second:
            # An executor or a future in a closure: it says itself why it cannot travel.
            raise errors.PayloadError(
                f"the call of {name_of(function)} cannot be sent to a worker: {second}"
            ) from second
        except Exception as second:
            error = second
    elif not by_name:
        raise errors.PayloadError(
            f"the call of {name_of(function)} cannot be sent to a worker: it uses what was defined at a prompt, in a notebook or with -c, "
            f"where no worker can import it from\n\nhint: {BY_VALUE_HINT}, or put the definitions into a module"
        )
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


# ---- results


class Chunk:
    """What a chunk brought: the results of its items in order, up to one that failed.

    ``seconds`` that it took, None when it did not come to its end; ``exception`` of the item after the last result, or None.
    """

    __slots__ = ("exception", "results", "seconds")

    def __init__(
        self, seconds: float | None, results: list[Any], exception: BaseException | None
    ) -> None:
        self.seconds = seconds
        self.results = results
        self.exception = exception


def unpicklable_value(value: Any, error: BaseException) -> BaseException:
    """The error of a value that cannot be shared."""
    from treadle import _pickling

    problem = _pickling.find_problem(value, "value")
    text = f"the value cannot be shared: {problem.sentence() if problem else error}"
    return errors.PayloadError(text if problem is None else f"{text}\n\nhint: {problem.hint}")


# ---- failures that the engine reports


def worker_died(
    worker: int, pid: int, ending: str, deaths: int, task: int, function: str
) -> BaseException:
    """One worker died while it ran the task."""
    return as_broken_process_pool(errors.WorkerDied)(worker, pid, ending, deaths, task, function)


#: Where a task ran: worker, process, which submission of its pool it is, its function.
Place = tuple[int, int, int, str]


def _place(error: errors.TaskTimeout | errors.TaskInterrupted, place: Place) -> BaseException:
    error.worker, error.pid, error.task, error.function = place
    return error


#: What became of a call that was to stop, and is told of its worker.
_AFTER = {
    "stopped": "and stopped when it was asked to (in worker pid {pid})",
    "replaced": "its worker (pid {pid}) was replaced",
    "runs on": "it did not stop when it was asked to and runs on until the other calls of its worker (pid {pid}) have ended, which is then replaced",
}


def timed_out(seconds: float, place: Place, after: str) -> BaseException:
    """A task of a process was over its time; ``after``: what became of the call, a key of ``_AFTER``."""
    _, pid, task, function = place
    what = _AFTER[after].format(pid=pid)
    joint = " " if after == "stopped" else "; "
    text = f"task {task} ({function}) ran longer than its timeout of {seconds:g} s{joint}{what}"
    return _place(errors.TaskTimeout(text), place)


def thread_timed_out(seconds: float, thread: int, function: Any) -> BaseException:
    """A task of a thread, or of the sub-interpreter that a thread runs, is over its time."""
    place = getattr(function, "runs_in", "a thread")
    return errors.TaskTimeout(
        f"the task ({name_of(function)}) ran longer than its timeout of {seconds:g} s; {place} cannot be stopped, so it runs on (thread {thread}) and "
        "another takes its place\n\nhint: give the call itself a time-out, or use processes, which can be stopped"
    )


def interrupted(place: Place, after: str) -> BaseException:
    """A task of a process was interrupted, and the exception in its worker did not stop it; ``after`` as for :func:`timed_out`."""
    _, pid, task, function = place
    what = _AFTER[after].format(pid=pid)
    text = f"task {task} ({function}) was interrupted; "
    text += what if after == "runs on" else f"it did not stop by itself, so {what}"
    return _place(errors.TaskInterrupted(text), place)


def name_interrupted(error: BaseException, place: Place) -> None:
    """Says in an interruption that a worker raised which task it ended: the worker does not know."""
    if isinstance(error, errors.TaskInterrupted):
        _, pid, task, function = place
        error.args = (f"task {task} ({function}) was interrupted in its worker (pid {pid})",)
        _place(error, place)


def pool_broken(reason: str) -> BaseException:
    """The pool can run nothing any more."""
    return as_broken_process_pool(errors.PoolBroken)(f"the pool is broken: {reason}")


def shut_down() -> BaseException:
    """``submit`` after ``shutdown``."""
    from treadle import strategies

    return strategies.refusal()


def forked(message: str) -> BaseException:
    """A pool was used in a fork of the process that made it."""
    return errors.PoolBroken(message)


def not_started(message: str) -> BaseException:
    """The pool's machinery could not be started."""
    return as_broken_process_pool(errors.PoolBroken)(message)


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


def deliver_note(worker: int, task: int, pickled: bytes) -> None:
    """What a worker logged or warned while it had this task in hand (0: none), handed to this process's logging."""
    told = pickle.loads(pickled)
    warning = told.get("treadle_warning")
    if warning is not None:
        import warnings

        text, category, filename, lineno, line = warning
        where = f"in worker {worker}, task {task}" if task else f"in worker {worker}"
        warnings.showwarning(f"{text} ({where})", category, filename, lineno, None, line)
        return
    import logging

    record = logging.makeLogRecord(told)
    record.treadle_worker = worker
    record.treadle_task = task
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


# ---- failures of the choice


def choice_failed(kind: str, message: str, hint: str | None, detail: str | None) -> BaseException:
    """A comparison that could not be made."""
    text = "\n\n".join(part for part in (message, detail, hint and f"hint: {hint}") if part)
    return errors.MeasureError(text, kind)


def record_failed(message: str, hint: str | None) -> BaseException:
    """A decision that cannot be found or read."""
    return errors.RecordError(message if hint is None else f"{message}\n\nhint: {hint}")
