"""``treadle top`` and ``treadle dump`` on real programs in other processes: what they tell, in which states, and what is left afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

#: What is waited for here takes at most seconds; this only turns a hang into a failure.
WATCHDOG_S = 60

PROGRAM = """
import ctypes, os, sys, threading, time
import treadle

stay = threading.Event()

def wait_in_process(_):
    while os.path.exists(sys.argv[1]):
        time.sleep(0.01)

def wait_in_thread():
    stay.wait()

def quick():
    pass

async def wait_on_loop():
    import asyncio
    while not stay.is_set():
        await asyncio.sleep(0.01)

async def wait_aside():
    import asyncio
    while os.path.exists(sys.argv[1]):
        await asyncio.sleep(0.01)

def started(pool, tasks):
    while pool.stats().running < tasks:
        time.sleep(0.001)

def main():
    processes = treadle.Executor(processes=2, name="heavy")
    threads = treadle.Executor(threads=2, name="light", max_pending=50)
    loop = treadle.Executor(coroutines=10, name="loop")
    mixed = treadle.Executor(processes=1, coroutines=3, name="mixed")
    waiting = [processes.submit(wait_in_process, item) for item in range(5)]
    waiting += [threads.submit(quick) for _ in range(20)]
    while threads.stats().completed < 20:
        time.sleep(0.001)
    for running in (1, 2):
        waiting.append(threads.submit(wait_in_thread))
        started(threads, running)
    waiting.append(threads.submit(wait_in_thread))
    waiting.append(loop.submit(wait_on_loop))
    waiting.append(mixed.submit(wait_aside))
    started(processes, 2)
    started(loop, 1)
    started(mixed, 1)
    print("ready", flush=True)
    for line in sys.stdin:
        order = line.strip()
        if order == "hold":
            print("holding", flush=True)
            # PyDLL keeps the interpreter's lock: nothing of Python runs any more.
            ctypes.PyDLL(None).sleep(3600)
        elif order == "fork":
            child = os.fork()
            if child == 0:
                own = treadle.Executor(threads=1, name="childs")
                own.submit(quick).result()
                print("child", os.getpid(), flush=True)
                time.sleep(3600)
        elif order == "end":
            break
    stay.set()
    os.unlink(sys.argv[1])
    for future in waiting:
        future.result()
    for pool in (processes, threads, loop, mixed):
        pool.shutdown()
    print("done", flush=True)

if __name__ == "__main__":
    main()
"""


#: Starts a command and leaves it alone.
ORPHAN = "import subprocess, sys; print('pid', subprocess.Popen(sys.argv[1:]).pid, flush=True)"


class Program:
    """A running program with a pool of processes, one of threads, one of coroutines and one of coroutines in a process, all of them busy."""

    def __init__(self, folder: Path, *, orphan: bool = False, **environment: str) -> None:
        script = folder / "watched.py"
        script.write_text(PROGRAM)
        gate = folder / f"gate-{time.monotonic_ns()}"
        gate.touch()
        command = [sys.executable, str(script), str(gate)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", ORPHAN, *command] if orphan else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.pid = int(self.hear("pid").split()[1]) if orphan else self.process.pid
        self.hear("ready")

    def hear(self, word: str) -> str:
        """The next line, which must begin with `word`."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], WATCHDOG_S)
        line = self.process.stdout.readline() if ready else ""
        if not line.startswith(word):
            self.process.kill()
            raise AssertionError(f"{line!r} instead of {word}: {self.process.communicate()[1]}")
        return line

    def order(self, word: str) -> None:
        """Tells it what to do."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, str]:
        """Lets it end by itself: its exit code and what it wrote to standard error."""
        self.order("end")
        _, wrote = self.process.communicate(timeout=WATCHDOG_S)
        return self.process.returncode, wrote

    def kill(self) -> None:
        """Ends it without its having a say."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """A running program."""
    one = Program(tmp_path)
    yield one
    one.kill()


def treadle(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command."""
    return subprocess.run(
        [sys.executable, "-c", "from treadle._command import main; main()", *words],
        capture_output=True,
        text=True,
        timeout=WATCHDOG_S,
        env={**os.environ, **environment},
        check=False,
    )


def picture(program: Program) -> dict[str, Any]:
    """What ``top --json`` tells of a program."""
    ran = treadle("top", str(program.pid), "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    told = json.loads(ran.stdout)
    assert told["schema"] == 1
    (one,) = told["programs"]
    assert one["trouble"] is None
    return dict(one)


def pools(told: dict[str, Any]) -> dict[str, Any]:
    """The pools of a picture by name."""
    return {pool["name"]: pool for pool in told["pools"]}


def until(holds: Callable[[], bool]) -> None:
    """Waits for what must come."""
    deadline = time.monotonic() + WATCHDOG_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)


def sockets(pid: int) -> list[str]:
    """The names of a program's sockets that this network namespace knows."""
    names = re.findall(r"@(treadle-\d+-\d+(?:-\d+)?)$", Path("/proc/net/unix").read_text(), re.M)
    return sorted({name for name in names if name.split("-")[2] == str(pid)})


def test_every_pool_is_told_with_its_workers_and_what_they_call(program: Program) -> None:
    told = picture(program)
    assert told["pid"] == program.pid
    assert told["lock"]["free"]
    found = pools(told)
    assert list(found) == ["heavy", "light", "loop", "mixed"]
    heavy, light, loop = found["heavy"], found["light"], found["loop"]
    assert (heavy["plan"], heavy["running"], heavy["queued"]) == ("processes=2", 2, 3)
    assert heavy["oldest_s"] > 0
    for worker in heavy["workers"]:
        assert worker["state"] == "busy"
        assert worker["function"].endswith("wait_in_process")
        assert worker["running_s"] > 0
        assert worker["memory_bytes"] > 1 << 20
        assert worker["cpu_cores"] is not None
        assert Path(f"/proc/{worker['ident']}").exists()
    assert (light["running"], light["queued"], light["limit"]) == (2, 1, 50)
    assert light["completed"] == 20
    assert sum(worker["tasks"] for worker in light["workers"]) == 20
    assert {worker["function"] for worker in light["workers"]} == {"__main__.wait_in_thread"}
    assert all(
        Path(f"/proc/{program.pid}/task/{one['ident']}").exists() for one in light["workers"]
    )
    assert light["duration_p99_s"] is not None
    assert (loop["running"], loop["concurrency"]) == (1, 10)
    assert [task["function"] for task in loop["tasks"]] == ["__main__.wait_on_loop"]
    assert loop["told_s_ago"] is None


def test_one_picture_as_text_fits_its_width(program: Program) -> None:
    ran = treadle("top", str(program.pid), "--once")
    assert (ran.returncode, ran.stderr) == (0, "")
    for part in ("heavy · processes=2 · watched.py", " wait_in_thread ", "3 waiting"):
        assert part in ran.stdout
    assert "\x1b" not in ran.stdout
    assert all(len(line) <= 100 for line in ran.stdout.splitlines())
    # Without a number every program is shown, and a pipe gets a picture even unasked.
    assert f"({program.pid})" in treadle("top").stdout


def test_a_program_whose_lock_is_held_still_answers(program: Program) -> None:
    picture(program)
    program.order("hold")
    program.hear("holding")
    until(lambda: pools(picture(program))["light"]["verdict"]["rule"] == "lock held")
    told = picture(program)
    found = pools(told)
    assert {worker["function"] for worker in found["light"]["workers"]} == {
        "__main__.wait_in_thread"
    }
    assert found["heavy"]["running"] == 2
    assert found["loop"]["told_s_ago"] > 0, "only the interpreter knows of the loop"
    assert {pool["verdict"]["rule"] for pool in told["pools"]} == {"lock held"}
    ran = treadle("dump", str(program.pid))
    assert ran.returncode == 0
    assert "interpreter lock: held by another thread for" in ran.stdout
    assert "in wait_in_process" in ran.stdout, "the workers' stacks need no lock of this program"
    assert re.search(r"worker 0 \(\d+\): busy for .* in __main__.wait_in_thread", ran.stdout)


def test_a_dump_has_the_stacks_of_every_pool(program: Program) -> None:
    ran = treadle("dump", str(program.pid))
    assert (ran.returncode, ran.stderr) == (0, "")
    for function in ("wait_in_process", "wait_in_thread", "wait_on_loop", "wait_aside"):
        assert re.search(rf"File .*watched.py.*line \d+.* {function}", ran.stdout), function
    told = json.loads(treadle("dump", str(program.pid), "--json").stdout)
    assert all("watched.py" in pool["stacks"] for pool in told["programs"][0]["pools"])


def test_a_program_that_is_watched_ends_cleanly(program: Program) -> None:
    watcher = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys\n"
            "from treadle._command import main\n"
            "from treadle import _core\n"
            "while _core.command(['treadle', 'top', sys.argv[1], '--json']) == 0: pass",
            str(program.pid),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        picture(program)
        assert program.end() == (0, "")
    finally:
        watcher.communicate(timeout=WATCHDOG_S)
    assert sockets(program.pid) == []


def test_nothing_is_left_of_a_killed_program(program: Program) -> None:
    def temporary() -> set[str]:
        folders = ("/dev/shm", "/tmp", os.environ.get("XDG_RUNTIME_DIR", "/nonexistent"))
        return {
            entry for folder in folders if os.path.isdir(folder) for entry in os.listdir(folder)
        }

    assert len(sockets(program.pid)) == 1
    picture(program)
    program.kill()
    until(lambda: sockets(program.pid) == [])
    assert not [entry for entry in temporary() if "treadle" in entry and str(program.pid) in entry]


def test_a_forked_child_has_a_desk_of_its_own_or_none(program: Program) -> None:
    program.order("fork")
    child = int(program.hear("child").split()[1])
    try:
        assert len(sockets(child)) == 1
        told = json.loads(treadle("top", str(child), "--json").stdout)["programs"][0]
        assert [pool["name"] for pool in told["pools"]] == ["childs"]
        program.process.kill()
        # The child lives on: had it kept the parent's socket, the name would stay.
        until(lambda: sockets(program.pid) == [])
        assert sockets(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_program_may_keep_to_itself(tmp_path: Path) -> None:
    # The tests' own process may have pools: a program below it would be told as its worker.
    one = Program(tmp_path, orphan=True, TREADLE_TOP="0")
    try:
        assert sockets(one.pid) == []
        ran = treadle("top", str(one.pid))
        assert (ran.returncode, ran.stdout) == (1, "")
        assert "has treadle loaded, and tells nothing" in ran.stderr
        assert "TREADLE_TOP=0" in ran.stderr
        assert one.end() == (0, "")
    finally:
        one.kill()


def test_what_cannot_be_watched_is_told_with_a_hint() -> None:
    idle = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True)
    for words, what in [
        (("top", "8388608"), "there is no process 8388608"),
        (("dump", "8388608"), "there is no process 8388608"),
        (("top", "1", "--once"), "process 1 "),
        (("top", str(idle.pid)), f"process {idle.pid} "),
    ]:
        ran = treadle(*words)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert what in ran.stderr
        assert "\nhint: " in ran.stderr
    idle.communicate("\n")
    assert treadle("top", "--interval", "0").returncode == 2
    assert treadle("top", "12x").returncode == 2


def test_a_worker_is_told_apart_from_its_program(program: Program) -> None:
    worker = pools(picture(program))["heavy"]["workers"][0]["ident"]
    ran = treadle("top", str(worker))
    assert ran.returncode == 1
    assert f"treadle top {program.pid}" in ran.stderr


@contextlib.contextmanager
def connected(pid: int) -> Iterator[socket.socket]:
    """A bare connection to a program's socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(WATCHDOG_S)
        client.connect("\0" + sockets(pid)[0])
        yield client


def received(client: socket.socket) -> bytes:
    """What comes; nothing when the other side has closed, whether or not it had read all."""
    try:
        return client.recv(100)
    except ConnectionResetError:
        return b""


def test_who_sends_garbage_or_says_nothing_disturbs_nobody(program: Program) -> None:
    with contextlib.ExitStack() as stack:
        for garbage in (b"x" * 5000, b"{}\n", b'{"protocol":1,"ask":"money"}\n', b"\xff\xfe\n"):
            client = stack.enter_context(connected(program.pid))
            client.sendall(garbage)
            assert received(client) == b""
        silent = [stack.enter_context(connected(program.pid)) for _ in range(3)]
        assert len(picture(program)["pools"]) == 4
        # One that speaks another protocol is told the number and the version.
        client = stack.enter_context(connected(program.pid))
        client.sendall(b'{"protocol":999,"ask":"pools"}\n')
        length = struct.unpack("<I", client.recv(4))[0]
        told = json.loads(client.recv(length))
        assert told["protocol"] == 1
        assert told["program"]["treadle"]
        assert told["program"]["pools"] == []
        # The silent ones are left to themselves after a while.
        assert [received(client) for client in silent] == [b""] * 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_not_answered(program: Program) -> None:
    asked = """
import os, socket, sys
os.setuid(65534)
client = socket.socket(socket.AF_UNIX)
client.settimeout(60)
client.connect("\\0" + sys.argv[1])
try:
    client.sendall(b'{"protocol":1,"ask":"pools"}\\n')
    answer = client.recv(100)
except ConnectionError:
    answer = b""
print(len(answer))
"""
    ran = subprocess.run(
        [sys.executable, "-c", asked, sockets(program.pid)[0]],
        capture_output=True,
        text=True,
        timeout=WATCHDOG_S,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("0\n", "")


class Screen:
    """The interactive view in a terminal of its own."""

    def __init__(
        self,
        *words: str,
        size: tuple[int, int] = (24, 80),
        controlling: bool = True,
        **environment: str,
    ) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(size, tell=False)
        self.before = termios.tcgetattr(self.slave)
        self.seen = b""

        def own_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [sys.executable, "-c", "from treadle._command import main; main()", "top", *words],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={**os.environ, "TERM": "xterm-256color", **environment},
            preexec_fn=own_terminal if controlling else None,
        )

    def resize(self, size: tuple[int, int], *, tell: bool = True) -> None:
        """Gives the terminal so many rows and columns."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        if tell:
            self.process.send_signal(signal.SIGWINCH)

    def read(self) -> bool:
        """Reads what is there; false when nothing came for a while."""
        ready, _, _ = select.select([self.master], [], [], 0.1)
        if not ready:
            return False
        try:
            self.seen += os.read(self.master, 65536)
        except OSError:
            return False
        return True

    @property
    def text(self) -> str:
        """What the terminal shows. Of the terminal's commands only those that move the cursor and clear matter here."""
        rows: dict[int, dict[int, str]] = {}
        row = column = 1
        command = r"(\x1b\[[0-9;?]*[A-Za-z]|\x1b[^\[])"
        for part in re.split(command, self.seen.decode(errors="replace")):
            if move := re.fullmatch(r"\x1b\[(\d+);(\d+)H", part):
                row, column = int(move[1]), int(move[2])
            elif part in ("\x1b[2J", "\x1b[?1049h"):
                rows.clear()
            elif not part.startswith("\x1b"):
                for letter in part:
                    if letter == "\n":
                        row += 1
                    elif letter == "\r":
                        column = 1
                    else:
                        rows.setdefault(row, {})[column] = letter
                        column += 1
        lines = []
        for number in sorted(rows):
            cells = rows[number]
            lines.append("".join(cells.get(column, " ") for column in range(1, max(cells) + 1)))
        return "\n".join(lines)

    def until(self, words: str) -> None:
        """Waits until the view has written these words."""
        deadline = time.monotonic() + WATCHDOG_S
        while words not in self.text:
            assert time.monotonic() < deadline, f"{words!r} did not come:\n{self.text[-4000:]}"
            assert self.process.poll() is None or self.read(), self.text[-4000:]
            self.read()

    def press(self, keys: str) -> None:
        """Types."""
        os.write(self.master, keys.encode())

    def end(self) -> int:
        """Waits for the view's end; its exit code. The terminal must be as it was."""
        deadline = time.monotonic() + WATCHDOG_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            self.read()
        while self.read():
            pass
        assert termios.tcgetattr(self.slave) == self.before
        for enter, leave in ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h")):
            assert self.seen.rfind(leave) > self.seen.rfind(enter) >= 0
        return self.process.returncode

    def close(self) -> None:
        """Ends what is left."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@contextlib.contextmanager
def screen(*words: str, **options: Any) -> Iterator[Screen]:
    """A view that is gone afterwards."""
    view = Screen(*words, **options)
    try:
        yield view
    finally:
        view.close()


@pytest.mark.parametrize(
    ("ending", "code"),
    [("q", 0), ("\x03", 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)],
)
def test_the_view_gives_the_terminal_back(program: Program, ending: Any, code: int) -> None:
    with screen(str(program.pid)) as view:
        view.until("wait_in_process")
        if isinstance(ending, str):
            view.press(ending)
        else:
            view.process.send_signal(ending)
        assert view.end() == code


def test_the_view_ends_with_its_terminal(program: Program) -> None:
    """Also where the kernel sends no SIGHUP, as it does only to the leader of the terminal's session."""
    with screen(str(program.pid), controlling=False) as view:
        view.until("wait_in_process")
        os.close(view.slave)
        os.close(view.master)
        view.master, view.slave = pty.openpty()
        # Whichever it meets first: its input is gone, or it cannot draw.
        assert view.process.wait(WATCHDOG_S) in (129, 1)


def test_the_view_shows_another_pool_help_and_stacks(program: Program) -> None:
    with screen(str(program.pid)) as view:
        view.until("wait_in_process")
        view.press("j")
        view.until("wait_in_thread")
        view.press("?")
        view.until("any key closes")
        view.press("x")
        view.until("WORKER")
        view.press("d")
        view.until("stay.wait()")
        view.press("q")
        view.until("WORKER")
        view.press("q")
        assert view.end() == 0


def test_the_view_follows_the_window(program: Program) -> None:
    with screen(str(program.pid)) as view:
        view.until("wait_in_process")
        view.resize((40, 132))
        view.until("VERDICT")
        view.resize((5, 30))
        view.until("treadle top needs 40")
        view.resize((24, 80))
        view.until("wait_in_process")
        assert "VERDICT" not in view.text


def test_without_colours_the_view_has_none(program: Program) -> None:
    with screen(str(program.pid), NO_COLOR="1") as view:
        view.until("wait_in_process")
        colours = re.findall(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-7]|4[0-7]|9[0-7]|38;5;\d+)m", view.seen)
        assert colours == []


def test_a_program_that_dies_is_told_and_the_others_are_shown(
    program: Program, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    other = Program(folder)
    try:
        # Tall enough for whatever else runs on this machine.
        with screen(size=(90, 100)) as view:
            view.until(str(program.pid))
            # It has answered: one of which nothing is known is not worth a row when it has ended.
            answered = re.compile(rf"{other.pid} .* heavy ")
            until(lambda: view.read() and bool(answered.search(view.text)))
            other.kill()
            row = re.compile(rf"{other.pid} .* ended ")
            until(lambda: view.read() and bool(row.search(view.text)))
            view.press("s")
            view.until("sort: time")
            view.press("q")
            assert view.end() == 0
    finally:
        other.kill()
