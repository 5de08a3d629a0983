"""A laboratory that speaks the measuring protocol and measures nothing: the target's name is a script.

Replies come at once and claim what the script says, so that tests need no time and no luck.
The last argument is the position file, as for the real one.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from typing import Any

RATES = {
    "cpu": {"processes": 1.9}, "wait": {"threads": 20.0}, "far": {"threads": 100.0},
    "watched": {"processes": 1.9, "threads": 1.11}, "released": {"processes": 1.9, "threads": 1.98}, "same": {"processes": 1.0},
    "apart": {"processes": 7.0, "threads": 0.5},
}  # fmt: skip

WAITING = ("wait", "far", "apart")


def current(script: str) -> str:
    """The script, or the one that a test has put into the file ``now`` of this folder: the function was changed."""
    try:
        with open("now") as file:
            return file.read().strip()
    except FileNotFoundError:
        return script


def fingerprint(script: str) -> dict[str, Any]:
    """The reply to ``fingerprint``."""
    return {
        "target": f"{script}:work",
        "source": {"function": script, "callees": {}, "items": None},
        "environment": {
            "python": "3.12.0" if script == "python" else "3.11.7", "implementation": "cpython", "gil": True,
            "build": {}, "start_method": "fork", "distributions": {}, "extensions": [], "native_pools": {},
        },
    }  # fmt: skip


def position(index: int) -> None:
    """Says that the input `index` is being processed."""
    with open(sys.argv[-1], "r+b") as file:
        file.write(struct.pack("<Q", index + 1))


def load(script: str, request: dict[str, Any]) -> dict[str, Any]:
    """The reply to ``load``."""
    return {
        "target": f"{script}:work", "file": None, "source_hash": "0" * 64, "count": 1000,
        "spec": request["items"], "async": False, "items_truncated": False, "python": "3.11.7",
        "implementation": "cpython", "gil": True,
    }  # fmt: skip


def profile(script: str) -> dict[str, Any]:
    """The reply to ``profile``, or no reply."""
    if script == "exit":
        position(5)
        os._exit(3)
    if script == "crash":
        position(2)
        os.kill(os.getpid(), signal.SIGSEGV)
    if script == "hang":
        position(7)
        signal.pause()
    if script.startswith("family="):
        # A descendant that leaves the process group, so that killing the group does not reach it.
        pause = "import signal; signal.pause()"
        child = subprocess.Popen([sys.executable, "-c", pause], start_new_session=True)
        name = script.removeprefix("family=")
        with open(name + ".new", "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        os.rename(name + ".new", name)
        signal.pause()
    waits = script in WAITING
    cpu = 0.0001 if waits else 0.001
    # Of the instants at which it computed, so many were with the interpreter lock.
    held = {"watched": 900, "released": 100}.get(script)
    lock = {"path": "result.lock", "type": "lock", "message": "cannot pickle", "hint": None}
    error = {"index": 0, "type": "ValueError", "message": "bad 0", "traceback": "in work"}
    return {
        "count": 20, "wall_s": 0.05 if waits else 0.001, "walls": [0.05 if waits else 0.001] * 20,
        "thread_cpu_s": cpu, "process_cpu_s": cpu, "run_queue_s": 0.0, "cpus": [cpu] * 20,
        "tally": held and {"held_running": held, "free_running": 1000 - held, "watched_s": 0.01, "rate_hz": 1000.0},
        "errors": {"fails": 20, "some": 4}.get(script, 0), "all_failed": script == "fails",
        "first_error": error if script in ("fails", "some") else None,
        "argument_bytes": 20,
        "result_bytes": None if script == "unpicklable" else 100_000 if script == "big" else 20,
        "dumps_s": 1e-6, "loads_s": 1e-6, "argument_dumps_s": 1e-6, "argument_loads_s": 1e-6,
        "result_dumps_s": 1e-6, "result_loads_s": 1e-6,
        "pickle": {"function": None, "argument": None, "exception": None,
                   "result": lock if script == "unpicklable" else None},
        "peak_rss_bytes": 2e7, "rss_growth_bytes": 0, "baseline_rss_bytes": 2e7, "modules": [],
        "pilot": None if waits or held else {"threads": 2, "speedup": 1.0, "interval": [0.98, 1.02]},
        "native_threads": 0, "first_call_s": 0.001, "used": list(range(0, 1000, 50)),
    }  # fmt: skip


def block(
    script: str, plan: dict[str, int], request: dict[str, Any], number: int
) -> dict[str, Any]:
    """The reply to ``block``: as many tasks as the script's speed gives in the time that was asked."""
    if script == "lost" and "processes" in plan:
        os._exit(9)
    if script == "rare-exit" and "threads" in plan:
        position(437)
        os._exit(7)
    if script == "rare-hang" and (
        "threads" in plan or (request["count"], request["first"]) == (1, 437)
    ):
        position(437)
        signal.pause()
    if script == "deadlock" and "threads" in plan:
        position(437)
        signal.pause()
    strategy = next(iter(plan), "serial")
    wall, cpu = (0.05, 0.0001) if script in WAITING else (0.001, 0.001)
    speed = RATES.get(script, RATES["cpu"]).get(strategy, 1.0) / wall
    speed *= 1 + 0.01 * (number % 3 - 1)
    count = max(1, round(speed * request["seconds"]))
    count = min(count, len(request.get("inputs", [0] * count)))
    lossy = script == "lossy" and "processes" in plan
    error = {"index": 3, "type": "KeyError", "message": "3", "traceback": ""}
    return {
        "count": count, "wall_s": count / speed,
        "errors": count if lossy else (count // 5 if script == "some" else 0),
        "first_error": error if lossy or script == "some" else None, "latencies": [wall] * 20, "cpu_s": count * cpu,
        "peak_memory_bytes": 3e7, "memory_kind": "pss", "lost_workers": 0,
        "taken": count if "inputs" in request else None,
        # Others fill both processors and take two fifths of the plain loop's; two workers get one core's worth.
        **(crowd(count / speed, workers=sum(plan.values()) or 1) if script == "crowded" else {}),
    }  # fmt: skip


def crowd(wall: float, workers: int) -> dict[str, float]:
    """What is told of a block beside others that fill the machine."""
    got = 0.6 if workers == 1 else 1.0
    return {
        "cpu_s": got * wall, "run_queue_s": (workers - got) * wall,
        "machine_capacity_s": 2 * wall, "machine_busy_s": 2 * wall, "machine_stolen_s": 0.0,
    }  # fmt: skip


def main() -> None:
    """Answers requests until there are no more."""
    script, plan, number = "", {}, 0
    print("this goes to standard error", file=sys.stderr, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if os.path.exists("asked"):  # a test wants to know
            with open("asked", "a") as file:
                file.write(line)
        reply: dict[str, Any]
        if request["do"] == "quit":
            return
        if request["do"] == "load":
            script = current(request["target"])
            if script == "refused":
                reply = {"error": {"kind": "target-module", "message": "there is no module 'refused'",
                                   "hint": "look elsewhere", "detail": None}}  # fmt: skip
            elif script == "garbage":
                print("not the protocol", flush=True)
                continue
            else:
                print(json.dumps({"progress": {"loading": script}}), flush=True)
                reply = {"ok": load(script, request)}
        elif request["do"] == "profile":
            reply = {"ok": profile(script)}
        elif request["do"] == "fingerprint":
            script = current(request["target"])
            if script == "gone":
                reply = {
                    "error": {"kind": "target-function", "message": "jobs has no function 'work'"}
                }
            else:
                reply = {"ok": fingerprint(script)}
        elif request["do"] == "locate":
            reply = {
                "ok": {"found": [{"target": "elsewhere.py:work", "same": request["hash"] == "cpu"}]}
            }
        elif request["do"] == "worker":
            process = 0.05 if request["apart"] else None
            reply = {"ok": {"worker_start_s": {"process": process, "thread": 0.0001},
                            "worker_rss_bytes": 1e6 if request["apart"] else None}}  # fmt: skip
        elif request["do"] == "handover":
            free = {"parent_s": 1e-6, "worker_s": 1e-6}
            processes = free if request["processes"] else None
            reply = {
                "ok": {"serial_s": 1e-6, "threads": free, "processes": processes, "chunked": None}
            }
        elif request["do"] == "plan":
            plan = request["plan"]
            if script == "nostart" and plan:
                reply = {"error": {"kind": "plan-failed", "message": "its workers did not start"}}
            else:
                reply = {"ok": {"start_s": 0.01 if plan else 0.0, "rss_bytes": 1, "workers": 1}}
        else:
            number += 1
            reply = {"ok": block(script, plan, request, number)}
        print(json.dumps(reply), flush=True)


main()
