"""``stats()``: the times, the sizes and the shares that are counted all the time, or while somebody asks."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest
import treadle
from treadle import _core, holding
from treadle.strategies import Histogram, Stats


def square(number: int) -> int:
    """Some result."""
    return number * number


def size_of(value: Any) -> int:
    """A number for something large."""
    return len(value)


def many(count: int) -> bytes:
    """Something large for a number."""
    return bytes(count)


def same(value: Any) -> Any:
    """What it got."""
    return value


async def asquare(number: int) -> int:
    """Some result, from a coroutine."""
    return number * number


class Callable:
    """A callable object."""

    def __call__(self, number: int) -> int:
        return number

    def method(self, number: int) -> int:
        """A method."""
        return number


def counted(histogram: Histogram | None) -> int:
    assert histogram is not None
    return sum(histogram.counts)


def settled(executor: treadle.Executor, tasks: int) -> Stats:
    """The snapshot once so many tasks are counted: a future is done an instant before its worker says so."""
    while executor.stats().completed < tasks:
        time.sleep(0.001)
    return executor.stats()


PLANS: list[dict[str, Any]] = [{"threads": 2}, {"processes": 2}, {"coroutines": 4}]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: next(iter(plan)))
def test_each_ended_task_is_in_the_histograms_once(plan: dict[str, int]) -> None:
    work = asquare if "coroutines" in plan else square
    with treadle.Executor(**plan) as executor:
        wait([executor.submit(work, number) for number in range(60)])
        told = settled(executor, 60)
    own = [told.wait, told.duration, *([told.turnaround] if "processes" in plan else [])]
    assert [counted(histogram) for histogram in own] == [60] * len(own)
    (function,) = told.functions
    assert function.function == f"{__name__}.{work.__name__}"
    assert (function.turnaround, function.wait, function.duration) == (
        told.turnaround,
        told.wait,
        told.duration,
    )
    assert told.overhead_s is not None
    # Some nanoseconds a task; a thousand would be wrong on any machine.
    assert 0 < told.overhead_s / 60 < 1e-4


@pytest.mark.parametrize("plan", [PLANS[0], PLANS[2]], ids=lambda plan: next(iter(plan)))
def test_waiting_and_running_are_told_apart(plan: dict[str, int]) -> None:
    (strategy,) = plan
    gate, held_one = threading.Event(), threading.Event()
    if strategy == "coroutines":
        import asyncio

        async def hold() -> None:
            held_one.set()
            await asyncio.to_thread(gate.wait)

        work: Any = asquare
    else:

        def hold() -> None:  # type: ignore[misc]
            held_one.set()
            gate.wait()

        work = square
    with treadle.Executor(**{strategy: 1}) as executor:
        held = executor.submit(hold)
        later = executor.submit(work, 3)
        held_one.wait()
        began = time.monotonic()
        while time.monotonic() - began < 0.05:
            pass
        assert (executor.stats().oldest_s or 0) >= 0.05
        gate.set()
        wait([held, later])
        told = settled(executor, 2)
    by_name = {one.function.rpartition(".")[2]: one for one in told.functions}
    waited, ran = by_name[work.__name__].wait, by_name["hold"].duration
    assert waited is not None
    assert ran is not None
    assert min(waited.sum_s, ran.sum_s) >= 0.05
    short = by_name[work.__name__].duration
    assert short is not None
    assert short.sum_s < ran.sum_s


def hold_until(path: str) -> None:
    """Holds a worker until there is such a file."""
    while not os.path.exists(path):
        time.sleep(0.001)


@pytest.mark.parametrize("plan", [{"processes": 1}, {"processes": 1, "threads": 1}], ids=str)
def test_workers_tell_waiting_and_running_apart(plan: dict[str, int], tmp_path: Path) -> None:
    go = tmp_path / "go"
    with treadle.Executor(**plan) as executor:
        held = executor.submit(hold_until, str(go))
        later = executor.submit(square, 3)
        while executor.stats().running < 1:
            time.sleep(0.001)
        began = time.monotonic()
        while time.monotonic() - began < 0.05:
            pass
        go.touch()
        wait([held, later])
        told = settled(executor, 2)
    by_name = {one.function.rpartition(".")[2]: one for one in told.functions}
    waited, ran = by_name["square"].wait, by_name["hold_until"].duration
    assert waited is not None
    assert ran is not None
    assert min(waited.sum_s, ran.sum_s) >= 0.05
    for one in (told, *told.functions):
        assert one.wait is not None
        assert one.duration is not None
        assert one.turnaround is not None
        # On one clock: the rest of the turnaround is the way back.
        assert one.wait.sum_s + one.duration.sum_s <= one.turnaround.sum_s


def test_the_size_of_what_travels() -> None:
    with treadle.Executor(processes=1) as executor:
        assert executor.submit(square, 3).result() == 9
        scalars = settled(executor, 1)
        assert scalars.arguments is not None
        assert scalars.results is not None
        # A coded integer is its kind and eight bytes; numbers are not timed.
        assert scalars.arguments.in_band.sum_bytes == 9
        assert scalars.results.in_band.sum_bytes == 9
        assert counted(scalars.arguments.time) == counted(scalars.results.time) == 0
        assert sum(scalars.arguments.out_of_band.counts) == 0

        assert executor.submit(size_of, bytes(1 << 20)).result() == 1 << 20
        assert len(executor.submit(many, 1 << 21).result()) == 1 << 21
        apart = settled(executor, 3)
        assert apart.arguments is not None
        assert apart.results is not None
        assert apart.arguments.out_of_band.sum_bytes == 1 << 20
        assert apart.results.out_of_band.sum_bytes == 1 << 21
        assert counted(apart.arguments.time) == counted(apart.results.time) == 1

        value = {"numbers": list(range(1000))}
        assert executor.submit(same, value).result() == value
        pickled = settled(executor, 4)
        assert pickled.arguments is not None
        assert pickled.results is not None
        sent = pickled.arguments.in_band.sum_bytes - apart.arguments.in_band.sum_bytes
        assert sent == len(pickle.dumps(((value,), {}), 5))
        came = pickled.results.in_band.sum_bytes - apart.results.in_band.sum_bytes
        assert came == len(pickle.dumps(value, 5))
        assert counted(pickled.arguments.time) == counted(pickled.results.time) == 2
        assert 0 < pickled.arguments.time.sum_s < 60
        assert 0 < pickled.results.time.sum_s < 60


def test_waiting_for_room_is_no_part_of_the_way(tmp_path: Any) -> None:
    gate = str(tmp_path / "gate")
    os.mkfifo(gate)
    with treadle.Executor(processes=1, max_pending=1) as executor:
        assert executor.submit(same, [0]).result() == [0]
        held = executor.submit(read, gate)
        writer = os.open(gate, os.O_WRONLY)  # waits until the task reads
        timer = threading.Timer(0.3, os.close, [writer])
        timer.start()
        began = time.monotonic()
        last = executor.submit(same, [1])
        waited = time.monotonic() - began
        assert (held.result(), last.result()) == ("", [1])
        told = settled(executor, 3).arguments
    assert told is not None
    assert counted(told.time) == 2
    assert waited > 0.2
    assert told.time.sum_s < waited / 2


def read(path: str) -> str:
    """What comes through a pipe, at its end."""
    with open(path) as pipe:
        return pipe.read()


def test_chunks_are_counted_as_one_payload_each() -> None:
    with treadle.Executor(processes=1) as executor:
        assert list(executor.map(square, range(100), chunksize=10)) == [n * n for n in range(100)]
        told = settled(executor, 10)
    assert told.arguments is not None
    assert told.results is not None
    assert sum(told.arguments.in_band.counts) == told.submitted == 10
    assert sum(told.results.in_band.counts) >= 10
    # Rebuilding a chunk is timed: it holds many values.
    assert counted(told.results.time) == 10


@pytest.mark.parametrize("plan", PLANS[:2], ids=lambda plan: next(iter(plan)))
def test_functions_are_told_by_their_names(plan: dict[str, int]) -> None:
    made = Callable()
    partial = functools.partial(functools.partial(square), 3)
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (square, (1,)),
        (square, (2,)),
        (partial, ()),
        (made, (1,)),
        (made.method, (1,)),
        (pow, (2, 3)),
        (int, ("7",)),
    ]
    with treadle.Executor(**plan) as executor:
        wait([executor.submit(function, *arguments) for function, arguments in calls])
        told = settled(executor, len(calls))
    histograms = {one.function: counted(one.duration) for one in told.functions}
    if "processes" in plan:
        assert histograms == {one.function: counted(one.turnaround) for one in told.functions}
    assert histograms[f"{__name__}.square"] == 3
    assert histograms[f"{__name__}.Callable.method"] == 1
    assert histograms[f"{__name__}.Callable"] == 1
    assert histograms["builtins.pow"] == 1
    assert sum(histograms.values()) == len(calls)


def test_the_functions_beyond_the_first_share_one_name() -> None:
    made = []
    for number in range(50):
        space: dict[str, Any] = {"__name__": "made"}
        exec(f"def f{number}(): return {number}", space)
        made.append(space[f"f{number}"])
    with treadle.Executor(threads=1) as executor:
        for _ in range(2):
            wait([executor.submit(function) for function in made])
        told = settled(executor, 100)
    names = {one.function: counted(one.duration) for one in told.functions}
    assert len(names) == 33
    assert names["made.f0"] == names["made.f31"] == 2
    assert names["other"] == 2 * 18


def test_functions_that_are_gone_leave_nothing_behind() -> None:
    import gc
    import weakref

    class Large:
        pass

    def closing_over(value: Any) -> Any:
        return lambda: value is not None

    large = Large()
    gone = weakref.ref(large)
    with treadle.Executor(threads=1) as executor:
        assert executor.submit(closing_over(large)).result()
        assert executor.submit([large].append, 1).result() is None
        del large
        gc.collect()
        assert gone() is None
        assert len(settled(executor, 2).functions) == 2


def test_without_meters_nothing_is_counted_but_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(treadle.executor.strategies, "metered", False)
    for plan in PLANS:
        work = asquare if "coroutines" in plan else square
        with treadle.Executor(**plan) as executor:
            wait([executor.submit(work, number) for number in range(20)])
            told = settled(executor, 20)
        assert told.submitted == 20
        assert told.functions == ()
        assert told.overhead_s is None
        for histogram in (told.wait, told.duration, told.turnaround):
            assert histogram is None or counted(histogram) == 0


WATCHED = _core.LockWatch(100.0, 1.0).absent is None
needs_lock = pytest.mark.skipif(not WATCHED, reason="the interpreter lock cannot be watched here")


def compute(stop: threading.Event) -> None:
    """Python instructions until it is told to stop."""
    while not stop.is_set():
        pass


@needs_lock
def test_the_share_of_the_lock_is_that_of_who_computes() -> None:
    stop = threading.Event()
    with treadle.Executor(threads=2) as executor:
        computing = executor.submit(compute, stop)
        sleeping = executor.submit(stop.wait)
        # Both were there before the watch began, or the readings that are too old are gone.
        shares: list[float | None] = [None]
        try:
            while None in shares or len(shares) < 2:
                shares = [worker.lock_share for worker in executor.stats().workers]
                time.sleep(0.2)
        finally:
            stop.set()
        wait([computing, sleeping])
    known = sorted(share for share in shares if share is not None)
    # This thread takes some, and a busy machine more; a third of the looks is far more than chance.
    assert known[0] < 0.2
    assert known[1] > 0.5
    assert sum(known) <= 1


@needs_lock
def test_a_thread_that_came_later_has_no_share_yet() -> None:
    with treadle.Executor(threads=1) as older:
        older.submit(square, 1).result()
        while older.stats().workers[0].lock_share is None:
            time.sleep(0.05)
        with treadle.Executor(threads=1) as younger:
            younger.submit(square, 1).result()
            assert younger.stats().workers[0].lock_share is None


PROGRAM = """
import os, threading, time, treadle
def names():
    found = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/comm") as file:
            found.append(file.read().strip())
    return found
pool = treadle.Executor(threads=1)
pool.submit(pow, 2, 3).result()
print("treadle-holders" in names())
pool.stats()
while "treadle-holders" not in names():
    pass  # a thread names itself when it first runs
child = os.fork()
if child == 0:
    from treadle import holding
    print("treadle-holders" in names(), holding.shares(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@needs_lock
def test_the_lock_is_watched_only_when_somebody_asks() -> None:
    done = subprocess.run(
        [sys.executable, "-u", "-W", "ignore", "-c", PROGRAM],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["False", "False", "None"], done
    assert done.stderr == ""


def test_a_share_needs_looks_and_a_whole_life() -> None:
    shares = holding.Shares(since_s=10.0, held=0.5, by_state={7: 0.25})
    assert shares.of(holding.Mark(7, 9.0)) == 0.25
    assert shares.of(holding.Mark(8, 9.0)) == 0.0
    assert shares.of(holding.Mark(7, 11.0)) is None
    assert shares.of(None) is None


def test_processes_and_serial_have_no_share() -> None:
    with treadle.Executor(processes=1) as executor:
        executor.submit(square, 1).result()
        assert [worker.lock_share for worker in executor.stats().workers] == [None]
