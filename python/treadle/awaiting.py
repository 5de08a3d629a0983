"""Futures of an executor on an event loop.

::

    task ends ─► collector ─► bridge of the loop: deque ─► one call_soon_threadsafe for a burst ─► asyncio futures

The standard library's ``asyncio.wrap_future`` wakes the loop once for every future; here all that end together wake it once.

A loop must not wait in ``submit`` while a pool is full. Such a call stands in the pool's :class:`Entrance`, whose thread waits for it::

    asubmit ─► full? ─► Entrance: deque ─► its thread: submit, which waits ─► bridge
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from treadle.future import Future

if TYPE_CHECKING:
    from treadle.strategies import Strategy

__all__ = ["Awaited", "Bridge", "Entrance", "bridge", "entrance"]


class Awaited(asyncio.Future):  # type: ignore[type-arg]
    """A call of an executor on an event loop; cancelling it reaches the worker."""

    #: The executor's future; None while the call waits outside a full pool.
    source: Future | None = None

    def cancel(self, msg: Any = None) -> bool:
        """Cancels the wait, and the call itself: taken back if no worker has it, else interrupted."""
        if not super().cancel(msg):
            return False
        if self.source is not None:
            self.source.interrupt()
        return True


class Bridge:
    """What has ended and the loop does not know yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._ended: deque[tuple[Awaited, Future | BaseException]] = deque()
        self._called = False

    def awaitable(self, future: Future) -> Awaited:
        """An asyncio future of the loop that ends as this future does."""
        awaited = self.pending()
        awaited.source = future
        if not future._listen(lambda ended: self.end(awaited, ended)):
            settle(awaited, future)
        return awaited

    def pending(self) -> Awaited:
        """An asyncio future of the loop, for a call that is not submitted yet."""
        return Awaited(loop=self._loop)

    def end(self, awaited: Awaited, outcome: Future | BaseException) -> None:
        """A call has ended, or could not be submitted; called by any thread."""
        with self._lock:
            self._ended.append((awaited, outcome))
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
        for awaited, outcome in ended:
            settle(awaited, outcome)


def settle(awaited: Awaited, ended: Future | BaseException) -> None:
    """Copies the outcome of an ended call."""
    if awaited.done():
        return
    outcome = (None, ended) if isinstance(ended, BaseException) else ended._ended()
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


class Entrance:
    """The calls of event loops for which a pool had no room, in their order.

    *Guarantees*: each of them is submitted once, or ends with the error of its submission; one that was cancelled meanwhile is not submitted.
    Its thread lives while a call waits.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: deque[tuple[Bridge, Awaited, Callable[..., Any], tuple[Any, ...]]] = deque()
        self._waits = False

    def __bool__(self) -> bool:
        """Whether a call waits."""
        return self._waits

    def queue(
        self,
        bridge: Bridge,
        submit: Callable[..., Any],
        function: Any,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> Awaited:
        """The asyncio future of a call that is submitted when its turn comes and the pool has room."""
        awaited = bridge.pending()
        with self._lock:
            self._calls.append((bridge, awaited, submit, (function, arguments, keywords)))
            if self._waits:
                return awaited
            self._waits = True
        threading.Thread(target=self._submit, name="treadle-entrance", daemon=True).start()
        return awaited

    def _submit(self) -> None:
        while True:
            with self._lock:
                if not self._calls:
                    self._waits = False
                    return
                bridge, awaited, submit, (function, arguments, keywords) = self._calls.popleft()
            if awaited.cancelled():
                continue
            try:
                future = submit(function, *arguments, **keywords)
            except BaseException as error:
                bridge.end(awaited, error)
                continue
            awaited.source = future
            if awaited.cancelled():
                # Whoever cancelled it may not have seen the future.
                future.interrupt()
            elif not future._listen(lambda ended, b=bridge, a=awaited: b.end(a, ended)):
                bridge.end(awaited, future)
            # What the loop has to know goes with the last reference.
            del bridge, awaited, submit, function, arguments, keywords, future


_making_entrance = threading.Lock()


def entrance(strategy: Strategy) -> Entrance:
    """The entrance of a pool."""
    with _making_entrance:
        if strategy.entrance is None:
            strategy.entrance = Entrance()
        made: Entrance = strategy.entrance
        return made


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
