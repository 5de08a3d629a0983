"""Calls of an executor in a Trio run, by Trio's own means: a parked task, and its run's token to wake it.

Imported only where Trio is: see :func:`treadle.awaiting.bridge`.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Generator
from typing import Any

import trio

from treadle.awaiting import Bridge
from treadle.future import Future

__all__ = ["AwaitedInTrio", "bridge"]


class AwaitedInTrio:
    """A call of an executor; await it for its result. Cancelling the wait, by a scope or a deadline, reaches the worker.

    Awaiting is a checkpoint, even when the call has ended.
    """

    def __init__(self) -> None:
        #: The executor's future; None while the call waits outside a full pool.
        self.source: Future | None = None
        self._result: Any = None
        self._failure: BaseException | None = None
        self._done = self._cancelled = False
        self._callbacks: list[Callable[[Any], object]] = []

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._wait().__await__()

    async def _wait(self) -> Any:
        if self._done:
            await trio.lowlevel.checkpoint()
            return self.result()
        task = trio.lowlevel.current_task()

        def wake(_: AwaitedInTrio) -> None:
            trio.lowlevel.reschedule(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._callbacks.remove(wake)
            self.cancel()
            return trio.lowlevel.Abort.SUCCEEDED

        self._callbacks.append(wake)
        await trio.lowlevel.wait_task_rescheduled(abort)
        return self.result()

    def done(self) -> bool:
        """Whether it has ended, by whatever."""
        return self._done

    def cancelled(self) -> bool:
        """Whether it was cancelled before it had a result."""
        return self._cancelled

    def result(self) -> Any:
        """The call's result, or its exception raised; ``concurrent.futures.CancelledError`` for one that was cancelled.

        Raises:
            RuntimeError: when it has not ended.
        """
        if not self._done:
            raise RuntimeError("the call has not ended: await it")
        if self._cancelled:
            raise concurrent.futures.CancelledError
        if self._failure is not None:
            raise self._failure
        return self._result

    def cancel(self) -> bool:
        """Cancels the wait, and the call itself: taken back if no worker has it, else interrupted. False when it had ended."""
        if self._done:
            return False
        self._cancelled = True
        self._end()
        if self.source is not None:
            self.source.interrupt()
        return True

    forget = cancel

    def settle(self, ended: Future | BaseException) -> None:
        """In the run: copies the outcome of the call, which has ended or could not be submitted."""
        if self._done:
            return
        outcome = (None, ended) if isinstance(ended, BaseException) else ended._ended()
        if outcome is None:
            self._cancelled = True
        else:
            self._result, self._failure = outcome
        self._end()

    def when_ended(self, callback: Callable[[Any], object]) -> None:
        """Has the callback called in the run, with this, when it has ended; at once if it has."""
        if self._done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def _end(self) -> None:
        self._done = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)


class _TrioBridge(Bridge):
    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        super().__init__()
        self._token = token

    def pending(self) -> AwaitedInTrio:
        return AwaitedInTrio()

    def event(self) -> trio.Event:
        return trio.Event()

    def _call_soon(self, callback: Callable[[], object]) -> None:
        # `trio.RunFinishedError` is a RuntimeError.
        self._token.run_sync_soon(callback)


_bridge: trio.lowlevel.RunVar[_TrioBridge | None] = trio.lowlevel.RunVar("treadle_bridge", None)


def bridge() -> Bridge | None:
    """The bridge of the Trio run whose task runs in this thread; None when none does."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return None
    known = _bridge.get()
    if known is None:
        known = _TrioBridge(trio.lowlevel.current_trio_token())
        _bridge.set(known)
    return known
