"""Futures of an executor on an event loop.

::

    task ends ─► collector ─► bridge of the loop: deque ─► one call_soon_threadsafe for a burst ─► asyncio futures

The standard library's ``asyncio.wrap_future`` wakes the loop once for every future; here all that end together wake it once.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from typing import Any

from treadle.future import Future

__all__ = ["Awaited", "Bridge", "bridge"]


class Awaited(asyncio.Future):  # type: ignore[type-arg]
    """A call of an executor on an event loop; cancelling it reaches the worker."""

    #: The executor's future.
    source: Future

    def cancel(self, msg: Any = None) -> bool:
        """Cancels the wait, and the call itself: taken back if no worker has it, else interrupted."""
        if not super().cancel(msg):
            return False
        self.source.interrupt()
        return True


class Bridge:
    """What has ended and the loop does not know yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._ended: deque[tuple[Awaited, Future]] = deque()
        self._called = False

    def awaitable(self, future: Future) -> Awaited:
        """An asyncio future of the loop that ends as this future does."""
        awaited = Awaited(loop=self._loop)
        awaited.source = future
        if not future._listen(lambda ended: self.end(awaited, ended)):
            settle(awaited, future)
        return awaited

    def end(self, awaited: Awaited, future: Future) -> None:
        """A call has ended; called by any thread."""
        with self._lock:
            self._ended.append((awaited, future))
            if self._called:
                return
            self._called = True
        try:
            self._loop.call_soon_threadsafe(self._tell)
        except RuntimeError:
            # The loop is closed: nobody awaits any more.
            with self._lock:
                self._called = False
                self._ended.clear()

    def _tell(self) -> None:
        with self._lock:
            self._called = False
            ended, self._ended = self._ended, deque()
        for awaited, future in ended:
            settle(awaited, future)


def settle(awaited: Awaited, future: Future) -> None:
    """Copies the outcome of an ended call."""
    if awaited.done():
        return
    outcome = future._ended()
    if outcome is None:
        asyncio.Future.cancel(awaited)
    elif outcome[1] is None:
        awaited.set_result(outcome[0])
    elif isinstance(outcome[1], StopIteration):
        # asyncio refuses it as a future's exception.
        error = RuntimeError("the call raised StopIteration")
        error.__cause__ = outcome[1]
        awaited.set_exception(error)
    else:
        awaited.set_exception(outcome[1])


_bridges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Bridge] = weakref.WeakKeyDictionary()


def bridge() -> Bridge:
    """The bridge of the running loop.

    Raises:
        RuntimeError: when no loop runs in this thread.
    """
    loop = asyncio.get_running_loop()
    known = _bridges.get(loop)
    if known is None:
        known = _bridges[loop] = Bridge(loop)
    return known
