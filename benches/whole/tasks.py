"""The functions that workers run. They stand alone here so that every pool can import them."""

from __future__ import annotations

import os
import time
from typing import Any


def identity(value: Any) -> Any:
    """Gives back what it got."""
    return value


def work(seconds: float) -> None:
    """Works for `seconds` by the clock, whatever else the machine does."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def worker_pid(seconds: float) -> int:
    """This worker's process id, after waiting so long that another worker takes the next task."""
    time.sleep(seconds)
    return os.getpid()
