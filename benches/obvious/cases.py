"""Functions whose best plan is forty times as fast as a plain loop, and more."""

from __future__ import annotations

import time


def nap(_item: int) -> None:
    """50 ms of waiting."""
    time.sleep(0.05)
