"""Calls on a Dask cluster, through ``distributed``.

::

    submit ─► Client.submit(run_on_worker) ─► scheduler ─► worker thread ─► answer
    Future: running ◄─ event "begun" ◄──────────────────── worker
    Future: ended   ◄─ collector: gather, many at once ◄── done callback

A worker tells when it begins a call, so ``running``, ``cancel`` and ``interrupt`` mean what they mean in every other plan.
"""

from __future__ import annotations

import functools
import importlib
import pickle
import uuid
import weakref
from collections.abc import Callable
from typing import Any

from treadle import errors
from treadle.future import Future
from treadle.plan import Plan
from treadle.strategies import Settings
from treadle.strategies.engines import Answer, Call, Engine, missing, run_on_worker

try:
    # By name: whether Dask is there, and what types it has, is nothing that the checks of this package depend on.
    cloudpickle: Any = importlib.import_module("cloudpickle")
    distributed: Any = importlib.import_module("distributed")
except ImportError as _error:
    raise missing("Dask's distributed", "dask", _error) from _error

__all__ = ["Dask", "address_of"]

#: Where workers tell what they begin. One for all executors: a scheduler keeps the events of each topic as long as it lives.
TOPIC = "treadle"


def address_of(client: Any) -> str:
    """The address of a client's scheduler.

    Raises:
        PlanError: for what is no client that plain code can wait for.
    """
    if not isinstance(client, distributed.Client):
        raise errors.PlanError(
            f"dask must be a scheduler's address, 'local' or a distributed.Client, not {client!r}"
        )
    if client.asynchronous:
        raise errors.PlanError(
            "dask: this client is asynchronous, and an executor waits for it in threads\n\n"
            "hint: give the scheduler's address, or a Client made without asynchronous=True"
        )
    if client.scheduler is None or client.status != "running":
        raise errors.PlanError(
            f"dask: this client is not connected (its status is {client.status})"
        )
    return str(client.scheduler.address)


_listening: weakref.WeakValueDictionary[str, Dask] = weakref.WeakValueDictionary()


def _hear(event: tuple[float, Any]) -> None:
    """A worker begins a call of some executor."""
    (name, number), address, thread, key = event[1]
    executor = _listening.get(name)
    if executor is not None:
        executor.begin(number, address, thread, key)


class Dask(Engine):
    """A client of a Dask scheduler."""

    engine = "Dask"
    tells_begin = True

    def _connect(self, plan: Plan, settings: Settings) -> int:
        address = plan.dask or ""
        self._cluster: Any = None
        self._client = settings.client
        self._own_client = self._client is None
        self._name = uuid.uuid4().hex
        if self._client is None:
            try:
                if address == "local":
                    # Without the dashboard: its port may be taken, and nobody asked for it.
                    self._cluster = distributed.LocalCluster(dashboard_address=None)
                self._client = distributed.Client(self._cluster or address, set_as_default=False)
            except (OSError, ValueError) as error:
                if self._cluster is not None:
                    self._cluster.close()
                raise errors.PoolBroken(
                    f"no Dask scheduler answers at {address!r}: {error}\n\n"
                    "hint: start one with `dask scheduler`, or use dask='local' for a cluster on this machine"
                ) from error
        _listening[self._name] = self
        # A client has one handler for a topic, so it is the same for all executors.
        self._client.subscribe_topic(TOPIC, _hear)
        return sum(self._client.nthreads().values())

    def _disconnect(self) -> None:
        # A client of the program's own goes on hearing, for other executors may use it; nobody here listens any more.
        if self._own_client:
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()

    def _pickler(self) -> type[pickle.Pickler]:
        return cloudpickle.Pickler

    def _is_reference(self, value: Any) -> bool:
        return isinstance(value, distributed.Future)

    def _send(self, call: Call) -> Any:
        name = call.function.rpartition(".")[2].strip("<>")
        handle = self._client.submit(
            run_and_tell,
            TOPIC,
            (self._name, call.number),
            run_on_worker,
            call.payload,
            *call.references,
            # The dashboard groups calls by what stands before the last dash.
            key=f"{name}-{uuid.uuid4().hex}",
            pure=False,
        )
        call.handle = handle
        handle.add_done_callback(functools.partial(self._note_end, call))
        return handle

    def _note_end(self, call: Call, handle: Any) -> None:
        # A call that is run again has another handle by then.
        if call.handle is handle:
            self._ended.put(call)

    def begin(self, number: int, address: str, thread: int, key: str) -> None:
        """A worker begins a call."""
        call = self._calls.get(number)
        if call is not None:
            call.began = (address, thread, key)
            if not call.future.running():
                call.future._start()

    def _answers(self, calls: list[Call]) -> list[Answer | BaseException]:
        handles = [call.handle for call in calls]
        finished = [handle for handle in handles if handle.status == "finished"]
        known: dict[str, Answer] = {}
        try:
            values = self._client.gather(finished, errors="raise")
            known = {handle.key: value for handle, value in zip(finished, values, strict=True)}
        except Exception:
            # One of them was lost on the way: each by itself.
            pass
        answers: list[Answer | BaseException] = []
        for call, handle in zip(calls, handles, strict=True):
            if handle.key in known:
                answers.append(known[handle.key])
                continue
            try:
                answers.append(handle.result())
            except BaseException as error:
                answers.append(_explained(call, handle, error))
        for call in calls:
            # Dask forgets the answer with the last handle.
            call.handle = None
        return answers

    def _withdraw(self, call: Call, force: bool) -> None:
        handle = call.handle
        if handle is not None:
            handle.cancel()
        if force:
            self._raise_in(call)

    def interrupt(self, future: Future, grace: float) -> bool:
        with self._lock:
            call = next((call for call in self._calls.values() if call.future is future), None)
        if call is None:
            return False
        call.interrupted = True
        return self._raise_in(call)

    def _raise_in(self, call: Call) -> bool:
        """Raises in the worker's thread, at its next Python instruction."""
        if call.began is None:
            return False
        address, thread, key = call.began
        told = self._client.run(raise_in_thread, thread, key, workers=[address], on_error="ignore")
        return any(told.values())

    def share(self, value: Any) -> Any:
        return self._client.scatter(value, broadcast=True, hash=False)

    def dump(self) -> str:
        lines = [self._calls_told()]
        if self._closed:
            return lines[0]
        for address, tasks in sorted(self._client.call_stack().items()):
            for key, frames in tasks.items():
                lines.append(f"\n{address}: {key}\n")
                lines.extend(frames)
        return "".join(lines)


def _explained(call: Call, handle: Any, error: BaseException) -> BaseException:
    """Why the worker's answer did not come, in our words."""
    if isinstance(error, distributed.KilledWorker):
        made: BaseException = errors.EngineLostTask(
            "Dask", f"its worker died {error.allowed_failures + 1} times", call.function
        )
    elif handle.status in ("cancelled", "lost"):
        made = errors.EngineLostTask(
            "Dask", f"the scheduler {handle.status} it without being asked here", call.function
        )
    else:
        return error
    made.__cause__ = error
    return made


def _worker_functions() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What runs in Dask's workers; functions made in a function, which pickle by value."""

    def run_and_tell(
        topic: str, call: tuple[str, int], run: Callable[..., Any], payload: bytes, *values: Any
    ) -> Any:
        import threading

        from distributed import get_worker

        worker = get_worker()
        thread = threading.get_ident()
        worker.log_event(topic, (call, worker.address, thread, worker.active_threads.get(thread)))
        return run(payload, *values)

    def raise_in_thread(thread: int, key: str, dask_worker: Any) -> bool:
        import concurrent.futures
        import ctypes

        if dask_worker.active_threads.get(thread) != key:
            return False
        return bool(
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread), ctypes.py_object(concurrent.futures.CancelledError)
            )
        )

    return run_and_tell, raise_in_thread


run_and_tell, raise_in_thread = _worker_functions()
