"""Large arguments or results and little work: to move them costs more than the work is worth."""

from __future__ import annotations

import struct
from typing import Any

import numpy

from benches.corpus import material
from benches.corpus.workload import workload


def ledgers() -> list[list[dict[str, Any]]]:
    """3,000 ledgers of 4,000 orders, of which two differ."""
    two = [material.orders(seed, 4000) for seed in range(2)]
    return material.repeated(two, 3000)


@workload(
    ledgers,
    "transfer-bound",
    because="to pickle 4,000 nested dictionaries takes several times as long as to look at one key "
    "of each",
)
def count_unpaid(ledger: list[dict[str, Any]]) -> int:
    """How many orders of a ledger are not paid."""
    return sum(not order["paid"] for order in ledger)


def recordings() -> list[int]:
    """600 numbers of recordings."""
    return list(range(600))


RECORDING = numpy.random.default_rng(1).random(200_000).tobytes()


@workload(
    recordings,
    "transfer-bound",
    because="to unpickle 200,000 floats in the parent takes as long as struct takes to make them",
)
def decode(number: int) -> tuple[float, ...]:
    """A recording's 200,000 samples as Python floats."""
    return struct.unpack("200000d", RECORDING)


def books() -> list[bytes]:
    """8,000 texts of 8 MB, of which two differ."""
    two = [material.text(seed, 1 << 20).encode() * 8 for seed in range(2)]
    return material.repeated(two, 8000)


@workload(
    books,
    "transfer-bound",
    because="bytes are pickled in-band, two copies of 8 MB; find() passes over them once, faster",
)
def find_word(book: bytes) -> int:
    """Where a word first occurs in a book; it does not."""
    return book.find(b"\0")


def images() -> list[numpy.ndarray[Any, Any]]:
    """3,000 arrays of 16 MB (2 million float64), of which two differ."""
    two = [numpy.random.default_rng(seed).random(2_000_000) for seed in range(2)]
    return material.repeated(two, 3000)


@workload(
    images,
    "transfer-bound",
    because="16 MB are copied to reach another process; the maximum reads them once, no slower",
)
def brightest(image: numpy.ndarray[Any, Any]) -> float:
    """The largest value of an image."""
    return float(image.max())
