"""What ``map(progress=True)`` shows: how many, how fast, how long still.

::

    a notebook    an output of its own under the cell, redrawn: a bar in HTML, and the line as text for who shows no HTML
    a terminal    one line with a bar, rewritten in place and never wider than the terminal
    a log         a plain line now and then, and one at the end
"""

from __future__ import annotations

import abc
import html
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

#: Seconds between two looks at a terminal's line or a notebook's output, and between two lines in a log.
TERMINAL_SECONDS = 0.1
NOTEBOOK_SECONDS = 0.2
LOG_SECONDS = 10.0

#: Cells of a terminal's bar; fewer in a narrow terminal, and none where there is no room for this many.
BAR_CELLS = 30
FEWEST_CELLS = 5


class _Face(abc.ABC):
    """Where progress is shown."""

    #: Seconds between two looks.
    pause: float
    #: Whether it is shown before the first result.
    at_once = True

    @abc.abstractmethod
    def show(self, text: str, done: int, expected: int | None) -> None:
        """Shows how far it is."""

    def end(self) -> None:  # noqa: B027
        """Nothing more comes."""


class _Terminal(_Face):
    pause = TERMINAL_SECONDS

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        try:
            "█░".encode(stream.encoding or "ascii")
            self._cells = "█░"
        except (UnicodeEncodeError, LookupError):
            self._cells = "#-"

    def show(self, text: str, done: int, expected: int | None) -> None:
        # One column stays free: a full line wraps on some terminals, and is then not rewritten in place.
        room = shutil.get_terminal_size().columns - 1
        cells = min(BAR_CELLS, room - len(text) - 1)
        if expected and done <= expected and cells >= FEWEST_CELLS:
            full = cells * done // expected
            text = f"{self._cells[0] * full}{self._cells[1] * (cells - full)} {text}"
        self._stream.write(f"\r\x1b[K{text[:room]}")
        self._stream.flush()

    def end(self) -> None:
        self._stream.write("\n")
        self._stream.flush()


class _Log(_Face):
    pause = LOG_SECONDS
    at_once = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, text: str, done: int, expected: int | None) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()


class _Notebook(_Face):
    pause = NOTEBOOK_SECONDS

    def __init__(self) -> None:
        self._output: Any = None

    def show(self, text: str, done: int, expected: int | None) -> None:
        from IPython.display import display

        told = {"text/plain": text, "text/html": markup(text, done, expected)}
        if self._output is None:
            self._output = display(told, raw=True, display_id=True)
        else:
            self._output.update(told, raw=True)


def markup(text: str, done: int, expected: int | None) -> str:
    """The bar and the line as HTML that needs no script and no style sheet."""
    told = html.escape(text)
    bar = ""
    if expected and done <= expected:
        bar = f'<progress value="{done}" max="{expected}" aria-label="{told}" style="width: 16em"></progress> '
    return f"<div>{bar}<code>{told}</code></div>"


def _in_notebook() -> bool:
    """Whether this runs in a kernel, whose front end shows outputs; IPython in a terminal is a terminal."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def _face(stream: TextIO | None) -> _Face | None:
    if stream is None:
        if _in_notebook():
            return _Notebook()
        stream = sys.stderr
    if stream is None:
        return None  # a program without standard streams
    return _Terminal(stream) if stream.isatty() else _Log(stream)


def watch(
    results: Iterator[Any], expected: int | None, label: str, stream: TextIO | None = None
) -> Iterator[Any]:
    """Yields the results and shows how far they are: on ``stream``, or in the notebook, or on stderr."""
    face = _face(stream)
    if face is None:
        yield from results
        return
    began = shown = time.monotonic()
    done = 0
    if face.at_once:
        face.show(line(label, 0, expected, 0.0), 0, expected)
    try:
        for result in results:
            yield result
            done += 1
            now = time.monotonic()
            if now - shown >= face.pause:
                shown = now
                face.show(line(label, done, expected, now - began), done, expected)
    finally:
        if done or face.at_once:
            face.show(line(label, done, expected, time.monotonic() - began), done, expected)
            face.end()


def line(label: str, done: int, expected: int | None, seconds: float) -> str:
    """The text: ``thumbnail: 120 of 400 (30 %), 41.2/s, 6.8 s left``."""
    rate = done / seconds if seconds > 0 else 0.0
    if expected is None or expected < done:
        return f"{label}: {done}, {rate:.3g}/s, {_span(seconds)}"
    percent = 100 * done // expected if expected else 100
    text = f"{label}: {done} of {expected} ({percent} %)"
    if rate == 0:
        return text
    left = f"{_span((expected - done) / rate)} left" if done < expected else _span(seconds)
    return f"{text}, {rate:.3g}/s, {left}"


def _span(seconds: float) -> str:
    """A length of time, such as ``6.8 s``, ``3:07 min`` or ``2:05 h``."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"
