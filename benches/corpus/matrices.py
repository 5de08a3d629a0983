"""NumPy and SciPy."""

from __future__ import annotations

import numpy
import scipy.fft

from benches.corpus.workload import workload


def matrices() -> list[int]:
    """120 seeds of matrices."""
    return list(range(120))


LEFT = numpy.random.default_rng(1).standard_normal((900, 900))


@workload(
    matrices,
    "cpu-bound-releasing",
    because="matmul releases the lock around BLAS, which brings a thread for every core",
    kinds=("native-threaded",),
)
def multiply(seed: int) -> float:
    """The trace of a product of two matrices of 900 x 900."""
    return float(numpy.trace(LEFT @ (LEFT + seed)))


def signals() -> list[int]:
    """300 seeds of signals."""
    return list(range(300))


@workload(
    signals,
    "cpu-bound-releasing",
    because="scipy.fft (pocketfft) releases the lock for the transform; so do the loops of ufuncs",
)
def loudest(seed: int) -> int:
    """The strongest frequency of a signal of a quarter of a million samples."""
    time = numpy.arange(1 << 18, dtype=numpy.float64)
    signal = numpy.sin(time * (0.01 + seed * 1e-4)) + numpy.cos(time * 0.3)
    return int(numpy.abs(scipy.fft.rfft(signal, workers=1)).argmax())


def samples() -> list[int]:
    """60 seeds of samples."""
    return list(range(60))


VALUES = numpy.random.default_rng(2).standard_normal(400_000)


@workload(
    samples, "cpu-bound-releasing", because="numpy.sort releases the lock while it sorts numbers"
)
def quantiles(seed: int) -> float:
    """A quantile of 400,000 numbers, by sorting."""
    return float(numpy.sort(numpy.roll(VALUES, seed * 1000), kind="stable")[seed * 1000])


def clouds() -> list[int]:
    """16 seeds of clouds of points."""
    return list(range(16))


@workload(
    clouds,
    "cpu-bound-releasing",
    because="ufuncs over large arrays release the lock; new pages are faulted in inside their loops",
    kinds=("memory-hungry",),
)
def nearest(seed: int) -> float:
    """The mean distance to the nearest neighbour of 2,500 points: matrices of 50 MB at a time."""
    points = numpy.random.default_rng(seed).random((2500, 2))
    across = points[:, None, 0] - points[None, :, 0]
    along = points[:, None, 1] - points[None, :, 1]
    distance = numpy.hypot(across, along)
    numpy.fill_diagonal(distance, 2.0)
    return float(distance.min(axis=1).mean())


def walkers() -> list[int]:
    """200 seeds of walks."""
    return list(range(200))


@workload(
    walkers,
    "cpu-bound",
    because="arrays of 3 elements: the time goes into the calls, and NumPy keeps the lock below 500",
)
def walk(seed: int) -> float:
    """How far a point comes in 3,000 steps, each a few operations on tiny arrays."""
    steps = numpy.random.default_rng(seed).standard_normal((3000, 3))
    place, drift = numpy.zeros(3), numpy.array([0.1, 0.0, -0.1])
    for step in steps:
        place = place + step * 0.5 + drift
        numpy.clip(place, -50, 50, out=place)
    return float(numpy.sqrt((place * place).sum()))
