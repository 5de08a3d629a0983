"""Calls on a Ray cluster.

::

    submit ─► run_on_worker.remote ─► raylet ─► worker process ─► answer
    Future ◄─ collector ◄───────────────────── the object's future

Ray does not tell when it begins a call. A call is pending until it ends, and cancelling it stops it even while it runs: Ray raises
``KeyboardInterrupt`` in it.
"""

from __future__ import annotations

import functools
import importlib
import pickle
import threading
from typing import Any

from treadle import errors
from treadle.plan import Plan
from treadle.strategies import Settings
from treadle.strategies.engines import Answer, Call, Engine, missing, run_on_worker

try:
    # By name: whether Ray is there, and what types it has, is nothing that the checks of this package depend on.
    ray: Any = importlib.import_module("ray")
    cloudpickle: Any = importlib.import_module("ray.cloudpickle")
except ImportError as _error:
    raise missing("Ray", "ray", _error) from _error

__all__ = ["Ray"]

# A process has one connection to Ray. The first executor makes it, the last one that uses it ends it, and a connection that the program made stays.
_connecting = threading.Lock()
_connected: dict[str, int] = {}


class Ray(Engine):
    """The process's connection to a Ray cluster."""

    engine = "Ray"

    def _connect(self, plan: Plan, settings: Settings) -> int:
        address = self._address = plan.ray or ""
        with _connecting:
            if ray.is_initialized() and address not in _connected:
                if address != "auto":
                    raise errors.PlanError(
                        f"ray={address!r}: this process has a connection to Ray already, and Ray allows one\n\n"
                        "hint: use ray='auto', which takes the connection that there is, or end it with ray.shutdown()"
                    )
                self._counted = next(iter(_connected), None)
            else:
                if not ray.is_initialized():
                    self._begin(address)
                    _connected.clear()
                self._counted = address
            if self._counted is not None:
                _connected[self._counted] = _connected.get(self._counted, 0) + 1
        # A worker's death fails the call here, and `retries` decides; not Ray's own three.
        self._remote = ray.remote(max_retries=0)(run_on_worker)
        return int(ray.cluster_resources().get("CPU", 1))

    def _begin(self, address: str) -> None:
        try:
            if address == "local":
                ray.init(address="local", include_dashboard=False, log_to_driver=True)
            else:
                ray.init(address=address)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise errors.PoolBroken(
                f"no Ray cluster answers at {address!r}: {error}\n\n"
                "hint: start one with `ray start --head`, or use ray='local' for a cluster on this machine"
            ) from error

    def _disconnect(self) -> None:
        with _connecting:
            if self._counted is None or self._counted not in _connected:
                return
            _connected[self._counted] -= 1
            if _connected[self._counted] == 0:
                del _connected[self._counted]
                ray.shutdown()

    def _pickler(self) -> type[pickle.Pickler]:
        return cloudpickle.Pickler

    def _is_reference(self, value: Any) -> bool:
        return isinstance(value, ray.ObjectRef)

    def _send(self, call: Call) -> Any:
        handle = self._remote.options(name=call.function).remote(call.payload, *call.references)
        answer = handle.future()
        call.handle = (handle, answer)
        answer.add_done_callback(functools.partial(self._note_end, call))
        return call.handle

    def _note_end(self, call: Call, answer: Any) -> None:
        # A call that is run again has another answer by then.
        if call.handle is not None and call.handle[1] is answer:
            self._ended.put(call)

    def _answers(self, calls: list[Call]) -> list[Answer | BaseException]:
        answers: list[Answer | BaseException] = []
        for call in calls:
            try:
                answers.append(call.handle[1].result())
            except BaseException as error:
                answers.append(_explained(call, error))
            # Ray forgets the answer with the last handle.
            call.handle = None
        return answers

    def _withdraw(self, call: Call, force: bool) -> None:
        if call.handle is not None and ray.is_initialized():
            ray.cancel(call.handle[0], force=force)

    def share(self, value: Any) -> Any:
        return ray.put(value)

    def dump(self) -> str:
        if self._closed:
            return self._calls_told()
        free = ray.available_resources().get("CPU", 0.0)
        return f"{self._calls_told()}Ray: {free:g} of {self.concurrency} CPUs free\n"


def _explained(call: Call, error: BaseException) -> BaseException:
    """Why the worker's answer did not come, in our words."""
    if isinstance(error, ray.exceptions.TaskCancelledError):
        made: BaseException = errors.TaskInterrupted(
            f"the task ({call.function}) was cancelled in Ray"
        )
    elif isinstance(
        error,
        (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.OutOfMemoryError,
            ray.exceptions.ObjectLostError,
        ),
    ):
        made = errors.EngineLostTask("Ray", str(error).strip(), call.function)
    else:
        return error
    made.__cause__ = error
    return made
