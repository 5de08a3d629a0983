"""Makes the demo's folder of photographs: JPEG files of a camera's size, made once, in parallel.

The pictures are synthetic but behave as photographs do: smooth light over a landscape of fractal
noise, sharp edges, and a sensor's grain, so that a file takes 2 to 5 MB and decodes at the usual
speed. A few scenes are computed; each photograph is a crop of one, with its own light and colour.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

import numpy
from PIL import Image

WIDTH, HEIGHT = 4000, 3000  # 12 megapixels
MARGIN = 400  # how far a crop can wander over its scene
SCENES = 6
QUALITY = 93


def fractal(random: numpy.random.Generator, width: int, height: int) -> numpy.ndarray:
    """Noise in octaves, each twice as fine and 0.6 times as strong: float32, mean 0."""
    total = numpy.zeros((height, width), numpy.float32)
    cells, strength = 4, 1.0
    while cells < width:
        coarse = random.standard_normal((cells * 3 // 4 + 1, cells + 1)).astype(numpy.float32)
        octave = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        total += strength * numpy.asarray(octave)
        cells, strength = cells * 2, strength * 0.6
    return total


@lru_cache(maxsize=1)
def scene(number: int) -> Image.Image:
    """The scene `number`: sky over hills, each with a texture and a colour of its own."""
    random = numpy.random.default_rng(number)
    width, height = WIDTH + MARGIN, HEIGHT + MARGIN
    ground = fractal(random, width, height)
    rows = numpy.linspace(0, 1, height, dtype=numpy.float32)[:, None]
    light = numpy.clip(90 + 110 * (1 - rows) + 22 * ground, 0, 255)
    # Hills: everything below a wavering horizon is darker and rougher.
    horizon = 0.35 + 0.2 * random.random() + 0.03 * ground[height // 2]
    below = rows > horizon[None, :]
    light = numpy.where(below, 0.45 * light + 30 * numpy.abs(ground), light)
    sensor = random.uniform(4.0, 10.0)  # grain, in grey levels: a dim scene has more
    tint = random.uniform(0.7, 1.1, (2, 3)).astype(numpy.float32)
    picture = numpy.empty((height, width, 3), numpy.uint8)
    for channel in range(3):
        colour = numpy.where(below, tint[0, channel], tint[1, channel])
        grain = random.standard_normal((height, width), dtype=numpy.float32)
        picture[:, :, channel] = numpy.clip(light * colour + sensor * grain, 0, 255)
    return Image.fromarray(picture)


def photograph(folder: Path, number: int) -> None:
    """Writes photograph `number` unless it is there; a file appears whole or not at all."""
    path = folder / f"photograph-{number:04}.jpg"
    if path.exists():
        return
    random = numpy.random.default_rng(1_000_000 + number)
    left, top = (int(random.integers(0, MARGIN)) for _ in range(2))
    picture = scene(number % SCENES).crop((left, top, left + WIDTH, top + HEIGHT))
    if random.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    levels = numpy.arange(256) / 255
    tones: list[int] = []
    for _channel in range(3):
        gamma, gain = random.uniform(0.8, 1.25), random.uniform(0.85, 1.1)
        tones += numpy.clip(255 * gain * levels**gamma, 0, 255).astype(int).tolist()
    partial_path = path.with_suffix(f".{os.getpid()}.part")
    picture.point(tones).save(partial_path, "JPEG", quality=QUALITY)
    partial_path.replace(path)


def make(folder: Path, count: int) -> list[Path]:
    """Makes photographs 0 to `count` - 1 in `folder`, says so on stderr, and returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("*.part"):
        leftover.unlink()
    paths = [folder / f"photograph-{number:04}.jpg" for number in range(count)]
    # Photographs of one scene follow each other, so that a worker computes each scene once.
    wanted = [number for number in range(count) if not paths[number].exists()]
    wanted.sort(key=lambda number: number % SCENES)
    if wanted:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        with ProcessPoolExecutor(workers) as pool:
            done = pool.map(partial(photograph, folder), wanted, chunksize=10)
            for made, _nothing in enumerate(done, start=1):
                if made % 40 == 0 or made == len(wanted):
                    print(f"  made {made} of {len(wanted)} photographs", file=sys.stderr)
    return paths
