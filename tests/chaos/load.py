"""Mixed loads on a pool that is being torn at, with every outcome checked.

*Guarantees*: each call's future ends once, with the value that follows from its arguments or with an error that the chaos explains;
anything else is a :class:`Wrong`. A call without retries runs at most once.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jobs
import numpy
import treadle

#: No healthy call here takes a hundredth of it; a wait that is over it is a hang.
WATCHDOG_S = 60.0


class Wrong(AssertionError):
    """The pool broke its word."""


@dataclass
class Tally:
    """What was seen so far."""

    tasks: int = 0
    values: int = 0
    died: int = 0
    timed_out: int = 0
    cancelled: int = 0
    interrupted: int = 0
    raised: int = 0


@dataclass
class Call:
    """One submitted call and what may become of it."""

    future: concurrent.futures.Future[Any]
    kind: str
    check: Callable[[Any], bool]
    fails_with: type[BaseException] | None = None
    may_time_out: bool = False
    may_be_cancelled: bool = False
    may_be_interrupted: bool = False


def _equal(expected: Any) -> Callable[[Any], bool]:
    return lambda value: type(value) is type(expected) and value == expected


def _same_array(expected: numpy.ndarray) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, numpy.ndarray)
        and value.dtype == expected.dtype
        and numpy.array_equal(value, expected)
    )


class Load:
    """Submits rounds of calls and checks how they end.

    Args:
        pool: an executor of processes.
        seed: of the choice of calls.
        folder: for the marks of calls that must run once.
        big: whether arrays of megabytes are among the calls.
    """

    def __init__(
        self, pool: treadle.Executor, seed: int, folder: Path, *, big: bool = True
    ) -> None:
        self.pool = pool
        self.random = random.Random(seed)
        self.tally = Tally()
        self.big = big
        self.marks = folder / f"marks-{seed}"
        self.marks.touch()
        self._number = 0
        self._endings: collections.Counter[int] = collections.Counter()
        self._ending_lock = threading.Lock()
        self._rounds: list[Callable[[], None]] = [
            self._futures,
            self._futures,
            self._as_completed,
            self._waited,
            self._mapped,
            self._mapped_unordered,
            self._asynchronous,
            self._called_back,
        ]

    def round(self) -> None:
        """One batch of calls, consumed in one of the ways that there are."""
        self.random.choice(self._rounds)()

    # ---- calls

    def of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as the pool's plan takes it."""
        return function

    def _submit(self, pool: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        return pool.submit(self.of(function), *arguments)

    def _call(self) -> Call:
        self._number += 1
        number = self._number
        choice = self.random.random()
        pool = self.pool
        if choice < 0.30:
            return Call(self._submit(pool, jobs.scaled, number), "scaled", _equal(3 * number + 1))
        if choice < 0.38:
            expected: Any = (number + 0.5, "cba")
            return Call(
                self._submit(pool, jobs.added, number, 0.5, "abc"), "added", _equal(expected)
            )
        if choice < 0.48:
            table = {str(key): [key, number] for key in range(self.random.randrange(20))}
            expected = {repr(value): key for key, value in table.items()}
            return Call(self._submit(pool, jobs.turned, table), "turned", _equal(expected))
        if choice < 0.56:
            data = self.random.randbytes(64 * 1024)
            return Call(self._submit(pool, jobs.reversed_bytes, data), "bytes", _equal(data[::-1]))
        if choice < 0.64:
            return Call(
                self._submit(pool, jobs.marked, str(self.marks), number),
                "marked",
                _equal(number ^ 0x5555),
            )
        if choice < 0.68:
            return Call(
                self._submit(pool, jobs.raised, number), "raised", lambda _: False, LookupError
            )
        if choice < 0.74:
            seconds = self.random.random() * 0.01
            return Call(self._submit(pool, jobs.slept, number, seconds), "slept", _equal(-number))
        if choice < 0.80:
            # More tries than deaths that a task may cause: it is failed by the third death only.
            view = pool.options(retries=9)
            future = self._submit(view, jobs.late_success, str(self.marks), number)
            return Call(future, "retried", _equal(number + 7))
        if choice < 0.84:
            return Call(self._submit(pool, jobs.awaited, number), "awaited", _equal(number - 5))
        if choice < 0.87:
            future = self._submit(pool.options(timeout=0.03), jobs.slept, number, 600.0)
            return Call(future, "timed", lambda _: False, may_time_out=True)
        if choice < 0.89:
            future = self._submit(pool, jobs.slept, number, 0.002)
            return Call(future, "cancelled", _equal(-number), may_be_cancelled=True)
        if choice < 0.91:
            future = self._submit(pool, jobs.slept, number, 0.05)
            return Call(
                future,
                "interrupted",
                _equal(-number),
                may_be_cancelled=True,
                may_be_interrupted=True,
            )
        if not self.big:
            return Call(self._submit(pool, jobs.scaled, number), "scaled", _equal(3 * number + 1))
        count = self.random.randrange(128 * 1024, 640 * 1024)  # 1 to 5 MB of float64
        if choice < 0.94:
            expected = numpy.arange(count, dtype=numpy.float64) + number
            return Call(
                self._submit(pool, jobs.filled, number, count), "filled", _same_array(expected)
            )
        array = numpy.full(count, float(number))
        if choice < 0.97:
            expected = (count, float(array.sum()))
            return Call(self._submit(pool, jobs.summed, array), "summed", _equal(expected))
        view = pool.options(retries=3) if self.random.random() < 0.5 else pool
        return Call(self._submit(view, jobs.doubled, array), "doubled", _same_array(array * 2))

    def _calls(self) -> list[Call]:
        calls = []
        for _ in range(self.random.randrange(20, 120)):
            call = self._call()
            call.future.add_done_callback(self._ended)
            calls.append(call)
            if call.kind == "cancelled":
                call.future.cancel()
            elif call.kind == "interrupted" and self.random.random() < 0.7:
                call.future.interrupt(grace=0.02)  # type: ignore[attr-defined]
        return calls

    def _ended(self, future: concurrent.futures.Future[Any]) -> None:
        with self._ending_lock:
            self._endings[id(future)] += 1

    # ---- outcomes

    def _explained(self, error: BaseException, call: Call) -> bool:
        tally = self.tally
        if isinstance(error, treadle.WorkerDied):
            tally.died += 1
            return True
        if isinstance(error, treadle.TaskTimeout):
            tally.timed_out += 1
            return call.may_time_out
        if isinstance(error, treadle.TaskInterrupted):
            tally.interrupted += 1
            return call.may_be_interrupted
        if isinstance(error, (concurrent.futures.CancelledError, asyncio.CancelledError)):
            tally.cancelled += 1
            return call.may_be_cancelled
        tally.raised += 1
        return call.fails_with is not None and type(error) is call.fails_with

    def _settle(self, call: Call) -> None:
        self.tally.tasks += 1
        try:
            value = call.future.result(timeout=WATCHDOG_S)
        except BaseException as error:
            if isinstance(error, TimeoutError) and not call.future.done():
                raise Wrong(
                    f"a hang: {call.kind} has not ended in {WATCHDOG_S} s; {self.pool.stats()}"
                ) from error
            if not self._explained(error, call):
                raise Wrong(f"{call.kind} ended with {error!r}") from error
            return
        self.tally.values += 1
        if not call.check(value):
            raise Wrong(f"{call.kind} returned a wrong value: {repr(value)[:200]}")

    def _settle_all(self, calls: list[Call]) -> None:
        for call in calls:
            self._settle(call)
        # A callback may come a moment after its future is done, from another thread.
        done = threading.Event()
        ended = {id(call.future) for call in calls}
        for _ in range(int(WATCHDOG_S / 0.005)):
            with self._ending_lock:
                counts = [self._endings[future] for future in ended]
            if all(counts):
                break
            done.wait(0.005)
        if any(count != 1 for count in counts):
            odd = [(call.kind, self._endings[id(call.future)]) for call in calls]
            odd = [(kind, ran) for kind, ran in odd if ran != 1]
            raise Wrong(f"callbacks of {odd} of {len(calls)} futures did not run once")
        with self._ending_lock:
            for future in ended:
                del self._endings[future]

    # ---- ways to consume

    def _futures(self) -> None:
        calls = self._calls()
        self.random.shuffle(calls)
        self._settle_all(calls)

    def _as_completed(self) -> None:
        calls = self._calls()
        futures = {call.future for call in calls}
        seen = list(concurrent.futures.as_completed(futures, timeout=WATCHDOG_S))
        if len(seen) != len(futures) or set(seen) != futures:
            raise Wrong(f"as_completed yielded {len(seen)} of {len(futures)} futures")
        self._settle_all(calls)

    def _waited(self) -> None:
        calls = self._calls()
        _done, left = concurrent.futures.wait([call.future for call in calls], timeout=WATCHDOG_S)
        if left:
            raise Wrong(f"a hang: {len(left)} of {len(calls)} futures have not ended")
        self._settle_all(calls)

    def _called_back(self) -> None:
        calls = self._calls()
        left = threading.Semaphore(0)
        for call in calls:
            call.future.add_done_callback(lambda _: left.release())
        for _ in calls:
            if not left.acquire(timeout=WATCHDOG_S):
                raise Wrong("a hang: callbacks are missing")
        self._settle_all(calls)

    def _results_of_map(self, ordered: bool) -> None:
        count = self.random.randrange(1, 3000)
        chunk = self.random.choice([None, 1, 7, 100])
        view = self.pool.options(retries=self.random.choice([0, 9]))
        results: list[int] = []
        try:
            for value in view.map(
                self.of(jobs.scaled),
                range(count),
                chunksize=chunk,
                ordered=ordered,
                timeout=WATCHDOG_S,
            ):
                results.append(value)
        except treadle.WorkerDied:
            self.tally.died += 1
        except TimeoutError as error:
            raise Wrong(f"a hang: map gave {len(results)} of {count} results") from error
        else:
            if len(results) != count:
                raise Wrong(f"map gave {len(results)} of {count} results")
        expected = [3 * number + 1 for number in range(count)]
        if ordered:
            sound = results == expected[: len(results)]
        else:
            sound = len(set(results)) == len(results) and set(results) <= set(expected)
        if not sound:
            raise Wrong("map gave wrong results")
        self.tally.tasks += len(results)
        self.tally.values += len(results)

    def _mapped(self) -> None:
        self._results_of_map(ordered=True)

    def _mapped_unordered(self) -> None:
        self._results_of_map(ordered=False)

    def _asynchronous(self) -> None:
        numbers = range(self.random.randrange(10, 200))

        async def gathered() -> list[Any]:
            calls = [self.pool.asubmit(self.of(jobs.scaled), number) for number in numbers]
            return await asyncio.wait_for(
                asyncio.gather(*calls, return_exceptions=True), WATCHDOG_S
            )

        try:
            results = asyncio.run(gathered())
        except TimeoutError as error:
            raise Wrong("a hang: asyncio.gather has not ended") from error
        for number, result in zip(numbers, results, strict=True):
            self.tally.tasks += 1
            if isinstance(result, treadle.WorkerDied):
                self.tally.died += 1
            elif result != 3 * number + 1:
                raise Wrong(f"asubmit gave {result!r} for {number}")
            else:
                self.tally.values += 1

    # ---- at the end

    def finish(self) -> None:
        """Looks whether a call ran twice, and whether the pool still serves."""
        for number, value in enumerate(self.pool.map(self.of(jobs.scaled), range(300))):
            if value != 3 * number + 1:
                raise Wrong("a wrong value after the chaos")
        marks = self.marks.read_bytes()
        ran = collections.Counter(
            marks[at : at + 8] for at in range(0, len(marks) - len(marks) % 8, 8)
        )
        if any(count > 1 for count in ran.values()):
            raise Wrong(f"{sum(count > 1 for count in ran.values())} calls ran more than once")
        stats = self.pool.stats()
        if stats.queued or stats.running:
            raise Wrong(f"calls are left in a pool that has none: {stats}")


class AwaitedLoad(Load):
    """The same calls for a plan of coroutines."""

    def of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return jobs.AWAITED[function.__name__]
