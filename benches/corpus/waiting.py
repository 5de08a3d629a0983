"""Waiting for others: timers, sockets, pages over urllib, a disk."""

from __future__ import annotations

import hashlib
import html.parser
import os
import random
import socket
import time
import urllib.request
from urllib.parse import urlsplit

from benches.corpus import material
from benches.corpus.workload import pages, workload


def delays() -> list[float]:
    """1,500 delays of 10 to 30 ms."""
    chance = random.Random(1)
    return [chance.uniform(0.010, 0.030) for _ in range(1500)]


@workload(delays, "io-bound", because="time.sleep releases the lock and uses no processor")
def poll(delay: float) -> float:
    """Waits as a client that polls does."""
    time.sleep(delay)
    return delay


def uneven_delays() -> list[float]:
    """1,000 delays of 4 ms to 0.8 s; the few longest are half of it."""
    return material.heavy_tail(2, 1000, 0.004, 0.8)


@workload(
    uneven_delays,
    "io-bound",
    because="time.sleep releases the lock and uses no processor; the lengths are Pareto",
    kinds=("skewed",),
)
def poll_unevenly(delay: float) -> float:
    """Waits, mostly briefly."""
    time.sleep(delay)
    return delay


def addresses() -> list[str]:
    """1,000 pages of the local server."""
    return pages(1000)


@workload(
    addresses,
    "io-bound",
    because="the server answers after 60 ms in the median; urllib computes about one of them",
    server=True,
)
def fetch(address: str) -> int:
    """The size of a page, over urllib: a connection for each."""
    with urllib.request.urlopen(address, timeout=60) as response:
        return len(response.read())


@workload(
    addresses,
    "io-bound",
    because="the server answers after 60 ms in the median; the socket calls take a fraction of one",
    server=True,
)
def ask(address: str) -> bytes:
    """The status line of a page, over a bare socket."""
    parts = urlsplit(address)
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        return connection.recv(1 << 16).partition(b"\r\n")[0]


class Counter(html.parser.HTMLParser):
    """Counts the paragraphs and the words of a page, in plain Python."""

    def __init__(self) -> None:
        super().__init__()
        self.words = 0

    def handle_data(self, data: str) -> None:
        for word in data.split():
            self.words += len(word) > 3


def some_addresses() -> list[str]:
    """60 pages of the local server."""
    return pages(60)


@workload(
    some_addresses,
    "mixed",
    because="60 ms of waiting for the server and about as much of pure Python over the page",
    server=True,
)
def fetch_and_index(address: str) -> int:
    """How many longer words a page has, counted as an indexer does that looks several times."""
    with urllib.request.urlopen(address, timeout=60) as response:
        page = response.read().decode()
    total = 0
    for _pass in range(2_400_000 // len(page)):
        counter = Counter()
        counter.feed(page)
        total = counter.words
    return total


def parts() -> list[int]:
    """160 numbers."""
    return list(range(160))


PART = random.Random(4).randbytes(16 << 20)


@workload(
    parts,
    "mixed",
    because="12 ms of waiting and a digest of 16 MiB, some 10 ms with the lock released",
)
def receive_and_check(number: int) -> str:
    """A part that arrives after a moment and is checked."""
    time.sleep(0.012)
    return hashlib.sha1(PART[number:]).hexdigest()


def letters_to_keep() -> list[int]:
    """2,500 numbers of letters."""
    return list(range(2500))


LETTER = material.text(5, 64 << 10).encode()


@workload(
    letters_to_keep,
    "io-bound",
    "mixed",
    # On the border: how long fsync waits is the disk's affair (a fast one answers before the write
    # and the directory have cost as much processor time).
    because="fsync waits for the disk, however long that takes",
)
def keep(number: int) -> int:
    """Writes a letter so that it survives a loss of power."""
    material.FOLDER.mkdir(parents=True, exist_ok=True)
    path = material.FOLDER / f"letter-{number:04}-{os.getpid()}"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        written = os.write(handle, LETTER)
        os.fsync(handle)
    finally:
        os.close(handle)
        path.unlink()
    return written
