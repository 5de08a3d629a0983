"""A worker of several threads: each takes tasks by itself, the main thread sleeps and handles signals.

::

    main thread: signal ─► raise in the threads whose tasks are to stop
    thread k:    lane k: take ─► call ─► reply
"""

from __future__ import annotations

import _signal
import sys
import threading
from types import FrameType

from treadle import _core, _coroutine, errors


def run(worker: _core.Worker, count: int, name: str) -> None:
    """Runs tasks in so many threads until the parent asks this worker to leave, or it has reached a limit."""

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        # Ctrl-C at the terminal reaches workers too; only the parent's own requests count here.
        worker.raise_where_requested(errors.TaskInterrupted)
        _coroutine.wake_loops()

    _signal.signal(_signal.SIGINT, on_interrupt)
    # Before the threads: one of them sleeps with what this is said over.
    worker.ready()
    started: list[threading.Thread] = []
    for index in range(count):
        thread = threading.Thread(target=_run, args=(worker, index), name=f"{name}_{index}")
        try:
            thread.start()
        except RuntimeError as error:
            if not started:
                raise
            sys.stderr.write(
                f"treadle: a worker has {len(started)} threads instead of {count}: {error}\n"
            )
            break
        started.append(thread)
    worker.await_lanes(len(started))
    for thread in started:
        thread.join()


def _run(worker: _core.Worker, index: int) -> None:
    try:
        worker.run_lane(index)
    finally:
        _coroutine.close_loop()
