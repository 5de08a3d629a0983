"""Futures of an executor on an event loop, of asyncio (uvloop's too) or of Trio.

::

    task ends ─► collector ─► bridge of the loop: deque ─► one wake of the loop for a burst ─► awaited calls

The standard library's ``asyncio.wrap_future`` wakes the loop once for every future; here all that end together wake it once. Which library runs is
asked of the libraries that are imported already: nothing is imported to find out, and asyncio is not needed under Trio.

A loop must not wait in ``submit`` while a pool is full. Such a call stands in the pool's :class:`Entrance`, whose thread waits for it::

    asubmit ─► full? ─► Entrance: deque ─► its thread: submit, which waits ─► bridge
"""

from __future__ import annotations

import abc
import asyncio
import sys
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from treadle.future import Future

if TYPE_CHECKING:
    from treadle.strategies import Strategy

__all__ = ["Awaited", "Bridge", "Entrance", "bridge", "entrance", "results"]


class Awaited(asyncio.Future):  # type: ignore[type-arg]
    """A call of an executor on an event loop of asyncio; cancelling it reaches the worker."""

    #: The executor's future; None while the call waits outside a full pool.
    source: Future | None = None

    def cancel(self, msg: Any = None) -> bool:
        """Cancels the wait, and the call itself: taken back if no worker has it, else interrupted."""
        if not super().cancel(msg):
            return False
        if self.source is not None:
            self.source.interrupt()
        return True

    def settle(self, ended: Future | BaseException) -> None:
        """On the loop: copies the outcome of the call, which has ended or could not be submitted."""
        if self.done():
            return
        outcome = (None, ended) if isinstance(ended, BaseException) else ended._ended()
        if outcome is None:
            super().cancel()
        elif outcome[1] is None:
            self.set_result(outcome[0])
        elif isinstance(outcome[1], StopIteration):
            # asyncio refuses it as a future's exception.
            error = RuntimeError("the call raised StopIteration")
            error.__cause__ = outcome[1]
            self.set_exception(error)
        else:
            self.set_exception(outcome[1])

    def when_ended(self, callback: Callable[[Any], object]) -> None:
        """Has the callback called on the loop, with this, when it has ended."""
        self.add_done_callback(callback)

    def forget(self) -> None:
        """Nobody awaits it any more: cancels it; an exception that it has is not reported as unseen."""
        if not self.cancel() and not self.cancelled():
            self.exception()


class Bridge(abc.ABC):
    """What has ended and the loop does not know yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: deque[tuple[Any, Future | BaseException]] = deque()
        self._called = False

    @abc.abstractmethod
    def pending(self) -> Any:
        """What is awaited of a call that is not submitted yet: an :class:`Awaited`, or what has its methods."""

    @abc.abstractmethod
    def event(self) -> Any:
        """An event of the loop's library: ``set()``, ``await wait()``."""

    @abc.abstractmethod
    def _call_soon(self, callback: Callable[[], object]) -> None:
        """Has the loop call it; from any thread. ``RuntimeError`` when the loop has ended."""

    def awaitable(self, future: Future) -> Any:
        """What is awaited of a submitted call; it ends as the future does."""
        awaited = self.pending()
        awaited.source = future
        if not future._listen(lambda ended: self.end(awaited, ended)):
            awaited.settle(future)
        return awaited

    def end(self, awaited: Any, outcome: Future | BaseException) -> None:
        """A call has ended, or could not be submitted; called by any thread."""
        with self._lock:
            self._ended.append((awaited, outcome))
            if self._called:
                return
            self._called = True
        try:
            self._call_soon(self._tell)
        except RuntimeError:
            # The loop has ended: nobody awaits any more.
            with self._lock:
                self._called = False
                self._ended.clear()

    def _tell(self) -> None:
        with self._lock:
            self._called = False
            ended, self._ended = self._ended, deque()
        for awaited, outcome in ended:
            awaited.settle(outcome)


class _AsyncioBridge(Bridge):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop

    def pending(self) -> Awaited:
        return Awaited(loop=self._loop)

    def event(self) -> asyncio.Event:
        return asyncio.Event()

    def _call_soon(self, callback: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(callback)


_bridges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Bridge] = weakref.WeakKeyDictionary()


def bridge() -> Bridge:
    """The bridge of the loop that runs in this thread.

    Raises:
        RuntimeError: when none runs here.
    """
    # First: Trio may run as a guest of an asyncio loop.
    if "trio" in sys.modules:
        from treadle import awaiting_in_trio

        found = awaiting_in_trio.bridge()
        if found is not None:
            return found
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "no running event loop: asubmit and amap are for coroutines, under asyncio (uvloop's loops too), Trio, or AnyIO on either\n\n"
            "hint: call submit or map here, or call from a coroutine"
        ) from None
    known = _bridges.get(loop)
    if known is None:
        known = _bridges[loop] = _AsyncioBridge(loop)
    return known


async def results(
    submit: Callable[..., Any],
    function: Callable[..., Any],
    items: Iterator[Any],
    window: int,
    ordered: bool,
) -> AsyncIterator[Any]:
    """The results of ``submit(function, *item)`` for all items, of which at most ``window`` are in flight; see :meth:`treadle.Executor.amap`."""
    here = bridge()
    running: dict[Any, None] = {}
    ended: deque[Any] = deque()
    news = here.event()

    def note(call: Any) -> None:
        ended.append(call)
        news.set()

    try:
        more = True
        while True:
            while more and len(running) < window:
                try:
                    item = next(items)
                except StopIteration:
                    more = False
                    break
                call = submit(function, *item)
                running[call] = None
                if not ordered:
                    call.when_ended(note)
            if not running:
                return
            if ordered:
                call = next(iter(running))
                if not call.done():
                    call.when_ended(note)
                else:
                    ended.append(call)
            while not ended:
                news = here.event()
                await news.wait()
            call = ended.popleft()
            del running[call]
            yield call.result()
    finally:
        for call in running:
            call.forget()


class Entrance:
    """The calls of event loops for which a pool had no room, in their order.

    *Guarantees*: each of them is submitted once, or ends with the error of its submission; one that was cancelled meanwhile is not submitted.
    Its thread lives while a call waits.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: deque[tuple[Bridge, Any, Callable[..., Any], tuple[Any, ...]]] = deque()
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
    ) -> Any:
        """What is awaited of a call that is submitted when its turn comes and the pool has room."""
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
