"""The journal: what became of each file, one line of JSON each, so that the next run does not do it again.

*Guarantees*: a line is written after the file's picture is in place. A line that a kill or a full disk cut short is
passed over, and its file is developed again, which gives the same picture. One journal has one writer: a second is
refused by a lock that ends with its process.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """What became of a file. `mark` tells whether it changed since; `problem` is empty if it was developed."""

    source: str
    mark: str
    picture: str
    problem: str = ""


def fingerprint(source: Path, settings: tuple[Any, ...]) -> str:
    """Changes when the file or the settings do. Raises OSError."""
    status = source.stat()
    return f"{status.st_size}-{status.st_mtime_ns}-{'-'.join(map(str, settings))}"


class Journal:
    """The journal in a file; made if it is not there.

    Raises:
        BlockingIOError: another batch has it.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.entries: dict[str, Entry] = {}
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read(path)
        except BaseException:
            os.close(self._file)
            raise

    def _read(self, path: Path) -> None:
        text = path.read_bytes()
        for line in text.splitlines():
            try:
                entry = Entry(**json.loads(line))
            except (ValueError, TypeError):
                continue
            self.entries[entry.source] = entry
        if text and not text.endswith(b"\n"):
            os.write(self._file, b"\n")

    def add(self, entry: Entry) -> None:
        """Remembers an entry."""
        self.entries[entry.source] = entry
        line = (json.dumps(entry._asdict(), ensure_ascii=False) + "\n").encode()
        if os.write(self._file, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        """Brings it to the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        """Lets the file go."""
        os.close(self._file)
