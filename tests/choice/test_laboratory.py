"""The measuring process holds its protocol, whatever the function does."""

from __future__ import annotations

import os
import select
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[[str, str], Path]

JOBS = """
import asyncio, os, sys, threading, time

def double(x):
    return 2 * x

def note(x):
    with open("seen.txt", "a") as file:
        file.write(f"{x}\\n")

def spin_and_note(x):
    note(x)
    end = time.thread_time() + 0.002
    while time.thread_time() < end:
        pass

async def note_async(x):
    note(x)

def uneven_nap(x):
    time.sleep(0.05 if x % 4 == 3 else 0.005)

def run_a_program(x):
    import subprocess
    program = "import time\\nwhile time.process_time() < 0.1: pass"
    subprocess.run([sys.executable, "-S", "-c", program], check=True)

def generators():
    return [(number for number in range(3)) for _ in range(10)]

def files():
    return [("name", open(__file__)) for _ in range(4)]

def die_and_note(x):
    note(x)
    if x == 7:
        os._exit(9)

def talk(x):
    print("noise", flush=True)
    os.write(1, b"more noise\\n")
    sys.__stdout__.write("and more\\n")
    return sys.stdin.read(), os.read(0, 10)

def die(x):
    if x == 7:
        os._exit(9)

def die_once(x):
    if x == 777:
        os._exit(9)

def add(left, right):
    return left + right

def echo_type(x):
    return type(x).__name__

def some_locked():
    return [threading.Lock() if number in (4, 9) else number for number in range(20)]

def pairs():
    return [(number, 1) for number in range(40)]

def hang(x):
    if x == 3:
        print(x, file=sys.stderr, flush=True)
        threading.Event().wait()

def litter(x):
    threading.Thread(target=threading.Event().wait).start()

def spawn(x):
    import subprocess
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    spawn.kept.append(child)
    print(child.pid, file=sys.stderr, flush=True)
spawn.kept = []

async def fetch(x):
    await asyncio.sleep(0.001)
    if x == 2:
        sys.exit(1)
    return x

def half(x):
    if x % 2:
        raise ValueError(f"odd {x}")
    return x

def lock(x):
    return threading.Lock()

anonymous = lambda x: x
"""


@pytest.fixture(autouse=True)
def _jobs(write: Write) -> None:
    write("jobs_at_hand.py", JOBS)


def position(laboratory: Any) -> tuple[int, int]:
    """The two words that a starter would read."""
    first, second = struct.unpack("<QQ", laboratory.position.read_bytes())
    return first, second


def gone(pid: int) -> bool:
    """Waits (the watchdog bounds it) until the process has ended; init, not we, reaps it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        select.select([descriptor], [], [])
    finally:
        os.close(descriptor)
    return True


def test_load_tells_what_was_loaded(laboratory: Any) -> None:
    found = laboratory.load("jobs_at_hand:double", "range:30")
    assert (found["target"], found["count"], found["spec"]) == (
        "jobs_at_hand:double",
        30,
        "range:30",
    )
    assert found["async"] is False
    assert found["items_truncated"] is False
    assert isinstance(found["gil"], bool)
    assert found["implementation"]
    assert laboratory.load("jobs_at_hand.py:fetch")["async"] is True


def test_prints_and_reads_do_not_disturb(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:talk")
    assert laboratory.ask("profile", max_seconds=2.0, max_count=5)["errors"] == 0


def test_a_death_leaves_the_input_readable(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:die")
    laboratory.tell({"do": "profile", "max_seconds": 5.0, "max_count": 20})
    assert laboratory.hear() is None
    assert laboratory.process.wait() == 9
    assert position(laboratory) == (8, 7)


def test_a_hang_leaves_the_input_readable_and_ends_with_its_starter(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:hang")
    laboratory.tell({"do": "profile", "max_seconds": 5.0, "max_count": 20})
    assert laboratory.process.stderr.readline() == "3\n"
    assert position(laboratory) == (4, 3)
    laboratory.process.stdout.close()  # what the starter's death does
    assert laboratory.process.wait() != 0


def test_after_quit_nothing_is_left(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:spawn", "range:1")
    laboratory.ask("profile", max_seconds=2.0, max_count=1)
    child = int(laboratory.process.stderr.readline())
    laboratory.tell({"do": "quit"})
    assert laboratory.process.wait() == 0
    assert gone(child)


def test_threads_left_behind_do_not_keep_it(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:litter")
    found = laboratory.ask("profile", max_seconds=2.0, max_count=5)
    assert found["errors"] == 0
    laboratory.process.stdin.close()
    assert laboratory.process.wait() == 0


def test_the_profile_has_what_a_worker_costs(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:double")
    found = laboratory.ask("profile", max_seconds=2.0, max_count=10)
    assert found["worker_start_s"]["process"] > 0
    assert found["worker_start_s"]["thread"] > 0
    assert found["worker_rss_bytes"] > 1_000_000


def test_the_profile_ends_early_and_tells_which_inputs_it_ran(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:double")
    found = laboratory.ask(
        "profile", max_seconds=3.0, max_count=9, enough_seconds=0.0, enough_count=4, once=True
    )
    # A call of nanoseconds tells nothing of the lock, so that all nine run.
    assert found["count"] == 9 or found["lock_absent"] is not None
    assert found["used"] == sorted(set(found["used"]))
    assert len(found["used"]) == found["count"]
    assert found["pilot"] is None


def test_requests_out_of_turn_are_refused(laboratory: Any) -> None:
    assert laboratory.refused("profile", max_seconds=1.0, max_count=1)["kind"] == "protocol"
    assert laboratory.refused("plan", plan={})["kind"] == "protocol"
    assert laboratory.refused("dance")["kind"] == "protocol"
    laboratory.load("jobs_at_hand:double")
    assert laboratory.refused("block", first=0, count=1, seconds=1.0)["kind"] == "protocol"


@pytest.mark.parametrize(
    ("target", "plan"),
    [
        ("jobs_at_hand:double", {}),
        ("jobs_at_hand:double", {"threads": 3}),
        ("jobs_at_hand:double", {"processes": 2}),
        ("jobs_at_hand.py:double", {"processes": 1}),
        ("jobs_at_hand:fetch", {}),
        ("jobs_at_hand:fetch", {"coroutines": 4}),
    ],
    ids=str,
)
def test_a_block_runs_every_input_once(target: str, plan: dict[str, int], laboratory: Any) -> None:
    laboratory.load(target, "range:20")
    started = laboratory.ask("plan", plan=plan)
    assert started["start_s"] >= 0
    assert started["rss_bytes"] > 0
    assert started["workers"] == next(iter(plan.values()), 1)
    for first in (0, 15):  # the second wraps around
        found = laboratory.ask("block", first=first, count=20, seconds=60.0)
        assert found["count"] == 20
        assert found["errors"] == (1 if target.endswith("fetch") else 0)
        assert found["lost_workers"] == 0
        assert found["wall_s"] > 0
        assert len(found["latencies"]) == 20
        assert min(found["latencies"]) >= 0
        assert found["peak_memory_bytes"] > 0
        assert found["memory_kind"] in ("pss", "rss")
    laboratory.tell({"do": "quit"})
    assert laboratory.process.wait() == 0


@pytest.mark.parametrize("plan", [{}, {"threads": 2}, {"processes": 2}], ids=str)
def test_errors_are_counted_under_every_plan(plan: dict[str, int], laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:half", "range:10")
    laboratory.ask("plan", plan=plan)
    found = laboratory.ask("block", first=0, count=10, seconds=60.0)
    assert found["count"] == 10
    assert found["errors"] == 5
    assert found["first_error"]["type"] == "ValueError"
    assert "in half" in found["first_error"]["traceback"]


def test_a_block_stops_when_its_time_is_up(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:double", "range:20")
    for plan in ({}, {"threads": 2}):
        laboratory.ask("plan", plan=plan)
        found = laboratory.ask("block", first=0, count=10**9, seconds=0.05)
        assert 0 < found["count"] < 10**9
        assert len(found["latencies"]) <= 2000


def test_a_rate_is_that_of_the_full_pool(laboratory: Any) -> None:
    # One task in four takes ten times as long: whole blocks end with such a one, and look slower than they are.
    laboratory.load("jobs_at_hand:uneven_nap", "range:100000")
    for plan, workers in (({}, 1), ({"threads": 8}, 8), ({"processes": 2}, 2)):
        laboratory.ask("plan", plan=plan)
        laboratory.ask("block", first=0, count=10**9, seconds=0.1)
        found = laboratory.ask("block", first=3, count=10**9, seconds=0.25)
        assert found["window_s"] == pytest.approx(0.25)
        assert found["window_s"] < found["wall_s"]
        assert found["work"] < found["count"], "what was in flight counts for its part"
        # What ends later than it begins: no more than the workers and what waits for them.
        assert found["count"] - found["work"] <= workers + max(2, 0.02 * found["count"] / 0.25) + 1
    # A block that ends for want of inputs is whole.
    found = laboratory.ask("block", first=0, count=8, seconds=60.0)
    assert (found["work"], found["window_s"]) == (8, found["wall_s"])


def test_a_block_tells_the_effort_in_it(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:uneven_nap", "range:100000")
    efforts = [[index, 3.0 if index % 4 == 3 else 0.5] for index in range(6)]
    for plan in ({}, {"threads": 8}, {"processes": 2}):
        laboratory.ask("plan", plan=plan, efforts=efforts)
        # Inputs 2 ... 9: two of 0.5, 3, 0.5 and 0.5 are known, the others count as the mean.
        found = laboratory.ask("block", first=2, count=8, seconds=60.0)
        assert found["effort"] == pytest.approx(0.5 + 3.0 + 0.5 + 0.5 + 4 * 1.0)
        assert found["window_effort"] == found["effort"], "it is whole"
        found = laboratory.ask("block", first=3, count=10**9, seconds=0.02)
        assert 0 < found["window_effort"] < found["effort"]
    laboratory.ask("plan", plan={})
    assert laboratory.ask("block", first=0, count=8, seconds=60.0)["effort"] is None


def test_a_worker_is_started_only_where_it_may_matter(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:double", "range:20")
    assert "worker_start_s" not in laboratory.ask("profile", max_seconds=0.1, workers=False)
    inside = laboratory.ask("worker", apart=False)
    assert inside["worker_start_s"]["process"] is None
    assert inside["worker_rss_bytes"] is None
    assert inside["worker_start_s"]["thread"] > 0
    assert laboratory.ask("worker")["worker_start_s"]["process"] > 0


def test_a_lost_worker_is_counted_and_the_rest_goes_on(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:die", "range:10")
    laboratory.ask("plan", plan={"processes": 2})
    found = laboratory.ask("block", first=0, count=10, seconds=60.0)
    assert found["lost_workers"] == 1
    assert found["errors"] == 1
    assert found["count"] == 10
    assert found["first_error"]["index"] == 7


def test_short_tasks_go_in_chunks_and_a_loss_is_still_told_by_input(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:die_once", "range:1000")
    laboratory.ask("plan", plan={"processes": 2})
    found = laboratory.ask("block", first=0, count=200, seconds=60.0)
    assert (found["count"], found["errors"]) == (200, 0)
    found = laboratory.ask("block", first=200, count=800, seconds=60.0)
    assert (found["count"], found["errors"], found["lost_workers"]) == (800, 1, 1)
    assert found["first_error"]["index"] == 777
    found = laboratory.ask("block", first=0, count=200, seconds=60.0)
    assert (found["count"], found["errors"]) == (200, 0)


@pytest.mark.parametrize("plan", [{"processes": 2}, {"processes": 2, "chunk": 5}], ids=str)
def test_an_argument_that_cannot_travel_is_an_error_of_its_own(
    plan: dict[str, int], laboratory: Any
) -> None:
    laboratory.load("jobs_at_hand:echo_type", "jobs_at_hand:some_locked")
    laboratory.ask("plan", plan=plan)
    for _ in range(2):
        found = laboratory.ask("block", first=0, count=20, seconds=60.0)
        assert (found["count"], found["errors"], found["lost_workers"]) == (20, 2, 0), found
        assert found["first_error"]["index"] == 4


def test_star_spreads_tuples_under_every_plan(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:add", "jobs_at_hand:pairs", star=True)
    for plan in ({}, {"threads": 2}, {"processes": 2}):
        laboratory.ask("plan", plan=plan)
        for _ in range(2):
            found = laboratory.ask("block", first=0, count=40, seconds=60.0)
            assert (found["count"], found["errors"]) == (40, 0), plan


def test_a_result_that_cannot_travel_is_an_error_in_processes(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:lock", "range:4")
    laboratory.ask("plan", plan={"processes": 1})
    found = laboratory.ask("block", first=0, count=4, seconds=60.0)
    assert found["errors"] == found["count"] == 4
    laboratory.ask("plan", plan={"threads": 1})
    assert laboratory.ask("block", first=0, count=4, seconds=60.0)["errors"] == 0


@pytest.mark.parametrize(
    ("target", "plan", "word"),
    [
        ("jobs_at_hand:anonymous", {"processes": 2}, "lambda"),
        ("jobs_at_hand:double", {"coroutines": 2}, "plain function"),
    ],
)
def test_what_a_plan_cannot_run_is_infeasible(
    target: str, plan: dict[str, int], word: str, laboratory: Any
) -> None:
    laboratory.load(target)
    found = laboratory.refused("plan", plan=plan)
    assert found["kind"] == "plan-infeasible"
    assert word in found["message"]
    laboratory.ask("plan", plan={})


@pytest.mark.parametrize("plan", [{}, {"threads": 2}, {"processes": 2}, {"coroutines": 2}])
def test_an_async_function_runs_under_every_plan(plan: dict[str, int], laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:fetch")
    laboratory.ask("plan", plan=plan)
    found = laboratory.ask("block", first=0, count=4, seconds=60.0)
    # Input 2 asks the program to end, which is that task's error.
    assert (found["count"], found["errors"]) == (4, 1)


# Inputs that may be run once only.


def seen(laboratory: Any) -> list[int]:
    """The inputs that ``note`` was called with, in any process."""
    path = laboratory.position.parent / "seen.txt"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.mark.parametrize(
    ("target", "plan"),
    [
        ("jobs_at_hand:note", {}),
        ("jobs_at_hand:note", {"threads": 3}),
        ("jobs_at_hand:note", {"processes": 2}),
        ("jobs_at_hand:note_async", {}),
        ("jobs_at_hand:note_async", {"coroutines": 4}),
    ],
    ids=str,
)
def test_a_block_of_named_inputs_runs_them_and_no_others(
    target: str, plan: dict[str, int], laboratory: Any
) -> None:
    laboratory.load(target, "range:500")
    laboratory.ask("plan", plan=plan)
    for inputs in (list(range(40, 10, -1)), list(range(100, 400))):  # the second goes in chunks
        found = laboratory.ask("block", inputs=inputs, seconds=60.0)
        assert (found["count"], found["taken"]) == (len(inputs), len(inputs))
    assert sorted(seen(laboratory)) == [*range(11, 41), *range(100, 400)]


def test_what_a_block_did_not_begin_is_told(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:spin_and_note", "range:1000")
    for plan in ({}, {"threads": 2}, {"processes": 2}):
        before = len(seen(laboratory))
        laboratory.ask("plan", plan=plan)
        found = laboratory.ask("block", inputs=list(range(1000)), seconds=0.02)
        new = seen(laboratory)[before:]
        assert found["taken"] < 1000
        assert sorted(new) == list(range(found["taken"])), plan


def test_a_lost_chunk_is_not_run_again_when_inputs_may_run_once(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:die_and_note", "range:500")
    laboratory.ask("plan", plan={"processes": 2})
    laboratory.ask("block", inputs=list(range(100, 200)), seconds=60.0)  # from now on in chunks
    found = laboratory.ask("block", inputs=list(range(100)), seconds=60.0)
    assert found["lost_workers"] >= 1
    counts = seen(laboratory)
    assert len(counts) == len(set(counts))


def test_a_profile_that_runs_nothing_twice(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:spin_and_note", "range:1000")
    found = laboratory.ask("profile", max_seconds=3.0, max_count=100, once=True)
    counts = seen(laboratory)
    assert len(counts) == len(set(counts))
    assert sorted(counts) == sorted(found["used"])
    # Where the lock could not be watched, a pilot had inputs of its own.
    assert (len(counts) > found["count"]) == (found["pilot"] is not None)
    assert (found["pilot"] is None) == (found["tally"] is not None)


def test_a_profile_with_few_inputs_has_no_pilot_when_none_may_run_twice(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:spin_and_note", "range:12")
    found = laboratory.ask("profile", max_seconds=3.0, max_count=3, once=True)
    assert found["pilot"] is None
    assert sorted(seen(laboratory)) == sorted(found["used"])


def test_a_sample_ends_when_it_is_enough(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:spin_and_note", "range:10000")
    found = laboratory.ask(
        "profile", max_seconds=60.0, max_count=10000, enough_seconds=1e-9, enough_count=30
    )
    assert 30 <= found["count"] < 10000
    assert found["used"] == list(range(found["count"]))


@pytest.mark.parametrize(
    ("items", "word"), [("generators", "generator"), ("files", "TextIOWrapper")]
)
def test_inputs_that_are_used_up_are_refused_unless_once(
    items: str, word: str, laboratory: Any
) -> None:
    named = {"target": "jobs_at_hand:double", "items": f"jobs_at_hand:{items}", "limit": 100}
    refused = laboratory.refused("load", **named)
    assert refused["kind"] == "items-consumed"
    assert word in refused["message"]
    assert "--once" in refused["hint"]
    assert laboratory.ask("load", **named, once=True)["count"] > 0


def test_programs_that_the_function_runs_count_as_its_own(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:run_a_program", "range:4")
    laboratory.ask("plan", plan={})
    found = laboratory.ask("block", first=0, count=4, seconds=60.0)
    assert found["cpu_s"] > 0.35


def test_a_block_tells_what_others_did(laboratory: Any) -> None:
    laboratory.load("jobs_at_hand:spin_and_note", "range:100")
    for plan in ({}, {"threads": 2}, {"processes": 2}):
        laboratory.ask("plan", plan=plan)
        found = laboratory.ask("block", first=0, count=100, seconds=60.0)
        assert found["cpu_s"] > 0.1
        assert found["run_queue_s"] >= 0
        assert found["machine_capacity_s"] > 0
        # Both are read in clock ticks of 10 ms, each processor's apart.
        grace = 0.03 * (os.cpu_count() or 1)
        assert found["machine_busy_s"] >= found["cpu_s"] - grace
        assert found["machine_busy_s"] <= found["machine_capacity_s"] + 1e-6
