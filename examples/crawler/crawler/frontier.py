"""The frontier: which address may be asked next, and when.

*Guarantees*: between two requests to one host lies at least 1/rate; an address is handed out once until it is forgotten,
which is when the store knows its outcome; few addresses of a host are in memory, however long its queue in the store is.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Protocol

from crawler.robots import Rules
from crawler.store import Waiting

HELD = 200  # addresses of a host taken into memory at a time; the others wait in the store


class Queue(Protocol):
    """What the frontier needs of a store."""

    def waiting(self, host: str, limit: int) -> list[Waiting]: ...

    def waiting_hosts(self) -> list[str]: ...


class HostQueue:
    """The addresses of one host that are in memory, and its pace."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.rules: Rules | None = None  # None: its robots.txt is not known yet
        self.ready: list[tuple[float, int, str, Waiting]] = []  # a heap by (due, depth, address)
        self.known: set[str] = set()  # in the heap or handed out
        self.next_at = 0.0  # wall clock
        self.stale = True  # the store may hold more

    def refill(self, queue: Queue, now: float) -> None:
        """Takes addresses from the store if few are left here that may be asked now."""
        if not self.stale or sum(entry[0] <= now for entry in self.ready) >= HELD // 2:
            return
        # The store does not know what was handed out, so it may name all of those first.
        limit = HELD + len(self.known)
        found = queue.waiting(self.host, limit)
        for waiting in found:
            if waiting.address not in self.known:
                self.known.add(waiting.address)
                heapq.heappush(self.ready, (waiting.due, waiting.depth, waiting.address, waiting))
        self.stale = len(found) == limit

    def forget(self, address: str) -> None:
        """The store knows what became of an address that was handed out."""
        self.known.discard(address)

    def when(self) -> float | None:
        """From when on the next address may be asked; None if there is none."""
        return max(self.next_at, self.ready[0][0]) if self.ready else None

    def take(self, now: float) -> Waiting:
        """Hands out the next address."""
        waiting = heapq.heappop(self.ready)[3]
        assert self.rules is not None
        self.next_at = max(now, self.next_at) + 1 / self.rules.rate
        return waiting


class Frontier:
    """All hosts of a crawl. `now` gives the wall clock."""

    def __init__(self, queue: Queue, now: Callable[[], float]) -> None:
        self._queue = queue
        self._now = now
        self.hosts: dict[str, HostQueue] = {}
        self.refresh()

    def refresh(self) -> list[HostQueue]:
        """Looks into the store for what was added; returns the hosts that were not known before."""
        fresh = []
        now = self._now()
        for name in self._queue.waiting_hosts():
            if name not in self.hosts:
                fresh.append(self.hosts.setdefault(name, HostQueue(name)))
        for host in self.hosts.values():
            host.stale = True
            if host.rules is not None:
                host.refill(self._queue, now)
        return fresh

    def admit(self, host: HostQueue, rules: Rules) -> None:
        """The host may be asked for pages, by these rules."""
        host.rules = rules
        host.refill(self._queue, self._now())

    def next(self) -> tuple[HostQueue, Waiting] | None:
        """The address that has waited longest of those that may be asked now."""
        now = self._now()
        best: tuple[float, HostQueue] | None = None
        for host in self.hosts.values():
            when = host.when() if host.rules is not None else None
            if when is not None and when <= now and (best is None or when < best[0]):
                best = (when, host)
        return (best[1], best[1].take(now)) if best is not None else None

    def until_next(self) -> float | None:
        """Seconds until an address may be asked; None if none waits."""
        times = [
            when for host in self.hosts.values() if host.rules and (when := host.when()) is not None
        ]
        return max(0.0, min(times) - self._now()) if times else None
