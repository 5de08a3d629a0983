"""The desk: takes jobs from the queue into the worker processes, and brings their outcomes back.

::

    queue ─► take ─► executor.asubmit(reports.run) ─► outcome ─► queue ─► listeners
                         │  progress: log records of the worker ─► listeners
                         └─ cancel: the await is cancelled, which reaches the worker

The queue's file is written by a thread of its own, so the loop never waits for a disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import treadle

from live import reports
from live.dataset import Sales
from live.errors import QueueError, ServerError
from live.queue import ATTEMPTS, Job, Queue
from live.reports import PROGRESS

LOG = logging.getLogger("live")
PAUSE_S = 1.0  # before a step is tried again that the queue's file refused


class Running:
    """A job at a worker: its call, the task that sees to its outcome, and the latest that it told."""

    def __init__(self, job: Job, call: asyncio.Future[Any]) -> None:
        self.job = job
        self.call = call
        self.share = 0.0
        self.worker: int | None = None
        self.task: asyncio.Task[None] | None = None


class ProgressHandler(logging.Handler):
    """Hands what workers tell of their progress to the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, desk: Desk) -> None:
        super().__init__()
        self._loop = loop
        self._desk = desk

    def emit(self, record: logging.LogRecord) -> None:
        told = vars(record)
        try:
            self._loop.call_soon_threadsafe(
                self._desk.progressed, told["job"], told["share"], told["treadle_worker"]
            )
        except RuntimeError:
            pass  # the loop is closed: nobody listens any more


def workers(plan: treadle.Plan | None = None, decisions: str | None = None) -> treadle.Executor:
    """The executor that reports run in, by this plan or by the decided one.

    Raises:
        ServerError: the plan has no processes.
        treadle.RecordError: there is no decided plan.
    """
    # What workers log below the level that the root logger has now stays in the workers.
    logging.getLogger().setLevel(min(logging.INFO, logging.getLogger().level or logging.INFO))
    options: dict[str, Any] = {"initializer": reports.make_way, "name": "report"}
    executor = (
        treadle.Executor(plan, **options)
        if plan is not None
        else treadle.Executor.decided("report", decisions, **options)
    )
    if executor.plan.processes is None:
        executor.shutdown()
        raise ServerError(
            f"the plan {executor.plan} does not run reports in processes",
            "a report can be stopped only in a process; run `python -m live decide`, or give --workers",
        )
    return executor


class Desk:
    """Runs jobs, as many at a time as there are workers. `listen` hears each event: its job, a name, what belongs to it."""

    def __init__(
        self,
        queue: Queue,
        sales: Sales,
        listen: Callable[[Job, str, dict[str, Any]], None],
        executor: treadle.Executor,
    ) -> None:
        self.queue = queue
        self._listen = listen
        self.executor = executor
        self._sales = self.executor.share(sales)
        self._disk = treadle.Executor(threads=1, name="queue")
        self.running: dict[int, Running] = {}
        self.retried = 0
        self.problem = ""  # why the queue's file cannot be written now
        self._work = asyncio.Event()
        self._closing = False
        self._dispatcher: asyncio.Task[None] | None = None
        #: Ends with an error when no job can be run any more.
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._handler = ProgressHandler(asyncio.get_running_loop(), self)

    async def open(self) -> int:
        """Begins to work; returns how many jobs a former server had left running."""
        PROGRESS.addHandler(self._handler)
        PROGRESS.propagate = False
        resumed = await self.disk(self.queue.resume)
        self._work.set()
        self._dispatcher = asyncio.create_task(self._dispatch())
        return resumed

    async def disk(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """A call of the queue, in the thread that may wait for the disk."""
        return await self._disk.asubmit(call, *arguments)

    async def submit(self, client: str, report: str, parameters: dict[str, Any]) -> int:
        """Accepts a job: when this returns, it is on the disk.

        Raises:
            Refused, QueueError: it is not.
        """
        number: int = await self.disk(self.queue.add, client, report, parameters)
        self._work.set()
        return number

    async def cancel(self, number: int) -> bool:
        """Ends a job that waits or runs; False if it had ended. Raises Refused, QueueError."""
        job: Job = await self.disk(self.queue.job, number)
        if number not in self.running:
            ended = await self.disk(self.queue.end, number, "cancelled")
            if number not in self.running:
                if ended:
                    self._listen(job, "cancelled", {})
                return bool(ended)
            # It was taken in between, and has begun.
        running = self.running[number]
        assert running.task is not None
        # Only the call is cancelled, never the writing of its outcome.
        running.call.cancel()
        await asyncio.wait([running.task])
        return bool((await self.disk(self.queue.job, number)).state == "cancelled")

    def progressed(self, number: int, share: float, worker: int) -> None:
        """On the loop: a worker told how far it is. The last record may come after the outcome."""
        running = self.running.get(number)
        if running is not None:
            running.share, running.worker = share, worker
            self._listen(running.job, "progress", {"share": round(share, 3)})

    async def close(self) -> None:
        """Stops what runs and puts it back: the next server begins with it."""
        self._closing = True
        self._work.set()
        if self._dispatcher is not None:
            await asyncio.wait([self._dispatcher])
        running = list(self.running.values())
        for each in running:
            each.call.cancel()
        if running:
            await asyncio.wait([each.task for each in running if each.task is not None])
        PROGRESS.removeHandler(self._handler)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.executor.shutdown)
        await loop.run_in_executor(None, self._disk.shutdown)

    async def _dispatch(self) -> None:
        try:
            while not self._closing:
                await self._work.wait()
                self._work.clear()
                while self._may_begin():
                    job: Job | None = await self._insist(self.queue.take)
                    if job is None:
                        break
                    try:
                        self._begin(job)
                    except treadle.PoolBroken:
                        await self._insist(self.queue.put_back, job.job, True)
                        raise
        except BaseException as error:
            self._give_up(error)

    def _may_begin(self) -> bool:
        free = self.executor.plan.concurrency - len(self.running)
        return free > 0 and not self._closing and not self.broken.done()

    def _begin(self, job: Job) -> None:
        call = self.executor.asubmit(reports.run, self._sales, job.job, job.report, job.parameters)
        running = self.running[job.job] = Running(job, call)
        running.task = asyncio.create_task(self._see_to(running))
        self._listen(job, "started", {"attempt": job.attempts})

    async def _see_to(self, running: Running) -> None:
        """One attempt at a job, from its worker to its outcome on the disk."""
        job = running.job
        try:
            state, told = await self._outcome(job, running.call)
        except BaseException as error:
            self._give_up(error)
            raise
        finally:
            del self.running[job.job]
            self._work.set()
        self._listen(job, state, told)

    async def _outcome(self, job: Job, call: asyncio.Future[Any]) -> tuple[str, dict[str, Any]]:
        """What became of an attempt; it is on the disk when this returns."""
        started = time.monotonic()
        try:
            result = await call
        except asyncio.CancelledError:
            # Cancelling has interrupted the report; a worker that does not heed it is ended by the pool.
            if self._closing:
                await self._insist(self.queue.put_back, job.job, True)
                return "waiting", {}
            await self._insist(self.queue.end, job.job, "cancelled")
            return "cancelled", {}
        except treadle.WorkerDied as death:
            LOG.warning("job %d: %s", job.job, str(death).partition("\n")[0])
            if job.attempts < ATTEMPTS:
                self.retried += 1
                await self._insist(self.queue.put_back, job.job)
                return "waiting", {"problem": f"its worker {death.ending}; it is tried again"}
            problem = f"its workers died {job.attempts} times; the last one {death.ending}"
        except treadle.PoolBroken:
            await self._insist(self.queue.put_back, job.job, True)
            raise
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        else:
            if not await self._insist(self.queue.end, job.job, "done", result):
                return "cancelled", {}
            return "done", {"result": result, "seconds": round(time.monotonic() - started, 3)}
        await self._insist(self.queue.end, job.job, "failed", None, problem)
        return "failed", {"problem": problem}

    async def _insist(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """A call of the queue that is made until the file takes it, or until the desk closes."""
        while True:
            try:
                result = await self.disk(call, *arguments)
            except QueueError as error:
                if self._closing:
                    raise
                if not self.problem:
                    LOG.error("%s; trying on (%s)", error, error.hint)
                self.problem = str(error)
                await asyncio.sleep(PAUSE_S)
            else:
                self.problem = ""
                return result

    def _give_up(self, error: BaseException) -> None:
        if not self.broken.done() and not self._closing:
            self.broken.set_exception(error)
