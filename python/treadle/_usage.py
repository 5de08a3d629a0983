"""What processes and threads have used, from ``/proc``: nothing where the system has none."""

from __future__ import annotations

import os
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """CPU seconds and resident bytes of a process or a thread."""

    cpu_s: float
    memory_bytes: int


def usage(path: str) -> Usage | None:
    """What a ``stat`` file of ``/proc`` says; None where there is none (any more)."""
    try:
        with open(path, "rb") as file:
            # The name stands in brackets and may hold anything; what follows the last bracket is numbers.
            fields = file.read().rpartition(b")")[2].split()
        return Usage((int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE)
    except (OSError, ValueError, IndexError):
        return None
