"""The batch of the demo: a camera's photograph becomes a sharpened thumbnail.

Pillow decodes, shrinks and encodes; NumPy sharpens. Nothing here knows about concurrency.
"""

from __future__ import annotations

import io

import numpy
from PIL import Image

LONG_SIDE = 640  # pixels
STRENGTH = 0.6  # how much of the fine detail is added once more
WEIGHTS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # a binomial blur, close to a Gaussian


def thumbnail(path: str) -> bytes:
    """The photograph at `path` as a JPEG file of at most 640 x 640 pixels, sharpened."""
    with Image.open(path) as photograph:
        photograph.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
        small = sharpen(numpy.asarray(photograph.convert("RGB")))
    encoded = io.BytesIO()
    Image.fromarray(small).save(encoded, "JPEG", quality=85)
    return encoded.getvalue()


def sharpen(pixels: numpy.ndarray) -> numpy.ndarray:
    """An unsharp mask: the picture plus what a blur takes away (height x width x 3, uint8)."""
    sharp = pixels.astype(numpy.float32)
    blurred = sharp
    for axis in (0, 1):
        blurred = sum(
            weight * numpy.roll(blurred, shift, axis)
            for shift, weight in zip((-2, -1, 0, 1, 2), WEIGHTS, strict=True)
        )
    sharp += STRENGTH * (sharp - blurred)
    return numpy.clip(sharp, 0, 255).astype(numpy.uint8)
