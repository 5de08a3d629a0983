"""Bytes of middle size, there and back."""

from __future__ import annotations

from benches.whole.groups import tiny
from benches.whole.pools import PROCESSES
from benches.whole.workload import Requirement, Workload

TASKS = 256  # in flight in one sample: 16 and 64 MiB


def workload(kibibytes: int) -> Workload:
    """Tasks whose argument and result are `kibibytes` of bytes."""
    return Workload(
        group="bytes",
        name=f"bytes-{kibibytes}KiB",
        title=f"{kibibytes} KiB of bytes as argument and result",
        contenders=tuple(PROCESSES),
        open=tiny.of([bytes([number % 256]) * (kibibytes * 1024) for number in range(TASKS)]),
        requirements=(Requirement(8, 20),),
    )


WORKLOADS = (workload(64), workload(256))
