"""The crawl: takes addresses from the frontier, has them visited, writes what came.

    frontier ─► executor.submit(visit) ─► arrivals ─► batch ─► store (one transaction) ─► frontier

One thread does all of this; only `visit` runs in the workers, under whatever plan the executor has. Nothing here depends
on the plan: a serial executor runs the visit inside `submit`, the others at the same time as this loop.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import treadle

from crawler.addresses import host_of
from crawler.frontier import Frontier, HostQueue
from crawler.robots import Rules
from crawler.store import Finished, Postponed, Store, Waiting
from crawler.visiting import Unavailable, Visit, visit, visit_robots

BATCH = 50  # outcomes in a transaction
BATCH_AGE_S = 0.25  # an outcome waits no longer than this for its transaction
ROBOTS_AGE_S = 24 * 3600  # a robots.txt is read again after a day
NOTHING_ALLOWED = "User-agent: *\nDisallow: /\n"


class Settings(NamedTuple):
    """What may be said of a crawl. Times in seconds, `rate` in requests a second and host."""

    deadline: float = 5.0
    retries: int = 4
    backoff: float = 0.5  # before the first repeat; doubled for each further one
    longest_backoff: float = 60.0
    rate: float = 50.0
    max_depth: int = 50
    max_pages: int | None = None  # ends the crawl after so many visits, for samples


DEFAULTS = Settings()


class Tally(NamedTuple):
    """What a crawl did. After `stored_seconds` of its `seconds`, and `stored_visits` visits, the last page was stored; the
    rest went into pages that never came. `repeats` are outcomes that were in the store already."""

    outcomes: Counter[str]
    seconds: float
    stored_seconds: float
    stored_visits: int
    repeats: int

    @property
    def pages_per_second(self) -> float:
        """Stored pages a second, until the last of them."""
        return self.outcomes["stored"] / self.stored_seconds if self.stored_seconds else 0.0


class Crawl:
    """One run over a store. Only addresses of hosts that `allowed` names are followed."""

    def __init__(
        self,
        store: Store,
        executor: treadle.Executor,
        allowed: Callable[[str], bool],
        settings: Settings = DEFAULTS,
        report: Callable[[Counter[str], float], None] = lambda outcomes, seconds: None,
    ) -> None:
        self._store = store
        self._executor = executor
        self._allowed = allowed
        self._settings = settings
        self._report = report
        self._frontier = Frontier(store, time.time)
        self._arrivals: SimpleQueue[tuple[Callable[[Future[Any]], None], Future[Any]]] = (
            SimpleQueue()
        )
        self._in_flight = 0
        self._visited = 0  # visits begun
        self._answered = 0  # visits ended, whatever came of them
        self._finished: list[Finished] = []
        self._postponed: list[Postponed] = []
        self._oldest = 0.0
        self._began = 0.0
        self._last_stored = 0.0, 0  # seconds and visits until then
        self._robots_attempts: Counter[str] = Counter()
        self._robots_due: dict[str, float] = {}
        self._outcomes: Counter[str] = Counter()
        self._repeats = 0

    def run(self) -> Tally:
        """Crawls until nothing waits any more.

        Raises:
            StoreError: the store failed; what was stored before stays, and another run goes on from there.
        """
        self._began = time.monotonic()
        self._greet(list(self._frontier.hosts.values()))
        try:
            while True:
                self._submit()
                wait = self._patience()
                if wait is None:
                    break
                self._receive(wait)
                if self._batch_is_due():
                    self._write()
                    self._report(self._outcomes, time.monotonic() - self._began)
        except KeyboardInterrupt:
            self._write()
            raise
        seconds = time.monotonic() - self._began
        return Tally(self._outcomes, seconds, *self._last_stored, self._repeats)

    # Out

    def _submit(self) -> None:
        """Starts what may start: due addresses, while the plan has room."""
        now = time.time()
        for name, due in list(self._robots_due.items()):
            if due <= now:
                del self._robots_due[name]
                self._ask_robots(self._frontier.hosts[name])
        while self._in_flight < self._executor.plan.concurrency and not self._enough():
            found = self._frontier.next()
            if found is None:
                return
            host, waiting = found
            assert host.rules is not None
            if not host.rules.allow(waiting.address):
                self._take(Finished(*waiting[:2], Visit("refused", reason="robots.txt forbids it")))
                continue
            self._visited += 1
            call = self._executor.submit(visit, waiting.address, self._settings.deadline)
            self._expect(call, partial(self._visited_page, host, waiting))

    def _enough(self) -> bool:
        return self._settings.max_pages is not None and self._visited >= self._settings.max_pages

    def _expect(self, call: Future[Any], then: Callable[[Future[Any]], None]) -> None:
        self._in_flight += 1
        call.add_done_callback(lambda done: self._arrivals.put((then, done)))

    def _greet(self, hosts: list[HostQueue]) -> None:
        """Finds out what new hosts allow; until then they are not asked for pages."""
        known = self._store.robots() if hosts else {}
        for host in hosts:
            text, read_at = known.get(host.host, ("", 0.0))
            if time.time() - read_at < ROBOTS_AGE_S:
                self._admit(host, text)
            else:
                self._ask_robots(host)

    def _ask_robots(self, host: HostQueue) -> None:
        call = self._executor.submit(visit_robots, host.host, self._settings.deadline)
        self._expect(call, partial(self._visited_robots, host))

    def _admit(self, host: HostQueue, robots: str) -> None:
        self._frontier.admit(host, Rules(robots, self._settings.rate))

    # In

    def _patience(self) -> float | None:
        """Seconds that may pass until the next step; None when there is nothing left to do."""
        times = [due - time.time() for due in self._robots_due.values()]
        if self._finished or self._postponed:
            times.append(self._oldest + BATCH_AGE_S - time.monotonic())
        if self._in_flight < self._executor.plan.concurrency and not self._enough():
            until = self._frontier.until_next()
            if until is not None:
                times.append(until)
        if times:
            return max(0.0, min(times))
        return 60.0 if self._in_flight else None

    def _receive(self, wait: float) -> None:
        """Takes what has arrived; waits for the first arrival up to `wait` seconds."""
        try:
            then, call = self._arrivals.get(timeout=wait)
            while True:
                self._in_flight -= 1
                then(call)
                then, call = self._arrivals.get_nowait()
        except Empty:
            pass

    def _visited_page(self, host: HostQueue, waiting: Waiting, call: Future[Any]) -> None:
        self._answered += 1
        error = call.exception()
        if error is None:
            outcome: Visit = call.result()
            found = outcome.links or ((outcome.target,) if outcome.target else ())
            deeper = waiting.depth < self._settings.max_depth
            follow = [link for link in found if deeper and self._allowed(host_of(link))]
            self._take(Finished(waiting.address, waiting.depth, outcome, follow))
        elif isinstance(error, Unavailable):
            self._again(host, waiting, error)
        elif isinstance(error, treadle.WorkerDied):
            self._again(host, waiting, Unavailable(f"its worker {error.ending}"))
        else:
            # A fault of this program or of the pool: the page is kept for another run, the user hears of it.
            raise error

    def _again(self, host: HostQueue, waiting: Waiting, error: Unavailable) -> None:
        """Puts an address off, or gives it up after its last attempt."""
        now = time.time()
        if error.crowded:
            # The host as a whole is asked too often: none of its pages is asked for a while.
            host.next_at = max(host.next_at, now + (error.wait or 1.0))
        attempts = waiting.attempts + 1
        failed = attempts > self._settings.retries
        due = now + max(error.wait or 0.0, self._backoff(attempts))
        self._note(Postponed(waiting.address, attempts, due, error.reason, failed), self._postponed)
        self._outcomes["failed" if failed else "again"] += 1

    def _backoff(self, attempts: int) -> float:
        """Seconds before attempt number `attempts` + 1: doubled each time, a quarter more or less."""
        settings = self._settings
        wait = min(settings.longest_backoff, settings.backoff * 2 ** max(0, attempts - 1))
        return wait * random.uniform(0.75, 1.25)

    def _visited_robots(self, host: HostQueue, call: Future[Any]) -> None:
        error = call.exception()
        if error is None:
            self._store.keep_robots(host.host, call.result())
            self._admit(host, call.result())
        elif isinstance(error, (Unavailable, treadle.WorkerDied)):
            self._robots_attempts[host.host] += 1
            attempts = self._robots_attempts[host.host]
            if attempts <= self._settings.retries:
                self._robots_due[host.host] = time.time() + self._backoff(attempts)
            else:
                # Who does not say what is allowed allows nothing.
                self._admit(host, NOTHING_ALLOWED)
        else:
            raise error

    # Down

    def _take(self, finished: Finished) -> None:
        self._outcomes[finished.visit.state] += 1
        self._note(finished, self._finished)

    def _note(self, outcome: Any, batch: list[Any]) -> None:
        if not self._finished and not self._postponed:
            self._oldest = time.monotonic()
        batch.append(outcome)

    def _batch_is_due(self) -> bool:
        size = len(self._finished) + len(self._postponed)
        age = time.monotonic() - self._oldest
        return size >= BATCH or (size > 0 and (age >= BATCH_AGE_S or not self._in_flight))

    def _write(self) -> None:
        """Commits the batch, then lets the frontier see what it added."""
        self._repeats += self._store.record(self._finished, self._postponed)
        if any(finished.visit.state == "stored" for finished in self._finished):
            self._last_stored = time.monotonic() - self._began, self._answered
        for address in [
            *(one.address for one in self._finished),
            *(one.address for one in self._postponed),
        ]:
            self._frontier.hosts[host_of(address)].forget(address)
        self._finished, self._postponed = [], []
        if not self._enough():
            self._greet(self._frontier.refresh())
