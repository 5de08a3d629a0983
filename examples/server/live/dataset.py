"""The data set: two years of sales of a chain of shops, made from a seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy

REGIONS = ("north", "east", "south", "west")
STORES, DAYS, ROWS = 24, 730, 400_000


class Sales(NamedTuple):
    """One entry for each sale; arrays of the same length. `day` counts from 0, `amount` is in cents."""

    day: numpy.ndarray  # int16
    store: numpy.ndarray  # int8
    amount: numpy.ndarray  # int32


def make(seed: int = 11) -> Sales:
    """All sales; the same for the same seed."""
    chance = numpy.random.default_rng(seed)
    day = chance.integers(0, DAYS, ROWS, numpy.int16)
    store = (chance.beta(1.2, 2.0, ROWS) * STORES).astype(numpy.int8)
    season = 1 + 0.35 * numpy.sin(2 * numpy.pi * day / 365) + 0.15 * ((day % 7) >= 5)
    amount = (chance.gamma(2.0, 900, ROWS) * season).astype(numpy.int32)
    return Sales(day, store, amount)


def region_of(store: int) -> str:
    """The region that a store lies in."""
    return REGIONS[store % len(REGIONS)]


def totals(sales: Sales) -> dict[str, int]:
    """The revenue of each region in cents: what light requests are answered from."""
    each = numpy.bincount(sales.store, weights=sales.amount, minlength=STORES)
    return {
        region: int(sum(each[store] for store in range(STORES) if region_of(store) == region))
        for region in REGIONS
    }
