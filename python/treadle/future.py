"""Future: a ``concurrent.futures.Future`` whose state lives in the engine."""

from __future__ import annotations

import concurrent.futures
import time
from typing import Any, NoReturn

from treadle import _core
from treadle.errors import PayloadError

__all__ = ["Future"]

#: A look at a task costs some microseconds, and the hand-over from a dead worker takes a millisecond.
_BETWEEN_HANDS_S = 0.0002


class Future(_core.FutureBase, concurrent.futures.Future[Any]):
    """The result of a submitted call, now or later.

    ``concurrent.futures.wait``, ``as_completed`` and ``asyncio.wrap_future`` work on it. Beyond the standard library's future
    it has :meth:`interrupt`.
    """

    def interrupt(self, grace: float = 1.0) -> bool:
        """Stops the call, even while it runs.

        A call that no worker has is cancelled. In a running one ``TaskInterrupted`` is raised: for a process, its worker is killed
        if the call still runs after ``grace`` seconds; in a thread the exception waits for the next Python instruction, and a thread
        cannot be killed.

        Args:
            grace: seconds between the exception and the worker's end (processes only).

        Returns:
            False when the call had ended already.
        """
        while True:
            if self.cancel():
                return True
            if self.done():
                return False
            if self._interrupt_in_process(grace):
                return True
            if not self._task:
                break
            # It is between two hands: its reply is being read, or its worker has died, and it ends or is run again at once.
            time.sleep(_BETWEEN_HANDS_S)
        from treadle.strategies import living

        return any(strategy.interrupt(self, grace) for strategy in living())

    def __reduce__(self) -> NoReturn:
        raise PayloadError(
            "a future cannot be sent to another process: a task that waited for a task of its own pool could wait for ever\n\n"
            "hint: wait for the result here and submit the next call with it"
        )

    def __repr__(self) -> str:
        state = self._state.lower()
        if state == "finished":
            failure = self._exception
            outcome = (
                f"raised {type(failure).__name__}"
                if failure is not None
                else f"returned {type(self._result).__name__}"
            )
            return f"<{type(self).__name__} at {id(self):#x} state=finished {outcome}>"
        # As the standard library shows it: whether its waiters know already is of no interest.
        state = "cancelled" if state.startswith("cancelled") else state
        return f"<{type(self).__name__} at {id(self):#x} state={state}>"


_core.register_future(Future)
