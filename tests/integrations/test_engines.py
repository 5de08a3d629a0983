"""Executor(dask=…) and Executor(ray=…) against a real cluster of each on this machine."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import itertools
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import engine_calls as calls
import pytest
import treadle

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "contract"))

from contract_calls import Gate, run_on  # noqa: E402

#: Ray starts a worker process in seconds when the machine is busy; this only turns a hang into a failure.
pytestmark = pytest.mark.timeout(300)

#: Workers of each cluster.
WORKERS = 2


def _dask_cluster() -> Iterator[str]:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    import dask

    # One death fails a call, not the fourth.
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None
        ) as cluster,
    ):
        yield cluster.scheduler_address


def _ray_cluster() -> Iterator[str]:
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join((str(HERE), str(HERE.parent / "contract")))
    ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    yield "auto"
    ray.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


CLUSTERS: dict[str, Callable[[], Iterator[str]]] = {"dask": _dask_cluster, "ray": _ray_cluster}


@pytest.fixture(scope="module", params=list(CLUSTERS))
def plan(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The plan of a cluster that runs, as keywords."""
    for address in CLUSTERS[request.param]():
        yield {request.param: address}


@pytest.fixture
def pool(plan: dict[str, str]) -> Iterator[treadle.Executor]:
    with treadle.Executor(**plan) as executor:
        yield executor


@pytest.fixture
def gate(tmp_path: Path, pool: treadle.Executor) -> Iterator[Gate]:
    """A closed gate, which is opened before the pool is shut down."""
    made = Gate.make(tmp_path / "gate")
    yield made
    made.open()


def test_a_call_gives_its_result(pool: treadle.Executor) -> None:
    future = pool.submit(calls.give, 1, [2, (3,)], fn=4, self={"five": 5})
    assert isinstance(future, treadle.Future)
    assert future.result() == ((1, [2, (3,)]), {"fn": 4, "self": {"five": 5}})
    assert future.done()
    assert not future.cancel()
    assert pool.submit(calls.process_id).result() != os.getpid()


def test_functions_travel_by_value_and_async_ones_run(pool: treadle.Executor) -> None:
    outside = 5
    assert pool.submit(lambda inside: inside + outside, 3).result() == 8
    assert pool.submit(calls.double_later, 4).result() == 8
    # Nothing of treadle is needed in the cluster.
    assert not pool.submit(lambda: [name for name in sys.modules if "treadle" in name]).result()


def test_an_exception_arrives_as_itself_with_the_workers_traceback(pool: treadle.Executor) -> None:
    error = pool.submit(calls.complain, "too bad").exception()
    assert type(error) is calls.Complaint
    assert error.args == ("too bad",)
    told = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    assert "in complain\n" in told
    assert "raise Complaint(text)" in told
    for kind in (SystemExit, KeyboardInterrupt):
        assert type(pool.submit(calls.raise_this, kind).exception()) is kind
    assert pool.submit(calls.double, 4).result() == 8


def test_what_cannot_travel_fails_one_call(pool: treadle.Executor) -> None:
    with pytest.raises(treadle.PayloadError, match="lock") as caught:
        pool.submit(calls.double, threading.Lock()).result()
    assert "hint" in str(caught.value)
    with pytest.raises(Exception, match="lock"):
        pool.submit(calls.give_a_lock).result()
    with pytest.raises(treadle.PayloadError, match="Unpicklable: odd"):
        pool.submit(calls.complain_unpicklably, "odd").result()
    assert pool.submit(calls.double, 4).result() == 8


def test_map_gives_results_in_order_in_few_tasks(pool: treadle.Executor) -> None:
    assert list(pool.map(calls.double, range(3000))) == [2 * number for number in range(3000)]
    assert pool.stats().submitted < 1500, "short items travel together"
    assert sorted(pool.map(calls.double, range(30), ordered=False)) == list(range(0, 60, 2))
    assert list(pool.map(pow, range(5), [2] * 5, chunksize=2)) == [0, 1, 4, 9, 16]


def test_map_reads_as_far_as_needed_and_stops_at_an_exception(pool: treadle.Executor) -> None:
    results = pool.map(functools.partial(calls.double_unless, 5), itertools.count(), chunksize=4)
    assert list(itertools.islice(results, 5)) == [0, 2, 4, 6, 8]
    with pytest.raises(calls.Complaint, match="5 is bad"):
        next(results)


def test_retries_run_a_call_again(pool: treadle.Executor, tmp_path: Path) -> None:
    assert pool.options(retries=2).submit(calls.fail_first, tmp_path, 2).result() == 2
    assert pool.stats().retried == 2
    (tmp_path / "more").mkdir()
    with pytest.raises(calls.Complaint, match="run 1"):
        pool.options(retries=1).submit(calls.fail_first, tmp_path / "more", 5).result()


def test_a_dead_worker_fails_its_call_and_the_pool_goes_on(
    pool: treadle.Executor, tmp_path: Path
) -> None:
    with pytest.raises(treadle.WorkerDied) as caught:
        pool.submit(calls.die_first, tmp_path, 99).result()
    assert isinstance(caught.value, treadle.EngineLostTask)
    assert isinstance(caught.value, concurrent.futures.BrokenExecutor)
    assert "die_first" in str(caught.value)
    assert pool.submit(calls.double, 4).result() == 8
    assert pool.stats().lost == 1
    (tmp_path / "more").mkdir()
    again = pool.options(retries=1).submit(calls.die_first, tmp_path / "more", 1)
    assert again.result() == 1


def await_word(pool: treadle.Executor, handles: list[Any]) -> None:
    """Blocks until the engine's workers know of cancelled calls."""
    if pool.plan.strategy == "ray":
        concurrent.futures.wait([answer for _, answer in handles])
        return
    keys = {handle.key for handle in handles}

    def known(dask_worker: Any) -> bool:
        return bool(keys & set(dask_worker.state.tasks))

    def known_to_all(dask_scheduler: Any) -> bool:
        return bool(keys & set(dask_scheduler.tasks))

    client = pool._strategy._client
    while client.run_on_scheduler(known_to_all) or any(client.run(known).values()):
        pass


def test_a_cancelled_call_never_runs(pool: treadle.Executor, gate: Gate, tmp_path: Path) -> None:
    held = [pool.submit(gate, number) for number in range(WORKERS)]
    gate.await_arrivals(WORKERS)
    (tmp_path / "marks").mkdir()
    waiting = [pool.submit(calls.leave_a_mark, tmp_path / "marks") for _ in range(6)]
    in_engine = [pool._strategy._calls[number] for number in sorted(pool._strategy._calls)]
    handles = [call.handle for call in in_engine[WORKERS:][:5]]
    assert all(future.cancel() for future in waiting[:5])
    await_word(pool, handles)
    gate.open()
    assert [future.result() for future in held] == list(range(WORKERS))
    assert waiting[5].result() == 0
    assert [path.name for path in (tmp_path / "marks").iterdir()] == ["0"]
    assert pool.stats().cancelled == 5


def test_a_running_call_is_stopped(pool: treadle.Executor, gate: Gate) -> None:
    dask = pool.plan.strategy == "dask"
    future = pool.options(retries=1).submit(run_on, gate)
    gate.await_arrivals()
    while dask and not future.running():
        os.sched_yield()  # the worker's word is on its way
    assert future.interrupt()
    with pytest.raises(concurrent.futures.CancelledError) as caught:
        future.result()
    assert isinstance(caught.value, treadle.TaskInterrupted) == dask
    # All workers are free again, so as many calls meet as there are workers.
    meeting = [pool.submit(gate) for _ in range(WORKERS)]
    gate.await_arrivals(WORKERS)
    gate.open()
    concurrent.futures.wait(meeting)


def test_dask_tells_what_runs(pool: treadle.Executor, gate: Gate) -> None:
    if pool.plan.strategy != "dask":
        pytest.skip("Ray does not tell when it begins a call")
    held = [pool.submit(gate) for _ in range(WORKERS)]
    more = pool.submit(calls.double, 1)
    gate.await_arrivals(WORKERS)
    while not all(future.running() for future in held):
        os.sched_yield()  # the workers' word is on its way
    assert not held[0].cancel()
    now = pool.stats()
    assert (now.submitted, now.running, now.queued) == (3, 2, 1)
    assert "2 of 2 busy, 1 calls waiting" in pool.dump()
    assert "in wait" in pool.dump()
    gate.open()
    assert more.result() == 2


def test_the_counts_add_up(pool: treadle.Executor) -> None:
    for future in [pool.submit(calls.double, number) for number in range(10)]:
        future.result()
    pool.submit(calls.complain, "no").exception()
    pool.shutdown()
    end = pool.stats()
    assert (end.submitted, end.completed, end.running, end.queued) == (11, 11, 0, 0)
    assert end.payload_bytes > 0
    assert pool.dump()


def test_a_shared_value_travels_once_and_arrives_anywhere(pool: treadle.Executor) -> None:
    numpy = pytest.importorskip("numpy")
    table = pool.share(numpy.arange(1_000_000))
    before = pool.stats().payload_bytes
    assert pool.submit(calls.look_up, table, 7).result() == 7
    assert pool.submit(calls.look_up, key=8, table=table).result() == 8
    look_up = functools.partial(calls.look_up, table)
    assert list(pool.map(look_up, range(20))) == list(range(20))
    assert pool.stats().payload_bytes - before < 100_000


def test_on_an_event_loop(pool: treadle.Executor) -> None:
    async def main() -> None:
        assert await pool.asubmit(calls.double, 4) == 8
        assert [result async for result in pool.amap(calls.double, range(20))] == list(
            range(0, 40, 2)
        )
        with pytest.raises(calls.Complaint):
            await pool.asubmit(calls.complain, "no")

    asyncio.run(main())


def test_the_standard_library_waits_for_it(pool: treadle.Executor) -> None:
    futures = [pool.submit(calls.double, number) for number in range(8)]
    told: list[int] = []
    futures[0].add_done_callback(lambda future: told.append(future.result()))
    done = {future.result() for future in concurrent.futures.as_completed(futures)}
    assert done == set(range(0, 16, 2))
    assert told == [0]


def test_a_callback_may_submit(pool: treadle.Executor) -> None:
    second: list[treadle.Future] = []
    called = threading.Event()

    def submit_another(first: treadle.Future) -> None:
        second.append(pool.submit(calls.double, first.result()))
        called.set()

    pool.submit(calls.double, 2).add_done_callback(submit_another)
    assert called.wait(100)
    assert second[0].result() == 8


def test_shutdown_waits_and_refuses(plan: dict[str, str]) -> None:
    pool = treadle.Executor(**plan, max_pending=3)
    futures = [pool.submit(calls.double, number) for number in range(12)]
    pool.shutdown()
    assert all(future.done() for future in futures)
    with pytest.raises(treadle.PoolShutDown):
        pool.submit(calls.double, 1)
    # The connection or the cluster of the program is as it was.
    with treadle.Executor(**plan) as another:
        assert another.submit(calls.double, 1).result() == 2


def test_shutdown_can_cancel_what_waits(plan: dict[str, str], tmp_path: Path) -> None:
    gate = Gate.make(tmp_path / "gate")
    pool = treadle.Executor(**plan)
    held = [pool.submit(gate) for _ in range(WORKERS)]
    gate.await_arrivals(WORKERS)
    if "dask" in plan:
        while not all(future.running() for future in held):
            os.sched_yield()  # the workers' word is on its way
    waiting = [pool.submit(calls.double, number) for number in range(5)]
    pool.shutdown(wait=False, cancel_futures=True)
    gate.open()
    assert all(future.cancelled() for future in waiting)
    pool.shutdown()
    # Dask says which calls it has begun, and those end; Ray's are stopped.
    assert all(future.cancelled() == ("ray" in plan) for future in held)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("timeout", 5),
        ("initializer", print),
        ("mp_context", "spawn"),
        ("max_tasks_per_child", 3),
        ("max_memory_per_child", 1 << 30),
        ("native_threads", 2),
    ],
)
def test_what_an_engine_cannot_do_is_refused(plan: dict[str, str], option: str, value: Any) -> None:
    with pytest.raises(treadle.PlanError, match=option) as caught:
        treadle.Executor(**plan, **{option: value})
    assert "hint" in str(caught.value)


def test_timeouts_and_the_end_of_workers_are_refused(pool: treadle.Executor) -> None:
    with pytest.raises(treadle.PlanError, match="time limit"):
        pool.options(timeout=1)
    for end in (pool.terminate_workers, pool.kill_workers):
        with pytest.raises(treadle.PlanError, match="does not end them"):
            end()
