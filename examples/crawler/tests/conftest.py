"""Fixtures of the crawler's tests: a small site, a store in a file, a store in a real PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path

import pytest

from crawler.site import Site
from crawler.store import Store, open_store
from crawler.trial import running_site


def postgres_program(name: str) -> str | None:
    """The path of one of PostgreSQL's programs; Debian keeps them off the PATH."""
    return shutil.which(name) or next(iter(sorted(glob(f"/usr/lib/postgresql/*/bin/{name}"))), None)


class Postgres:
    """A server of its own in a folder, on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # The server refuses to run as root; Debian's package makes a user for it.
        self.user = "postgres" if os.geteuid() == 0 else None
        self.take(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._call("initdb", "-A", "trust", "-U", "crawler", "-D", str(folder / "data"))
        self.start()

    def take(self, folder: Path) -> None:
        """Gives the folder to the user that the server runs as."""
        if self.user is not None:
            entry = pwd.getpwnam(self.user)
            os.chown(folder, entry.pw_uid, entry.pw_gid)

    def _call(self, name: str, *arguments: str) -> None:
        program = postgres_program(name)
        assert program is not None
        # Into a file: the server would hold a pipe open for as long as it lives.
        with (self.folder / "said").open("a+") as said:
            done = subprocess.run(
                [program, *arguments],
                user=self.user,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                check=False,
            )
            said.seek(0)
            assert done.returncode == 0, said.read()

    def start(self) -> None:
        """Starts the server and waits until it takes connections."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c fsync=off"
        log = str(self.folder / "log")
        self._call(
            "pg_ctl", "-w", "-D", str(self.folder / "data"), "-l", log, "-o", options, "start"
        )

    def stop(self) -> None:
        """Stops the server at once; its clients lose their connections."""
        self._call("pg_ctl", "-w", "-D", str(self.folder / "data"), "-m", "fast", "stop")

    @property
    def dsn(self) -> str:
        """How to reach it."""
        return f"postgresql://crawler@127.0.0.1:{self.port}/postgres"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL; the test is skipped where there is none."""
    if postgres_program("initdb") is None or postgres_program("pg_ctl") is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    pytest.importorskip("psycopg")
    # Not in pytest's own folder, which is closed to the user that the server runs as.
    with tempfile.TemporaryDirectory(prefix="crawler-postgres-") as folder:
        server = Postgres(Path(folder))
        try:
            yield server
        finally:
            server.stop()


OpenStore = Callable[[], Store]


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where an empty store is: a file, then a PostgreSQL database."""
    if request.param == "sqlite":
        yield str(tmp_path / "crawl.sqlite")
        return
    server: Postgres = request.getfixturevalue("postgres")
    store = open_store(server.dsn)
    store._run("DROP TABLE pages, links, hosts")
    store.close()
    yield server.dsn


@pytest.fixture
def store(place: str) -> Iterator[Store]:
    """An open, empty store of either kind."""
    opened = open_store(place)
    yield opened
    opened.close()


# Every page ends, so that no deadline need be near and a slow machine makes no difference.
SMALL = Site(hosts=4, pages=120, seed=3, endless=False)


@pytest.fixture
def small_site() -> Iterator[str]:
    """The address of the first page of a running site of the size `SMALL`."""
    options = ("--hosts", "4", "--pages", "120", "--seed", "3", "--port", "0", "--no-endless")
    with running_site(*options) as address:
        yield address
