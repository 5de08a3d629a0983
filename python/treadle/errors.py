"""Every error that treadle raises.

::

    TreadleError
    ├── PlanError          ValueError                 a plan or an option that cannot be
    ├── PoolShutDown       RuntimeError               submit after shutdown
    ├── PoolBroken         BrokenExecutor             the pool can run nothing any more
    ├── WorkerDied         BrokenExecutor             one worker died; only its task fails
    │   └── EngineLostTask                            Dask or Ray lost the task
    ├── TaskTimeout        TimeoutError               the task ran longer than its timeout
    ├── TaskInterrupted    CancelledError             future.interrupt() stopped the task
    ├── PayloadError       pickle.PicklingError       an argument or result cannot travel
    ├── PayloadMemoryError MemoryError                no shared memory for a payload
    ├── MeasureError       RuntimeError               a function could not be measured
    ├── RecordError        ValueError                 a decision cannot be read
    └── ServingError       OSError                    metrics cannot be served there

Each also derives from the class on its right, which programs catch already. A task's own exception arrives as itself.

A worker whose program has not imported ``concurrent.futures`` does not load it for this: there, the classes have what stands in for its errors until
it is imported.

What a pool raises where the standard library's raises ``BrokenProcessPool``, ``BrokenThreadPool`` or ``BrokenInterpreterPool`` is an instance of that too: a
pool that broke, a worker that died, a call or a result that could not be rebuilt on the other side (:func:`as_standard`).
"""

from __future__ import annotations

import sys
from _pickle import PicklingError

from treadle import _worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "EngineLostTask",
    "MeasureError",
    "PayloadError",
    "PayloadMemoryError",
    "PlanError",
    "PoolBroken",
    "PoolShutDown",
    "RecordError",
    "RemoteTraceback",
    "ServingError",
    "TaskInterrupted",
    "TaskTimeout",
    "TreadleError",
    "WorkerDied",
]


if TYPE_CHECKING or not _worker.child or "concurrent.futures" in sys.modules:
    from concurrent.futures import BrokenExecutor as _BrokenExecutor
    from concurrent.futures import CancelledError as _CancelledError
    from concurrent.futures import TimeoutError as _FuturesTimeout
else:

    class _BrokenExecutor(RuntimeError):
        """Stands in for the error of this name, which nobody can catch that has not imported it."""

    class _CancelledError(Exception):
        """The same."""

    if sys.version_info >= (3, 11):
        _FuturesTimeout = TimeoutError
    else:

        class _FuturesTimeout(Exception):
            """The same."""


# concurrent.futures has its own TimeoutError up to Python 3.10; from 3.11 it is the built-in one.
_BUILT_IN_TIMEOUT = () if sys.version_info >= (3, 11) else (TimeoutError,)


class TreadleError(Exception):
    """The base of every error of treadle."""


class PlanError(TreadleError, ValueError):
    """A plan, or an option of an executor, that cannot be; the message says what can."""


class PoolShutDown(TreadleError, RuntimeError):
    """A call was submitted after ``shutdown``."""


class PoolBroken(TreadleError, _BrokenExecutor):
    """The pool can run nothing any more: its initializer failed, or its workers died one after another."""


class WorkerDied(TreadleError, _BrokenExecutor):
    """The worker process that ran this task died. The pool goes on; only this task has failed.

    Attributes: ``worker`` (its number in the pool), ``pid``, ``ending`` (exit code or signal, in words),
    ``deaths`` (how many workers this task has killed), ``task`` (which submission to its pool it is, counted from 1),
    ``function`` (its module and qualified name).
    """

    def __init__(
        self, worker: int, pid: int, ending: str, deaths: int, task: int, function: str
    ) -> None:
        super().__init__(worker, pid, ending, deaths, task, function)
        self.worker = worker
        self.pid = pid
        self.ending = ending
        self.deaths = deaths
        self.task = task
        self.function = function

    def __str__(self) -> str:
        text = f"worker {self.worker} (pid {self.pid}) {self.ending} while it ran task {self.task} ({self.function})"
        if self.deaths > 1:
            text += f"; the task has now killed {self.deaths} workers"
        if "SIGKILL" in self.ending:
            text += "\n\nhint: if nobody killed it, the kernel's out-of-memory killer may have (see dmesg)"
        return text


class EngineLostTask(WorkerDied):
    """Dask or Ray lost the task: its worker died more often than the engine allows, or the engine dropped it. Only this task has failed.

    Attributes: ``engine``, ``ending`` (what the engine says) and ``function``; ``worker``, ``pid`` and ``task`` are 0, for an engine does not tell them.
    """

    def __init__(self, engine: str, ending: str, function: str) -> None:
        super().__init__(0, 0, ending, 1, 0, function)
        self.args = (engine, ending, function)
        self.engine = engine

    def __str__(self) -> str:
        return f"{self.engine} lost the task ({self.function}): {self.ending}"


class TaskTimeout(TreadleError, _FuturesTimeout, *_BUILT_IN_TIMEOUT):  # type: ignore[misc]
    """The task ran longer than its ``timeout``.

    A process that runs one task at a time was replaced; one that runs several has raised an exception in the task, and is replaced if that did not
    help, when its other tasks have ended; a thread of this process cannot be stopped and runs on. For a task of a process: ``worker``, ``pid``, ``task`` and ``function``
    as in :class:`WorkerDied`, else ``None``.
    """

    worker: int | None = None
    pid: int | None = None
    task: int | None = None
    function: str | None = None


class TaskInterrupted(TreadleError, _CancelledError):
    """``future.interrupt()`` stopped the task while it ran.

    For a task of a process: ``worker``, ``pid``, ``task`` and ``function`` as in :class:`WorkerDied`, else ``None``.
    """

    worker: int | None = None
    pid: int | None = None
    task: int | None = None
    function: str | None = None


class PayloadError(TreadleError, PicklingError):
    """A function, an argument or a result cannot travel between processes; the message names the part that cannot."""


class PayloadMemoryError(TreadleError, MemoryError):
    """No shared memory could be had for a payload."""


class MeasureError(TreadleError, RuntimeError):
    """A function could not be measured on its inputs. ``kind`` is a word for the reason."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class RecordError(TreadleError, ValueError):
    """A recorded decision cannot be found or read; the message names the file and the way out."""


class ServingError(TreadleError, OSError):
    """Metrics cannot be served at this address; ``errno`` says why, and the message the way out."""

    def __str__(self) -> str:
        return str(self.strerror)


_standard: dict[tuple[str, str], type[TreadleError]] = {}


def as_standard(kind: type[TreadleError], module: str, name: str) -> type[TreadleError]:
    """The class of errors of this kind that are also the standard library's own: ``name`` in ``concurrent.futures.<module>``.

    It is made for the first such error: importing the standard library's pool of processes takes longer than importing treadle. While the interpreter is
    being finalised nothing can be imported any more, and the class is ``kind`` itself.
    """
    made = _standard.get((kind.__name__, name))
    if made is not None:
        return made
    try:
        import importlib

        standard = getattr(importlib.import_module(f"concurrent.futures.{module}"), name)
    except Exception:
        return kind
    members = {
        "__module__": kind.__module__,
        "__doc__": kind.__doc__,
        "__reduce__": lambda error: (_rebuild, (kind, module, name, error.args, vars(error))),
    }
    return _standard.setdefault(
        (kind.__name__, name), type(kind.__name__, (kind, standard), members)
    )


def _rebuild(
    kind: type[TreadleError], module: str, name: str, args: tuple[Any, ...], state: dict[str, Any]
) -> TreadleError:
    """An error of :func:`as_standard` from its pickle."""
    error = as_standard(kind, module, name)(*args)
    vars(error).update(state)
    return error


class RemoteTraceback(Exception):
    """The worker's traceback, as the cause of an exception that a task raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return self.text


def _derive_from(futures: Any) -> None:
    """Gives the classes the errors of ``concurrent.futures`` in the place of what stood in for them."""
    theirs: dict[Any, type] = {
        _BrokenExecutor: futures.BrokenExecutor,
        _CancelledError: futures.CancelledError,
        _FuturesTimeout: futures.TimeoutError,
    }
    for error in (PoolBroken, WorkerDied, TaskTimeout, TaskInterrupted):
        error.__bases__ = tuple(theirs.get(base, base) for base in error.__bases__)


if _BrokenExecutor.__module__ == __name__:
    from treadle._worker import importing

    importing.prepare("concurrent.futures", _derive_from)
