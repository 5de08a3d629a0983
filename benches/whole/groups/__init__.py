"""The groups of workloads: one file for each line, or few lines, of the speed table."""

from __future__ import annotations

from benches.whole.groups import (
    arrays,
    asynchronous,
    chunks,
    coroutines,
    latency,
    mapping,
    memory,
    payloads,
    shared,
    start,
    threads,
    tiny,
    useful,
    waiting,
)
from benches.whole.workload import Workload

WORKLOADS: tuple[Workload, ...] = (
    *tiny.WORKLOADS,
    *mapping.WORKLOADS,
    *chunks.WORKLOADS,
    *latency.WORKLOADS,
    *arrays.WORKLOADS,
    *payloads.WORKLOADS,
    *shared.WORKLOADS,
    *waiting.WORKLOADS,
    *asynchronous.WORKLOADS,
    *coroutines.WORKLOADS,
    *start.WORKLOADS,
    *memory.WORKLOADS,
    *threads.WORKLOADS,
    *useful.WORKLOADS,
)

GROUPS: tuple[str, ...] = tuple(dict.fromkeys(workload.group for workload in WORKLOADS))
