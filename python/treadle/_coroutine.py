"""Coroutines that a task returns where threads or processes run it: each thread that meets one has an event loop of its own."""

from __future__ import annotations

from _thread import _local
from types import CoroutineType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_loops: Any = _local()


def run_coroutine(coroutine: CoroutineType[Any, Any, Any]) -> Any:
    """Runs a coroutine to its end on this worker's own event loop."""
    loop = getattr(_loops, "loop", None)
    if loop is None:
        import asyncio

        loop = _loops.loop = asyncio.new_event_loop()
    return loop.run_until_complete(coroutine)


def close_loop() -> None:
    """Closes this thread's event loop, if it has one; not from inside a coroutine that it runs."""
    loop = getattr(_loops, "loop", None)
    if loop is None or loop.is_running():
        return
    _loops.loop = None
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
