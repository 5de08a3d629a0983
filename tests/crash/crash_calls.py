"""What the crash tests call: functions that end, hang or fatten their worker, and a program to run them in."""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

_kept: list[bytes] = []


def process_id(_: Any = None) -> int:
    return os.getpid()


def double(value: int) -> int:
    return 2 * value


def exit_now(code: int) -> None:
    os._exit(code)


def kill_myself(number: int) -> None:
    signal.raise_signal(number)
    # SIGKILL and SIGSTOP are delivered on the way back from the call; nothing comes after.


def segfault() -> None:
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


def die_first(folder: str, times: int) -> int:
    """Ends its worker in its first ``times`` runs; then returns its process."""
    for number in range(times):
        try:
            os.close(os.open(f"{folder}/{number}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        os._exit(9)
    return os.getpid()


def die_at(value: int, bad: int) -> int:
    if value == bad:
        os._exit(5)
    return value


def hang(ready: str = "") -> None:
    """Writes a byte into the FIFO ``ready``, then never ends by itself."""
    tell(ready)
    while True:
        time.sleep(60)


def tell(fifo: str) -> None:
    if fifo:
        descriptor = os.open(fifo, os.O_RDWR)
        os.write(descriptor, b".")
        os.close(descriptor)


def meet(arrived: str, leave: str) -> None:
    """Writes a byte into one FIFO, then waits for a byte in another."""
    tell(arrived)
    descriptor = os.open(leave, os.O_RDWR)
    os.read(descriptor, 1)
    os.close(descriptor)


def hang_in_c(ready: str) -> None:
    """Computes in C for hours with the interpreter's lock held: no signal handler runs."""
    tell(ready)
    sum(range(10**15))


def grow(megabytes: int) -> int:
    _kept.append(bytes(megabytes << 20))
    return os.getpid()


def use_and_free(megabytes: int, seconds: float) -> int:
    """Has so much for a moment, in pieces that come from the heap and not from the kernel one by one."""
    pieces = [bytes(100 << 10) for _ in range(megabytes * 10)]
    pieces.clear()
    time.sleep(seconds)
    return os.getpid()


def log(number: int) -> int:
    logging.getLogger("crash.calls").warning("record %d of %s", number, "a worker")
    return number


def log_exception() -> None:
    try:
        raise ValueError("inside")
    except ValueError:
        logging.getLogger("crash.calls").exception("it went wrong")


def warn() -> None:
    warnings.warn("a worker warns", UserWarning, stacklevel=1)


def speak(number: int) -> None:
    for line in range(50):
        print(f"<{number}:{line}:{'x' * 60}>")


def native_threads() -> str | None:
    return os.environ.get("OMP_NUM_THREADS")


def nested_native_threads(workers: int) -> str | None:
    import treadle

    with treadle.Executor(processes=workers) as pool:
        return pool.submit(native_threads).result()


def die_in_initializer() -> None:
    os._exit(3)


def await_end_of(pid: int) -> None:
    """Blocks until this process is gone, whosever child it is."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 60)[0], f"process {pid} lives on"
    finally:
        os.close(descriptor)


def processes_with(marker: str) -> list[int]:
    """The processes that have this variable in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if f"TREADLE_TEST={marker}".encode() in environment and state != "Z":
            found.append(int(entry.name))
    return found


def start_program(
    folder: Path, text: str, *arguments: str, marker: str = "", **options: Any
) -> subprocess.Popen[str]:
    """Starts a program that has these functions on its path, in a process group of its own."""
    script = folder / "program.py"
    script.write_text(text)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent),
        "TREADLE_TEST": marker or str(folder),
    }
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        **options,
    )
