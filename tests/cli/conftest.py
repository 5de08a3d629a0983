"""Runs the installed ``treadle`` command and sees to it that nothing of it is left."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

#: A command here takes seconds; this only turns a hang into a failure.
WATCHDOG_S = 180
#: How long a killed process may take to vanish before it counts as left behind.
VANISH_S = 20

SCHEMA = json.loads((Path(__file__).parent / "compare.schema.json").read_text())

JOBS = """
import asyncio, hashlib, os, sys, threading, time

def double(x):
    return 2 * x

def spin(x):
    end = time.thread_time() + 0.001
    while time.thread_time() < end:
        pass
    return x

def nap(x):
    time.sleep(0.005)
    return x

async def async_nap(x):
    await asyncio.sleep(0.005)
    return x

def note(x):
    with open("seen.txt", "a") as file:
        file.write(f"{x}\\n")
    time.sleep(0.002)

def spin_and_note(x):
    with open("seen.txt", "a") as file:
        file.write(f"{x}\\n")
    end = time.thread_time() + 0.002
    while time.thread_time() < end:
        pass

async def note_async(x):
    with open("seen.txt", "a") as file:
        file.write(f"{x}\\n")
    await asyncio.sleep(0.002)

def asks(x):
    return input("which? ")

def fork_and_return(x):
    child = os.fork()
    if child:
        os.waitpid(child, 0)

def long_nap(x):
    time.sleep(0.02)
    return x

def generators():
    for _ in range(50):
        yield (number for number in range(3))

def half(x):
    time.sleep(0.001)
    if x % 2:
        raise ValueError(f"input {x} is odd")
    return x

def always(x):
    raise KeyError(f"no {x}")

def leave(x):
    if x == 5:
        os._exit(7)
    time.sleep(0.001)

def hang(x):
    if x == 5:
        threading.Event().wait()
    time.sleep(0.001)

def tell_and_hang(path):
    with open(path, "w") as pipe:
        pipe.write("running")
    threading.Event().wait()

def locked(x):
    time.sleep(0.002)
    return threading.Lock()

class Client:
    def __init__(self, number):
        self.number = number
        self._lock = threading.Lock()

def use(client):
    time.sleep(0.002)
    return client.number

def clients():
    return [Client(number) for number in range(40)]

def add(left, right):
    time.sleep(0.002)
    return left + right

def pairs():
    for number in range(40):
        yield number, number

def nothing():
    return []

def make():
    return lambda x: time.sleep(0.002)

anonymous = make()
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives every test of this folder its watchdog."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(WATCHDOG_S))


@dataclass(frozen=True)
class Finished:
    """What a command left: its exit code and both streams."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The object on standard output."""
        found: dict[str, Any] = json.loads(self.stdout)
        return found


def command() -> list[str]:
    """The installed command, or the same entry point where only the package is at hand."""
    script = Path(sys.executable).with_name("treadle")
    if script.exists():
        return [str(script)]
    return [
        sys.executable,
        "-c",
        "import sys; sys.argv[0] = 'treadle'; from treadle._command import main; main()",
    ]


class Treadle:
    """The command, run in a folder of its own under an environment variable that marks its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mark = uuid.uuid4().hex

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Starts it, in a session of its own."""
        return subprocess.Popen(
            [*command(), *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={
                **os.environ,
                "TREADLE_NOISE": "ignore",  # the tests' machine is busy with the tests
                "TREADLE_TEST_MARK": self._mark,
                **environment,
            },
        )

    def __call__(self, *arguments: str, **environment: str) -> Finished:
        """Runs it to its end."""
        return self.finish(self.start(*arguments, **environment))

    def finish(self, process: subprocess.Popen[str]) -> Finished:
        """Waits for its end; fails if it left a process."""
        stdout, stderr = process.communicate()
        finished = Finished(process.returncode, stdout, stderr)
        left = self.left()
        assert not left, f"left behind: {left}\n{stderr}"
        assert "Traceback (most recent call last)" not in stdout + stderr, finished
        assert "panicked" not in stderr, finished
        return finished

    def compare(self, target: str, items: str, *more: str) -> Finished:
        """``treadle compare`` with JSON on standard output."""
        return self("compare", target, "--items", items, "--json", *more)

    def left(self) -> list[tuple[int, str]]:
        """Processes that carry the mark and do not vanish by themselves: (id, command line)."""
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                marked = self._mark.encode() in Path(f"/proc/{name}/environ").read_bytes()
                if marked and not _vanishes(int(name)):
                    found.append((int(name), Path(f"/proc/{name}/cmdline").read_text()))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found


def _vanishes(pid: int) -> bool:
    descriptor = os.pidfd_open(pid)
    try:
        return bool(select.select([descriptor], [], [], VANISH_S)[0])
    finally:
        os.close(descriptor)


@pytest.fixture
def treadle(tmp_path: Path) -> Iterator[Treadle]:
    """The command in a folder that holds ``jobs.py``."""
    (tmp_path / "jobs.py").write_text(JOBS)
    return Treadle(tmp_path)


@pytest.fixture(scope="session")
def treadle_once(tmp_path_factory: pytest.TempPathFactory) -> Treadle:
    """The same for a command that several tests look at."""
    folder = tmp_path_factory.mktemp("once")
    (folder / "jobs.py").write_text(JOBS)
    return Treadle(folder)


#: The function whose decision is checked; tests change it as a person would.
WORK = '''"""Work of five milliseconds."""
import time

SECONDS = 0.005


def spin(seconds):
    """Computes."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def work(number):
    """Does it."""
    spin(SECONDS)
    return number
'''


@pytest.fixture(scope="session")
def recorded_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``work.py`` and the decision ``work`` about it, made by the real command."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "work.py").write_text(WORK)
    finished = Treadle(folder)(
        *("compare", "work.py:work", "--items", "range:400", "--plans", "processes=2"),
        *("--budget", "4", "--save", "work"),
    )
    assert finished.code == 0, finished
    return folder


@pytest.fixture
def recorded(recorded_once: Path, tmp_path: Path) -> Treadle:
    """The command in a copy of that folder."""
    folder = tmp_path / "project"
    shutil.copytree(recorded_once, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return Treadle(folder)


@pytest.fixture
def validate() -> Any:
    """Checks an object against the contract."""
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(SCHEMA)

    def check(found: dict[str, Any]) -> None:
        problems = [
            f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
            for error in validator.iter_errors(found)
        ]
        assert not problems, problems

    return check
