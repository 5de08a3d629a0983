"""Reading and writing formats: JSON, CSV, regular expressions."""

from __future__ import annotations

import csv
import io
import json
import re

import orjson
import regex

from benches.corpus import material
from benches.corpus.workload import workload


def bodies() -> list[str]:
    """1,600 JSON documents of 100 KB, of which 8 differ."""
    some = [material.orders_json(seed, 500) for seed in range(8)]
    return material.repeated(some, 1600)


@workload(bodies, "cpu-bound", because="json.loads builds Python objects, in C with the lock held")
def revenue(body: str) -> float:
    """The sum of all paid orders of a JSON document."""
    total = 0.0
    for order in json.loads(body):
        if order["paid"]:
            total += sum(line["price"] * line["count"] for line in order["lines"])
    return total


@workload(
    bodies,
    "cpu-bound",
    because="orjson builds Python objects too and keeps the lock throughout",
)
def anonymise(body: str) -> int:
    """The size of a JSON document without its customers' names, read and written by orjson."""
    orders = orjson.loads(body)
    for order in orders:
        order["customer"]["name"] = None
    return len(orjson.dumps(orders, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2))


def sheets() -> list[str]:
    """600 CSV documents of 2,000 rows, of which 8 differ."""
    some = [material.orders_csv(seed, 1000) for seed in range(8)]
    return material.repeated(some, 600)


@workload(sheets, "cpu-bound", because="the csv module and the loop over rows hold the lock")
def turnover(sheet: str) -> dict[str, float]:
    """The turnover of each customers' tier."""
    totals: dict[str, float] = {}
    for row in csv.DictReader(io.StringIO(sheet)):
        totals[row["tier"]] = totals.get(row["tier"], 0.0) + float(row["price"]) * int(row["count"])
    return totals


def logs() -> list[str]:
    """450 texts of 200,000 characters, of which 8 differ."""
    some = [material.text(seed, 200_000) for seed in range(8)]
    return material.repeated(some, 450)


WORD = re.compile(r"\b(?P<stem>[a-z]{3,})(?P<end>sur|nu|el)\b")


@workload(logs, "cpu-bound", because="re never releases the lock, not even in one long search")
def count_endings(log: str) -> int:
    """How many words have one of three endings."""
    return sum(1 for _found in WORD.finditer(log))


def few_logs() -> list[str]:
    """30 of the same texts."""
    return logs()[:30]


NEARLY = regex.compile(r"(?:zanzibarquorum){e<=2}")


@workload(
    few_logs,
    "cpu-bound-releasing",
    because="regex releases the lock while matching on str (its documentation, 'multithreading'); "
    "this is one search through the whole text",
)
def find_misspelt(log: str) -> bool:
    """Whether a word occurs in the text with at most two errors; it does not."""
    return NEARLY.search(log, concurrent=True) is not None
