"""What the tests of the drop-in executors run in workers."""

from __future__ import annotations

import os
import signal
from typing import Any

_taken: dict[str, Any] = {}


def take_along(**objects: Any) -> None:
    """An initializer that keeps what it was given."""
    _taken.update(objects)


def take_in_order(queue: Any, lock: Any) -> None:
    """As :func:`take_along`, with positions."""
    take_along(queue=queue, lock=lock)


def tell(word: str) -> int:
    """Puts a word into the queue that the initializer brought; returns this worker's process."""
    with _taken["lock"]:
        _taken["queue"].put((os.getpid(), word))
    return os.getpid()


def die() -> None:
    """Ends the worker."""
    os.kill(os.getpid(), signal.SIGKILL)


def set_event(event: Any) -> bool:
    """Sets an event that a manager keeps."""
    event.set()
    return True


def fail_to_rebuild() -> None:
    """Raises where a pickle is read."""
    raise ValueError("this cannot be rebuilt")


class Unreadable:
    """Pickles, and cannot be unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return fail_to_rebuild, ()


def make_unreadable() -> Unreadable:
    """Returns what cannot be unpickled."""
    return Unreadable()
