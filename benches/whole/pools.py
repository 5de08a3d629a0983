"""The contenders: each pool behind one small interface, with no more of its own than a loop."""

from __future__ import annotations

import concurrent.futures
import importlib
import importlib.metadata
import multiprocessing
import multiprocessing.pool
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Function = Callable[[Any], Any]


class Pool(ABC):
    """A pool of workers, warm after its first results."""

    @abstractmethod
    def submit_all(self, function: Function, arguments: Sequence[Any]) -> list[Any]:
        """Submits a task for each argument and gives the handles."""

    @abstractmethod
    def collect(self, handles: list[Any]) -> list[Any]:
        """The results of the handles, in order."""

    @abstractmethod
    def call(self, function: Function, argument: Any) -> Any:
        """One task, waited for."""

    @abstractmethod
    def map(self, function: Function, arguments: Sequence[Any], chunk: int | None = None) -> list:
        """The results of a task for each argument; a `chunk` of None is the pool's own default."""

    @abstractmethod
    def close(self) -> None:
        """Ends the workers."""


class Futures(Pool):
    """Whatever has the interface of `concurrent.futures.Executor`."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor

    def submit_all(self, function: Function, arguments: Sequence[Any]) -> list[Any]:
        submit = self.executor.submit
        return [submit(function, argument) for argument in arguments]

    def collect(self, handles: list[Any]) -> list[Any]:
        return [handle.result() for handle in handles]

    def call(self, function: Function, argument: Any) -> Any:
        return self.executor.submit(function, argument).result()

    def map(self, function: Function, arguments: Sequence[Any], chunk: int | None = None) -> list:
        if chunk is None:
            return list(self.executor.map(function, arguments))
        return list(self.executor.map(function, arguments, chunksize=chunk))

    def close(self) -> None:
        self.executor.shutdown()


class Multiprocessing(Pool):
    """`multiprocessing.Pool` and `multiprocessing.pool.ThreadPool`."""

    def __init__(self, pool: multiprocessing.pool.Pool) -> None:
        self.pool = pool

    def submit_all(self, function: Function, arguments: Sequence[Any]) -> list[Any]:
        submit = self.pool.apply_async
        return [submit(function, (argument,)) for argument in arguments]

    def collect(self, handles: list[Any]) -> list[Any]:
        return [handle.get() for handle in handles]

    def call(self, function: Function, argument: Any) -> Any:
        return self.pool.apply(function, (argument,))

    def map(self, function: Function, arguments: Sequence[Any], chunk: int | None = None) -> list:
        return self.pool.map(function, arguments, chunksize=chunk)

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


class Mpire(Multiprocessing):
    """`mpire.WorkerPool`, kept alive between calls."""

    def map(self, function: Function, arguments: Sequence[Any], chunk: int | None = None) -> list:
        return self.pool.map(function, arguments, chunk_size=chunk)

    def close(self) -> None:
        self.pool.stop_and_join()


class Pebble(Pool):
    """`pebble.ProcessPool`, whose futures are those of `concurrent.futures`."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def submit_all(self, function: Function, arguments: Sequence[Any]) -> list[Any]:
        submit = self.pool.schedule
        return [submit(function, args=(argument,)) for argument in arguments]

    def collect(self, handles: list[Any]) -> list[Any]:
        return [handle.result() for handle in handles]

    def call(self, function: Function, argument: Any) -> Any:
        return self.pool.schedule(function, args=(argument,)).result()

    def map(self, function: Function, arguments: Sequence[Any], chunk: int | None = None) -> list:
        return list(self.pool.map(function, arguments, chunksize=chunk or 1).result())

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


def _forkserver() -> Any:
    return multiprocessing.get_context("forkserver")


def _loky(workers: int) -> Pool:
    return Futures(importlib.import_module("loky").ProcessPoolExecutor(workers))


def _mpire(workers: int) -> Pool:
    pool = importlib.import_module("mpire").WorkerPool(
        n_jobs=workers, start_method="forkserver", keep_alive=True
    )
    return Mpire(pool)


def _pebble(workers: int) -> Pool:
    pool = importlib.import_module("pebble").ProcessPool(max_workers=workers, context=_forkserver())
    return Pebble(pool)


def _treadle(workers: int) -> Pool:
    return Futures(importlib.import_module("treadle").Executor(processes=workers))


def _treadle_threads(workers: int) -> Pool:
    return Futures(importlib.import_module("treadle").Executor(threads=workers))


PROCESSES: dict[str, Callable[[int], Pool]] = {
    "treadle": _treadle,
    "ProcessPoolExecutor": lambda workers: Futures(
        concurrent.futures.ProcessPoolExecutor(workers, mp_context=_forkserver())
    ),
    "multiprocessing.Pool": lambda workers: Multiprocessing(_forkserver().Pool(workers)),
    "loky": _loky,
    "mpire": _mpire,
    "pebble": _pebble,
}
"""Pools of worker processes, by name; every one that can starts its workers from a forkserver."""

THREADS: dict[str, Callable[[int], Pool]] = {
    "treadle": _treadle_threads,
    "ThreadPoolExecutor": lambda workers: Futures(concurrent.futures.ThreadPoolExecutor(workers)),
    "multiprocessing.ThreadPool": lambda workers: Multiprocessing(
        multiprocessing.pool.ThreadPool(workers)
    ),
}
"""Pools of worker threads, by name."""

PACKAGES = ("treadle", "loky", "mpire", "pebble", "numpy", "cloudpickle")


def versions() -> dict[str, str | None]:
    """The version of each package that takes part; None where it is not installed."""
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


@contextmanager
def opened(makers: dict[str, Callable[[int], Pool]], name: str, workers: int) -> Iterator[Pool]:
    """The pool called `name`, closed afterwards."""
    pool = makers[name](workers)
    try:
        yield pool
    finally:
        pool.close()
