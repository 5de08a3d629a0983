"""Values that every worker of an executor reads without a copy of its own.

::

    share(value) ─► blocks of the parent's arena          once
    Shared ─► (pickled with each call: 32 bytes a block) ─► worker: the value, rebuilt once, kept
"""

from __future__ import annotations

import itertools
from typing import Any

__all__ = ["Shared"]

_numbers = itertools.count(1)


class Shared:
    """Stands for a value in the arguments of a call; the function gets the value itself.

    Made by :meth:`treadle.Executor.share`. Buffers in the value (a NumPy array's data) are read-only in the workers.
    """

    __slots__ = ("_blocks", "_number", "_pool")

    def __init__(self, pool: object, blocks: list[bytes]) -> None:
        self._pool = pool  # the blocks live as long as the pool
        self._number = next(_numbers)
        self._blocks = blocks

    def __reduce__(self) -> tuple[Any, ...]:
        return attach, (self._number, *self._blocks)

    def __repr__(self) -> str:
        return f"<treadle.Shared value {self._number}>"


_attached: dict[int, Any] = {}


def attach(number: int, *blocks: bytes) -> Any:
    """The value of a :class:`Shared`, in a worker; rebuilt at the first call that needs it."""
    if number in _attached:
        return _attached[number]
    import pickle

    from treadle import _worker, errors

    worker = _worker.current
    if worker is None:
        raise errors.PayloadError(
            "a shared value belongs to the workers of the executor that shared it, and this process is none of them\n\n"
            "hint: pass the value itself, or share it with the executor that runs the call"
        )
    body, *buffers = (worker.view_block(block) for block in blocks)
    value = _attached[number] = pickle.loads(body, buffers=buffers)
    return value
