"""One plan on the user's own inputs: its pool started and warmed up, then run in blocks that are timed.

A block keeps the pool full: besides one task a worker it keeps about `QUEUED_S` of work waiting (two tasks at least), so that
no worker idles while this process books results, and little is in flight when the block's time is up. What
is then in flight is finished, but a rate is told of the time in which the pool was full: a task that was
half done when it ended counts half (``work`` over ``window_s``). So neither the filling and the draining of a
large pool nor one long task at the end of a short block make a plan look slow.
Short tasks go to processes through ``map``, in chunks, as the program that runs the plan would send them.

*Guarantees*: one reply a block, with every submitted input finished or lost; results travel as they
would in the real run.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import queue
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any

from treadle import _pickling
from treadle._laboratory import failure, readings
from treadle._laboratory.calls import (
    WARM_UP_S,
    Outcome,
    arguments,
    arrive,
    arrive_on_loop,
    meet,
    timed_await,
    timed_call,
    timed_item,
)
from treadle._laboratory.position import Position
from treadle._laboratory.refusal import Refusal
from treadle._laboratory.serial import run_plain
from treadle._laboratory.target import Target

#: Work kept waiting beyond one task a worker, seconds: four switch intervals (5 ms each), which hides this
#: process's own delay, and is small against a block of 0.3 s.
QUEUED_S = 0.02
#: Fewest tasks kept waiting: when a worker ends, another may end before the next task has come.
QUEUED = 2
#: Tasks shorter than this (seconds) go to processes and interpreters in chunks: sending one alone costs about 30 µs in this
#: process, which is half a percent of it. Longer ones are submitted one by one, so that few are in flight at
#: the block's end.
CHUNKED_BELOW_S = 0.005
#: Most latencies in a reply: the 99th percentile of 2000 rests on 20 of them.
LATENCIES = 2000


def workers_of(plan: dict[str, int]) -> int:
    """Tasks that the plan runs at the same time; 1 for serial."""
    sizes = [
        plan[key] for key in ("processes", "interpreters", "threads", "coroutines") if plan.get(key)
    ]
    return math.prod(sizes)


def open_pool(plan: dict[str, int]) -> Executor:
    """The executor of `plan`."""
    import treadle

    return treadle.Executor(treadle.Plan.from_mapping(plan))


@contextlib.contextmanager
def meeting_place() -> Iterator[str]:
    """A private folder for `arrive`, gone afterwards."""
    folder = tempfile.mkdtemp(prefix="treadle-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def warm(pool: Executor, function: Any, plan: dict[str, int], workers: int) -> None:
    """Every worker has started and imported `function` (a function, or the name of its module)."""
    if plan.get("coroutines"):
        loops = plan.get("processes", 1)
        # So many that the last process gets one when all the others are full.
        calls = (loops - 1) * plan["coroutines"] + 1
        awaited: Callable[..., Any] = arrive_on_loop
        with meeting_place() as folder:
            turning = [
                pool.submit(awaited, function, folder, loops, WARM_UP_S) for _ in range(calls)
            ]
            for turned in turning:
                turned.result(2 * WARM_UP_S)
        return
    if not (plan.get("processes") or plan.get("interpreters")):
        barrier = threading.Barrier(workers)
        for met in [pool.submit(meet, barrier) for _ in range(workers)]:
            met.result()
        return
    with meeting_place() as folder:
        futures = [
            pool.submit(arrive, function, folder, workers, WARM_UP_S) for _ in range(workers)
        ]
        for future in futures:
            future.result()


class Trial:
    """The pool of one plan, kept through its blocks."""

    def __init__(
        self,
        plan: dict[str, int],
        target: Target,
        items: list[Any],
        star: bool,
        position: Position,
        efforts: dict[int, float] | None = None,
    ) -> None:
        """Starts and warms up; raises `Refusal` ``plan-infeasible`` or ``plan-failed``.

        `efforts` tells of some inputs what they take, as a share of what they take in the mean.
        """
        self._plan = plan
        self._target = target
        self._items = items
        self._star = star
        self._position = position
        self._efforts = efforts or {}
        self._pool: Executor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.workers = workers_of(plan)
        self._task_s: float | None = None  # mean seconds of a task in the last block
        self._rate: float | None = None  # its tasks a second
        apart = plan.get("processes") or plan.get("interpreters")
        self._may_chunk = bool(apart) and not target.is_async
        started = time.perf_counter()
        self._check()
        if not plan:
            if target.is_async:
                self._loop = asyncio.new_event_loop()
        else:
            self._open()
        self.start_s = time.perf_counter() - started
        timed: Callable[..., Any] = timed_await if target.is_async else timed_call
        self._call: Callable[..., Any] = functools.partial(timed, target.function)

    def _check(self) -> None:
        plan, name = self._plan, self._target.name
        if not self._target.is_async and plan.get("coroutines"):
            raise Refusal(
                "plan-infeasible",
                f"{name} is a plain function: as a coroutine it would hold the loop until it returns",
                "an async version of it could be compared too",
            )
        if plan.get("processes") or plan.get("interpreters"):
            given = arguments(self._items[0], self._star)
            for value, path in ((self._target.function, "function"), (given, "args")):
                problem = _pickling.find_problem(value, path)
                if problem is not None:
                    raise Refusal(
                        "plan-infeasible", problem.sentence(), problem.hint, problem.message
                    )

    def _open(self) -> None:
        try:
            self._pool = open_pool(self._plan)
        except (NotImplementedError, ValueError, TypeError) as exception:
            raise Refusal("plan-infeasible", failure.message(exception)) from None
        try:
            warm(self._pool, self._target.function, self._plan, self.workers)
        except BaseException as exception:
            self.close()
            raise Refusal(
                "plan-failed",
                f"its workers did not start: {failure.type_name(type(exception))}: "
                f"{failure.message(exception)}",
                "the function's module must be importable in a fresh process, without running the job",
                failure.user_traceback(exception),
            ) from None

    def started(self) -> dict[str, Any]:
        """The protocol's reply to ``plan``."""
        memory, kind = readings.tree_memory(readings.tree())
        return {
            "start_s": self.start_s,
            "rss_bytes": memory,
            "memory_kind": kind,
            "workers": self.workers,
        }

    def block(
        self, first: int, count: int, seconds: float, inputs: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """Runs inputs `first` ... ``first + count`` (wrapping) until done or `seconds` have passed.

        With `inputs`, runs those and no others, each once at most; the reply's ``taken`` says how many of
        them, from the first on, were begun.
        """
        once = inputs is not None
        order = _Order(first, count, len(self._items)) if inputs is None else _Order.of(inputs)
        members = readings.tree()
        for pid in members:
            readings.reset_peak(pid)
        tally = _Tally(self._efforts)
        machine = readings.machine_time()
        queued = readings.tree_run_queue_seconds(members)
        ended = readings.ended_children_seconds(members)
        before = readings.tree_cpu_seconds(members)
        started = time.perf_counter()
        if self._pool is not None:
            if self._in_chunks():
                self._mapped(tally, order, seconds, once)
            else:
                self._submitted(tally, order, seconds)
        else:
            driver = self._serial(tally, order, seconds)
            if self._loop is not None:
                self._loop.run_until_complete(driver)
            else:
                run_plain(driver)
        tally.wall_s = time.perf_counter() - started
        after = readings.tree_cpu_seconds(members)
        late = readings.tree_run_queue_seconds(members)
        ended = readings.ended_children_seconds(members) - ended
        self._task_s = tally.mean_latency()
        self._rate = tally.count / max(tally.wall_s, 1e-9)
        self._position.idle()
        members = readings.tree()
        for pid in members:
            if pid not in after:  # a worker that was replaced, or a program that the function runs
                after[pid] = readings.cpu_seconds(pid)
        memory, kind = readings.tree_peak_memory(members)
        cpu = sum(max(0.0, value - before.get(pid, 0.0)) for pid, value in after.items())
        cpu += max(0.0, ended)
        delay = None
        if queued is not None and late is not None:
            delay = sum(max(0.0, value - queued.get(key, 0.0)) for key, value in late.items())
        return {
            **tally.to_json(),
            "taken": order.taken,
            "cpu_s": cpu,
            "run_queue_s": delay,
            **_machine(machine, readings.machine_time()),
            "peak_memory_bytes": memory,
            "memory_kind": kind,
        }

    async def _serial(self, tally: _Tally, order: _Order, seconds: float) -> None:
        call, items, star, is_async = self._call, self._items, self._star, self._target.is_async
        time_is_up = tally.begin(seconds)
        while order.left and (not order.taken or not time_is_up()):
            index = order.take()
            self._position.at(index)
            given = arguments(items[index], star)
            outcome = await call(*given) if is_async else call(*given)
            if order.left:
                time_is_up()  # so that the task that went on beyond it counts for its part
            tally.add(index, outcome)
            self._position.done(tally.count)

    def _in_chunks(self) -> bool:
        """Whether this block goes through ``map``: the plan asks for it, or tasks were seen to be short."""
        if not self._may_chunk:
            return False
        short = self._task_s is not None and self._task_s < CHUNKED_BELOW_S
        return short or bool(self._plan.get("chunk"))

    def _mapped(self, tally: _Tally, order: _Order, seconds: float, once: bool) -> None:
        items, position = self._items, self._position
        assert self._pool is not None
        started = time.perf_counter()
        time_is_up = tally.begin(seconds)
        sent: deque[int] = deque()

        def inputs() -> Iterator[Any]:
            while order.left and (not order.taken or not time_is_up()):
                index = order.take()
                sent.append(index)
                if len(sent) == 1:
                    position.at(index)
                yield items[index]

        call = functools.partial(timed_item, self._target.function, self._star)
        try:
            for outcome in self._pool.map(call, inputs()):
                tally.add(sent.popleft(), outcome)
                if sent:
                    position.at(sent[0])
                position.done(tally.count)
        except Exception as exception:
            # A chunk was lost, or cannot travel.
            if once:  # what was sent may have run: it is not run again
                tally.lose(sent.popleft(), exception)
                return
            # One by one, the input at fault is told from its neighbours.
            self._may_chunk = False
            left = max(0.0, seconds - (time.perf_counter() - started))
            order.give_back(len(sent))
            self._submitted(tally, order, left)

    def _submitted(self, tally: _Tally, order: _Order, seconds: float) -> None:
        pool, items, call = self._pool, self._items, self._call
        assert pool is not None
        finished: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
        flying: dict[Future[Outcome], int] = {}
        oldest: deque[Future[Outcome]] = deque()
        submitted, broken = 0, False
        # Until there is a rate, that of the block before.
        window = self.workers + max(QUEUED, int((self._rate or 0.0) * QUEUED_S))
        started = time.perf_counter()
        time_is_up = tally.begin(seconds)
        while True:
            while (
                order.left
                and not broken
                and len(flying) < window
                and not (submitted and time_is_up())
            ):
                index = order.take()
                submitted += 1
                try:
                    future = pool.submit(call, *arguments(items[index], self._star))
                except BrokenExecutor as exception:
                    tally.lose(index, exception)
                    broken = True  # the pool is gone: nothing more can be submitted
                    break
                except Exception as exception:  # this input cannot travel
                    tally.add(index, (None, None, failure.describe(exception)))
                    continue
                flying[future] = index
                oldest.append(future)
                future.add_done_callback(finished.put)
            if not flying:
                break
            self._position.at(flying[oldest[0]])
            first = finished.get()
            if order.left:
                time_is_up()
            self._book(tally, first, flying)
            while not finished.empty():
                self._book(tally, finished.get(), flying)
            while oldest and oldest[0] not in flying:
                oldest.popleft()
            rate = tally.count / (time.perf_counter() - started)
            window = self.workers + max(QUEUED, int(rate * QUEUED_S))

    def _book(
        self, tally: _Tally, future: Future[Outcome], flying: dict[Future[Outcome], int]
    ) -> None:
        index = flying.pop(future)
        try:
            tally.add(index, future.result())
        except BrokenExecutor as exception:
            tally.lose(index, exception)
        except BaseException as exception:
            tally.add(index, (None, None, failure.describe(exception)))
        self._position.done(tally.count)

    def close(self) -> None:
        """Ends the pool and its workers without waiting for tasks."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            killed = False
            with contextlib.suppress(Exception):  # only processes can be killed
                pool.kill_workers()  # type: ignore[attr-defined]
                killed = True
            with contextlib.suppress(Exception):
                pool.shutdown(wait=killed, cancel_futures=True)
        if self._loop is not None:
            self._loop.close()
            self._loop = None


def _machine(
    before: readings.MachineTime | None, after: readings.MachineTime | None
) -> dict[str, float | None]:
    """The protocol's ``machine_*``: what all processes did meanwhile, seconds of processor time."""
    names = ("machine_capacity_s", "machine_busy_s", "machine_stolen_s")
    if before is None or after is None:
        return dict.fromkeys(names)
    return dict(
        zip(names, (late - early for early, late in zip(before, after, strict=True)), strict=True)
    )


class _Order:
    """The inputs of a block, in the order in which they are run."""

    def __init__(self, first: int, count: int, item_count: int) -> None:
        """`count` inputs from `first` on, wrapping at `item_count`."""
        self._first = first
        self._item_count = item_count
        self._named: Sequence[int] | None = None
        self._count = count
        self.taken = 0

    @classmethod
    def of(cls, named: Sequence[int]) -> _Order:
        """These inputs."""
        order = cls(0, len(named), len(named))
        order._named = named
        return order

    @property
    def left(self) -> bool:
        """Whether there is one more."""
        return self.taken < self._count

    def take(self) -> int:
        """The next input's index."""
        place = self.taken
        self.taken += 1
        if self._named is not None:
            return self._named[place]
        return (self._first + place) % self._item_count

    def give_back(self, count: int) -> None:
        """The last `count` are to be taken again."""
        self.taken -= count


class _Tally:
    """What a block has brought so far."""

    def __init__(self, efforts: dict[int, float]) -> None:
        self.count = 0
        self.errors = 0
        self.lost = 0
        self.wall_s = 0.0
        self._began = 0.0
        self._window_s = 0.0
        self._up: float | None = None  # when the time was up, once it is
        self._undone = 0.0  # tasks' parts that were done after it
        self._efforts = efforts  # of an input, as a share of the mean
        self._effort = 0.0
        self._undone_effort = 0.0
        self._first_error: dict[str, Any] | None = None
        self._latencies: list[float] = []

    def begin(self, seconds: float) -> Callable[[], bool]:
        """The block begins, unless it has; gives a function that says whether its `seconds` are over.

        It is to be asked while there are inputs left: a block that ends for want of them is whole.
        """
        now = time.perf_counter()
        if not self._began:
            self._began, self._window_s = now, seconds
        until, clock = now + seconds, time.perf_counter

        def time_is_up() -> bool:
            if clock() < until:
                return False
            if self._up is None:
                self._up = self._began + self._window_s
            return True

        return time_is_up

    def add(self, index: int, outcome: Outcome) -> None:
        """One task ended; without a span it failed on its way (its payload could not travel)."""
        span, _, error = outcome
        self.count += 1
        effort = self._efforts.get(index, 1.0)
        self._effort += effort
        if span is not None:
            started, ended = span
            self._latencies.append(ended - started)
            up = self._up
            if up is not None and ended > up:
                after = 1.0 if started >= up else (ended - up) / (ended - started)
                self._undone += after
                self._undone_effort += after * effort
        if error is not None:
            self.errors += 1
            if self._first_error is None:
                self._first_error = {"index": index, **error}

    def mean_latency(self) -> float | None:
        """Mean seconds of a task in its worker; None if none ended there."""
        return sum(self._latencies) / len(self._latencies) if self._latencies else None

    def lose(self, index: int, exception: BaseException) -> None:
        """One task's worker died."""
        self.lost += 1
        self.add(index, (None, None, failure.describe(exception)))

    def to_json(self) -> dict[str, Any]:
        """The protocol's fields, latencies thinned evenly to `LATENCIES`."""
        taken = self._latencies
        if len(taken) > LATENCIES:
            taken = [taken[step * len(taken) // LATENCIES] for step in range(LATENCIES)]
        return {
            "count": self.count,
            "wall_s": self.wall_s,
            "work": self.count - self._undone,
            "window_s": self.wall_s if self._up is None else min(self._window_s, self.wall_s),
            "effort": self._effort if self._efforts else None,
            "window_effort": self._effort - self._undone_effort if self._efforts else None,
            "errors": self.errors,
            "first_error": self._first_error,
            "latencies": taken,
            "lost_workers": self.lost,
        }
