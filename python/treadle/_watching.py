"""What `treadle top` and `treadle dump` see of this program: which pools there are, and what only Python can tell of them.

The engine's own pools are told by the engine, without the interpreter's lock. The others are told by :func:`pools`, in the same form, when
the engine's desk asks for it and the lock is free.

*Guarantees*: a program that cannot be watched runs as any other; nothing here runs while nobody asks.
"""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Any

from treadle import _core, strategies
from treadle.strategies import Histogram, Stats, Strategy, WorkerStats

#: The tasks of a pool that are told one by one, where one worker runs many: as many as fit a screen.
_MOST_TASKS = 20

#: The pools that are told, and their numbers.
_numbers: weakref.WeakKeyDictionary[Strategy, int] = weakref.WeakKeyDictionary()
#: Of these, the ones whose executors were shut down.
_closing: weakref.WeakSet[Strategy] = weakref.WeakSet()


def show(strategy: Strategy) -> None:
    """Has a pool told to watchers from now on. A serial plan has no workers, so there is nothing to watch."""
    if strategy.plan.strategy == "serial" or os.environ.get("TREADLE_TOP") == "0":
        return
    try:
        _core.open_desk()
    except OSError:
        # No socket or no thread is to be had here; what the pool is for works without.
        return
    number = _core.next_pool_number()
    pool = strategy.live()
    if pool is not None:
        _core.show(
            pool,
            number,
            strategy.settings.name,
            strategy.plan.strategy,
            str(strategy.plan),
            strategy.concurrency,
            strategy.settings.max_pending,
        )
    _numbers[strategy] = number


def _told() -> list[tuple[int, Strategy]]:
    return sorted(((number, strategy) for strategy, number in list(_numbers.items())), key=_first)


def _first(pair: tuple[int, Strategy]) -> int:
    return pair[0]


def pools() -> str:
    """The pools that only Python can tell, as JSON in the form of the engine's ``live::picture::Pool``."""
    import json

    return json.dumps(
        [
            _picture(number, strategy, stats)
            for number, strategy in _told()
            if strategy.live() is None
            for stats in [strategy.stats()]
            if strategy not in _closing or stats.running or stats.queued
        ]
    )


def stacks() -> str:
    """What the workers do, with stacks, of the pools whose stacks only Python can tell, as JSON: ``[{"pool": …, "text": …}]``."""
    found = []
    for number, strategy in _told():
        if isinstance(strategy.live(), _core.ProcessPool):
            continue
        try:
            text = strategy.dump()
        except Exception as error:
            text = f"(its stacks cannot be had: {type(error).__name__}: {error})\n"
        found.append({"pool": number, "text": text})
    import json

    return json.dumps(found)


def _picture(number: int, strategy: Strategy, stats: Stats) -> dict[str, Any]:
    return {
        "number": number,
        "name": strategy.settings.name,
        "strategy": strategy.plan.strategy,
        "plan": str(strategy.plan),
        "concurrency": strategy.concurrency,
        "submitted": stats.submitted,
        "completed": stats.completed,
        "cancelled": stats.cancelled,
        "lost": stats.lost,
        "retried": stats.retried,
        "timed_out": stats.timed_out,
        "deaths": stats.worker_deaths,
        "running": stats.running,
        "queued": stats.queued,
        "oldest_s": stats.oldest_s,
        "limit": stats.limit,
        "payload_bytes": stats.payload_bytes,
        "wait": _histogram(stats.wait),
        "duration": _histogram(stats.duration),
        "turnaround": _histogram(stats.turnaround),
        "broken": next(iter(strategy.broken().splitlines()), None),
        "closing": strategy in _closing,
        "workers": [_worker(worker) for worker in stats.workers],
        "tasks": [
            {"function": function, "running_s": seconds}
            for function, seconds in strategy.longest(_MOST_TASKS)
        ],
    }


def _worker(worker: WorkerStats) -> dict[str, Any]:
    return {
        "worker": worker.worker,
        "ident": worker.ident,
        "state": worker.state,
        "tasks": worker.tasks,
        "restarts": worker.restarts,
        "running_s": worker.running_s,
        "cpu_s": worker.cpu_s,
        "memory_bytes": worker.memory_bytes,
    }


def _histogram(found: Histogram | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"bounds_s": found.bounds_s, "counts": found.counts, "sum_s": found.sum_s}


def _forget() -> None:
    """In a forked child: the pools are the parent's."""
    _numbers.clear()
    _closing.clear()


os.register_at_fork(after_in_child=_forget)
strategies.on_end(_closing.add)
# Runs after the pools have ended, and before the interpreter does.
atexit.register(_core.close_desk)
