"""Functions too small to hand over: microseconds each."""

from __future__ import annotations

import ipaddress
import json
import random

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


def visitors() -> list[str]:
    """10,000 addresses."""
    chance = random.Random(3)
    return [str(ipaddress.IPv4Address(chance.getrandbits(32))) for _ in range(10_000)]


@workload(visitors, "too-small", because="the ipaddress module parses an address in microseconds")
def is_private(visitor: str) -> bool:
    """Whether an address is private."""
    return ipaddress.ip_address(visitor).is_private


def amounts() -> list[int]:
    """10,000 amounts."""
    return list(range(10_000))


@workload(
    amounts, "too-small", because="an async function that returns at once: under a microsecond"
)
async def with_tax(amount: int) -> float:
    """An amount with its tax."""
    return amount * 1.19
