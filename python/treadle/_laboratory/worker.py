"""One real worker of each kind, started once: how long until it is of use, and what it weighs."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from treadle._laboratory import calls, interpreter, readings, trial
from treadle._laboratory.target import Target

#: Threads started to time one: a single start (some 50 µs) is at the clock's noise. So many times: what else runs, our own laboratories
#: that are loading among it, made one of them 30 times as long, and a pool of 256 not worth its start.
THREADS = 10
TRIES = 5


def start_costs(target: Target, apart: bool = True) -> dict[str, Any]:
    """``worker_start_s`` {"process", "thread", "interpreter"} (seconds) and ``worker_rss_bytes`` of the process.

    Process and interpreter have imported the function's module; without `apart` neither is started. What was
    not or could not be started has None, the interpreter with its reason in ``interpreter_refused``.
    """
    seconds: float | None = None
    size: int | None = None
    interpreter_s: float | None = None
    refused: str | None = None
    if apart:
        module = target.name.partition(":")[0]
        seconds, size = _process(module)
        interpreter_s, refused = interpreter.start(module, seconds)
    return {
        "worker_start_s": {
            "process": seconds,
            "thread": _thread_start_s(),
            "interpreter": interpreter_s,
            "interpreter_refused": refused,
        },
        "worker_rss_bytes": size,
    }


def _process(module: str) -> tuple[float | None, int | None]:
    """(seconds to start a process that has imported `module`, its resident bytes); None if it did not start."""
    seconds = size = None
    started = time.perf_counter()
    pool = None
    with contextlib.suppress(Exception):
        pool = trial.open_pool({"processes": 1})
        with trial.meeting_place() as folder:
            future = pool.submit(calls.arrive, module, folder, 1, 0.0)
            pid = future.result(calls.WARM_UP_S)
        seconds = time.perf_counter() - started
        size = readings.resident_bytes(pid) or None
    if pool is not None:
        with contextlib.suppress(Exception):
            pool.shutdown(wait=seconds is not None, cancel_futures=True)
    return seconds, size


def _thread_start_s() -> float:
    """Seconds to start a thread beside others that stay, as a pool does: the least of a few tries."""
    least = float("inf")
    for _ in range(TRIES):
        gate = threading.Event()
        threads = [threading.Thread(target=gate.wait) for _ in range(THREADS)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        least = min(least, (time.perf_counter() - started) / THREADS)
        gate.set()
        for thread in threads:
            thread.join()
    return least
