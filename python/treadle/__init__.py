"""Threads, processes, asyncio or a mix: measured, decided, run and watched.

The map of the package::

    errors       every error, the hierarchy drawn at the top
    plan         Plan: a strategy and its sizes, as data
    executor     Executor: one concurrent.futures.Executor for every plan
    future       Future: concurrent.futures.Future, and interrupt()
    mapping      Executor.map: lazy, bounded, chunked by measurement
    awaiting, awaiting_in_trio
                 Executor.asubmit and amap: futures on an event loop
    progress     what map(progress=True) shows
    strategies/  one file for each way to run tasks, over one contract
    _payload     how a call becomes bytes, and what is said when it cannot
    _outcome     what a task brought, as bytes: its result or its exception
    _worker/     all that runs in a child: the zygote and the worker's main
    _coroutine   an event loop of a worker's own
    _subinterpreter
                 what runs in sub-interpreters, where the engine cannot be loaded: pure Python, as are the two above
    serving, metrics
                 the numbers of all pools, for Prometheus
    _watching    what `treadle top` and `treadle dump` see of this program
    holding      which threads held the interpreter lock, while somebody asks
    measuring, comparing, record, checking
                 thin faces over the choice: profile, race, decision, check
    integrations/ other programs' ways in: the pytest plug-in
    _laboratory/ the process in which a function is measured
    _core        the engine, in Rust
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from treadle import errors
    from treadle._core import usable_cores
    from treadle.checking import Check, check
    from treadle.comparing import Comparison, compare
    from treadle.errors import (
        EngineLostTask,
        MeasureError,
        PayloadError,
        PayloadMemoryError,
        PlanError,
        PoolBroken,
        PoolShutDown,
        RecordError,
        RemoteTraceback,
        ServingError,
        TaskInterrupted,
        TaskTimeout,
        TreadleError,
        WorkerDied,
    )
    from treadle.executor import Executor, ProcessPoolExecutor, ThreadPoolExecutor
    from treadle.future import Future
    from treadle.measuring import Profile, measure
    from treadle.plan import Plan
    from treadle.serving import MetricsServer, serve_metrics

__all__ = [
    "Check",
    "Comparison",
    "EngineLostTask",
    "Executor",
    "Future",
    "MeasureError",
    "MetricsServer",
    "PayloadError",
    "PayloadMemoryError",
    "Plan",
    "PlanError",
    "PoolBroken",
    "PoolShutDown",
    "ProcessPoolExecutor",
    "Profile",
    "RecordError",
    "RemoteTraceback",
    "ServingError",
    "TaskInterrupted",
    "TaskTimeout",
    "ThreadPoolExecutor",
    "TreadleError",
    "WorkerDied",
    "check",
    "compare",
    "errors",
    "measure",
    "serve_metrics",
    "usable_cores",
]

# Loaded on first use. A worker needs little of the package: what it does not import is memory that no worker has, and
# a program that only runs tasks does not pay for the choice.
_LATER = {
    "Check": "checking",
    "check": "checking",
    "Comparison": "comparing",
    "compare": "comparing",
    "Executor": "executor",
    "ProcessPoolExecutor": "executor",
    "ThreadPoolExecutor": "executor",
    "Future": "future",
    "Profile": "measuring",
    "measure": "measuring",
    "Plan": "plan",
    "MetricsServer": "serving",
    "serve_metrics": "serving",
    "usable_cores": "_core",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'treadle' has no attribute {name!r}")
    import sys

    # Whatever is not named above is an error.
    module = f"treadle.{_LATER.get(name, 'errors')}"
    __import__(module)
    if name == "errors":
        return sys.modules[module]
    value = globals()[name] = getattr(sys.modules[module], name)
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
