"""Pillow, on pictures that are made and encoded once."""

from __future__ import annotations

import io

import numpy
from PIL import Image, ImageDraw, ImageFilter

from benches.corpus import material
from benches.corpus.workload import workload


def photograph(seed: int) -> bytes:
    """A JPEG file of 1600 x 1200 pixels: coarse noise enlarged, with a grain."""
    random = numpy.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 255, (30, 40, 3), dtype=numpy.uint8))
    large = numpy.asarray(coarse.resize((1600, 1200), Image.Resampling.BICUBIC)).astype(numpy.int16)
    grained = numpy.clip(large + random.integers(-12, 12, large.shape), 0, 255).astype(numpy.uint8)
    encoded = io.BytesIO()
    Image.fromarray(grained).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def photographs() -> list[str]:
    """80 paths of photographs, of which 8 differ."""
    paths = material.files("photographs", 8, photograph)
    return material.repeated(paths, 80)


@workload(
    photographs,
    "cpu-bound-releasing",
    because="Pillow releases the lock in the decoder and in resize, which is all there is",
)
def shrink(path: str) -> tuple[int, int]:
    """The darkest and brightest red of a photograph shrunk to 400 pixels."""
    with Image.open(path) as picture:
        small = picture.convert("RGB").resize((400, 300), Image.Resampling.LANCZOS)
    lowest_and_highest: tuple[int, int] = small.getextrema()[0]
    return lowest_and_highest


@workload(
    photographs,
    "cpu-bound-releasing",
    because="Pillow releases the lock in its filters; a blur of 12 pixels dwarfs the rest",
)
def soften(path: str) -> int:
    """The brightness in the middle of a blurred photograph."""
    with Image.open(path) as picture:
        soft = picture.convert("L").filter(ImageFilter.GaussianBlur(12))
    brightness: int = soft.getpixel((800, 600))
    return brightness


def charts() -> list[int]:
    """700 numbers of charts."""
    return list(range(700))


@workload(
    charts, "cpu-bound", because="4,000 short calls of ImageDraw, each mostly Python, lock held"
)
def draw_chart(number: int) -> int:
    """How many pixels a chart of 4,000 small strokes covers."""
    picture = Image.new("L", (640, 480))
    pen = ImageDraw.Draw(picture)
    for step in range(4000):
        left, top = (step * 37 + number) % 630, (step * 91) % 470
        pen.line((left, top, left + 6, top + 4), fill=255)
    return picture.histogram()[255]
