"""``map(progress=True)`` in a terminal and in a log; in a notebook: tests/integrations/test_notebook.py."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from treadle import progress

PROGRAM = """
import sys, time, treadle
def thumbnail(number):
    return number
with treadle.Executor(threads=1) as pool:
    for result in pool.map(thumbnail, range(400), progress=True):
        if result % 100 == 50:
            time.sleep(0.11)
"""


def in_terminal(columns: int, **environment: str) -> str:
    """What the program writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stderr=theirs,
        stdin=theirs,
        stdout=theirs,
        env={**inherited, "PYTHONIOENCODING": "utf-8", **environment},
    )
    os.close(theirs)
    told = b""
    while True:
        try:
            read = os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
        if not read:
            break
        told += read
    assert program.wait(60) == 0, told
    os.close(ours)
    return told.decode()


def lines_of(told: str) -> list[str]:
    """What stood in the terminal's line, one after the other."""
    first, *rest = told.split("\r\x1b[K")
    assert first == ""
    assert rest[-1].endswith("\r\n"), (
        "the line is left behind, and the next output has one of its own"
    )
    return [line.removesuffix("\r\n") for line in rest]


def test_a_terminal_shows_a_bar_that_grows() -> None:
    lines = lines_of(in_terminal(100))
    assert lines[0] == f"{'░' * 30} thumbnail: 0 of 400 (0 %)"
    assert lines[-1].startswith(f"{'█' * 30} thumbnail: 400 of 400 (100 %), ")
    full = [line.count("█") for line in lines]
    assert full == sorted(full)
    between = lines[1]
    assert 0 < between.count("█") < 30
    assert "/s, " in between
    assert between.endswith(" s left")


@pytest.mark.parametrize("columns", [20, 40, 60, 79])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    lines = lines_of(in_terminal(columns))
    assert max(map(len, lines)) < columns
    assert all("of 400" in line for line in lines if columns >= 40)


def test_a_terminal_without_unicode_gets_another_bar() -> None:
    told = in_terminal(100, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert lines_of(told)[-1].startswith("#" * 30 + " thumbnail")


def test_a_log_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    assert list(progress.watch(iter(range(5)), 5, "work", log)) == list(range(5))
    (line,) = log.getvalue().splitlines()
    assert line.startswith("work: 5 of 5 (100 %), ")
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    monkeypatch.setattr(progress._Log, "pause", 0.0)
    log = io.StringIO()
    assert list(progress.watch(iter(range(3)), None, "work", log)) == list(range(3))
    lines = log.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == ["work: 1", "work: 2", "work: 3", "work: 3"]
    assert not any("\x1b" in line or "\r" in line for line in lines)


def test_without_a_stream_the_results_come_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert list(progress.watch(iter("abc"), 3, "work")) == ["a", "b", "c"]


def test_what_fails_is_shown_where_it_stands() -> None:
    def some() -> object:
        yield 1
        raise ValueError("no more")

    log = io.StringIO()
    with pytest.raises(ValueError, match="no more"):
        list(progress.watch(iter(some()), 3, "work", log))  # type: ignore[arg-type]
    assert log.getvalue().startswith("work: 1 of 3 (33 %)")


@pytest.mark.parametrize(
    ("done", "expected", "seconds", "text"),
    [
        (120, 400, 2.0, "f: 120 of 400 (30 %), 60/s, 4.7 s left"),
        (400, 400, 2.0, "f: 400 of 400 (100 %), 200/s, 2.0 s"),
        (0, 400, 0.0, "f: 0 of 400 (0 %)"),
        (1, 4, 0.0, "f: 1 of 4 (25 %)"),
        (1, 1000, 1.0, "f: 1 of 1000 (0 %), 1/s, 16:39 min left"),
        (10, 100000, 1.0, "f: 10 of 100000 (0 %), 10/s, 2:46 h left"),
        (5, None, 2.0, "f: 5, 2.5/s, 2.0 s"),
        (5, 4, 2.0, "f: 5, 2.5/s, 2.0 s"),
        (0, 0, 0.0, "f: 0 of 0 (100 %)"),
    ],
)
def test_the_line(done: int, expected: int | None, seconds: float, text: str) -> None:
    assert progress.line("f", done, expected, seconds) == text


def test_the_markup_holds_no_name_as_markup() -> None:
    told = progress.markup("<lambda>: 1 of 2", 1, 2)
    assert "<lambda>" not in told
    assert "&lt;lambda&gt;: 1 of 2" in told
    assert '<progress value="1" max="2"' in told
    assert "<progress" not in progress.markup("f: 3", 3, None)
