"""Worker processes over the shared-memory engine.

::

    this process                                              zygote            worker
    submit ─► payload ─► slot ───────────────────────────────────────────────► claim ─► call
    result() ◄─ record ◄─ ring ◄──────────────────────────────────────────────── reply
    supervisor ── spawn ──────────────────────────────────────► fork ─────────►
               ◄─ exited ──────────────────────────────────────

The zygote is an interpreter with one thread that has imported the main module; workers are forks of it. ``spawn`` makes each worker
a fresh interpreter instead.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from treadle import _core, _payload, _worker, errors, strategies
from treadle._usage import usage
from treadle._worker import inheritance
from treadle.future import Future
from treadle.plan import Plan
from treadle.strategies import (
    FunctionStats,
    Histogram,
    Settings,
    Stats,
    Strategy,
    TaskOptions,
    Transfer,
    WorkerStats,
    by_function,
)

#: Variables that native libraries read when they are loaded, to size their own pools of threads.
_NATIVE_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
)

#: What runs in a fresh interpreter before anything of ours can be imported: it finds our package where this process finds it.
_BOOT = "import sys; sys.path[:] = sys.argv[1:]; from treadle._worker.zygote import main; main()"

#: Descriptors that an initializer may take along: what fits into one message beside a worker's own four (``zygote.rs``).
MOST_INHERITED = 60

#: Payloads in flight may take this share of the memory that is free when the pool is made; beyond it, submit waits.
_PAYLOAD_SHARE = 0.25


class Processes(Strategy):
    """A pool of worker processes."""

    has_chunks = True

    #: What the numbers of the pool call it.
    engine = "processes over shared memory"

    #: Raises for a function that the plan cannot run.
    _admit: Callable[[Any], object] | None = None

    def __init__(self, plan: Plan, settings: Settings) -> None:
        _refuse_while_main_is_imported()
        # Workers know the main module by this name, and so do the classes in their results.
        if "__main__" in sys.modules:
            sys.modules.setdefault("__mp_main__", sys.modules["__main__"])
        super().__init__(plan, settings)
        _payload.look_at_main()
        workers = plan.processes or 1
        spawn = _start_method(settings.mp_context) == "spawn"
        initializer: bytes | None = None
        inherited: list[int] = []
        if settings.initializer is not None:
            initializer, inherited = _initializer_bytes(settings.initializer, settings.initargs)
        self._payload_limit = _payload_limit()
        environment, native_threads = _native_environment(workers, settings.native_threads)
        self._pool = _core.ProcessPool(
            workers=workers,
            threads=plan.threads or 0,
            coroutines=plan.coroutines or 0,
            admit=self._admit,
            program=sys.executable,
            arguments=[*_interpreter_flags(), "-c", _BOOT, *sys.path],
            environment=environment,
            preparation=_preparation(spawn),
            worker_fields=[
                str(self._payload_limit).encode(),
                str(settings.max_tasks_per_child or 0).encode(),
                str(settings.max_memory_per_child or 0).encode(),
                settings.name.encode(),
                str(_root_level()).encode(),
                str(max(1.0, _core.usable_cores() / workers)).encode(),
                str(native_threads).encode(),
                str(workers).encode(),
                str(plan.threads or 0).encode(),
                str(plan.coroutines or 0).encode(),
            ],
            initializer=initializer,
            # The objects that own these may be gone when a worker is replaced.
            inherited=[os.dup(descriptor) for descriptor in inherited],
            payload_limit=self._payload_limit,
            max_pending=settings.max_pending,
            metered=strategies.metered,
        )

    def submit(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: TaskOptions,
    ) -> Future:
        future: Future = self._pool.submit(
            function, arguments, keywords, options.timeout, options.retries
        )
        return future

    def native(self) -> tuple[Any, Callable[[int, bool], object] | None]:
        return self._pool, None

    def submit_chunk(
        self, function: Callable[..., Any], items: list[Any], single: bool, options: TaskOptions
    ) -> Future:
        future: Future = self._pool.submit_chunk(
            function, items, single, options.timeout, options.retries
        )
        return future

    def split_chunk(self, future: Future) -> int | None:
        return self._pool.split_chunk(future)

    def share(self, value: Any) -> Any:
        from treadle.sharing import Shared

        try:
            blocks = self._pool.share(value)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise _payload.unpicklable_value(value, error) from error
        return Shared(self._pool, blocks)

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        if cancel_futures:
            self._pool.cancel_all(spare_starting=True)
        self._pool.begin_shutdown()
        if wait:
            self._pool.wait_for_end()

    def abandon(self) -> None:
        self._pool.begin_shutdown()

    def stop_now(self) -> None:
        self._pool.cancel_all()
        self._pool.break_down("the program was interrupted (Ctrl-C)")

    def end_workers(self, force: bool) -> None:
        how = "killed" if force else "terminated"
        self._pool.begin_shutdown()
        self._pool.signal_workers(force)
        self._pool.break_down(f"its workers were {how} by this program")

    def broken(self) -> str:
        return self._pool.broken() or ""

    def live(self) -> Any:
        return self._pool

    def stats(self) -> Stats:
        now = self._pool.snapshot()
        arguments, results = Transfer.of(now["arguments"]), Transfer.of(now["results"])
        wait, duration, turnaround = map(Histogram.of, now["times"])
        return Stats(
            self.plan,
            self.engine,
            submitted=now["submitted"],
            completed=now["answered"],
            cancelled=now["cancelled"],
            lost=now["lost"],
            retried=now["retried"],
            timed_out=now["timed_out"],
            running=now["running"],
            queued=now["queued"],
            worker_deaths=now["worker_deaths"],
            payload_bytes=now["payload_bytes"],
            workers=tuple(_worker_stats(one) for one in now["workers"]),
            oldest_s=now["oldest_s"],
            limit=self.settings.max_pending,
            wait=wait,
            duration=duration,
            turnaround=turnaround,
            functions=by_function(
                [FunctionStats(name, *map(Histogram.of, times)) for name, times in now["functions"]]
            ),
            arguments=arguments,
            results=results,
            overhead_s=_overhead_s(now["submitted"], now["answered"], arguments, results),
        )

    def dump(self) -> str:
        text: str = self._pool.dump()
        return text


def _overhead_s(
    submitted: int, answered: int, arguments: Transfer, results: Transfer
) -> float | None:
    """What the meters have cost in this process: for a call a look at the clock and two additions, for an answer four additions; for each payload
    that is timed one look more on its way out, two on its way back, and an addition."""
    if not strategies.metered:
        return None
    sent, rebuilt = sum(arguments.time.counts), sum(results.time.counts)
    beside = sum(arguments.out_of_band.counts) + sum(results.out_of_band.counts)
    return _core.meter_cost(1, 0) * (submitted + sent + 2 * rebuilt) + _core.meter_cost(0, 1) * (
        submitted + 4 * answered + sent + rebuilt + beside
    )


def _refuse_while_main_is_imported() -> None:
    if _worker.importing_main:
        raise RuntimeError(
            "an executor of processes was made while the main module was being imported in a worker's zygote\n\n"
            "hint: the main module is imported once more for the workers, so what it does at its top level happens again there; "
            "put what starts the program under\n\n    if __name__ == '__main__':\n        main()"
        )


def _start_method(context: Any) -> str:
    if context is None:
        return "forkserver"
    method = context if isinstance(context, str) else context.get_start_method()
    if method in ("forkserver", "spawn"):
        return str(method)
    raise errors.PlanError(
        f"mp_context {method!r} is not offered: a fork of this process would copy its threads' locks and half-done work\n\n"
        "hint: use 'forkserver' (the default, a zygote of our own, as fast as fork) or 'spawn'"
    )


def _initializer_bytes(
    initializer: Callable[..., object], initargs: tuple[Any, ...]
) -> tuple[bytes, list[int]]:
    """The pickled initializer, and the descriptors that its arguments stand for."""
    try:
        bytes_, descriptors = inheritance.dump((initializer, initargs))
        # Asked for what it learns of the main module.
        _payload.by_reference(initializer)
        if _payload.main_by_value and b"__main__" in bytes_:
            raise _payload.only_by_value()
    except Exception as error:
        return _payload.dump_call_otherwise(initializer, initargs, {}, error), []
    if len(descriptors) > MOST_INHERITED:
        raise errors.PlanError(
            f"the initializer's arguments hold {len(descriptors)} descriptors (queues, pipes, sockets); {MOST_INHERITED} is the most"
        )
    return bytes_, descriptors


def _payload_limit() -> int:
    return max(64 << 20, int(_core.available_memory() * _PAYLOAD_SHARE))


def _root_level() -> int:
    logging = sys.modules.get("logging")
    return logging.getLogger().level if logging is not None else 30


def _native_environment(workers: int, asked: int | None) -> tuple[list[tuple[str, str]], int]:
    """How many threads native libraries may use in each worker: for the environment, and for libraries that are loaded already (0: as they are).

    What the user set stays, unless asked for here. In a worker, what its own pool set is not the user's: a nested pool divides the worker's share.
    """
    each = asked if asked is not None else max(1, int(_core.usable_cores()) // workers)
    ours = str(_worker.native_threads)
    set_by_user = {name for name in _NATIVE_THREADS if os.environ.get(name, ours) != ours}
    free = [name for name in _NATIVE_THREADS if asked is not None or name not in set_by_user]
    return [(name, str(each)) for name in free], 0 if set_by_user and asked is None else each


def _interpreter_flags() -> list[str]:
    """The flags with which this interpreter was started, for one that shall behave the same."""
    flags = sys.flags
    arguments = []
    for letter, value in (
        ("d", flags.debug),
        ("O", flags.optimize),
        ("B", flags.dont_write_bytecode),
        ("s", flags.no_user_site),
        ("E", flags.ignore_environment),
        ("v", flags.verbose),
        ("b", flags.bytes_warning),
        ("q", flags.quiet),
    ):
        if value > 0:
            arguments.append("-" + letter * int(value))
    if flags.isolated:
        arguments.append("-I")
    if flags.no_site:
        arguments.append("-S")
    if flags.dev_mode:
        arguments.extend(("-X", "dev"))
    if flags.utf8_mode:
        arguments.extend(("-X", "utf8"))
    arguments.extend(f"-W{option}" for option in sys.warnoptions)
    for option in (
        "faulthandler",
        "importtime",
        "tracemalloc",
        "gil",
        "frozen_modules",
        "int_max_str_digits",
    ):
        given = sys._xoptions.get(option)
        if given is not None:
            arguments.extend(("-X", option if given is True else f"{option}={given}"))
    return arguments


def main_module() -> tuple[str, str]:
    """How a worker finds the program's main module, for ``import_main``: ``module`` and its name, ``path`` and its file, or ``none``.

    (``uses``, which ``import_main`` knows too, is a zygote's: modules to have instead of a main module that is not run again.)
    """
    main = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return "module", name
    path = getattr(main, "__file__", None)
    return ("none", "") if path is None else ("path", os.path.abspath(path))


def _is_installed(path: object) -> bool:
    """Whether a file belongs to an installed package or to the standard library."""
    if not isinstance(path, str):
        return False
    folders = path.split(os.sep)
    return (
        "site-packages" in folders
        or "dist-packages" in folders
        or path.startswith(os.path.dirname(os.__file__) + os.sep)
    )


def _origin(value: Any) -> object:
    """The module that a value is or comes from, by what stands in it: code of its own, which may load something or raise, is never asked."""
    kind = type(value)
    if issubclass(kind, ModuleType):
        return object.__getattribute__(value, "__dict__").get("__name__")
    if issubclass(kind, FunctionType):
        return value.__module__
    if issubclass(kind, type):
        return type.__getattribute__(value, "__dict__").get("__module__")
    return None


def _used_by_main() -> list[str]:
    """The modules that the names of the main module come from."""
    main = sys.modules["__main__"]
    if _is_installed(getattr(main, "__file__", None)):
        # A runner of programs (pytest, uvicorn): what it uses is not what its program's workers do.
        return []
    found: dict[str, None] = {}
    for value in list(vars(main).values()):
        name = _origin(value)
        if isinstance(name, str):
            found[name] = None
    return [
        name
        for name in found
        if name in sys.modules and name.partition(".")[0] not in ("__main__", "treadle")
    ]


def _preparation(spawn: bool) -> list[bytes]:
    """What a zygote needs to be like this process: how workers start, parent, key for managers, folder, main module, arguments."""
    kind, value = main_module()
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        folder = ""
    if kind == "module" and value.endswith(".__main__"):
        # It is not run again. What a script's workers would share, the modules that it uses, they share all the same.
        kind, value = ("none", "") if spawn else ("uses", "/".join(_used_by_main()))
    start, key = "spawn" if spawn else "fork", inheritance.authentication_key().hex()
    fields = [start, str(os.getpid()), key, folder, kind, value, *sys.argv]
    return [field.encode(errors="surrogateescape") for field in fields]


def _worker_stats(one: dict[str, Any]) -> WorkerStats:
    used = usage(f"/proc/{one['pid']}/stat") if one["pid"] else None
    return WorkerStats(
        one["worker"],
        one["pid"],
        one["state"],
        one["tasks"],
        one["restarts"],
        one["running_s"],
        None if used is None else used.cpu_s,
        None if used is None else used.memory_bytes,
        running=one["running"],
    )
