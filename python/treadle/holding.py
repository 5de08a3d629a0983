"""Which threads of this process have held the interpreter lock, lately, while somebody asks.

::

    ask ─► no watch yet: start one, know nothing ─► ask again ─► shares since an earlier reading, at most WINDOW_S ago
                                                     nobody asks for LINGER_S ─► the watch ends

*Guarantees*: a program that nobody watches pays nothing; a share is told only where the lock was found and proved, from at least FEWEST_LOOKS looks,
and for a thread that lived through all of them. Everything else is None.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from typing import NamedTuple

from treadle import _core

#: Looks a second: half a percent of a core on the machine of docs/design/2026-11-22-live.md, and 10 points of margin after a second, 3 after ten.
RATE_HZ = 100.0
#: A share is of the looks since a reading that is no older than this, if there is one.
WINDOW_S = 10.0
#: Longer than the pause of a usual scraper, which is a minute at most.
LINGER_S = 90.0
#: Readings nearer to each other than this are one.
APART_S = 0.5
#: With fewer looks the margin is more than 10 points (95 %).
FEWEST_LOOKS = 100


class Mark(NamedTuple):
    """A thread as the watch knows it, and since when."""

    state: int
    since_s: float


class Shares(NamedTuple):
    """Shares of the looks since ``since_s`` (of ``time.monotonic``): with the lock held by anybody, and by each thread state."""

    since_s: float
    held: float
    by_state: dict[int, float]

    def of(self, mark: Mark | None) -> float | None:
        """A thread's share; None for one that did not live through the whole time."""
        if mark is None or mark.since_s > self.since_s:
            return None
        return self.by_state.get(mark.state, 0.0)


def mark() -> Mark:
    """The calling thread."""
    return Mark(_core.thread_state(), time.monotonic())


class _Reading(NamedTuple):
    at_s: float
    looks: int
    held: int
    by_state: dict[int, int]


class _Watch:
    """The watch of this process, if there is one, and its readings."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watch: _core.LockWatch | None = None
        self._readings: deque[_Reading] = deque()
        self._spent_s = self._last_s = 0.0
        self._closed = False

    def shares(self) -> Shares | None:
        """The shares since the oldest reading in the window; None while too little is known. Keeps the watch going."""
        with self._lock:
            if self._closed:
                return None
            seen = None if self._watch is None else self._watch.ask()
            if seen is None:
                self._start()
                return None
            now = _Reading(time.monotonic(), *seen)
            readings = self._readings
            # The oldest one stays if no other is old enough: a scraper that comes once a minute gets that minute.
            while len(readings) > 1 and now.at_s - readings[0].at_s > WINDOW_S:
                readings.popleft()
            base = readings[0]
            if now.at_s - readings[-1].at_s >= APART_S:
                readings.append(now)
        looks = now.looks - base.looks
        if looks < FEWEST_LOOKS:
            return None
        return Shares(
            base.at_s,
            (now.held - base.held) / looks,
            {
                state: (count - base.by_state.get(state, 0)) / looks
                for state, count in now.by_state.items()
            },
        )

    def _start(self) -> None:
        if self._watch is not None and self._watch.absent is not None:
            return  # it will not be found later either
        self._spent_s, self._last_s = self._spent_s + self._last_s, 0.0
        self._watch = _core.LockWatch(RATE_HZ, LINGER_S)
        self._readings = deque([_Reading(time.monotonic(), 0, 0, {})])

    def cpu_s(self) -> float:
        """CPU seconds that watching has cost, of a watch that has ended up to the last time that this was asked."""
        with self._lock:
            if self._watch is not None:
                self._last_s = max(self._last_s, self._watch.cpu_seconds())
            return self._spent_s + self._last_s

    def close(self) -> None:
        """At the interpreter's exit: the lock's memory goes with it."""
        with self._lock:
            self._closed = True
            if self._watch is not None:
                self._watch.close()


_watch = _Watch()


def shares() -> Shares | None:
    """What is known of the last seconds; the first asking begins the watch."""
    return _watch.shares()


def cpu_s() -> float:
    """CPU seconds that watching has cost."""
    return _watch.cpu_s()


@atexit.register
def _close() -> None:
    _watch.close()


def _begin_anew() -> None:
    """In a forked child: the watch, and perhaps a thread in the midst of asking, are the parent's."""
    global _watch
    _watch = _Watch()


os.register_at_fork(after_in_child=_begin_anew)
