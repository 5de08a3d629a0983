"""The standard library's compressors."""

from __future__ import annotations

import bz2
import lzma
import zlib

from benches.corpus import material
from benches.corpus.workload import workload


def pages_of_text() -> list[bytes]:
    """160 texts of 256 KiB."""
    some = [material.text(seed, 256 << 10).encode() for seed in range(16)]
    return material.repeated(some, 160)


@workload(
    pages_of_text,
    "cpu-bound-releasing",
    because="zlib.compress releases the lock for the whole of deflate",
)
def deflate(data: bytes) -> bytes:
    """The text, compressed."""
    return zlib.compress(data, 6)


def chapters() -> list[bytes]:
    """120 texts of 256 KiB."""
    return pages_of_text()[:120]


@workload(
    chapters,
    "cpu-bound-releasing",
    because="bz2.compress releases the lock around BZ2_bzCompress",
)
def squeeze(data: bytes) -> int:
    """The compressed size of a text."""
    return len(bz2.compress(data))


def archives() -> list[bytes]:
    """24 texts of 256 KiB."""
    return pages_of_text()[:24]


@workload(
    archives,
    "cpu-bound-releasing",
    because="lzma.compress releases the lock around lzma_code",
    kinds=("memory-hungry",),
)
def pack(data: bytes) -> int:
    """The size of a text in an xz archive; the encoder takes about 90 MiB for itself."""
    return len(lzma.compress(data, preset=6))


def uneven_texts() -> list[bytes]:
    """120 texts of 8 KiB to 4 MiB; the few largest are half of it."""
    whole = material.text(3, 4 << 20).encode()
    return [whole[: int(size)] for size in material.heavy_tail(11, 120, 8 << 10, 4 << 20)]


@workload(
    uneven_texts,
    "cpu-bound-releasing",
    because="zlib.compress releases the lock for the whole of deflate; the lengths are Pareto",
    kinds=("skewed",),
)
def deflate_uneven(data: bytes) -> int:
    """The compressed size of a text."""
    return len(zlib.compress(data, 6))
