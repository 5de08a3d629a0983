"""What the kernel says of processes agrees with what they did."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from treadle._laboratory import readings


def spin(seconds: float) -> None:
    """Uses that much CPU time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_the_peak_starts_again() -> None:
    if not readings.reset_peak():
        pytest.skip("the kernel refuses to reset the peak")
    block = bytearray(80_000_000)
    block[::4096] = b"x" * len(block[::4096])
    before = readings.resident_bytes()
    del block
    assert readings.peak_resident_bytes() >= before - 4_000_000, (
        "the kernel's counters lag a little"
    )
    assert readings.reset_peak()
    assert readings.peak_resident_bytes() < before - 40_000_000


def test_the_tree_holds_children_and_theirs() -> None:
    program = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        found = readings.tree()
        assert {os.getpid(), child.pid, grandchild} <= set(found)
        memory, kind = readings.tree_memory(found)
        assert memory > readings.tree_memory([os.getpid()])[0] > 1_000_000
        assert kind in ("pss", "rss")
        assert readings.tree_peak_memory(found)[0] >= memory * 0.9
        child.stdin.close()
    assert child.pid not in readings.tree(), "the dead are left out"


def test_the_cpu_time_of_another_process() -> None:
    program = (
        "import sys, time\n"
        "while time.process_time() < 0.3: pass\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        assert readings.cpu_seconds(child.pid) >= 0.29
        child.stdin.close()
    before = readings.cpu_seconds(os.getpid())
    spin(0.05)
    assert readings.cpu_seconds(os.getpid()) - before >= 0.049


def test_what_is_gone_reads_as_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert readings.cpu_seconds(child.pid) == 0.0
    assert readings.proportional_bytes(child.pid) is None
    assert readings.tree_memory([child.pid])[0] == 0


def test_the_run_queue_only_grows() -> None:
    queue = readings.RunQueue()
    if not queue.available:
        pytest.skip("the kernel does not give it")
    first = queue.seconds()
    spin(0.02)
    assert queue.seconds() >= first >= 0.0
    queue.close()
    assert queue.seconds() == 0.0
