"""Costs that do not depend on how busy the machine is: instructions, switches, CPU seconds, memory."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path

#: ``perf_event_open`` by its number: the C library has no function for it.
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
#: The length of the first version of ``struct perf_event_attr``, and the places in it that are used.
_ATTRIBUTE_BYTES, _FLAGS_AT = 64, 40
_HARDWARE, _INSTRUCTIONS = 0, 1
#: Follow children; leave the kernel out, as an ordinary user must.
_INHERIT, _WITHOUT_KERNEL, _WITHOUT_HYPERVISOR = 1 << 1, 1 << 5, 1 << 6


class Instructions:
    """Instructions in user space of this process and of every child that it starts from now on."""

    def __init__(self) -> None:
        self._descriptor = -1
        number = _PERF_EVENT_OPEN.get(os.uname().machine)
        if number is None:
            return
        attribute = bytearray(_ATTRIBUTE_BYTES)
        struct.pack_into("=IIQ", attribute, 0, _HARDWARE, _ATTRIBUTE_BYTES, _INSTRUCTIONS)
        flags = _INHERIT | _WITHOUT_KERNEL | _WITHOUT_HYPERVISOR
        struct.pack_into("=Q", attribute, _FLAGS_AT, flags)
        buffer = (ctypes.c_char * _ATTRIBUTE_BYTES).from_buffer(attribute)
        call = ctypes.CDLL(None, use_errno=True).syscall
        self._descriptor = call(number, buffer, 0, -1, -1, 0)

    def read(self) -> int | None:
        """The count so far; None where there is no such counter (in most virtual machines)."""
        if self._descriptor < 0:
            return None
        return int(struct.unpack("=Q", os.read(self._descriptor, 8))[0])


def switches(pids: Iterable[int]) -> int:
    """How often the threads of these processes gave the CPU up by themselves: each sleep is one."""
    count = 0
    for pid in pids:
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            try:
                text = status.read_text()
            except OSError:
                continue
            _, _, after = text.partition("\nvoluntary_ctxt_switches:")
            count += int(after.split()[0])
    return count


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU seconds of these processes, to the nanosecond."""
    # A process's CPU clock, numbered as the kernel does: the complement of its id, and 2 for "scheduler's time".
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def resident_bytes() -> int:
    """This process's own memory, without what it shares."""
    total = 0
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:", "Shared_Dirty:")):
            total += int(line.split()[1]) * 1024
    return total
