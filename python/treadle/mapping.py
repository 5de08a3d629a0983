"""``Executor.map``: lazy, bounded, chunked by measurement.

::

    inputs ─► (chunk) ─► window of futures ─► results in order, or as they come

Inputs are read only as far as the window reaches. For processes the items of a chunk travel and run together; without a given size, chunks begin with
one item and grow until one takes about :data:`CHUNK_SECONDS`, but never so far that the last ones could not be shared out evenly. While the reader waits for a
long item, the window grows, and when nothing is left to read, what a long chunk has not begun is taken from it and given to workers that have nothing to do.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import length_hint
from typing import Any

from treadle import _core
from treadle.future import Future
from treadle.strategies import Strategy, TaskOptions

#: How long a chunk should take. A chunk costs about 10 us, so this keeps the cost at half a percent, and a worker that ends first waits this long at most.
CHUNK_SECONDS = 0.002

#: A chunk grows by at most this factor at a time: one fast item must not make a chunk that is a thousand times too long.
GROWTH = 4

#: A chunk has no more items than this, however short they are: the window of inputs read ahead is that much longer.
MOST_ITEMS = 4096

#: With a known number of inputs, chunks leave at least this many for each worker, so that the end is even.
SHARES = 4

#: Calls in flight for each worker, at least: one runs, the others hide the way there and back.
AHEAD = 4

#: The window may grow to this many times that, in chunks, while its first one takes long: then the others have ended and wait to be read.
READ_AHEAD = 16

#: How long the reader waits before it looks whether workers have nothing to do: a few times what a chunk takes; and at most, for looking costs microseconds.
PATIENCE_SECONDS = 4 * CHUNK_SECONDS
LONGEST_PATIENCE_SECONDS = 0.1

#: The most items of a chunk, whatever was asked for (2^20 - 1: they are counted in 20 bits).
LARGEST_CHUNK = (1 << 20) - 1


def run(
    strategy: Strategy,
    function: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    options: TaskOptions,
    timeout: float | None,
    chunksize: int | None,
    buffersize: int | None,
    ordered: bool,
    progress: bool,
) -> Iterator[Any]:
    """The iterator of results; see :meth:`treadle.Executor.map`. The first calls are submitted at once."""
    deadline = None if timeout is None else time.monotonic() + timeout
    expected = min((length_hint(iterable, -1) for iterable in iterables), default=0)
    single = len(iterables) == 1
    items: Iterator[Any] = iter(iterables[0]) if single else zip(*iterables, strict=False)
    if chunksize is None:
        chunksize = strategy.plan.chunk
    # A timeout and retries are of one call, so calls that have them travel by themselves.
    alone = chunksize == 1 or options.timeout is not None or options.retries > 0
    if strategy.has_chunks and not alone:
        window: _Window = _Chunks(
            strategy, function, items, single, options, chunksize, buffersize, expected
        )
    else:
        window = _Singles(strategy, function, items, single, options, buffersize)
    window.fill()
    results = _in_order(window, deadline) if ordered else _as_they_come(window, deadline)
    if progress:
        from treadle import progress as shown

        results = shown.watch(
            results, expected if expected >= 0 else None, getattr(function, "__name__", "map")
        )
    return results


class _Window:
    """The calls in flight."""

    def __init__(self) -> None:
        self.futures: deque[Future] = deque()
        self.on_submit: Callable[[Future], None] | None = None

    def fill(self) -> None:
        """Submits as many calls as the window takes."""
        raise NotImplementedError

    #: Whether :meth:`relieve` can do something while a future takes long.
    can_relieve = False

    def relieve(self) -> None:
        """Finds work for workers that have none, because the reader waits for a long call."""

    def unpack(
        self, future: Future, timeout: float | None
    ) -> tuple[list[Any], BaseException | None]:
        """The results of a future, and the exception that follows them, if any."""
        raise NotImplementedError

    def _add(self, future: Future, place: int | None = None) -> None:
        if place is None:
            self.futures.append(future)
        else:
            self.futures.insert(place, future)
        if self.on_submit is not None:
            self.on_submit(future)


class _Singles(_Window):
    def __init__(
        self,
        strategy: Strategy,
        function: Callable[..., Any],
        items: Iterator[Any],
        single: bool,
        options: TaskOptions,
        buffersize: int | None,
    ) -> None:
        super().__init__()
        self._strategy, self._function, self._items, self._single, self._options = (
            strategy,
            function,
            items,
            single,
            options,
        )
        # A serial plan runs the call in submit: nothing is to be gained by running ahead of the reader.
        default = (
            1 if strategy.plan.strategy == "serial" else max(256, AHEAD * strategy.concurrency)
        )
        self._size = buffersize or default

    def fill(self) -> None:
        submit, function, options = self._strategy.submit, self._function, self._options
        while len(self.futures) < self._size:
            try:
                item = next(self._items)
            except StopIteration:
                return
            self._add(submit(function, (item,) if self._single else item, {}, options))

    def unpack(
        self, future: Future, timeout: float | None
    ) -> tuple[list[Any], BaseException | None]:
        return [future.result(timeout)], None


class _Chunks(_Window):
    def __init__(
        self,
        strategy: Strategy,
        function: Callable[..., Any],
        items: Iterator[Any],
        single: bool,
        options: TaskOptions,
        chunksize: int | None,
        buffersize: int | None,
        expected: int,
    ) -> None:
        super().__init__()
        self._strategy, self._function, self._items, self._single, self._options = (
            strategy,
            function,
            items,
            single,
            options,
        )
        self._fixed = chunksize
        self._size = min(chunksize or 1, LARGEST_CHUNK)
        self._most_items = buffersize
        self._most_chunks = AHEAD * strategy.concurrency
        self._in_flight = 0
        self._left = expected
        #: The items of the chunks in flight, for what is taken back.
        self._items_of: dict[Future, list[Any]] = {}
        self._ended = False

    can_relieve = True

    def fill(self) -> None:
        self._fill(self._most_chunks)

    def _fill(self, most_chunks: int) -> None:
        while not self._ended and len(self.futures) < most_chunks:
            size = self._size
            if self._fixed is None and self._left >= 0:
                size = min(size, max(1, self._left // (SHARES * self._strategy.concurrency)))
            if self._most_items is not None:
                size = min(size, self._most_items - self._in_flight)
                if size < 1:
                    return
            chunk = []
            for item in self._items:
                chunk.append(item)
                if len(chunk) == size:
                    break
            else:
                self._ended = True
            if not chunk:
                return
            if self._left >= 0:
                self._left = max(0, self._left - len(chunk))
            self._in_flight += len(chunk)
            self._add(self._submit(chunk))

    def _submit(self, chunk: list[Any]) -> Future:
        future = self._strategy.submit_chunk(self._function, chunk, self._single, self._options)
        self._items_of[future] = chunk
        return future

    def relieve(self) -> None:
        unfinished = sum(not future.done() for future in self.futures)
        room = self._most_chunks - unfinished
        if room > 0:
            self._fill(min(len(self.futures) + room, READ_AHEAD * self._most_chunks))
        if self._fixed is None:
            for future in tuple(self.futures):
                self._split(future)

    def _split(self, future: Future) -> None:
        items = self._items_of[future]
        if len(items) < 2 or future.done():
            return
        first = self._strategy.split_chunk(future)
        if first is None:
            return
        rest = items[first:]
        del items[first:]
        size = -(-len(rest) // self._strategy.concurrency)
        place = self.futures.index(future) + 1
        for start in range(0, len(rest), size):
            self._add(self._submit(rest[start : start + size]), place)
            place += 1

    def unpack(
        self, future: Future, timeout: float | None
    ) -> tuple[list[Any], BaseException | None]:
        try:
            told = future.result(timeout)
        finally:
            if future.done():
                self._in_flight -= len(self._items_of.pop(future, ()))
        results: list[Any] = told.results
        if self._fixed is None and told.seconds is not None and results:
            fitting = (
                int((self._strategy.chunk_seconds or CHUNK_SECONDS) * len(results) / told.seconds)
                if told.seconds > 0
                else self._size * GROWTH
            )
            self._size = max(1, min(fitting, self._size * GROWTH, MOST_ITEMS))
        return results, told.exception


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _wait(
    window: _Window,
    deadline: float | None,
    get: Callable[[float | None], Any],
    ended: Callable[[], bool],
) -> Any:
    """What ``get(timeout)`` gives; while it takes long, the window finds work for others."""
    patience: float | None = PATIENCE_SECONDS if window.can_relieve else None
    while True:
        left = _left(deadline)
        if patience is None or (left is not None and left <= patience):
            return get(left)
        try:
            return get(patience)
        except concurrent.futures.TimeoutError:
            if ended():
                # It ended at this moment, or with a TimeoutError of its own: get tells.
                return get(0)
        window.relieve()
        patience = min(2 * patience, LONGEST_PATIENCE_SECONDS)


def _in_order(window: _Window, deadline: float | None) -> Iterator[Any]:
    futures = window.futures
    try:
        while futures:
            future = futures[0]
            results, error = _wait(window, deadline, partial(window.unpack, future), future.done)
            futures.popleft()
            del future
            if error is None:
                window.fill()
            results.reverse()
            while results:
                yield results.pop()
            if error is not None:
                try:
                    raise error
                finally:
                    del error
    finally:
        for future in futures:
            future.cancel()


def _as_they_come(window: _Window, deadline: float | None) -> Iterator[Any]:
    import queue

    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def get(timeout: float | None) -> Future:
        # A thread of the pool itself runs what it waits for, as `result()` does for results in order.
        for waiting in window.futures:
            if not ended.empty() or not _core.run_if_waiting(waiting):
                break
        try:
            future: Future = ended.get(timeout=timeout)
        except queue.Empty:
            raise concurrent.futures.TimeoutError() from None
        return future

    for future in window.futures:
        future.add_done_callback(ended.put)
    window.on_submit = lambda future: future.add_done_callback(ended.put)
    futures = window.futures
    try:
        while futures:
            future = _wait(window, deadline, get, lambda: not ended.empty())
            futures.remove(future)
            results, error = window.unpack(future, None)
            del future
            if error is None:
                window.fill()
            yield from results
            if error is not None:
                raise error
    finally:
        window.on_submit = None
        for future in futures:
            future.cancel()
