"""The demo's parts: photographs of a camera's size, thumbnails, a server that ends with its parent."""

from __future__ import annotations

import asyncio
import http.client
import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

DEMO = Path(__file__).resolve().parents[2] / "demo"
numpy = pytest.importorskip("numpy")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(autouse=True)
def demo_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DEMO))


@contextmanager
def server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The demo's server and its address; killed afterwards if it is still there."""
    process = subprocess.Popen(
        [sys.executable, str(DEMO / "server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


def test_a_photograph_is_a_camera_s_and_made_once(tmp_path: Path) -> None:
    import photographs

    [path] = photographs.make(tmp_path, 1)
    assert 2e6 < path.stat().st_size < 6e6
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("JPEG", (4000, 3000))
    made = path.stat().st_mtime_ns
    assert photographs.make(tmp_path, 1) == [path]
    assert path.stat().st_mtime_ns == made
    assert list(tmp_path.iterdir()) == [path]


def test_a_thumbnail_is_small_and_sharper(tmp_path: Path) -> None:
    import thumbnails

    edge = numpy.full((300, 400, 3), 60, numpy.uint8)
    edge[:, 200:] = 180
    path = tmp_path / "edge.png"
    Image.fromarray(edge).resize((2000, 1500)).save(path)
    with Image.open(io.BytesIO(thumbnails.thumbnail(str(path)))) as small:
        assert small.size == (640, 480)
    sharp = thumbnails.sharpen(edge)
    assert sharp.shape == edge.shape
    assert sharp.dtype == numpy.uint8
    assert sharp.max() > 180  # an unsharp mask overshoots at an edge,
    assert (sharp[:, 100] == 60).all()  # and leaves flat parts alone


def test_the_server_keeps_connections_and_ends_with_its_parent() -> None:
    with server() as (process, address):
        parts = urlsplit(address)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        for page in (1, 2):
            connection.request("GET", f"/page/{page}")
            answer = connection.getresponse()
            assert answer.status == 200
            assert f"<title>Page {page}</title>".encode() in answer.read()
        connection.request("GET", "/elsewhere")
        assert connection.getresponse().status == 404
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


def test_a_page_s_delay_belongs_to_the_page() -> None:
    import server as served

    delays = [served.delay_of(page) for page in range(2000)]
    assert delays == [served.delay_of(page) for page in range(2000)]
    assert sorted(delays)[1000] == pytest.approx(served.MEDIAN_S, rel=0.1)
    slow = sum(delay > served.SLOW_EXTRA_S[0] for delay in delays)
    assert slow / 2000 == pytest.approx(served.SLOW_SHARE, rel=0.5)


def test_fetch_has_a_client_for_each_loop_and_closes_it() -> None:
    pytest.importorskip("aiohttp")
    import fetch

    async def crawl(address: str) -> list[tuple[int, str]]:
        urls = [f"{address}/page/{page}" for page in range(4)]
        pages = await asyncio.gather(*[fetch.fetch(url) for url in urls])
        assert len(fetch._sessions) == 1
        return pages

    with server() as (_process, address):
        for _loop in range(2):
            pages = asyncio.run(crawl(address))
            assert [title for _length, title in pages] == [f"Page {page}" for page in range(4)]
            assert not fetch._sessions
