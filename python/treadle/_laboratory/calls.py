"""What a raced plan's workers run: the user's function with a clock around it, and how they show that they are there.

Pure Python and light, apart from the rest of the laboratory: it is imported in every worker, and in sub-interpreters, which cannot
load the engine.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from treadle._laboratory import failure

#: Longest that warm-up waits for all workers to have arrived, seconds; those absent then start cold.
WARM_UP_S = 10.0

#: When a task began and ended, by the clock that all processes of a machine share (``perf_counter``).
Span = tuple[float, float]
Outcome = tuple["Span | None", Any, "dict[str, Any] | None"]


def arguments(item: Any, star: bool) -> tuple[Any, ...]:
    """The argument list of the call on `item`."""
    return item if star and isinstance(item, tuple) else (item,)


def timed_call(function: Callable[..., Any], *given: Any) -> Outcome:
    """Runs in the worker: (span, result, None), or (span, None, the error told in text)."""
    started = time.perf_counter()
    try:
        result = function(*given)
    except BaseException as exception:
        return (started, time.perf_counter()), None, failure.describe(exception)
    return (started, time.perf_counter()), result, None


def timed_item(function: Callable[..., Any], star: bool, item: Any) -> Outcome:
    """As `timed_call`, for ``map``: the input itself, spread over the arguments if `star` says so."""
    return timed_call(function, *arguments(item, star))


async def timed_await(function: Callable[..., Any], *given: Any) -> Outcome:
    """As `timed_call`, for an async function."""
    import asyncio

    started = time.perf_counter()
    try:
        result = await function(*given)
    except asyncio.CancelledError as exception:
        task = asyncio.current_task()
        if task is not None and getattr(task, "cancelling", lambda: 0)():
            raise  # the pool is being shut down
        return (started, time.perf_counter()), None, failure.describe(exception)
    except BaseException as exception:
        return (started, time.perf_counter()), None, failure.describe(exception)
    return (started, time.perf_counter()), result, None


def meet(barrier: threading.Barrier) -> None:
    """Runs in a thread of the pool: holds it until all have come."""
    with contextlib.suppress(threading.BrokenBarrierError):
        barrier.wait(WARM_UP_S)


def arrive(function: Any, folder: str, expected: int, patience_s: float) -> int:
    """Runs in the worker: it has imported `function` (to unpickle this call); holds it until all are there.

    Each worker leaves a file in `folder`, which processes and threads can do alike. Gives its process id.
    """
    if isinstance(function, str):
        importlib.import_module(function)
    open(os.path.join(folder, f"{os.getpid()}-{threading.get_ident()}"), "wb").close()
    until = time.monotonic() + patience_s
    while len(os.listdir(folder)) < expected and time.monotonic() < until:
        time.sleep(0.002)
    return os.getpid()


async def arrive_on_loop(function: Any, folder: str, expected: int, patience_s: float) -> int:
    """As `arrive`, on a worker's loop: holds the call until the loops of all processes turn."""
    import asyncio

    if isinstance(function, str):
        importlib.import_module(function)
    open(os.path.join(folder, str(os.getpid())), "wb").close()
    until = time.monotonic() + patience_s
    while len(os.listdir(folder)) < expected and time.monotonic() < until:
        await asyncio.sleep(0.002)
    return os.getpid()


def nothing(_item: object) -> None:
    """A task of no work."""


async def nothing_awaited(_item: object) -> None:
    """An async task of no work."""
