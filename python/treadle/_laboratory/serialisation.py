"""What it costs to send a value to another process: bytes and seconds, in-band and out-of-band apart.

Pickle protocol 5 with a buffer callback, as the engine sends payloads: large buffers (NumPy arrays,
``pickle.PickleBuffer``) are counted apart from the stream, and copied once, as the engine does into shared
memory: that copy is part of the time to send. Times are the least of `REPEATS` runs.
"""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass
from typing import Any

from treadle import _pickling

#: The least of three: the first run pays for caches and imports; a value that takes long is run once.
REPEATS = 3
#: A single run longer than this (seconds) is not repeated: noise is then small against the time itself.
LONG_S = 0.02


@dataclass(frozen=True)
class Cost:
    """Bytes and seconds of one value."""

    stream_bytes: int
    buffer_bytes: int
    dumps_s: float
    loads_s: float

    @property
    def bytes(self) -> int:
        """In-band and out-of-band together."""
        return self.stream_bytes + self.buffer_bytes


def cost(value: Any) -> Cost:
    """The cost of sending `value`; raises whatever pickling or unpickling it raises."""
    dumps_s = loads_s = float("inf")
    stream = buffer_bytes = 0
    room: bytearray | None = None
    for _ in range(REPEATS):
        buffers: list[pickle.PickleBuffer] = []
        started = time.perf_counter()
        data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        raw = [buffer.raw() for buffer in buffers]
        copied = time.perf_counter()
        if room is None:
            # Not counted: the engine's memory is there before, and used again.
            room = bytearray(sum(view.nbytes for view in raw))
            room[:] = bytes(len(room))
        begun = time.perf_counter()
        filled = 0
        for view in raw:
            room[filled : filled + view.nbytes] = view
            filled += view.nbytes
        middle = time.perf_counter()
        pickle.loads(data, buffers=buffers)
        ended = time.perf_counter()
        dumps_s = min(dumps_s, copied - started + middle - begun)
        loads_s = min(loads_s, ended - middle)
        stream = len(data)
        buffer_bytes = len(room)
        if ended - started > LONG_S:
            break
    return Cost(stream, buffer_bytes, dumps_s, loads_s)


class Account:
    """Costs of one role (argument or result) over several values, and the first problem met."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._costs: list[Cost] = []
        self.problem: _pickling.PicklingProblem | None = None

    def add(self, value: Any) -> None:
        """Measures one more value; once a problem is known there is nothing more to learn."""
        if self.problem is not None:
            return
        self.problem = _pickling.find_round_trip_problem(value, self._path)
        if self.problem is None:
            self._costs.append(cost(value))

    def _mean(self, field: str) -> float:
        if not self._costs:
            return 0.0
        return sum(getattr(one, field) for one in self._costs) / len(self._costs)

    def to_json(self, role: str) -> dict[str, Any]:
        """``{role}_bytes``, ``_buffer_bytes``, ``_dumps_s``, ``_loads_s``: means; 0 where nothing pickled."""
        return {
            f"{role}_bytes": round(self._mean("bytes")),
            f"{role}_buffer_bytes": round(self._mean("buffer_bytes")),
            f"{role}_dumps_s": self._mean("dumps_s"),
            f"{role}_loads_s": self._mean("loads_s"),
        }
