"""Developing: one photograph becomes a picture for the screen and a thumbnail. This is what the workers run.

    decode ─► orient ─► resize ─► unsharp mask ─► tone curve ─► WebP + thumbnail, both under their final names

Pillow does the pixels' work and gives up the interpreter lock for it; the tone curve is NumPy's.

*Guarantees*: a picture appears whole or not at all, the thumbnail before the picture, so a picture that is there is
complete. What is wrong with a file is `Damaged`; what is wrong with the place to write to is an `OSError`.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy
from PIL import Image, ImageFilter, ImageOps

from images.errors import Damaged

LUMA = numpy.array([0.2126, 0.7152, 0.0722], numpy.float32)  # Rec. 709
STRIP = 256  # rows that the tone curve works on at a time: its floats stay small
FORMATS = ("JPEG",)  # whatever a file's name says, no other reader is let at it
LARGEST = 300_000_000  # pixels; more is taken for an attack, as Pillow does at a lower number


class Settings(NamedTuple):
    """How to develop. Sides in pixels; they are of the longer side."""

    side: int = 1600
    thumbnail_side: int = 192
    quality: int = 82
    contrast: float = 0.35  # of the tone curve; 0 leaves the tones as they are


class Developed(NamedTuple):
    """What became of a photograph."""

    width: int
    height: int
    size: int  # bytes of the picture's file
    seconds: float


DEFAULTS = Settings()


def develop(
    source: Path, picture: Path, thumbnail: Path, settings: Settings = DEFAULTS
) -> Developed:
    """Develops the photograph `source` into the WebP files `picture` and `thumbnail`, whose folders exist.

    Raises:
        Damaged: the photograph cannot be read.
        OSError: the files cannot be written; neither is there then.
    """
    began = time.perf_counter()
    developed, profile = read(source, settings)
    small = developed.copy()
    small.thumbnail((settings.thumbnail_side, settings.thumbnail_side), Image.Resampling.LANCZOS)
    keep = {"icc_profile": profile} if profile else {}
    write(small, thumbnail, {"quality": 75})
    size = write(developed, picture, {"quality": settings.quality, **keep})
    return Developed(developed.width, developed.height, size, time.perf_counter() - began)


def read(source: Path, settings: Settings) -> tuple[Image.Image, bytes | None]:
    """The developed picture in memory, and its colour profile."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF data, palettes with transparency
            with Image.open(source, formats=FORMATS) as photograph:
                if photograph.width * photograph.height > LARGEST:
                    raise Damaged(f"{photograph.width} x {photograph.height} pixels")
                profile = photograph.info.get("icc_profile")
                # A JPEG can be decoded at a half, a quarter or an eighth of its size: never below what is needed.
                ratio = settings.side / max(photograph.size)
                wanted = [math.ceil(length * ratio) for length in photograph.size]
                photograph.draft("RGB", (wanted[0], wanted[1]))
                upright = ImageOps.exif_transpose(photograph)
                if upright.mode != "RGB":
                    upright, profile = upright.convert("RGB"), None
                upright.thumbnail((settings.side, settings.side), Image.Resampling.LANCZOS)
    except MemoryError as error:
        raise Damaged("it needs more memory than a worker may use") from error
    except Image.DecompressionBombError as error:
        raise Damaged(str(error)) from error
    except OSError as error:
        raise Damaged(error.strerror or str(error)) from error
    except (ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError) as error:
        # What Pillow's readers raise for a file that ends early or lies about itself.
        raise Damaged(f"{type(error).__name__}: {error}") from error
    sharp = upright.filter(ImageFilter.UnsharpMask(radius=1.2, percent=80, threshold=2))
    return Image.fromarray(toned(numpy.asarray(sharp), settings.contrast)), profile


def toned(pixels: numpy.ndarray, contrast: float) -> numpy.ndarray:
    """The pixels (height x width x 3, uint8) with an S-shaped curve over their luminance; colours keep their hue."""
    result = numpy.empty_like(pixels)
    for top in range(0, pixels.shape[0], STRIP):
        strip = pixels[top : top + STRIP].astype(numpy.float32)
        strip /= 255
        luminance = strip @ LUMA
        # x + c x (1 - x) (2 x - 1) is 0, 1/2 and 1 where x is, steeper between, and rises for c below 2.
        lifted = luminance + contrast * luminance * (1 - luminance) * (2 * luminance - 1)
        gain = lifted / numpy.maximum(luminance, 1 / 512)
        strip *= gain[:, :, None]
        strip *= 255
        strip += 0.5
        numpy.clip(strip, 0, 255, out=strip)
        result[top : top + STRIP] = strip
    return result


def write(picture: Image.Image, path: Path, options: dict[str, object]) -> int:
    """Writes a WebP file, whole or not at all; returns its bytes."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        picture.save(part, "WEBP", method=4, **options)
        size = part.stat().st_size
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return size
