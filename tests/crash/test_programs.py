"""Whole programs that are killed, interrupted, forked or written wrongly: nothing hangs, nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crash_calls as calls
import pytest

#: How long what is left of a killed program may live: the contract.
GONE_S = 2.0


def files_of_shared_memory() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if "treadle" in name}


@pytest.fixture
def marker() -> Iterator[str]:
    """Marks a program and all that comes of it; fails the test when something of it is left."""
    name = uuid.uuid4().hex
    before = files_of_shared_memory()
    yield name
    left = calls.processes_with(name)
    told = [Path(f"/proc/{pid}/cmdline").read_bytes()[:80] for pid in left]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == [], f"left behind: {told}"
    assert files_of_shared_memory() - before == set()


def wait_until_gone(marker: str, seconds: float) -> None:
    """Waits for the end of every process of a program; fails after so many seconds."""
    import select
    import time

    deadline = time.monotonic() + seconds
    for pid in calls.processes_with(marker):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        left = max(0.0, deadline - time.monotonic())
        ended = select.select([descriptor], [], [], left)[0]
        os.close(descriptor)
        assert ended, f"{pid} lives longer than {seconds} s after its parent"


def finish(program: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str, str]:
    try:
        out, err = program.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        out, err = program.communicate()
        pytest.fail(f"the program hangs\n--- stdout\n{out}\n--- stderr\n{err}")
    return program.returncode, out, err


HEAD = """
import sys, os, signal, treadle, crash_calls as calls
def main():
    # What runs in the background of a shell inherits an ignored SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ready = sys.argv[1]
"""
TAIL = """
if __name__ == "__main__":
    main()
"""


def program_of(body: str) -> str:
    """A program whose main is this text."""
    return HEAD + "".join(f"    {line}\n" for line in body.strip("\n").splitlines()) + TAIL


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
@pytest.mark.parametrize("call", ["hang", "hang_in_c"])
def test_nothing_outlives_a_killed_parent(
    tmp_path: Path, marker: str, arrivals: Any, start: str, call: str
) -> None:
    program = calls.start_program(
        tmp_path,
        program_of(f"""
pool = treadle.Executor(processes=2, mp_context={start!r})
futures = [pool.submit(calls.{call}, ready) for _ in range(4)]
futures[0].result()
"""),
        arrivals.path,
        marker=marker,
    )
    arrivals.expect(2)
    program.kill()
    program.wait()
    wait_until_gone(marker, GONE_S)
    program.communicate()


def test_nothing_outlives_a_parent_killed_with_stopped_workers(
    tmp_path: Path, marker: str, arrivals: Any
) -> None:
    program = calls.start_program(
        tmp_path,
        program_of("""
pool = treadle.Executor(processes=2)
began = ready + ".began"
os.mkfifo(began)
calls_that_began = os.open(began, os.O_RDWR)
futures = [pool.submit(calls.hang, began) for _ in range(2)]
for _ in futures:
    os.read(calls_that_began, 1)
for worker in pool.stats().workers:
    os.kill(worker.ident, signal.SIGSTOP)
calls.tell(ready)
futures[0].result()
"""),
        arrivals.path,
        marker=marker,
    )
    arrivals.expect()
    program.kill()
    program.wait()
    wait_until_gone(marker, GONE_S)
    program.communicate()


def await_rest(pid: int) -> None:
    """Blocks until a program's main thread sleeps in the kernel.

    A signal that comes in the instant before a sleep is seen only when the sleep ends, in CPython's own locks too; Ctrl-C of a person does not
    come in that instant, one that answers to a byte from a worker does.
    """
    at_rest = 0
    while at_rest < 50:
        state = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        at_rest = at_rest + 1 if state == "S" else 0
        os.sched_yield()


#: Where Ctrl-C finds the program, and what it then does.
PLACES = {
    "result": "pool.submit(calls.hang, ready).result()",
    "map": "list(pool.map(calls.hang, [ready] * 10))",
    "unordered map": "list(pool.map(calls.hang, [ready] * 10, ordered=False))",
    "wait": "import concurrent.futures; concurrent.futures.wait([pool.submit(calls.hang, ready)])",
    "as_completed": "import concurrent.futures\n"
    "list(concurrent.futures.as_completed([pool.submit(calls.hang, ready)]))",
    "shutdown": "pool.submit(calls.hang, ready)\npool.shutdown()",
    "max_pending": "while True: pool.submit(calls.hang, ready)",
    "asyncio": "import asyncio\n"
    "async def wait(): return await pool.asubmit(calls.hang, ready)\n"
    "asyncio.run(wait())",
}


@pytest.mark.parametrize("whom", ["group", "main"])
@pytest.mark.parametrize("with_block", [True, False], ids=["with", "without"])
@pytest.mark.parametrize("place", PLACES)
def test_ctrl_c_ends_a_program_of_processes(
    tmp_path: Path, marker: str, arrivals: Any, place: str, with_block: bool, whom: str
) -> None:
    option = ", max_pending=3" if place == "max_pending" else ""
    made = f"treadle.Executor(processes=1{option})"
    lines = PLACES[place].splitlines()
    if with_block:
        body = "\n".join([f"with {made} as pool:", *(f"    {line}" for line in lines)])
    else:
        body = "\n".join([f"pool = {made}", *lines])
    program = calls.start_program(tmp_path, program_of(body), arrivals.path, marker=marker)
    arrivals.expect()
    await_rest(program.pid)
    if whom == "group":
        os.killpg(program.pid, signal.SIGINT)
    else:
        os.kill(program.pid, signal.SIGINT)
    code, _, err = finish(program, 30)
    assert code in (-signal.SIGINT, 130), err
    assert err.count("Traceback (most recent call last)") - err.count("During handling") == 1 or (
        place == "asyncio"
    ), err
    assert err.rstrip().endswith("KeyboardInterrupt"), err


@pytest.mark.parametrize("with_block", [True, False], ids=["with", "without"])
def test_ctrl_c_lets_threads_that_can_stop_stop(
    tmp_path: Path, marker: str, arrivals: Any, with_block: bool
) -> None:
    """What waits is cancelled; what runs is interrupted at its next Python instruction."""
    lines = ["futures = [pool.submit(spin, ready) for _ in range(20)]", "futures[0].result()"]
    made = "treadle.Executor(threads=2)"
    if with_block:
        body = "\n".join([f"with {made} as pool:", *(f"    {line}" for line in lines)])
    else:
        body = "\n".join([f"pool = {made}", *lines])
    spin = """
import time
def spin(ready):
    calls.tell(ready)
    while True:
        time.sleep(0.01)
"""
    program = calls.start_program(tmp_path, spin + program_of(body), arrivals.path, marker=marker)
    arrivals.expect(2)
    await_rest(program.pid)
    os.killpg(program.pid, signal.SIGINT)
    code, _, err = finish(program, 30)
    assert code in (-signal.SIGINT, 130), err
    assert err.rstrip().endswith("KeyboardInterrupt"), err


FORKS = {
    "exit": "",
    "exit through the interpreter": "sys.exit(0)",
    "touch futures": "assert not held.done() and not held.cancel()\nrepr(held)",
    "shut down": "pool.shutdown(wait=True, cancel_futures=True)",
    "drop": "del pool, held\nimport gc; gc.collect()",
    "wait": """
try:
    held.result()
    raise SystemExit("a result of another process's pool")
except treadle.TreadleError as error:
    assert str(os.getppid()) in str(error) or "fork" in str(error), error
""",
    "submit": """
try:
    pool.submit(calls.double, 1)
    raise SystemExit("it took a call")
except treadle.TreadleError as error:
    assert "fork" in str(error), error
""",
    "a pool of its own": """
with treadle.Executor(processes=2) as mine:
    assert [f.result() for f in [mine.submit(calls.double, k) for k in range(50)]] == list(range(0, 100, 2))
""",
}


@pytest.mark.parametrize("what", FORKS)
def test_a_fork_of_the_program_harms_nothing(
    tmp_path: Path, marker: str, arrivals: Any, what: str
) -> None:
    lines = FORKS[what].strip("\n").splitlines() or ["pass"]
    body = [
        "pool = treadle.Executor(processes=2)",
        "assert pool.submit(calls.double, 1).result() == 2",
        "held = pool.submit(calls.hang, ready)",
        "more = [pool.submit(calls.double, number) for number in range(500)]",
        "pid = os.fork()",
        "if pid == 0:",
        "    import faulthandler; faulthandler.dump_traceback_later(20, exit=True)",
        *(f"    {line}" for line in lines),
        "    os._exit(0)" if what == "exit" else "    sys.exit(0)",
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, 'the child failed'",
        "assert [future.result() for future in more] == list(range(0, 1000, 2))",
        "assert held.running()",
        "assert held.interrupt()",
        "pool.shutdown()",
        "print('fine')",
    ]
    program = calls.start_program(
        tmp_path, program_of("\n".join(body)), arrivals.path, marker=marker
    )
    code, out, err = finish(program)
    assert (code, out) == (0, "fine\n"), err


def test_a_program_without_the_guard_is_told(tmp_path: Path, marker: str) -> None:
    program = calls.start_program(
        tmp_path,
        "import treadle, crash_calls\n"
        "pool = treadle.Executor(processes=2)\n"
        "print(pool.submit(crash_calls.double, 2).result())\n",
        marker=marker,
    )
    code, _, err = finish(program)
    assert code == 1
    assert "if __name__ == '__main__':" in err
    assert "PoolBroken" in err


def test_a_main_module_that_ignores_its_children_is_told_how_workers_end(
    tmp_path: Path, marker: str, arrivals: Any
) -> None:
    program = calls.start_program(
        tmp_path,
        "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        + program_of(
            "with treadle.Executor(processes=1) as pool:\n"
            "    print(pool.submit(calls.exit_now, 7).exception())"
        ),
        arrivals.path,
        marker=marker,
    )
    code, out, err = finish(program)
    assert code == 0, err
    assert "exited with code 7" in out


def test_functions_of_the_program_itself_run(tmp_path: Path, marker: str) -> None:
    program = calls.start_program(
        tmp_path,
        """
import treadle
class Thing:
    def __init__(self, value): self.value = value
def square(thing): return Thing(thing.value ** 2)
if __name__ == "__main__":
    for start in ("forkserver", "spawn"):
        with treadle.Executor(processes=2, mp_context=start) as pool:
            print([t.value for t in pool.map(square, map(Thing, range(5)))])
""",
        marker=marker,
    )
    assert finish(program) == (0, "[0, 1, 4, 9, 16]\n" * 2, "")


#: A program whose main module loads BLAS; what its first line does decides how many threads that has.
BLAS_PROGRAM = """
import os, sys
FIRST
import numpy, treadle
numpy.ones((2, 2)) @ numpy.ones((2, 2))
def blas(_=None):
    import threadpoolctl
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
if __name__ == "__main__":
    for start in ("forkserver", "spawn"):
        with treadle.Executor(processes=1, mp_context=start, OPTIONS) as pool:
            print(pool.submit(blas).result())
"""


@pytest.mark.parametrize(
    ("first", "options", "seen"),
    [
        # The environment is there before the library is loaded.
        ("", "native_threads=1", "[1]"),
        # The main module sized the library itself: it is limited through threadpoolctl when that is asked for.
        ("os.environ['OPENBLAS_NUM_THREADS'] = '2'", "native_threads=1", "[1]"),
        ("os.environ['OPENBLAS_NUM_THREADS'] = '2'", "", "[2]"),
    ],
    ids=["environment", "limited", "set by the user"],
)
def test_blas_of_the_main_module_has_as_many_threads_as_the_worker_may_use(
    tmp_path: Path, marker: str, first: str, options: str, seen: str
) -> None:
    pytest.importorskip("threadpoolctl")
    numpy = pytest.importorskip("numpy")
    import threadpoolctl

    numpy.ones((2, 2)) @ numpy.ones((2, 2))
    blas = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    if [pool["internal_api"] for pool in blas] != ["openblas"] or (os.cpu_count() or 1) < 2:
        pytest.skip("needs two CPUs and a NumPy over OpenBLAS")
    program = calls.start_program(
        tmp_path,
        BLAS_PROGRAM.replace("FIRST", first).replace("OPTIONS", options),
        marker=marker,
    )
    code, out, err = finish(program)
    assert (code, out.splitlines()) == (0, [seen] * 2), err


def test_affinity_limits_the_share_of_a_worker(tmp_path: Path, marker: str) -> None:
    program = calls.start_program(
        tmp_path,
        program_of("""
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
with treadle.Executor(processes=1) as pool:
    print(treadle.usable_cores(), pool.submit(calls.native_threads).result())
"""),
        "none",
        marker=marker,
    )
    code, out, err = finish(program)
    assert code == 0, err
    cores, threads = out.split()
    # A quota of the control group may leave less than one.
    assert 0 < float(cores) <= 1
    assert threads == "1"


def test_functions_defined_under_the_guard_are_explained(tmp_path: Path, marker: str) -> None:
    program = calls.start_program(
        tmp_path,
        """
import treadle
if __name__ == "__main__":
    def late(value): return value
    with treadle.Executor(processes=1) as pool:
        print(pool.submit(late, 3).result())
""",
        marker=marker,
    )
    code, _, err = finish(program)
    assert code == 1
    assert "PayloadError" in err
    assert "top level" in err


def test_a_main_module_that_fails_in_the_workers_is_told(tmp_path: Path, marker: str) -> None:
    program = calls.start_program(
        tmp_path,
        """
import treadle, crash_calls
if __name__ != "__main__":
    raise ValueError("not twice")
with treadle.Executor(processes=2) as pool:
    pool.submit(crash_calls.double, 3).result()
""",
        marker=marker,
    )
    code, _, err = finish(program)
    assert code == 1
    assert "not twice" in err


def test_lines_of_workers_are_not_torn(tmp_path: Path, marker: str) -> None:
    program = calls.start_program(
        tmp_path,
        program_of("""
with treadle.Executor(processes=3) as pool:
    for future in [pool.submit(calls.speak, number) for number in range(12)]:
        future.result()
"""),
        "none",
        marker=marker,
    )
    code, out, err = finish(program)
    assert (code, err) == (0, "")
    assert sorted(out.splitlines()) == sorted(
        f"<{number}:{line}:{'x' * 60}>" for number in range(12) for line in range(50)
    )


def test_logs_of_workers_reach_the_parents_handlers(tmp_path: Path, marker: str) -> None:
    program = calls.start_program(
        tmp_path,
        program_of("""
import logging
logging.basicConfig(level=logging.INFO, format="%(processName)s|%(levelname)s|%(name)s|%(message)s|%(treadle_worker)s")
with treadle.Executor(processes=1, name="press") as pool:
    for future in [pool.submit(calls.log, number) for number in range(200)]:
        future.result()
    pool.submit(calls.log_exception).result()
"""),
        "none",
        marker=marker,
    )
    code, out, err = finish(program)
    assert (code, out) == (0, "")
    lines = err.splitlines()
    assert lines[:200] == [
        f"press-0|WARNING|crash.calls|record {number} of a worker|0" for number in range(200)
    ]
    assert "it went wrong" in lines[200]
    assert "ValueError: inside" in err


def test_logs_come_while_nobody_waits(tmp_path: Path, marker: str, arrivals: Any) -> None:
    program = calls.start_program(
        tmp_path,
        program_of("""
import logging, threading
class Seen(logging.Handler):
    def emit(self, record): seen.set()
seen = threading.Event()
logging.getLogger().addHandler(Seen())
pool = treadle.Executor(processes=1)
future = pool.submit(log_and_hang, ready)
assert seen.wait(30), "no record came"
assert future.interrupt()
pool.shutdown()
print("seen")
""").replace(
            "def main():",
            "def log_and_hang(ready):\n    calls.log(1)\n    calls.hang(ready)\ndef main():",
        ),
        arrivals.path,
        marker=marker,
    )
    code, out, err = finish(program)
    assert (code, out) == (0, "seen\n"), err


def test_warnings_of_workers_are_seen(tmp_path: Path, marker: str) -> None:
    program = calls.start_program(
        tmp_path,
        program_of("""
with treadle.Executor(processes=1) as pool:
    pool.submit(calls.warn).result()
"""),
        "none",
        marker=marker,
    )
    code, _, err = finish(program)
    assert code == 0
    assert "UserWarning: a worker warns" in err


def test_fifty_pools_leak_nothing(tmp_path: Path, marker: str) -> None:
    program = calls.start_program(
        tmp_path,
        program_of("""
import gc, threading
def held():
    gc.collect()
    children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    maps = sum("memfd" in line for line in open("/proc/self/maps"))
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), len(children), maps
def live(kill):
    pool = treadle.Executor(processes=2)
    futures = [pool.submit(calls.double, number) for number in range(20)]
    big = pool.submit(bytes, 300_000)
    for future in futures:
        future.add_done_callback(lambda future: future.result())
    assert len(big.result()) == 300_000
    if kill:
        pool.submit(calls.exit_now, 1).exception()
    pool.shutdown()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
def settled(most):
    # The last threads end by themselves, a moment after the shutdown.
    import time
    while True:
        now = held()
        if most is None or all(a <= b for a, b in zip(now, most)):
            return now
        time.sleep(0.01)
import time
for number in range(3):
    live(number == 1)
time.sleep(0)
first = held()
for number in range(50):
    live(number % 10 == 0)
settled(first)
print("the same")
"""),
        "none",
        marker=marker,
    )
    code, out, err = finish(program, 90)
    assert (code, out) == (0, "the same\n"), err


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
def test_too_few_descriptors_end_in_an_error_and_not_in_a_hang(tmp_path: Path, marker: str) -> None:
    program = calls.start_program(
        tmp_path,
        program_of("""
import resource
used = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 6, used + 6))
try:
    with treadle.Executor(processes=4) as pool:
        print(sorted(pool.map(calls.double, range(10))))
except (treadle.TreadleError, OSError) as error:
    print("refused:", error)
"""),
        "none",
        marker=marker,
    )
    code, out, err = finish(program)
    assert code == 0, err
    assert out.startswith(("refused:", "[0, 2")), out


def test_too_little_address_space_is_an_error_that_says_so(tmp_path: Path, marker: str) -> None:
    program = calls.start_program(
        tmp_path,
        program_of("""
import resource
make = treadle.Executor
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * os.sysconf("SC_PAGE_SIZE") + (3 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    make(processes=2)
except treadle.PayloadMemoryError as error:
    print(error)
"""),
        "none",
        marker=marker,
    )
    code, out, err = finish(program)
    assert code == 0, err
    assert "cannot map 8388608 bytes of what a pool needs for itself" in out
    assert "ulimit -v" in out


@pytest.mark.parametrize("plan", ["processes=2", "threads=2"])
def test_a_program_without_a_byte_left_goes_on(plan: str, tmp_path: Path, marker: str) -> None:
    """The allocator refuses everything, then gives again: calls end with an error or their value, the program lives."""
    program = calls.start_program(
        tmp_path,
        program_of(f"""
import ctypes, resource
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]

def take_the_rest():
    # Each block holds the address of the one before: a list would need memory too.
    last = 0
    for size in (1 << 20, 1 << 16, 1 << 12, 1 << 8, 16):
        while block := libc.malloc(size):
            ctypes.c_size_t.from_address(block).value = last
            last = block
    return last

def give_back(last):
    while last:
        block, last = last, ctypes.c_size_t.from_address(last).value
        libc.free(block)

arrived, leave = ready + ".arrived", ready + ".leave"
os.mkfifo(arrived)
os.mkfifo(leave)
said, let_go = os.open(arrived, os.O_RDWR), os.open(leave, os.O_RDWR)
with treadle.Executor({plan}) as pool:
    # Both workers have begun: a thread's first step into the module needs memory, and the C library ends the program where it gets none.
    met = [pool.submit(calls.meet, arrived, leave) for _ in range(2)]
    for _ in met:
        os.read(said, 1)
    os.write(let_go, b"..")
    assert [future.result() for future in met] == [None, None]
    assert [pool.submit(calls.double, number).result() for number in range(100)] == list(range(0, 200, 2))
    futures, refused = [None] * 400, 0
    resource.setrlimit(resource.RLIMIT_AS, (1, resource.RLIM_INFINITY))
    last = take_the_rest()
    for number in range(400):
        try:
            futures[number] = pool.submit(calls.double, number)
        except MemoryError:
            refused += 1
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    give_back(last)
    for number, future in enumerate(futures):
        error = future and future.exception(timeout=60)
        assert not future or isinstance(error, MemoryError) or future.result() == 2 * number
    print(refused > 0, [pool.submit(calls.double, number).result(timeout=60) for number in range(3)])
"""),
        str(tmp_path / "fifo"),
        marker=marker,
    )
    code, out, err = finish(program)
    assert code == 0, err
    assert out == "True [0, 2, 4]\n", out


def test_shared_memory_needs_no_dev_shm(tmp_path: Path, marker: str) -> None:
    """The files are anonymous: a container without /dev/shm, or with one of 64 KB, does as well."""
    hidden = "mount -t tmpfs -o size=4k,mode=000 none /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", hidden], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    script = tmp_path / "program.py"
    script.write_text(
        program_of("""
with treadle.Executor(processes=2) as pool:
    print(sum(len(part) for part in pool.map(bytes, [3_000_000] * 4)), os.statvfs("/dev/shm").f_blocks)
""")
    )
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{hidden} && exec {sys.executable} {script} none"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(calls.__file__).parent)},
    )
    assert (ended.returncode, ended.stdout) == (0, "12000000 1\n"), ended.stderr


@pytest.mark.parametrize("plan", ["threads=2", "coroutines=2"])
def test_a_fork_cannot_use_its_parents_threads(
    tmp_path: Path, marker: str, arrivals: Any, plan: str
) -> None:
    body = [
        "import asyncio",
        "async def double(number): return 2 * number",
        f"pool = treadle.Executor({plan})",
        f"call = {'calls.double' if plan.startswith('threads') else 'double'}",
        "assert pool.submit(call, 1).result() == 2",
        "pid = os.fork()",
        "if pid == 0:",
        "    import faulthandler; faulthandler.dump_traceback_later(20, exit=True)",
        "    try: pool.submit(call, 1)",
        "    except treadle.PoolBroken as error: assert 'forked' in str(error)",
        "    else: os._exit(9)",
        "    sys.exit(0)",
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, 'the child failed'",
        "assert pool.submit(call, 2).result() == 4",
        "pool.shutdown()",
        "print('fine')",
    ]
    program = calls.start_program(
        tmp_path, program_of("\n".join(body)), arrivals.path, marker=marker
    )
    code, out, err = finish(program)
    assert (code, out) == (0, "fine\n"), err
