"""What the kernel says of this process and of the processes below it: CPU seconds, memory, threads.

Every reading is tolerant: where the platform does not give it, the answer is None (or 0 for sums), never
a guess.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from typing import NamedTuple

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01


class RunQueue:
    """Seconds that the creating thread was ready to run but got no CPU (``schedstat``, second field)."""

    def __init__(self) -> None:
        try:
            self._file: int | None = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
            self._parse(self._file)
        except (OSError, ValueError, IndexError):
            self._file = None

    @staticmethod
    def _parse(file: int) -> float:
        return int(os.pread(file, 64, 0).split()[1]) / 1e9

    @property
    def available(self) -> bool:
        """Whether the kernel gives the reading."""
        return self._file is not None

    def seconds(self) -> float:
        """Total since the thread began; 0.0 where not available."""
        return 0.0 if self._file is None else self._parse(self._file)

    def close(self) -> None:
        """Gives the file back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _status(pid: int | str) -> dict[str, int]:
    """The ``Vm*`` lines of a process in bytes; empty where not readable."""
    found = {}
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Vm"):
                    name, _, rest = line.partition(b":")
                    found[name.decode()] = int(rest.split()[0]) * 1024
    except (OSError, ValueError):
        pass
    return found


def resident_bytes(pid: int | str = "self") -> int:
    """The resident set now, bytes; where there is no ``/proc``, this process's largest so far."""
    found = _status(pid).get("VmRSS")
    if found is not None:
        return found
    if pid != "self":
        return 0
    return _largest_resident()


def _largest_resident() -> int:
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def peak_resident_bytes(pid: int | str = "self") -> int:
    """The largest resident set since `reset_peak` (or since the start where that was refused), bytes."""
    found = _status(pid).get("VmHWM")
    if found is not None:
        return found
    return _largest_resident() if pid == "self" else 0


def reset_peak(pid: int | str = "self") -> bool:
    """Makes the peak start again at the present resident set; needs no privilege on Linux."""
    try:
        with open(f"/proc/{pid}/clear_refs", "wb", buffering=0) as file:
            file.write(b"5")
    except OSError:
        return False
    return True


def proportional_bytes(pid: int | str) -> int | None:
    """The resident set with every shared page divided by its sharers (PSS), bytes; None if not readable."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def operating_system_threads() -> int | None:
    """Threads of this process as the kernel counts them; None where not readable."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return None


def tree() -> list[int]:
    """This process, all below it, and all in its process group if it leads one; zombies left out."""
    own = os.getpid()
    leads = hasattr(os, "getpgrp") and os.getpgrp() == own
    children: dict[int, list[int]] = {}
    members = {own}
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return [own]
    for name in names:
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if not fields or fields[0] in (b"Z", b"X"):
            continue
        pid = int(name)
        children.setdefault(int(fields[1]), []).append(pid)
        if leads and int(fields[2]) == own:
            members.add(pid)
    waiting = list(members)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in members:
                members.add(child)
                waiting.append(child)
    return sorted(members)


def cpu_seconds(pid: int) -> float:
    """CPU seconds of all threads of a process, ended ones too; 0.0 if it is gone.

    The process's CPU clock (nanoseconds; the number is made as ``clock_getcpuclockid`` makes it), or
    ``/proc/PID/stat`` (clock ticks) where the clock is refused.
    """
    if pid == os.getpid():
        return time.process_time()
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except (OSError, OverflowError, AttributeError):
        pass
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S
    except (OSError, ValueError, IndexError):
        return 0.0


def tree_run_queue_seconds(pids: Iterable[int]) -> dict[str, float] | None:
    """Seconds that each thread of the processes was ready to run but got no CPU; None where not readable.

    The keys name the threads; those that ended between two readings are missing from the second.
    """
    found: dict[str, float] = {}
    for pid in pids:
        folder = f"/proc/{pid}/task"
        try:
            threads = os.listdir(folder)
        except OSError:
            continue
        for thread in threads:
            try:
                file = os.open(f"{folder}/{thread}/schedstat", os.O_RDONLY)
            except OSError:
                continue
            try:
                found[thread] = int(os.read(file, 64).split()[1]) / 1e9
            except (OSError, ValueError, IndexError):
                continue
            finally:
                os.close(file)
    return found or None


class MachineTime(NamedTuple):
    """Seconds of processor time of the processors that this process may use, since the machine started."""

    capacity: float
    busy: float
    stolen: float


def machine_time() -> MachineTime | None:
    """What the kernel counts in ``/proc/stat``, in clock ticks (10 ms); None where not readable."""
    try:
        allowed = os.sched_getaffinity(0)
        with open("/proc/stat", "rb") as file:
            text = file.read()
    except (OSError, AttributeError):
        return None
    capacity = busy = stolen = 0
    for line in text.split(b"\n"):
        name, *fields = line.split() or [b""]
        if not name.startswith(b"cpu"):
            break
        if not name[3:].isdigit() or int(name[3:]) not in allowed:
            continue
        # user, nice, system, idle, waiting for input or output, interrupts, soft interrupts, stolen
        ticks = [int(field) for field in fields[:8]] + [0] * (8 - len(fields[:8]))
        capacity += sum(ticks)
        busy += sum(ticks[:3]) + ticks[5] + ticks[6]
        stolen += ticks[7]
    if not capacity:
        return None
    return MachineTime(capacity * _TICK_S, busy * _TICK_S, stolen * _TICK_S)


def tree_cpu_seconds(pids: Iterable[int]) -> dict[int, float]:
    """CPU seconds so far of each process."""
    return {pid: cpu_seconds(pid) for pid in pids}


def ended_children_seconds(pids: Iterable[int]) -> float:
    """CPU seconds of ended processes that these have waited for: programs that the function ran."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            total += int(fields[13]) + int(fields[14])
        except (OSError, ValueError, IndexError):
            continue
    return total * _TICK_S


def tree_memory(pids: Iterable[int]) -> tuple[int, str]:
    """(bytes, kind): the sum over the processes; kind is ``pss``, or ``rss`` if any PSS was unreadable."""
    shares, whole, kind = 0, 0, "pss"
    for pid in pids:
        resident = resident_bytes(pid)
        if not resident:
            continue  # ended meanwhile
        whole += resident
        share = proportional_bytes(pid)
        if share is None:
            kind = "rss"
        else:
            shares += share
    return (shares, kind) if kind == "pss" else (whole, kind)


def tree_peak_memory(pids: Iterable[int]) -> tuple[int, str]:
    """(bytes, kind) as `tree_memory`, plus how far above its present size each process has been.

    An upper bound: the processes' peaks need not coincide. Counted since `reset_peak` of each.
    """
    pids = list(pids)
    total, kind = tree_memory(pids)
    for pid in pids:
        status = _status(pid)
        total += max(0, status.get("VmHWM", 0) - status.get("VmRSS", 0))
    return total, kind
