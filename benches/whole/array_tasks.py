"""The functions of workers that handle arrays, apart so that other workers need no NumPy."""

from __future__ import annotations

from functools import lru_cache

import numpy


def first(array: numpy.ndarray) -> float:
    """The first element: touches the array without reading all of it."""
    return float(array[0])


@lru_cache(maxsize=4)
def produced(count: int) -> numpy.ndarray:
    """An array of `count` float64, kept by the worker so that only its way back is timed."""
    return numpy.ones(count)
