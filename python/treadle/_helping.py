"""Threads of a pool that wait for calls of their own pool in the standard library's ``wait`` and ``as_completed``."""

from __future__ import annotations

import collections
import threading
import time

from treadle import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _HelpingEvent:
    """The event of a waiter of ``concurrent.futures.wait`` or ``as_completed`` in a thread of a pool.

    Before the thread sleeps it runs, one after another, those of the awaited calls that still wait in its own pool, so that they do not wait
    for a thread that waits for them. It is installed while the waiter is, under the conditions of all the futures: nobody has used the event.
    """

    def __init__(self, event: threading.Event) -> None:
        self._event = event
        self.clear, self.is_set, self.set = event.clear, event.is_set, event.set
        self.futures: collections.deque[Any] = collections.deque()

    def wait(self, timeout: float | None = None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        left = timeout
        while self.futures and not self._event.is_set() and (left is None or left > 0):
            _core.run_if_waiting(self.futures.popleft())
            if deadline is not None:
                left = max(0.0, deadline - time.monotonic())
        return self._event.wait(left)


def help_while_waiting(waiter: Any, future: Any) -> None:
    """A thread of a pool is about to wait for this future with this waiter of the standard library."""
    event = getattr(waiter, "event", None)
    if type(event) is threading.Event:
        event = waiter.event = _HelpingEvent(event)
    if isinstance(event, _HelpingEvent):
        event.futures.append(future)
