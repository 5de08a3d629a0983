"""A worker whose tasks are coroutines on one event loop, with a bounded number of them at a time.

::

    bell (eventfd) ─► look: next_call ─► asyncio.Task ─► finish or fail ─► look

The loop claims its calls itself, a few in each turn, so that a loop which is held up leaves them to other processes.

*Guarantees*: every call that was claimed is answered, whatever it raises; nothing that a call raises ends the loop. A call's log records and
warnings name it, in the threads that ``asyncio.to_thread`` runs for it too.
"""

from __future__ import annotations

import asyncio
import contextvars
import io
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from treadle import _core, _coroutine, _payload, _worker, errors

#: Calls claimed in one turn of the loop. A turn costs about 20 us beside its calls, which is shared by these; another process is awake
#: within 100 us and takes its part, so that few of a burst stand here that could run there.
_CLAIMED_AT_ONCE = 8

#: A call that is to stop and leaves the loop no turn for so long is holding it up: the exception is raised in the midst of it. Before, it
#: stops where it awaits, as asyncio's own cancelling does.
_HELD_UP_S = 0.05

#: Which task the code runs for; a context has it that an asyncio task or a thread took over from one.
_task: contextvars.ContextVar[int] = contextvars.ContextVar("treadle_task", default=0)


def run(worker: _core.Worker, dump: int) -> None:
    """Runs calls until the parent asks this worker to leave, or it has reached a limit; writes stacks into the file ``dump`` when asked to."""
    _worker.task_here = _task.get
    asyncio.run(_Turns(worker, dump).serve())


class _Turns:
    def __init__(self, worker: _core.Worker, dump: int) -> None:
        self._worker = worker
        self._dump = dump
        self._running: dict[int, _Call] = {}
        self._claims_again = False
        self._failure: BaseException | None = None
        self._over: asyncio.Event | None = None
        self._loop: Any = None

    async def serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        # The loop's own signal handling would see the signal after what runs now; a call that holds up the loop must be met in it.
        signal.signal(signal.SIGINT, self._on_interrupt)
        signal.signal(_worker.TASKS_SIGNAL, self._on_dump)
        self._loop.add_reader(self._worker.bell(), self._hear)
        self._worker.ready()
        self._look()
        await self._over.wait()
        self._loop.remove_reader(self._worker.bell())
        if self._failure is not None:
            raise self._failure

    def _hear(self) -> None:
        self._worker.hush()
        self._look()

    def _look(self) -> None:
        for _ in range(_CLAIMED_AT_ONCE):
            claimed = self._worker.next_call()
            if claimed is None:
                if not self._running and self._over is not None and self._worker.has_stopped():
                    self._over.set()
                return
            self._start(*claimed)
        if not self._claims_again:
            self._claims_again = True
            self._loop.call_soon(self._claim_again)

    def _claim_again(self) -> None:
        self._claims_again = False
        self._look()

    def _start(
        self,
        hand: int,
        number: int,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any] | None,
    ) -> None:
        call = _Call(number, function)
        context = contextvars.copy_context()
        context.run(_task.set, number)
        # The loop is alive as long as its worker: it holds the task, which asyncio itself holds weakly.
        call.task = context.run(
            self._loop.create_task, self._carry_out(hand, call, arguments, keywords or {})
        )
        self._running[hand] = call

    async def _carry_out(
        self, hand: int, call: _Call, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> None:
        # A task that is cancelled before its first step would take no step at all.
        call.begun = True
        try:
            if call.interrupted:
                raise errors.TaskInterrupted("the task was interrupted")
            result = call.function(*arguments, **keywords)
            if _coroutine.is_coroutine(result):
                result = await result
        except asyncio.CancelledError:
            self._end(hand, self._worker.fail, errors.TaskInterrupted("the task was interrupted"))
        except BaseException as error:
            self._end(hand, self._worker.fail, error)
        else:
            self._end(hand, self._worker.finish, result)

    def _end(self, hand: int, answer: Callable[[int, int, Any], None], brought: Any) -> None:
        call = self._running.pop(hand)
        try:
            answer(hand, call.number, brought)
            self._look()
        except BaseException as error:
            # Not the call's: what it brought is packed and caught in there. This process is of no use any more.
            self._failure = error
            assert self._over is not None
            self._over.set()

    def _on_interrupt(self, signum: int, frame: FrameType | None) -> None:
        """Cancels what the parent wants interrupted; in a call that holds up the loop, raises at once."""
        # Ctrl-C at the terminal reaches workers too; only the parent's own requests count here.
        here, now = None, time.monotonic()
        for hand, number in self._worker.interrupts():
            call = self._running.get(hand)
            if call is None or call.number != number or call.task is None:
                continue
            if call.interrupted:
                continue
            if call.asked is None:
                call.asked = now
                self._loop.call_soon_threadsafe(self._cancel, call)
            # Not in the few lines of ours around the call: they would end without its answer.
            elif (
                now - call.asked > _HELD_UP_S
                and frame is not None
                and frame.f_code.co_filename != __file__
                and asyncio.current_task(self._loop) is call.task
            ):
                here = call
        if here is not None:
            here.interrupted = True
            raise errors.TaskInterrupted("the task was interrupted")

    def _cancel(self, call: _Call) -> None:
        # Once: the signal comes again until the task has ended, and it may take its time to clean up.
        if call.interrupted:
            return
        call.interrupted = True
        if call.begun and call.task is not None:
            call.task.cancel()

    def _on_dump(self, signum: int, frame: FrameType | None) -> None:
        """Writes the stacks of what waits: the signal for the threads' stacks does not see it."""
        out = io.StringIO()
        now = time.monotonic()
        here = asyncio.current_task(self._loop)
        for call in list(self._running.values()):
            out.write(
                f"\n{_payload.name_of(call.function)}: running for {now - call.since:.3f} s\n"
            )
            if call.task is not None and call.task is not here:
                out.writelines(traceback.StackSummary.extract(_frames(call.task)).format())
        os.write(self._dump, (out.getvalue() or "\n").encode(errors="replace"))


def _frames(task: asyncio.Task[None]) -> Iterator[tuple[FrameType, int]]:
    """The frames of a task that waits, the outermost first, from the call's own on."""
    awaited: Any = getattr(task.get_coro(), "cr_await", None)
    while awaited is not None:
        frame = (
            getattr(awaited, "cr_frame", None)
            or getattr(awaited, "gi_frame", None)
            or getattr(awaited, "ag_frame", None)
        )
        if frame is not None:
            yield frame, frame.f_lineno
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


class _Call:
    __slots__ = ("asked", "begun", "function", "interrupted", "number", "since", "task")

    def __init__(self, number: int, function: Callable[..., Any]) -> None:
        self.number = number
        self.function = function
        self.since = time.monotonic()
        self.task: asyncio.Task[None] | None = None
        #: Since when it is to stop; then whether it was told so.
        self.asked: float | None = None
        self.interrupted = False
        self.begun = False
