"""Functions too small to hand over: microseconds each."""

from __future__ import annotations

import json

from benches.corpus.workload import workload


def messages() -> list[str]:
    """10,000 messages of 60 characters."""
    return [
        json.dumps({"user": number, "action": "open", "page": f"/page/{number}"})
        for number in range(10_000)
    ]


@workload(messages, "too-small", because="60 characters of JSON take a few microseconds")
def read_message(message: str) -> int:
    """The user of a message."""
    user: int = json.loads(message)["user"]
    return user


def amounts() -> list[int]:
    """10,000 amounts."""
    return list(range(10_000))


@workload(
    amounts, "too-small", because="an async function that returns at once: under a microsecond"
)
async def with_tax(amount: int) -> float:
    """An amount with its tax."""
    return amount * 1.19
