"""Descendants of this process: found in /proc, signalled through a pidfd so that never a stranger is hit."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def _parent_of(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[1])


def children_of(pid: int) -> list[int]:
    """The living children of all threads of a process."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            text = Path(f"/proc/{pid}/task/{thread}/children").read_text()
        except OSError:
            continue
        found.extend(child for child in map(int, text.split()) if _parent_of(child) is not None)
    return found


def zygotes() -> list[int]:
    """The zygotes of this process, which has no other children that have children or wait for them."""
    return children_of(os.getpid())


def workers() -> list[int]:
    """Every worker of every pool of this process."""
    return [worker for zygote in zygotes() for worker in children_of(zygote)]


def send(pid: int, signum: int, parent: int | None = None) -> bool:
    """Signals a process if it still is a child of ``parent`` (or of one of our zygotes); whether it was sent."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        allowed = zygotes() if parent is None else [parent]
        if _parent_of(pid) not in allowed:
            return False
        signal.pidfd_send_signal(descriptor, signum)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def wait_until_gone(pids: list[int], seconds: float = 20.0) -> list[int]:
    """The processes that still live after a generous watchdog; polled, for they are not our children."""
    deadline = time.monotonic() + seconds
    left = pids
    while left and time.monotonic() < deadline:
        left = [pid for pid in left if _parent_of(pid) is not None]
        if left:
            time.sleep(0.01)
    return left
