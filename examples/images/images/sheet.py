"""Contact sheets: the thumbnails of a batch in rows, a file for each 120 of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

COLUMNS, ROWS = 12, 10
CELL, CAPTION, GAP = 160, 16, 8  # pixels
PAPER, INK = (250, 249, 246), (70, 66, 60)


def sheets(thumbnails: Sequence[Path]) -> list[Sequence[Path]]:
    """The thumbnails of each sheet."""
    size = COLUMNS * ROWS
    return [thumbnails[first : first + size] for first in range(0, len(thumbnails), size)]


def make_sheet(path: Path, thumbnails: Sequence[Path]) -> Path:
    """Writes a contact sheet as a JPEG file, whole or not at all. Raises OSError."""
    rows = -(-len(thumbnails) // COLUMNS)
    columns = min(COLUMNS, len(thumbnails))
    width, height = GAP + columns * (CELL + GAP), GAP + rows * (CELL + CAPTION + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, thumbnail in enumerate(thumbnails):
        left = GAP + place % COLUMNS * (CELL + GAP)
        top = GAP + place // COLUMNS * (CELL + CAPTION + GAP)
        with Image.open(thumbnail) as picture:
            picture.thumbnail((CELL, CELL))
            offset = (CELL - picture.width) // 2, (CELL - picture.height) // 2
            sheet.paste(picture, (left + offset[0], top + offset[1]))
        name = thumbnail.name.removesuffix(".webp")
        # A caption that does not fit keeps its end: names of one camera differ there.
        while draw.textlength(name) > CELL:
            name = "…" + name.removeprefix("…")[1:]
        draw.text((left + CELL / 2, top + CELL + 2), name, fill=INK, anchor="ma")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        sheet.save(part, "JPEG", quality=88)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return path
