"""Digests and key derivation from the standard library's hashlib."""

from __future__ import annotations

import hashlib
import random

from benches.corpus import material
from benches.corpus.workload import workload


def blocks() -> list[bytes]:
    """800 blocks of 4 MiB, of which only four differ: the memory stays small."""
    four = [random.Random(seed).randbytes(4 << 20) for seed in range(4)]
    return material.repeated(four, 800)


@workload(
    blocks,
    "cpu-bound-releasing",
    because="hashlib releases the lock for data above 2047 bytes, here 4 MiB in one call",
)
def digest(block: bytes) -> str:
    """The SHA-256 of a block."""
    return hashlib.sha256(block).hexdigest()


def passwords() -> list[str]:
    """200 passwords."""
    return [" ".join(material.words(seed, 3)) for seed in range(200)]


@workload(
    passwords,
    "cpu-bound-releasing",
    because="pbkdf2_hmac runs all its iterations in OpenSSL with the lock released",
)
def derive_key(password: str) -> bytes:
    """A key of 32 bytes from a password."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), b"treadle's corpus", 40_000)


def documents() -> list[str]:
    """600 paths of 48 files of 3 MB, which stay in the page cache."""
    paths = material.files("documents", 48, lambda number: random.Random(number).randbytes(3 << 20))
    return material.repeated(paths, 600)


@workload(
    documents,
    "cpu-bound-releasing",
    because="read() and update() of a megabyte both release the lock; the file is in the page cache",
)
def fingerprint(path: str) -> str:
    """The BLAKE2 digest of a file, read in pieces of 1 MiB."""
    state = hashlib.blake2b()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            state.update(piece)
    return state.hexdigest()


def tokens() -> list[str]:
    """5,000 short strings."""
    return material.words(7, 5000)


@workload(
    tokens,
    "cpu-bound",
    because="a digest of less than 2048 bytes is made with the lock held, and the loop is Python's",
)
def stretch(token: str) -> str:
    """A chain of 1,000 digests of short strings."""
    for _ in range(1000):
        token = hashlib.sha256(token.encode()).hexdigest()
    return token
