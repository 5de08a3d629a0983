"""The store over SQLite and over PostgreSQL: one contract, and what each says when it fails."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crawler import store as stores
from crawler.errors import StoreError
from crawler.store import Finished, Postponed, Store, open_store
from crawler.trial import FOLDER
from crawler.visiting import Visit
from tests.conftest import Postgres

A, B, C = "http://one/a", "http://one/b", "http://two/c"
PAGE = Visit("stored", 200, title="A", text="words", links=(B, C), size=10, seconds=0.1)


def test_a_page_and_what_follows_are_written_together(store: Store) -> None:
    store.add([A, A])
    assert store.record([Finished(A, 0, PAGE, (B, C))]) == 0
    assert store.counts() == {"stored": 1, "waiting": 2, "links": 2}
    assert store.waiting_hosts() == ["http://one", "http://two"]
    [waiting] = store.waiting("http://one", 10)
    assert (waiting.address, waiting.depth, waiting.attempts) == (B, 1, 0)
    assert store.stored() == {A}


def test_a_finished_page_is_never_changed(store: Store) -> None:
    store.add([A])
    store.record([Finished(A, 0, PAGE)])
    other = PAGE._replace(title="other", links=(A,))
    assert store.record([Finished(A, 0, other, (C,))], [Postponed(A, 3, 9.0, "late", True)]) == 1
    store.add([A])
    assert store.counts() == {"stored": 1, "links": 2}
    assert store._read("SELECT title, attempts FROM pages") == [("A", 1)]


def test_a_batch_that_fails_leaves_nothing(store: Store) -> None:
    store.add([A, B])
    broken = PAGE._replace(state="no such state")
    with pytest.raises(StoreError):
        store.record([Finished(A, 0, PAGE, (C,)), Finished(B, 0, broken)])
    assert store.counts() == {"waiting": 2, "links": 0}
    assert store.record([Finished(A, 0, PAGE)]) == 0


def test_a_page_that_is_put_off_waits_and_one_given_up_does_not(store: Store) -> None:
    store.add([A, B])
    store.record([], [Postponed(A, 1, 2e9, "503", False), Postponed(B, 5, 0, "no answer", True)])
    [waiting] = store.waiting("http://one", 10)
    assert (waiting.address, waiting.attempts, waiting.due) == (A, 1, 2e9)
    assert store.failures() == [(B, "no answer")]


def test_robots_are_remembered(store: Store) -> None:
    store.keep_robots("http://one", "User-agent: *")
    store.keep_robots("http://one", "")
    assert store.robots()["http://one"][0] == ""


def test_a_second_crawl_is_refused_and_a_reader_is_not(
    place: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "PATIENCE_S", 0.05)
    store.add([A])
    with pytest.raises(StoreError, match="another crawl"):
        open_store(place)
    reader = open_store(place, crawling=False)
    assert reader.counts() == {"waiting": 1, "links": 0}
    reader.close()


def test_what_was_written_is_there_after_the_end(place: str) -> None:
    for expected in (0, 1):
        store = open_store(place)
        assert len(store.waiting("http://one", 10)) == expected
        store.add([A])
        store.close()


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        (
            "postgresql://me:secret@127.0.0.1:1/db",
            "cannot connect to postgresql://me:…@127.0.0.1:1/db",
        ),
        ("postgresql://me:secret@no host/db", "cannot connect"),
        ("mysql://me:secret@host/db", "no store mysql://me:…@host/db"),
    ],
)
def test_a_wrong_dsn_is_named_without_its_password(dsn: str, said: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match=said.replace("…", ".")) as caught:
        open_store(dsn)
    assert caught.value.hint
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_a_database_that_does_not_exist_is_named(postgres: Postgres) -> None:
    with pytest.raises(StoreError, match='database "nowhere" does not exist'):
        open_store(postgres.dsn.replace("/postgres", "/nowhere"))


def test_a_server_that_goes_away_is_an_error_and_the_store_goes_on_later(
    postgres: Postgres,
) -> None:
    store = open_store(postgres.dsn)
    store._run("TRUNCATE pages, links, hosts")
    store.add([A])
    postgres.stop()
    try:
        with pytest.raises(StoreError) as caught:
            store.record([Finished(A, 0, PAGE)])
        assert "goes on" in caught.value.hint
        store.close()
    finally:
        postgres.start()
    again = open_store(postgres.dsn)
    assert again.counts() == {"waiting": 1, "links": 0}
    again.close()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "nowhere" / "crawl.sqlite", tmp_path / "file" / "x", tmp_path):
        with pytest.raises(StoreError, match="cannot open"):
            open_store(str(place))
    with pytest.raises(StoreError, match="there is no crawl"):
        open_store(str(tmp_path / "missing.sqlite"), crawling=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_another_kind_of_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("These are notes, not a database. " * 40)
    with pytest.raises(StoreError, match="not a database"):
        open_store(str(path))
    assert path.read_text() == "These are notes, not a database. " * 40


def test_a_locked_database_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PATIENCE_S", 0.05)
    store = open_store(str(tmp_path / "crawl.sqlite"))
    store.add([A])
    other = sqlite3.connect(tmp_path / "crawl.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked") as caught:
        store.record([Finished(A, 0, PAGE)])
    assert "another program" in caught.value.hint
    other.execute("ROLLBACK")
    other.close()
    assert store.counts() == {"waiting": 1, "links": 0}
    assert store.record([Finished(A, 0, PAGE)]) == 0
    store.close()


def test_a_locked_table_is_an_error(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    psycopg = pytest.importorskip("psycopg")
    monkeypatch.setattr(stores, "PATIENCE_S", 0.05)
    with contextlib.closing(open_store(postgres.dsn)) as store:
        store._run("TRUNCATE pages, links, hosts")
        store.add([A])
        with psycopg.connect(postgres.dsn) as other:
            other.execute("LOCK TABLE links IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(StoreError, match="lock timeout") as caught:
                store.record([Finished(A, 0, PAGE)])
            other.rollback()
        assert "another program" in caught.value.hint
        assert store.counts() == {"waiting": 1, "links": 0}
        assert store.record([Finished(A, 0, PAGE)]) == 0


@pytest.mark.parametrize("rights", [0o000, 0o500])
def test_a_folder_that_may_not_be_used_is_named(tmp_path: Path, rights: int) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    command = [sys.executable, "-m", "crawler", "crawl", "http://127.0.0.1:1/"]
    command += ["--store", str(closed / "crawl.sqlite")]
    if os.geteuid() == 0:
        # Root may use every folder, unless it gives that up.
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("these tests run as root, and there is no setpriv to give up its rights")
        lost = "-dac_override,-dac_read_search"
        command = [setpriv, f"--bounding-set={lost}", f"--inh-caps={lost}", *command]
    closed.chmod(rights)
    try:
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    finally:
        closed.chmod(0o700)
    said = f"error: cannot open {closed / 'crawl.sqlite'}: Permission denied\nhint: name a file"
    assert done.stderr.startswith(said), done.stderr
    assert done.returncode == 1
    assert not list(closed.iterdir())


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mounts a tmpfs of this size on the folder; skips the test where that is not allowed."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        # Lazily: a store that a failed test left open would hold it.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_stops_the_crawl_and_loses_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "2M"):
        store = open_store(str(disk / "crawl.sqlite"))
        pages = [f"http://one/{number}" for number in range(200)]
        store.add(pages)
        written = 0  # pages, each 40 kB
        texts = (PAGE._replace(text=os.urandom(20_000).hex()) for _page in pages)
        with pytest.raises(StoreError, match=r"full|disk I/O") as caught:  # noqa: PT012
            for page, visit in zip(pages, texts, strict=True):
                store.record([Finished(page, 0, visit)])
                written += 1
        assert "make room" in caught.value.hint
        assert 0 < written < 200
        store.close()
        subprocess.run(["mount", "-o", "remount,size=64M", str(disk)], check=True)
        store = open_store(str(disk / "crawl.sqlite"))
        counts = store.counts()
        assert (counts["stored"], counts["waiting"]) == (written, 200 - written)
        assert store._read("PRAGMA integrity_check") == [("ok",)]
        assert store.record([Finished(pages[written], 0, PAGE)]) == 0
        store.close()


def test_a_server_whose_disk_is_full_stops_the_crawl_and_loses_nothing(postgres: Postgres) -> None:
    pytest.importorskip("psycopg")
    disk = postgres.folder / "disk"
    with small_disk(disk, "3M"):
        postgres.take(disk)
        with contextlib.closing(open_store(postgres.dsn)) as store:
            store._run("DROP TABLE pages, links, hosts")
            store._run(f"CREATE TABLESPACE small LOCATION '{disk}'")
        try:
            dsn = f"{postgres.dsn}?options=-c%20default_tablespace%3Dsmall"
            with contextlib.closing(open_store(dsn)) as store:
                pages = [f"http://one/{number}" for number in range(200)]
                store.add(pages)
                written = 0  # pages, each 40 kB that cannot be compressed much
                texts = (PAGE._replace(text=os.urandom(20_000).hex()) for _page in pages)
                with pytest.raises(StoreError, match="No space left") as caught:  # noqa: PT012
                    for page, visit in zip(pages, texts, strict=True):
                        store.record([Finished(page, 0, visit)])
                        written += 1
                assert "make room on the server's disk" in caught.value.hint
                assert 0 < written < 200
            subprocess.run(["mount", "-o", "remount,size=64M", str(disk)], check=True)
            with contextlib.closing(open_store(dsn)) as store:
                counts = store.counts()
                assert (counts["stored"], counts["waiting"]) == (written, 200 - written)
                assert store.record([Finished(pages[written], 0, PAGE)]) == 0
        finally:
            with contextlib.closing(open_store(postgres.dsn, crawling=False)) as store:
                store._run("DROP TABLE pages, links, hosts")
                store._run("DROP TABLESPACE small")
            # The tables of the other tests are where they were.
            open_store(postgres.dsn).close()
