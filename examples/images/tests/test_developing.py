"""One photograph: orientation, size, tones, colour, damage, writing."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy
import pytest
from PIL import Image

from images import developing
from images.developing import Settings, develop, read, toned
from images.errors import Damaged
from images.photographs import make, oriented, scene

PLAIN = Settings(side=80, thumbnail_side=20, contrast=0)


def halves(size: tuple[int, int] = (160, 80)) -> bytes:
    """A JPEG whose left half is red and whose right half is blue."""
    picture = Image.new("RGB", size, (200, 30, 30))
    picture.paste((30, 30, 200), (size[0] // 2, 0, *size))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=95)
    return encoded.getvalue()


def reddest(picture: Image.Image) -> str:
    """The side of a picture that is red."""
    width, height = picture.size
    sides = {
        "left": (2, height // 2),
        "right": (width - 3, height // 2),
        "top": (width // 2, 2),
        "bottom": (width // 2, height - 3),
    }
    red = {name: picture.getpixel(place) for name, place in sides.items()}
    return max(red, key=lambda name: int(red[name][0]) - int(red[name][2]))


@pytest.mark.parametrize(
    ("orientation", "side", "size"),
    [(1, "left", (80, 40)), (3, "right", (80, 40)), (6, "top", (40, 80)), (8, "bottom", (40, 80))],
)
def test_a_photograph_is_turned_upright(
    tmp_path: Path, orientation: int, side: str, size: tuple[int, int]
) -> None:
    source = tmp_path / "photograph.jpg"
    source.write_bytes(oriented(halves(), orientation))
    outcome = develop(source, tmp_path / "picture.webp", tmp_path / "thumbnail.webp", PLAIN)
    assert (outcome.width, outcome.height) == size
    for name, longest in (("picture", 80), ("thumbnail", 20)):
        with Image.open(tmp_path / f"{name}.webp") as picture:
            assert picture.format == "WEBP"
            assert max(picture.size) == longest
            assert reddest(picture.convert("RGB")) == side
    assert outcome.size == (tmp_path / "picture.webp").stat().st_size


@pytest.mark.parametrize(
    "size", [(4000, 3000), (3000, 4000), (1601, 1200), (1600, 900), (300, 200)]
)
def test_a_picture_has_the_size_that_was_asked_and_is_not_enlarged(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    source = tmp_path / "photograph.jpg"
    Image.new("RGB", size, "olive").save(source, "JPEG")
    picture, _profile = read(source, Settings())
    assert max(picture.size) == min(1600, max(size))
    assert picture.width / picture.height == pytest.approx(size[0] / size[1], rel=0.002)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_become_rgb(tmp_path: Path, mode: str) -> None:
    source = tmp_path / "photograph.jpg"
    Image.new(mode, (50, 40)).save(source, "JPEG")
    picture, _profile = read(source, PLAIN)
    assert picture.mode == "RGB"


def test_a_colour_profile_is_kept(tmp_path: Path) -> None:
    source = tmp_path / "photograph.jpg"
    Image.new("RGB", (50, 40)).save(source, "JPEG", icc_profile=b"a profile")
    develop(source, tmp_path / "picture.webp", tmp_path / "thumbnail.webp", PLAIN)
    with Image.open(tmp_path / "picture.webp") as picture:
        assert picture.info["icc_profile"] == b"a profile"


def test_the_tone_curve_keeps_black_white_and_grey_and_rises() -> None:
    greys = numpy.repeat(numpy.arange(256, dtype=numpy.uint8)[:, None, None], 3, axis=2)
    curved = toned(greys, 0.35)[:, 0, 0].astype(int)
    assert (curved[0], curved[255]) == (0, 255)
    assert abs(curved[128] - 128) <= 1
    assert (numpy.diff(curved) >= 0).all()
    assert curved[64] < 64 - 5
    assert curved[192] > 192 + 5
    assert (toned(greys, 0)[:, 0, 0] == greys[:, 0, 0]).all()


def test_the_tone_curve_keeps_the_hue() -> None:
    colour = numpy.full((1, 1, 3), (60, 90, 30), numpy.uint8)
    red, green, blue = toned(colour, 0.35)[0, 0].astype(float)
    assert green / red == pytest.approx(90 / 60, rel=0.05)
    assert green / blue == pytest.approx(90 / 30, rel=0.08)


def test_strips_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = numpy.random.default_rng(7)
    pixels = chance.integers(0, 256, (100, 30, 3), numpy.uint8)
    whole = toned(pixels, 0.35)
    monkeypatch.setattr(developing, "STRIP", 7)
    assert (toned(pixels, 0.35) == whole).all()


def bomb() -> bytes:
    """A JPEG file that promises 60,000 x 60,000 pixels."""
    whole = halves()
    frame = whole.index(b"\xff\xc0") + 5  # past marker, length and precision
    return whole[:frame] + struct.pack(">HH", 60_000, 60_000) + whole[frame + 4 :]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot identify"),
        (b"This is no photograph.", "cannot identify"),
        (halves()[:-400], "(?i)truncated"),
        (halves()[:300], "."),
        (b"\xff\xd8\xff\xe0" + b"\0" * 40, "."),
        (bomb(), "pixels"),
        (None, "No such file"),
    ],
    ids=["empty", "text", "cut", "cut early", "zeros", "bomb", "missing"],
)
def test_a_damaged_file_is_damaged_and_leaves_nothing(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    source = tmp_path / "photograph.jpg"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(Damaged, match=said):
        develop(source, tmp_path / "picture.webp", tmp_path / "thumbnail.webp", PLAIN)
    assert [path.name for path in tmp_path.iterdir() if path != source] == []


def test_a_folder_is_not_a_photograph(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="Is a directory"):
        read(tmp_path, PLAIN)


def test_what_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "photograph.jpg"
    source.write_bytes(halves())
    (tmp_path / "out").mkdir()
    with pytest.raises(FileNotFoundError):
        develop(source, tmp_path / "nowhere" / "p.webp", tmp_path / "out" / "t.webp", PLAIN)
    with pytest.raises(OSError):
        develop(source, Path("/dev/full/p.webp"), tmp_path / "out" / "t.webp", PLAIN)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["t.webp"]


def test_photographs_are_made_once_and_are_a_camera_s(tmp_path: Path) -> None:
    paths = make(tmp_path, 40, 64, 48)
    times = [path.stat().st_mtime_ns for path in paths]
    assert [path.stat().st_mtime_ns for path in make(tmp_path, 40, 64, 48)] == times
    orientations = set()
    for path in paths:
        with Image.open(path) as photograph:
            assert (photograph.format, photograph.size) == ("JPEG", (64, 48))
            orientations.add(photograph.getexif()[0x0112])
    assert orientations == {1, 3, 6, 8}
    assert scene(3, 64, 48) == scene(3, 64, 48) != scene(4, 64, 48)
