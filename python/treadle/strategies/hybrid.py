"""Worker processes that run several tasks each: threads, or coroutines on one event loop.

::

    submit ─► queue in shared memory ─► any process with a free place ─► one of its threads: call ─► record
                                                                     └─► its loop: asyncio.Task ──► record

It is the engine of :mod:`treadle.strategies.processes`; only the workers differ, and what one that ends costs.
"""

from __future__ import annotations

import functools

from treadle import _core, errors
from treadle.plan import Plan
from treadle.strategies import Settings
from treadle.strategies.coroutines import refuse_plain
from treadle.strategies.processes import Processes


class Hybrid(Processes):
    """A pool of processes with threads, or with an event loop, in each."""

    def __init__(self, plan: Plan, settings: Settings) -> None:
        self.has_chunks = plan.coroutines is None
        within = "an event loop" if plan.coroutines else "threads"
        self.engine = f"processes with {within} each, over shared memory"
        if plan.coroutines:
            self._admit = functools.partial(refuse_plain, blocking="processes=…, threads=…")
        _check_sizes(plan)
        super().__init__(plan, settings)


def _check_sizes(plan: Plan) -> None:
    threads, coroutines = _core.ProcessPool.most_in_each(plan.processes or 1)
    for name, asked, most in (
        ("threads", plan.threads, threads),
        ("coroutines", plan.coroutines, coroutines),
    ):
        if asked is not None and asked > most:
            raise errors.PlanError(
                f"{plan.processes} processes may have at most {most} {name} each, not {asked}\n\n"
                f"hint: the queue in shared memory names each place of a task; fewer processes may have more {name} each"
            )
