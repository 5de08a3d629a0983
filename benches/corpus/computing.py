"""The standard library's arithmetic and algorithms, which hold the interpreter lock."""

from __future__ import annotations

import decimal
import difflib
import random
from collections import Counter

from benches.corpus import material
from benches.corpus.workload import workload


def limits() -> list[int]:
    """400 limits around 60,000."""
    return [60_000 + 10 * number for number in range(400)]


@workload(limits, "cpu-bound", because="a loop of Python's own bytecode holds the lock throughout")
def count_primes(limit: int) -> int:
    """How many primes there are below `limit`, with a sieve in plain Python."""
    composite = bytearray(limit)
    found = 0
    for number in range(2, limit):
        if not composite[number]:
            found += 1
            for multiple in range(number * number, limit, number):
                composite[multiple] = 1
    return found


def precisions() -> list[int]:
    """500 numbers of digits around 1,000."""
    return [970 + number % 60 for number in range(500)]


@workload(
    precisions,
    "cpu-bound",
    because="_decimal computes with the lock held; its operations are calls from a Python loop",
)
def digits_of_pi(digits: int) -> str:
    """Pi to so many digits, by the series of the decimal module's documentation."""
    with decimal.localcontext() as context:
        context.prec = digits + 2
        three = decimal.Decimal(3)
        last, total, term, numerator, extra, denominator, step = 0, three, three, 1, 0, 0, 24
        while total != last:
            last = total
            numerator, extra = numerator + extra, extra + 8
            denominator, step = denominator + step, step + 32
            term = (term * numerator) / denominator
            total += term
        return str(+total)


def drafts() -> list[tuple[str, str]]:
    """240 pairs of a text of 1,000 lines and a version of it with one line in ten edited."""
    pairs = []
    for seed in range(8):
        chance = random.Random(seed)
        lines = [" ".join(material.words((seed + 1) * 1000 + line, 8)) for line in range(1000)]
        edited = [
            " ".join(material.words(line, 8)) if chance.random() < 0.1 else old
            for line, old in enumerate(lines)
        ]
        pairs.append(("\n".join(lines), "\n".join(edited)))
    return material.repeated(pairs, 240)


@workload(drafts, "cpu-bound", because="difflib is plain Python, which holds the lock")
def compare_drafts(pair: tuple[str, str]) -> float:
    """How alike two texts are, with the difference made line by line and within lines."""
    before, after = (one.splitlines() for one in pair)
    list(difflib.ndiff(before, after))
    return difflib.SequenceMatcher(None, before, after).ratio()


def moduli() -> list[tuple[int, int]]:
    """100 pairs of a base and an odd modulus of 2,048 bits."""
    chance = random.Random(5)
    return [(chance.getrandbits(2048), chance.getrandbits(2048) | 1) for _ in range(100)]


@workload(moduli, "cpu-bound", because="arithmetic of Python's integers holds the lock, in C")
def is_probable_prime(pair: tuple[int, int]) -> bool:
    """One round of Fermat's test: a long pow() in C."""
    base, modulus = pair
    return pow(base, modulus - 1, modulus) == 1


def boards() -> list[int]:
    """300 sizes of boards, most small; the largest cost a hundred times the smallest."""
    chance = random.Random(9)
    return chance.choices((6, 7, 8, 9), weights=(60, 25, 10, 5), k=300)


@workload(
    boards,
    "cpu-bound",
    because="recursion in plain Python holds the lock; the number of steps grows as n factorial",
    kinds=("skewed",),
)
def place_queens(size: int) -> int:
    """In how many ways `size` queens fit on a board without threatening each other."""

    def below(row: int, columns: int, rising: int, falling: int) -> int:
        if row == size:
            return 1
        total = 0
        for column in range(size):
            mask, up, down = 1 << column, 1 << (row + column), 1 << (row - column + size)
            if not (columns & mask or rising & up or falling & down):
                total += below(row + 1, columns | mask, rising | up, falling | down)
        return total

    return below(0, 0, 0, 0)


def seeds() -> list[int]:
    """8 seeds."""
    return list(range(8))


@workload(
    seeds,
    "cpu-bound",
    because="lists, tuples and dictionaries are made with the lock held",
    kinds=("memory-hungry",),
)
def group_events(seed: int) -> int:
    """Sorts 120,000 events in memory and groups them by user: about 40 MB of small objects."""
    chance = random.Random(seed)
    events = [
        (chance.randrange(5_000), chance.random(), f"event {number}") for number in range(120_000)
    ]
    events.sort()
    users: dict[int, list[tuple[float, str]]] = {}
    for user, when, what in events:
        users.setdefault(user, []).append((when, what))
    return max(map(len, users.values()))


def letters() -> list[str]:
    """8 short texts: 8 tasks of a few milliseconds, the whole batch."""
    return [material.text(seed, 30_000) for seed in range(8)]


@workload(
    letters,
    "cpu-bound",
    because="str.split and Counter hold the lock; the batch ends before a pool has started",
    kinds=("few-inputs",),
)
def count_words(letter: str) -> int:
    """The most frequent word's count."""
    return Counter(letter.lower().replace(".", " ").split()).most_common(1)[0][1]
