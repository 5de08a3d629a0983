"""An event loop of a worker's own, for async functions in threads, processes and sub-interpreters. Pure Python."""

from __future__ import annotations

import threading
import types
from typing import Any

#: Its attribute ``loop`` is this worker's loop, once it has one. A sub-interpreter puts another kind of holder here; see :mod:`treadle._subinterpreter`.
own: Any = threading.local()


#: The loops of this interpreter's threads, by the thread.
_loop_of: dict[int, Any] = {}


def run_coroutine(coroutine: types.CoroutineType[Any, Any, Any]) -> Any:
    """Runs a coroutine to its end on this worker's own event loop."""
    loop = getattr(own, "loop", None)
    if loop is None:
        import asyncio

        loop = own.loop = asyncio.new_event_loop()
        _loop_of[threading.get_ident()] = loop
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
    """Closes this worker's event loop, if it has one; not from inside a coroutine that it runs."""
    loop = getattr(own, "loop", None)
    if loop is None or loop.is_running():
        return
    own.loop = None
    _loop_of.pop(threading.get_ident(), None)
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
    return type(value) is types.CoroutineType
