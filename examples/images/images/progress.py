"""A progress bar on stderr: redrawn in a terminal, a line now and then in a log."""

from __future__ import annotations

import shutil
import sys
import time

TERMINAL_S, LOG_S = 0.1, 10.0


class Bar:
    """Shows how many files are done, the rate and the time left."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._began = time.monotonic()
        self._next = 0.0

    def show(self, done: int, total: int, problems: int) -> None:
        """Draws the bar, if it is time."""
        now = time.monotonic()
        if now < self._next and done < total:
            return
        self._next = now + (TERMINAL_S if self._terminal else LOG_S)
        line = text(done, total, problems, now - self._began)
        if not self._terminal:
            print(line, file=sys.stderr, flush=True)
            return
        room = shutil.get_terminal_size().columns - len(line) - 4
        bar = ""
        if room >= 10:
            full = room * done // total
            bar = f"[{'#' * full}{'.' * (room - full)}] "
        end = "\n" if done == total else ""
        print(f"\r\x1b[K{bar}{line}", end=end, file=sys.stderr, flush=True)


def text(done: int, total: int, problems: int, seconds: float) -> str:
    """`120 of 400, 41.2/s, 7 s left, 2 damaged`."""
    rate = done / seconds if seconds > 0 else 0.0
    line = f"{done:,} of {total:,}, {rate:.1f}/s"
    if rate and done < total:
        line += f", {(total - done) / rate:.0f} s left"
    return line + (f", {problems} damaged" if problems else "")
