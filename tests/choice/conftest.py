"""What the tests of the choice share: a measuring process to talk to, and functions of known cost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

#: No test here takes more than a few seconds; this only turns a hang into a failure.
WATCHDOG_S = 120


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives every test of this folder its watchdog."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(WATCHDOG_S))


class Conversation:
    """A measuring process: requests in, replies out, progress lines skipped."""

    def __init__(self, folder: Path) -> None:
        self.position = folder / "position"
        environment = dict(os.environ)
        environment.pop("TREADLE_LABORATORY", None)
        source = str(Path(sys.modules["treadle._pickling"].__file__ or "").parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(
            entry for entry in (source, environment.get("PYTHONPATH", "")) if entry
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "treadle._laboratory", str(self.position)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )

    def tell(self, request: dict[str, Any]) -> None:
        """Sends one request."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any] | None:
        """The next reply; None when the process has ended."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            reply: dict[str, Any] = json.loads(line)
            if "progress" not in reply:
                return reply
        return None

    def ask(self, word: str, **more: Any) -> dict[str, Any]:
        """The ``ok`` of a request that must succeed."""
        self.tell({"do": word, **more})
        reply = self.hear()
        assert reply is not None, f"{word}: it ended with {self.process.wait()}"
        assert "ok" in reply, reply
        found: dict[str, Any] = reply["ok"]
        return found

    def refused(self, word: str, **more: Any) -> dict[str, Any]:
        """The ``error`` of a request that must fail."""
        self.tell({"do": word, **more})
        reply = self.hear()
        assert reply is not None and "error" in reply, reply
        found: dict[str, Any] = reply["error"]
        return found

    def load(self, target: str, items: str = "range:20", star: bool = False) -> dict[str, Any]:
        """Loads what must load."""
        return self.ask("load", target=target, items=items, star=star, limit=10_000, pickled=None)

    def end(self) -> None:
        """Kills what is left of it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


@pytest.fixture
def laboratory(tmp_path: Path) -> Iterator[Conversation]:
    """A fresh measuring process whose current folder is the test's own."""
    import treadle._pickling  # noqa: F401  (its place is where the child finds the package)

    conversation = Conversation(tmp_path)
    yield conversation
    conversation.end()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes a file of the test's folder."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_file
