"""Makes a folder of photographs as cameras write them: large JPEG files, some of them lying on their side.

    python -m images photographs FOLDER --count 200 --size 4000x3000

The pictures are light over noise in octaves, with a sensor's grain, so that they decode as slowly as real ones. A few are
computed; the others are the same bytes under other names and with another orientation, which costs no time and is as much
work to develop.
"""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy
from PIL import Image

from images.errors import BatchError

SCENES = 6
ORIENTATIONS = (1, 1, 1, 6, 8, 3)  # of EXIF: most upright, some turned a quarter, a few upside down


def scene(number: int, width: int, height: int) -> bytes:
    """The scene `number` as a JPEG file without EXIF data."""
    chance = numpy.random.default_rng(number)
    light = numpy.zeros((height, width), numpy.float32)
    cells, strength = 4, 42.0
    while cells < max(width, height):
        coarse = chance.standard_normal((cells, cells)).astype(numpy.float32)
        octave = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
        light += strength * numpy.asarray(octave)
        cells, strength = cells * 3, strength * 0.55
    light += numpy.linspace(200, 70, height, dtype=numpy.float32)[:, None]
    colours = chance.uniform(0.7, 1.15, 3).astype(numpy.float32)
    grain = chance.uniform(3, 8)
    pixels = numpy.empty((height, width, 3), numpy.uint8)
    for channel in range(3):
        noise = grain * chance.standard_normal((height, width), dtype=numpy.float32)
        pixels[:, :, channel] = numpy.clip(light * colours[channel] + noise, 0, 255)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=92)
    return encoded.getvalue()


def oriented(jpeg: bytes, orientation: int) -> bytes:
    """The same file with an EXIF block that says how the camera was held (1 to 8)."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + b"\0\0\0\0"
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def make(folder: Path, count: int, width: int, height: int) -> list[Path]:
    """Makes `count` photographs in `folder`, those that are not there yet; returns all their paths.

    Raises:
        BatchError: the folder cannot be written.
    """
    scenes: dict[int, bytes] = {}
    paths = [folder / f"photograph-{number:05}.jpg" for number in range(count)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(paths):
            if path.exists():
                continue
            which = number % SCENES
            if which not in scenes:
                scenes[which] = scene(which, width, height)
            orientation = ORIENTATIONS[(number // SCENES) % len(ORIENTATIONS)]
            part = path.with_suffix(f".{os.getpid()}.part")
            part.write_bytes(oriented(scenes[which], orientation))
            part.replace(path)
    except OSError as error:
        raise BatchError(f"cannot write photographs to {folder}: {error.strerror}") from error
    return paths
