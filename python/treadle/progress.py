"""A progress line for ``map(progress=True)``: count, rate, time left; rewritten on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

#: Seconds between two looks at a terminal's line, and between two lines in a log.
TERMINAL_SECONDS = 0.1
LOG_SECONDS = 10.0


def watch(
    results: Iterator[Any], expected: int | None, label: str, stream: TextIO | None = None
) -> Iterator[Any]:
    """Yields the results and shows how far they are."""
    stream = stream or sys.stderr
    terminal = stream.isatty()
    pause = TERMINAL_SECONDS if terminal else LOG_SECONDS
    began = shown = time.monotonic()
    done = 0
    try:
        for result in results:
            yield result
            done += 1
            now = time.monotonic()
            if now - shown >= pause:
                shown = now
                _show(stream, terminal, line(label, done, expected, now - began))
    finally:
        if done:
            _show(stream, terminal, line(label, done, expected, time.monotonic() - began))
            if terminal:
                stream.write("\n")
                stream.flush()


def _show(stream: TextIO, terminal: bool, text: str) -> None:
    stream.write(f"\r\x1b[K{text}" if terminal else f"{text}\n")
    stream.flush()


def line(label: str, done: int, expected: int | None, seconds: float) -> str:
    """The text: ``thumbnail: 120 of 400 (30 %), 41.2/s, 6.8 s left``."""
    rate = done / seconds if seconds > 0 else 0.0
    if expected is None or expected < done:
        return f"{label}: {done}, {rate:.3g}/s, {seconds:.1f} s"
    percent = 100 * done // expected if expected else 100
    left = (
        f", {(expected - done) / rate:.1f} s left"
        if rate > 0 and done < expected
        else f", {seconds:.1f} s"
    )
    return f"{label}: {done} of {expected} ({percent} %), {rate:.3g}/s{left}"
