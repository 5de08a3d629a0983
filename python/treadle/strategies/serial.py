"""Serial: each call runs in the thread that submits it, before ``submit`` returns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from treadle import _core, _coroutine, errors
from treadle.future import Future
from treadle.plan import Plan
from treadle.strategies import Settings, Stats, Strategy, TaskOptions, refusal


class Serial(Strategy):
    """No workers at all. A task's ``timeout`` cannot be kept here, so it is refused."""

    def __init__(self, plan: Plan, settings: Settings) -> None:
        super().__init__(plan, settings)
        self._lock = threading.Lock()
        self._submitted = 0
        self._retried = 0
        self._closed = False
        # The threads in which calls of this executor have used a loop: no other thread's loop is ours to close.
        self._loops: set[int] = set()
        self._broken: errors.PoolBroken | None = None
        if settings.initializer is not None:
            try:
                settings.initializer(*settings.initargs)
            except Exception as error:
                self._broken = errors.PoolBroken(
                    f"the initializer raised {type(error).__name__}: {error}"
                )
                self._broken.__cause__ = error

    def submit(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: TaskOptions,
    ) -> Future:
        if self._broken is not None:
            raise self._broken
        if self._closed:
            raise refusal()
        if options.timeout is not None:
            raise errors.PlanError(
                "a serial plan cannot keep a timeout: the call runs in the thread that would have to stop it\n\n"
                "hint: use processes=1, which can be stopped, or threads=1, which can be left behind"
            )
        future: Future = _core.pending_future()
        future._start()
        with self._lock:
            self._submitted += 1
        for tries_left in range(options.retries, -1, -1):
            try:
                result = function(*arguments, **keywords)
                if _coroutine.is_coroutine(result):
                    self._loops.add(threading.get_ident())
                    result = _coroutine.run_coroutine(result)
            except Exception as error:
                if tries_left == 0:
                    future._fail(error)
                else:
                    with self._lock:
                        self._retried += 1
            except BaseException as error:
                future._fail(error)
                if isinstance(error, KeyboardInterrupt):
                    raise
                break
            else:
                future._finish(result)
                break
        return future

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        self._closed = True
        # The executor may be dropped, and so shut down, in any thread: the collector of garbage runs where it likes.
        here = threading.get_ident()
        if here in self._loops:
            self._loops.discard(here)
            _coroutine.close_loop()

    def stats(self) -> Stats:
        return Stats(
            self.plan,
            "caller",
            submitted=self._submitted,
            completed=self._submitted,
            retried=self._retried,
        )

    def dump(self) -> str:
        return "serial: calls run in the thread that submits them; there are no workers\n"
