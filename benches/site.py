"""The demo's local site for benchmarks that fetch from it: its server, and the descriptors that so many connections need."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benches.whole import machine

SERVER = machine.ROOT / "demo" / "server.py"
OPEN_FILES = 8192  # a thousand connections need a descriptor each, at both ends


@contextmanager
def server() -> Iterator[str]:
    """The local HTTP server in a process of its own, which ends with its standard input."""
    process = subprocess.Popen(
        [sys.executable, str(SERVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError("the local server did not start; its message is above")
        yield address
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def raise_open_files() -> None:
    """Lifts the soft limit on open files, which the processes of a benchmark inherit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
