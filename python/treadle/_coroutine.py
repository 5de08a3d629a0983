"""Coroutines that a task returns where threads or processes run it: each thread that meets one has an event loop of its own."""

from __future__ import annotations

from _thread import _local, get_ident
from types import CoroutineType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Its attribute ``loop`` is this worker's loop, once it has one. A sub-interpreter puts another kind of holder here; see :mod:`treadle._subinterpreter`.
own: Any = _local()

#: The loops of this process's threads, by the thread.
_loop_of: dict[int, Any] = {}


def run_coroutine(coroutine: CoroutineType[Any, Any, Any]) -> Any:
    """Runs a coroutine to its end on this worker's own event loop."""
    loop = getattr(own, "loop", None)
    if loop is None:
        import asyncio

        loop = own.loop = _loop_of[get_ident()] = asyncio.new_event_loop()
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except BaseException:
        if not task.done():
            # An interruption was raised in the loop itself: what it was for must not go on with the next call.
            import asyncio

            task.cancel()
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        raise


def wake_loops() -> None:
    """Lets each loop turn, so that a thread which waits in one sees an exception that was raised for it."""
    for loop in list(_loop_of.values()):
        try:
            loop.call_soon_threadsafe(int)
        except RuntimeError:
            # It has just been closed.
            continue


def close_loop() -> None:
    """Closes this thread's event loop, if it has one; not from inside a coroutine that it runs."""
    loop = getattr(own, "loop", None)
    if loop is None or loop.is_running():
        return
    own.loop = None
    _loop_of.pop(get_ident(), None)
    import asyncio

    try:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def is_coroutine(value: Any) -> bool:
    """Whether a call returned a coroutine that has to be awaited."""
    return type(value) is CoroutineType
