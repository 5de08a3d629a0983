"""pandas."""

from __future__ import annotations

import io

import numpy
import pandas

from benches.corpus import material
from benches.corpus.workload import workload

_random = numpy.random.default_rng(3)
SALES = pandas.DataFrame(
    {
        "shop": _random.integers(0, 200, 300_000),
        "price": _random.random(300_000) * 100,
        "count": _random.integers(1, 9, 300_000),
    }
)


def months() -> list[int]:
    """200 numbers of months."""
    return list(range(200))


@workload(
    months,
    "cpu-bound",
    because="DataFrame.apply over rows calls a Python function for each of 2,000 rows",
)
def rate_rows(month: int) -> float:
    """The sum of a discount that is computed row by row."""
    rows = SALES.iloc[month * 1000 : month * 1000 + 2000]
    return float(rows.apply(lambda row: row["price"] * row["count"] * 0.98, axis=1).sum())


def windows() -> list[int]:
    """120 widths of windows."""
    return list(range(20, 140))


@workload(
    windows,
    "cpu-bound-releasing",
    because="the rolling aggregations are Cython loops `with nogil` over 300,000 numbers each",
)
def smooth(width: int) -> float:
    """The largest rolling median, maximum and skew of the prices."""
    rolling = SALES["price"].rolling(width)
    return float(max(rolling.skew().max(), rolling.kurt().max(), rolling.std().max()))


def sheets() -> list[str]:
    """450 CSV documents of 10,000 rows, of which 4 differ."""
    some = [material.orders_csv(seed, 5000) for seed in range(4)]
    return material.repeated(some, 450)


@workload(
    sheets,
    "cpu-bound",
    "cpu-bound-releasing",
    # On the border: the tokenizer and the conversion of numbers run `with nogil`, the conversion of
    # strings (half of the columns) holds the lock.
    because="about half of pandas' CSV reader runs without the lock",
)
def read_table(sheet: str) -> float:
    """The mean price of a CSV document."""
    return float(pandas.read_csv(io.StringIO(sheet))["price"].mean())
