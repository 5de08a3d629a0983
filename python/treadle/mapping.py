"""``Executor.map``: lazy, bounded, chunked by measurement.

::

    inputs ─► (chunk) ─► window of futures ─► results in order, or as they come

Inputs are read only as far as the window reaches. For processes the items of a chunk travel and run together; without a given size, chunks begin with
one item and grow until one takes about :data:`CHUNK_SECONDS`, but never so far that the last ones could not be shared out evenly.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from operator import length_hint
from typing import Any

from treadle._payload import PartialChunk, load_exception
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

    def unpack(
        self, future: Future, timeout: float | None
    ) -> tuple[list[Any], BaseException | None]:
        """The results of a future, and the exception that follows them, if any."""
        raise NotImplementedError

    def _add(self, future: Future) -> None:
        self.futures.append(future)
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
        self._size = chunksize or 1
        self._most_items = buffersize
        self._in_flight = 0
        self._left = expected
        self._lengths: dict[Future, int] = {}
        self._ended = False

    def fill(self) -> None:
        most_chunks = AHEAD * self._strategy.concurrency
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
            future = self._strategy.submit_chunk(self._function, chunk, self._single, self._options)
            self._lengths[future] = len(chunk)
            self._add(future)

    def unpack(
        self, future: Future, timeout: float | None
    ) -> tuple[list[Any], BaseException | None]:
        length = self._lengths.get(future, 1)
        try:
            told = future.result(timeout)
        finally:
            if future.done():
                self._lengths.pop(future, None)
                self._in_flight -= length
        if isinstance(told, PartialChunk):
            return told.results, load_exception(told.exception)
        seconds = told.pop(0)
        if self._fixed is None:
            fitting = int(CHUNK_SECONDS * length / seconds) if seconds > 0 else self._size * GROWTH
            self._size = max(1, min(fitting, self._size * GROWTH, MOST_ITEMS))
        return told, None


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _in_order(window: _Window, deadline: float | None) -> Iterator[Any]:
    futures = window.futures
    try:
        while futures:
            future = futures[0]
            results, error = window.unpack(future, _left(deadline))
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
    import concurrent.futures
    import queue

    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for future in window.futures:
        future.add_done_callback(ended.put)
    window.on_submit = lambda future: future.add_done_callback(ended.put)
    futures = window.futures
    try:
        while futures:
            try:
                future = ended.get(timeout=_left(deadline))
            except queue.Empty:
                raise concurrent.futures.TimeoutError() from None
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
