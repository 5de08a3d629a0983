"""What programs for the standard library's executors rely on, on every interpreter, also on those that come without their own tests."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from concurrent.futures.thread import BrokenThreadPool
from typing import Any

import drop_in_calls as calls
import pytest
import treadle

#: Only turns a hang into a failure.
WATCHDOG_S = 60

METHODS = ("forkserver", "spawn")


@pytest.mark.parametrize("method", METHODS)
def test_an_initializer_takes_a_queue_and_a_lock_along(method: str) -> None:
    """Also into the worker that takes a dead one's place, and its last words arrive."""
    context = multiprocessing.get_context(method)
    # What is put into it is in the pipe at once: a Queue's own thread would lose it when the worker is killed.
    queue, lock = context.SimpleQueue(), context.Lock()
    with treadle.ProcessPoolExecutor(
        1, context, initializer=calls.take_in_order, initargs=(queue, lock)
    ) as executor:
        first = executor.submit(calls.tell, "first").result(WATCHDOG_S)
        with pytest.raises(BrokenProcessPool):
            executor.submit(calls.die).result(WATCHDOG_S)
        second = executor.submit(calls.tell, "second").result(WATCHDOG_S)
        assert first != second
    assert queue.get() == (first, "first")
    assert queue.get() == (second, "second")
    queue.close()


@pytest.mark.parametrize("method", METHODS)
def test_a_manager_is_reached_from_a_worker(method: str) -> None:
    """Workers know the key with which this process speaks to its managers."""
    context = multiprocessing.get_context(method)
    with context.Manager() as manager:
        event = manager.Event()
        with treadle.ProcessPoolExecutor(1, context) as executor:
            assert executor.submit(calls.set_event, event).result(WATCHDOG_S)
        assert event.is_set()


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda executor: executor.submit(calls.die), treadle.WorkerDied),
        (lambda executor: executor.submit(id, calls.Unreadable()), treadle.PayloadError),
        (lambda executor: executor.submit(calls.make_unreadable), treadle.PayloadError),
    ],
    ids=["worker died", "call unreadable", "result unreadable"],
)
def test_what_breaks_the_standard_pool_is_caught_as_before(
    call: Callable[[treadle.Executor], treadle.Future], kind: type[Exception]
) -> None:
    """The error is our own kind and the standard library's at once; the pool goes on."""
    with treadle.ProcessPoolExecutor(1) as executor:
        error = call(executor).exception(WATCHDOG_S)
        assert isinstance(error, kind)
        assert isinstance(error, BrokenProcessPool)
        assert executor.submit(abs, -1).result(WATCHDOG_S) == 1
        assert executor._broken is False


def test_the_error_of_a_dead_worker_travels() -> None:
    """It is pickled and rebuilt as itself, as when a pool in a worker reports it."""
    with treadle.ProcessPoolExecutor(1) as executor:
        error = executor.submit(calls.die).exception(WATCHDOG_S)
    assert isinstance(error, treadle.WorkerDied)
    rebuilt = pickle.loads(pickle.dumps(error))
    assert type(rebuilt) is type(error)
    assert (rebuilt.pid, str(rebuilt)) == (error.pid, str(error))


def test_a_failed_initializer_breaks_a_pool_of_threads() -> None:
    """With the standard library's error, and the initializer's own as its cause."""
    with treadle.ThreadPoolExecutor(1, initializer=calls.fail_to_rebuild) as executor:
        error = executor.submit(abs, -1).exception(WATCHDOG_S)
        assert isinstance(error, treadle.PoolBroken)
        assert isinstance(error, BrokenThreadPool)
        assert isinstance(error.__cause__, ValueError)
        assert "fail_to_rebuild" in str(error.__cause__.__cause__)
        assert "cannot be rebuilt" in str(executor._broken)


def test_one_idle_thread_is_enough() -> None:
    """A call that follows a result finds the thread of the call before idle."""
    with treadle.ThreadPoolExecutor(8) as executor:
        threads = {executor.submit(threading.get_ident).result(WATCHDOG_S) for _ in range(50)}
        assert len(threads) <= 2, "an idle thread was not seen"
        assert executor._max_workers == 8
        assert len(executor._threads) == len(threads)


def test_a_future_made_by_hand_is_cancelled_in_two_steps() -> None:
    """As executors that make their futures themselves rely on: cancelled, then its waiters are told."""
    future = treadle.Future()
    assert future.cancel()
    assert future.cancelled()
    assert future.set_running_or_notify_cancel() is False
    other = treadle.Future()
    assert other.set_running_or_notify_cancel() is True
    assert not other.cancel()
    other.set_result(7)
    assert other.result(WATCHDOG_S) == 7
    with pytest.raises(RuntimeError):
        other.set_running_or_notify_cancel()


@pytest.mark.parametrize("plan", ["threads=2", "processes=2", "coroutines=2"])
def test_a_call_at_the_interpreters_end_is_refused(plan: str) -> None:
    """With the standard library's error and words."""
    program = f"""
import atexit, treadle
executor = treadle.Executor({plan})
async def call():
    pass
@atexit.register
def late():
    try:
        executor.submit(call)
    except RuntimeError as error:
        print(type(error).__name__, error)
"""
    ended: Any = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=WATCHDOG_S
    )
    assert ended.stdout == "RuntimeError cannot schedule new futures after interpreter shutdown\n"
    assert ended.stderr == ""
