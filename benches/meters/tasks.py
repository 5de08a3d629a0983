"""The task of the bench, where a worker can import it."""

from __future__ import annotations


def task(rounds: int) -> int:
    """Pure Python of a fixed length."""
    total = 0
    for number in range(rounds):
        total += number
    return total


async def atask(rounds: int) -> int:
    """The same as a coroutine."""
    return task(rounds)
