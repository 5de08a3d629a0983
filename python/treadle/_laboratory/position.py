"""The position file: which input is being processed, kept where the starter sees it after our death."""

from __future__ import annotations

import mmap
import os
import struct

_WORD = struct.Struct("<Q")
_SIZE = 2 * _WORD.size


class Position:
    """Two little-endian 64-bit words: index of the input being processed plus one (0: none), number done.

    *Guarantees*: a write is visible to other processes at once, and survives ``os._exit`` and signals.
    *Assumes*: one writer at a time; where several inputs are in flight, `at` names the oldest.
    """

    def __init__(self, path: str | None) -> None:
        """Maps the file at `path` (made 16 bytes long if shorter); None keeps the words in private memory."""
        if path is None:
            self._words = mmap.mmap(-1, _SIZE)
            return
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(descriptor).st_size < _SIZE:
                os.ftruncate(descriptor, _SIZE)
            self._words = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)

    def at(self, index: int) -> None:
        """Input `index` is being processed."""
        _WORD.pack_into(self._words, 0, index + 1)

    def idle(self) -> None:
        """No input is being processed."""
        _WORD.pack_into(self._words, 0, 0)

    def done(self, count: int) -> None:
        """`count` inputs have been processed since the request began."""
        _WORD.pack_into(self._words, _WORD.size, count)

    def read(self) -> tuple[int | None, int]:
        """(index being processed or None, number done)."""
        word = _WORD.unpack_from(self._words, 0)[0]
        return (word - 1 if word else None), _WORD.unpack_from(self._words, _WORD.size)[0]
