"""What the inputs are made of: text, records, bytes and files, the same at every call.

Nothing here is measured. Files are written once, under target/corpus.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "target" / "corpus"
SYLLABLES = (
    "ta",
    "ri",
    "mo",
    "len",
    "kas",
    "ve",
    "sur",
    "dol",
    "in",
    "pe",
    "gra",
    "nu",
    "sho",
    "el",
)


def words(seed: int, count: int) -> list[str]:
    """`count` words of one to four syllables; short ones repeat, as in a language."""
    chance = random.Random(seed)
    syllables = chance.choices(SYLLABLES, k=4 * count)
    lengths = chance.choices((1, 2, 3, 4), weights=(4, 3, 2, 1), k=count)
    return ["".join(syllables[4 * at : 4 * at + length]) for at, length in enumerate(lengths)]


def text(seed: int, size: int) -> str:
    """About `size` characters in sentences, a line each."""
    line: list[str] = []
    chance = random.Random(~seed)
    for word in words(seed, size // 6):
        line.append(word)
        line.append(".\n" if chance.random() < 0.08 else " ")
    return "".join(line)


def repeated(some: list[Any], count: int) -> list[Any]:
    """`count` of `some`, over and over, in an order without a period."""
    return random.Random(len(some)).choices(some, k=count)


def orders(seed: int, count: int) -> list[dict[str, Any]]:
    """`count` records as a shop would send them."""
    chance = random.Random(seed)
    names = words(seed, 4 * count)
    return [
        {
            "id": f"{seed}-{number}",
            "customer": {
                "name": " ".join(names[4 * number : 4 * number + 2]),
                "tier": chance.randrange(4),
            },
            "lines": [
                {
                    "sku": names[4 * number + 2 + line],
                    "price": round(chance.uniform(1, 900), 2),
                    "count": chance.randrange(1, 9),
                }
                for line in range(2)
            ],
            "paid": chance.random() < 0.8,
        }
        for number in range(count)
    ]


def orders_json(seed: int, count: int) -> str:
    """The same as JSON."""
    return json.dumps(orders(seed, count))


def orders_xml(seed: int, count: int) -> str:
    """The same as XML."""
    parts = ["<orders>"]
    for order in orders(seed, count):
        parts.append(f'<order id="{order["id"]}"><customer>{order["customer"]["name"]}</customer>')
        for line in order["lines"]:
            parts.append(
                f'<line sku="{line["sku"]}" price="{line["price"]}" count="{line["count"]}"/>'
            )
        parts.append("</order>")
    return "".join([*parts, "</orders>"])


def orders_csv(seed: int, count: int) -> str:
    """The same as CSV with a header, a row for each line of an order."""
    rows = ["id,customer,tier,sku,price,count"]
    for order in orders(seed, count):
        customer = order["customer"]
        for line in order["lines"]:
            rows.append(
                f"{order['id']},{customer['name']},{customer['tier']},{line['sku']},{line['price']},{line['count']}"
            )
    return "\n".join(rows) + "\n"


def heavy_tail(seed: int, count: int, least: float, most: float) -> list[float]:
    """`count` sizes from a Pareto law (alpha 1.1, so that the few largest hold half of the sum)."""
    chance = random.Random(seed)
    return [min(most, least * chance.paretovariate(1.1)) for _ in range(count)]


def files(name: str, count: int, make: Callable[[int], bytes]) -> list[str]:
    """The paths of `count` files whose content `make` gives, written at the first call.

    They are in the page cache, also where they were written long ago: they are read here.
    """
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04}" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            unfinished = path.with_suffix(".part")
            unfinished.write_bytes(make(number))
            unfinished.replace(path)
        path.read_bytes()
    return [str(path) for path in paths]
