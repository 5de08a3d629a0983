"""One measurement in an interpreter of its own: ``python -m benches.flatness.sample KIND N``; prints one JSON object.

``queued N``: two workers are held while N calls are queued, then let go. ``workers N``: so many workers run :data:`CALLS` calls.
``threads N``: as ``queued``, in two threads.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from typing import Any

import treadle

from benches.flatness import counters

#: Calls of a ``workers`` sample: enough that starting the workers is not seen.
CALLS = int(os.environ.get("FLATNESS_CALLS", "50000"))


def tiny(number: int) -> int:
    """The shortest useful call."""
    return number + 1


def hold(reading: str) -> None:
    """Runs until the FIFO has a writer, and so until the caller lets go."""
    with open(reading) as fifo:
        fifo.read()


def _processes(pool: treadle.Executor) -> list[int]:
    return [os.getpid(), *(worker.ident for worker in pool.stats().workers if worker.ident)]


def _measured(pool: treadle.Executor, in_processes: bool, calls: int, work: Any) -> dict[str, Any]:
    """What ``work()`` costs for each of so many calls."""
    pids = _processes(pool) if in_processes else [os.getpid()]
    instructions = _instructions.read()
    switches, cpu = counters.switches(pids), counters.cpu_seconds(pids)
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    told = {
        "seconds": seconds / calls,
        "cpu_seconds": (counters.cpu_seconds(pids) - cpu) / calls,
        "switches": (counters.switches(pids) - switches) / calls,
        "instructions": None,
    }
    after = _instructions.read()
    if instructions is not None and after is not None:
        told["instructions"] = (after - instructions) / calls
    return told


def queued(calls: int, plan: dict[str, int]) -> dict[str, Any]:
    """Submits the calls while the workers are held, then has them run."""
    fifo = f"/tmp/flatness-{os.getpid()}"
    os.mkfifo(fifo)
    in_processes = "processes" in plan
    try:
        with treadle.Executor(**plan) as pool:
            for future in [pool.submit(tiny, number) for number in range(2000)]:
                future.result()
            held = [pool.submit(hold, fifo) for _ in range(2)]
            while pool.stats().running < 2:
                time.sleep(0.001)
            gc.collect()
            gc.disable()
            futures: list[Any] = [None] * calls
            before = counters.resident_bytes()

            def submit() -> None:
                for number in range(calls):
                    futures[number] = pool.submit(tiny, number)

            submitting = _measured(pool, in_processes, calls, submit)
            memory = (counters.resident_bytes() - before) / calls
            open(fifo, "w").close()
            for future in held:
                future.result()

            def finish() -> None:
                for number, future in enumerate(futures):
                    if future.result() != number + 1:
                        raise AssertionError(f"call {number} returned {future.result()!r}")

            running = _measured(pool, in_processes, calls, finish)
    finally:
        os.unlink(fifo)
    return {"submit": submitting, "run": running, "bytes": memory}


def workers(count: int) -> dict[str, Any]:
    """Runs calls on so many workers, submitted in bursts that fill the queue."""
    with treadle.Executor(processes=count) as pool:
        # Until every worker has started: what they read at their start is not the calls'.
        while sum(worker.state in ("idle", "busy") for worker in pool.stats().workers) < count:
            list(pool.map(tiny, range(50 * count), chunksize=1))

        def work() -> None:
            for start in range(0, CALLS, 5000):
                burst = range(start, min(start + 5000, CALLS))
                for future in [pool.submit(tiny, number) for number in burst]:
                    future.result()

        return {"run": _measured(pool, True, max(CALLS, 1), work)}


if __name__ == "__main__":
    _instructions = counters.Instructions()
    kind, number = sys.argv[1], int(sys.argv[2])
    if kind == "queued":
        print(json.dumps(queued(number, {"processes": 2})))
    elif kind == "threads":
        print(json.dumps(queued(number, {"threads": 2})))
    else:
        print(json.dumps(workers(number)))
