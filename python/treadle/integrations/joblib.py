"""joblib's backend ``"treadle"``: ``joblib.Parallel``, and scikit-learn with it, on a pool of treadle's.

::

    import treadle.integrations.joblib

    with joblib.parallel_config(backend="treadle", n_jobs=4): …

    Parallel ─► batch ─► (processes) pickle, large arrays as mapped files ─► Executor ─► worker: batch()
                    └──► (threads) as it is

*Guarantees*: a pool that is made here is used again by the next call that wants the same, and only the last one is kept; a pool of the user's is never shut
down. A mapped file is gone when its ``Parallel`` call is over, or earlier, when its array is.
"""

from __future__ import annotations

import functools
import importlib
import io
import os
import pickle
import tempfile
import threading
import weakref
from collections.abc import Callable
from typing import Any

from treadle import _core, errors
from treadle.executor import Executor
from treadle.future import Future
from treadle.plan import Plan

try:
    # By name: whether joblib is there, and what types it has, is nothing that the checks of this package depend on.
    joblib: Any = importlib.import_module("joblib")
    _backends: Any = importlib.import_module("joblib._parallel_backends")
    _cloudpickle: Any = importlib.import_module("cloudpickle")
except ImportError as _error:
    raise ImportError(
        f"the backend for joblib needs joblib and cloudpickle, and one is not installed here ({_error})\n\n"
        "hint: pip install 'treadle[joblib]'"
    ) from _error

__all__ = ["TreadleBackend"]

#: Where mapped files live when there is room: memory that every process reads without a copy.
_MEMORY_FOLDER = "/dev/shm"


class TreadleBackend(_backends.AutoBatchingMixin, _backends.ParallelBackendBase):  # type: ignore[misc]
    """Runs joblib's batches on an executor.

    Args:
        executor: an executor of your own, of threads or processes; it is used and left as it is.
        plan: else, the plan of the pool that is made; default: as many processes as ``n_jobs`` says.
        nesting_level, inner_max_num_threads: as for every backend of joblib.

    Raises:
        PlanError: for an executor or a plan that batches cannot run on.
    """

    default_n_jobs = -1
    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    def __init__(
        self,
        executor: Executor | None = None,
        plan: Plan | None = None,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **options
        )
        if executor is not None and plan is not None:
            raise errors.PlanError("joblib: give an executor or a plan, not both")
        if executor is not None and executor._strategy.settings.max_pending:
            raise errors.PlanError(
                "joblib: this executor has max_pending, and joblib submits from where it must not wait\n\n"
                "hint: bound what is in flight with joblib's own pre_dispatch"
            )
        used = executor.plan if executor is not None else plan
        if used is not None and used.strategy not in ("threads", "processes"):
            raise errors.PlanError(
                f"joblib: batches run in threads or processes, and the plan is {used}"
            )
        if executor is not None and inner_max_num_threads is not None:
            raise errors.PlanError(
                "joblib: inner_max_num_threads is for workers that are not started yet, and this executor has its own\n\n"
                "hint: make it with native_threads=…"
            )
        self._executor = executor
        self._plan = plan
        self._pool: Executor | None = None
        self._arrays: _Arrays | None = None
        self._lock = threading.Lock()
        self._futures: set[Future] = set()
        #: Threads see the caller's memory: joblib asks for that with ``require="sharedmem"``.
        self.supports_sharedmem = used is not None and used.strategy == "threads"

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many batches run at a time."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        used = self._executor.plan if self._executor is not None else self._plan
        if used is not None:
            return used.concurrency
        if n_jobs is None:
            return 1
        if n_jobs < 0:
            return max(1, int(_core.usable_cores()) + 1 + n_jobs)
        return n_jobs

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: str | None = None,
        require: str | None = None,
        max_nbytes: int | None = 1_000_000,
        mmap_mode: str | None = "r",
        temp_folder: str | None = None,
        **_: Any,
    ) -> int:
        """Gets the pool for a ``Parallel`` object; returns how many batches run at a time."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1 and self._executor is None and self._plan is None:
            raise _backends.FallbackToBackend(
                _backends.SequentialBackend(nesting_level=self.nesting_level)
            )
        self.parallel = parallel
        if self._executor is not None:
            self._pool = self._executor
        else:
            plan = self._plan or Plan(processes=n_jobs)
            self._pool = _lend(plan, self.inner_max_num_threads)
        if self._pool.plan.strategy == "processes":
            self._arrays = _Arrays(max_nbytes, mmap_mode, temp_folder)
        return n_jobs

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> Any:
        """Schedules a batch."""
        assert self._pool is not None
        future: Future
        if self._arrays is None:
            future = self._pool.submit(func)
        else:
            try:
                batch = self._arrays.dump(func)
            except Exception as error:
                # As a future: joblib submits from a callback too, and nobody hears what is raised there.
                future = _core.pending_future()
                future._start()
                future._fail(_unpicklable(func, error))
            else:
                future = self._pool.submit(_run_batch, batch)
        with self._lock:
            self._futures.add(future)
        # The batch stays until it has run: a file lives no longer than its array.
        future.add_done_callback(functools.partial(self._forget, func))
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def _forget(self, _: object, future: Future) -> None:
        with self._lock:
            self._futures.discard(future)

    def retrieve_result_callback(self, out: Any) -> Any:
        """The results of a batch, or its exception."""
        return out.result()

    def stop_call(self) -> None:
        """One call of ``Parallel`` is over."""
        if self._arrays is not None:
            self._arrays.clear()

    def terminate(self) -> None:
        """The ``Parallel`` object is done with the pool."""
        if self._arrays is not None:
            self._arrays.clear()
            self._arrays = None
        pool, self._pool = self._pool, None
        if pool is not None and pool is not self._executor:
            _give_back(pool)
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stops the batches of this call, those that run too. The pool stays ready."""
        with self._lock:
            futures = list(self._futures)
        for future in futures:
            future.cancel()
        for future in futures:
            future.interrupt()


def _run_batch(batch: bytes) -> Any:
    """In a worker process: a batch, and what it gives."""
    return pickle.loads(batch)()


def _unpicklable(batch: Any, error: Exception) -> BaseException:
    """The error of a batch that cannot travel: the call in it that is to blame."""
    from treadle import _pickling

    for function, arguments, keywords in getattr(batch, "items", ()):
        try:
            _cloudpickle.dumps((function, arguments, keywords))
        except Exception as trouble:
            made = _pickling.explain_call(
                function, tuple(arguments), dict(keywords), trouble, have_cloudpickle=True
            )
            made.__cause__ = trouble
            return made
    return errors.PayloadError(f"joblib's batch cannot be pickled: {error}")


# ---- large arrays


class _Arrays:
    """The large arrays of a ``Parallel`` call: each is written once, and every worker maps it."""

    def __init__(self, least: int | None, mode: str | None, folder: str | None) -> None:
        self._least = least if mode is not None else None
        self._mode = {"w+": "r+"}.get(mode or "r", mode or "r")
        self._root = folder
        self._folder: str | None = None
        self._lock = threading.RLock()
        #: By the array's identity: its file, and what removes the file when the array goes.
        self._files: dict[int, tuple[str, weakref.finalize[..., Any]]] = {}

    def dump(self, batch: Any) -> bytes:
        file = io.BytesIO()
        _Pickler(file, self).dump(batch)
        return file.getvalue()

    def reduce(self, array: Any) -> Any:
        """How a worker gets the array; ``NotImplemented`` for what travels in the pickle."""
        if self._least is None or array.nbytes <= self._least or array.dtype.hasobject:
            return NotImplemented
        with self._lock:
            known = self._files.get(id(array))
            if known is None:
                known = self._write(array)
                self._files[id(array)] = known
        return _mapped, (known[0], self._mode)

    def _write(self, array: Any) -> tuple[str, weakref.finalize[..., Any]]:
        import numpy

        if self._folder is None:
            self._folder = tempfile.mkdtemp(
                prefix=f"treadle-joblib-{os.getpid()}-", dir=self._root or _room_for(array.nbytes)
            )
        handle, path = tempfile.mkstemp(suffix=".npy", dir=self._folder)
        with os.fdopen(handle, "wb") as file:
            numpy.save(file, array, allow_pickle=False)
        return path, weakref.finalize(array, self._remove, id(array), path)

    def _remove(self, identity: int, path: str) -> None:
        with self._lock:
            self._files.pop(identity, None)
        try:
            os.unlink(path)
        except OSError:
            # Removed already, with its folder.
            pass

    def clear(self) -> None:
        """Removes the files. What workers have mapped stays theirs."""
        with self._lock:
            files, self._files = self._files, {}
            folder, self._folder = self._folder, None
        for _, remove in files.values():
            remove()
        if folder is not None:
            try:
                os.rmdir(folder)
            except OSError:
                # A file of the user's stands in it, or it is gone.
                pass


def _room_for(size: int) -> str | None:
    """The folder in memory if it has twice the room, else the system's for temporary files."""
    try:
        free = os.statvfs(_MEMORY_FOLDER)
    except OSError:
        return None
    return _MEMORY_FOLDER if free.f_bavail * free.f_frsize > 2 * size else None


def _mapped(path: str, mode: Any) -> Any:
    """In a worker process: a large array of the caller's."""
    import numpy

    return numpy.load(path, mmap_mode=mode)


class _Pickler(_cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, with large arrays as files."""

    def __init__(self, file: io.BytesIO, arrays: _Arrays) -> None:
        super().__init__(file, protocol=5)
        self._reduce_array = arrays.reduce

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if kind.__module__ == "numpy" and kind.__name__ in ("ndarray", "memmap"):
            return self._reduce_array(value)
        return super().reducer_override(value)


# ---- pools made here

_lending = threading.Lock()
#: The pools by what was asked for, and how many use each; the last one asked for stays when nobody does.
_pools: dict[tuple[Plan, int | None], list[Any]] = {}
_process = os.getpid()


def _lend(plan: Plan, native_threads: int | None) -> Executor:
    """A pool of this plan: the one that is there, or a new one."""
    global _process
    with _lending:
        if _process != os.getpid():
            # A forked child has none of its parent's workers.
            _pools.clear()
            _process = os.getpid()
        key = (plan, native_threads)
        entry = _pools.pop(key, None)
        if entry is not None and entry[0]._strategy.broken():
            entry = None
        if entry is None:
            # Threads share the libraries of this process, whose limits are the program's.
            limit = native_threads if plan.strategy == "processes" else None
            entry = [Executor(plan, name="joblib", native_threads=limit), 0]
        entry[1] += 1
        _pools[key] = entry
        _shut_idle(spare=key)
        pool: Executor = entry[0]
        return pool


def _give_back(pool: Executor) -> None:
    with _lending:
        for entry in _pools.values():
            if entry[0] is pool:
                entry[1] -= 1
        _shut_idle(spare=next(reversed(_pools), None))


def _shut_idle(spare: Any) -> None:
    for key, (pool, users) in list(_pools.items()):
        if users == 0 and key != spare:
            del _pools[key]
            pool.shutdown(wait=False)


joblib.register_parallel_backend("treadle", TreadleBackend)
