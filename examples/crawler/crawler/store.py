"""The store: pages, links and the queue of a crawl, in SQLite or PostgreSQL.

*Guarantees*: a page and all that follows from it (its links, the addresses they add to the queue) are written in one
transaction, so a crawl that is killed leaves each address either waiting or finished. A finished address is never
changed: an outcome for it is counted as a repeat and dropped.
*Assumes*: one crawl at a time; a second one is refused by a lock that ends with its process.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from crawler.addresses import host_of
from crawler.errors import StoreError
from crawler.visiting import Visit

PATIENCE_S = 5.0  # how long another program may hold a lock that is needed
HELD_HINT = (
    f"another program has held it for {PATIENCE_S:g} s; close that and run this again, it goes on"
)
ADVISORY_LOCK = 0x7265_6164  # PostgreSQL's name for "a crawl uses this database"

# Text and double precision exist in both; SQLite reads `double precision` as REAL.
SCHEMA = """
CREATE TABLE IF NOT EXISTS hosts (
    host text PRIMARY KEY,
    robots text NOT NULL,
    read_at double precision NOT NULL
);
CREATE TABLE IF NOT EXISTS pages (
    address text PRIMARY KEY,
    host text NOT NULL,
    state text NOT NULL CHECK (state IN ('waiting', 'stored', 'redirected', 'refused', 'failed')),
    depth integer NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    due double precision NOT NULL DEFAULT 0,
    status integer,
    reason text,
    target text,
    title text,
    text text,
    size integer,
    seconds double precision,
    finished_at double precision
);
CREATE INDEX IF NOT EXISTS pages_waiting ON pages (host, due) WHERE state = 'waiting';
CREATE TABLE IF NOT EXISTS links (
    source text NOT NULL,
    target text NOT NULL,
    PRIMARY KEY (source, target)
);
"""


class Waiting(NamedTuple):
    """An address that is to be visited. `due` is a time of the wall clock, seconds since 1970."""

    address: str
    depth: int
    attempts: int
    due: float


class Finished(NamedTuple):
    """A visit's outcome, and the addresses that it adds to the queue at `depth` + 1."""

    address: str
    depth: int
    visit: Visit
    follow: Sequence[str] = ()


class Postponed(NamedTuple):
    """A visit that is to be tried again at `due`, or is given up (`failed`)."""

    address: str
    attempts: int
    due: float
    reason: str
    failed: bool


class Store:
    """A crawl's database; made by :func:`open_store`. Used by one thread."""

    place = "the database"

    def add(self, addresses: Iterable[str], depth: int = 0) -> None:
        """Puts addresses into the queue, those that are new."""
        with self._transaction():
            self._add((address, depth) for address in addresses)

    def record(self, finished: Sequence[Finished], postponed: Sequence[Postponed] = ()) -> int:
        """Writes outcomes, all or none; returns how many were for addresses that had one already."""
        now = time.time()
        with self._transaction():
            waiting = self._still_waiting([page.address for page in finished])
            fresh: dict[str, Finished] = {}
            for page in finished:
                if page.address in waiting:
                    fresh.setdefault(page.address, page)
            # Few statements of many rows each: with PostgreSQL they are one exchange each.
            self._run_many(
                "UPDATE pages SET state = ?, status = ?, reason = ?, target = ?, title = ?, text = ?,"
                " size = ?, seconds = ?, finished_at = ?, attempts = attempts + 1 WHERE address = ?",
                [
                    # The first six fields of a visit are in the order of the columns.
                    (*page.visit[:6], page.visit.size, page.visit.seconds, now, page.address)
                    for page in fresh.values()
                ],
            )
            self._run_many(
                "INSERT INTO links (source, target) VALUES (?, ?) ON CONFLICT DO NOTHING",
                [(page.address, link) for page in fresh.values() for link in page.visit.links],
            )
            self._add((link, page.depth + 1) for page in fresh.values() for link in page.follow)
            ending = {True: ("failed", now), False: ("waiting", None)}
            self._run_many(
                "UPDATE pages SET attempts = ?, due = ?, reason = ?, state = ?, finished_at = ?"
                " WHERE address = ? AND state = 'waiting'",
                [
                    (one.attempts, one.due, one.reason, *ending[one.failed], one.address)
                    for one in postponed
                ],
            )
        return len(finished) - len(fresh)

    def _still_waiting(self, addresses: Sequence[str]) -> set[str]:
        """Those of the addresses that have no outcome yet; inside a transaction."""
        found: set[str] = set()
        for first in range(
            0, len(addresses), 500
        ):  # SQLite takes 999 values in a statement, at least
            part = addresses[first : first + 500]
            places = ", ".join("?" * len(part))
            query = f"SELECT address FROM pages WHERE state = 'waiting' AND address IN ({places})"
            found.update(row[0] for row in self._run(query, part).fetchall())
        return found

    def waiting(self, host: str, limit: int) -> list[Waiting]:
        """The first `limit` addresses of a host that are to be visited, those due first."""
        rows = self._read(
            "SELECT address, depth, attempts, due FROM pages WHERE host = ? AND state = 'waiting'"
            " ORDER BY due, depth, address LIMIT ?",
            (host, limit),
        )
        return [Waiting(*row) for row in rows]

    def waiting_hosts(self) -> list[str]:
        """The hosts with addresses that are to be visited."""
        rows = self._read("SELECT DISTINCT host FROM pages WHERE state = 'waiting' ORDER BY host")
        return [row[0] for row in rows]

    def robots(self) -> dict[str, tuple[str, float]]:
        """The robots.txt of each host that was asked, and when that was (wall clock)."""
        rows = self._read("SELECT host, robots, read_at FROM hosts")
        return {host: (text, read_at) for host, text, read_at in rows}

    def keep_robots(self, host: str, text: str) -> None:
        """Remembers a host's robots.txt."""
        with self._transaction():
            self._run(
                "INSERT INTO hosts (host, robots, read_at) VALUES (?, ?, ?)"
                " ON CONFLICT (host) DO UPDATE SET robots = excluded.robots, read_at = excluded.read_at",
                (host, text, time.time()),
            )

    def counts(self) -> dict[str, int]:
        """Addresses by state, and `links`."""
        counts = dict(self._read("SELECT state, count(*) FROM pages GROUP BY state"))
        counts["links"] = self._read("SELECT count(*) FROM links")[0][0]
        return counts

    def failures(self, limit: int = 10) -> list[tuple[str, str]]:
        """Some addresses that were given up, and why."""
        return self._read(
            "SELECT address, reason FROM pages WHERE state = 'failed' ORDER BY address LIMIT ?",
            (limit,),
        )

    def stored(self) -> set[str]:
        """The addresses of all stored pages."""
        return {row[0] for row in self._read("SELECT address FROM pages WHERE state = 'stored'")}

    def close(self) -> None:
        """Ends the connection and lets another crawl begin."""
        raise NotImplementedError

    def _add(self, addresses: Iterable[tuple[str, int]]) -> None:
        """Puts addresses, each with its depth, into the queue if they are new."""
        self._run_many(
            "INSERT INTO pages (address, host, state, depth) VALUES (?, ?, 'waiting', ?)"
            " ON CONFLICT (address) DO NOTHING",
            [(address, host_of(address), depth) for address, depth in addresses],
        )

    def _run(self, query: str, values: Sequence[Any] = ()) -> Any:
        raise NotImplementedError

    def _run_many(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        raise NotImplementedError

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._errors():
            return list(self._run(query, values).fetchall())

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All that is run inside is written together, or not at all."""
        with self._errors():
            self._run(self._begin)
            try:
                yield
                self._run("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    _begin = "BEGIN"

    def _roll_back(self) -> None:
        raise NotImplementedError

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns the driver's errors into ours."""
        raise NotImplementedError


class SQLiteStore(Store):
    """A file. Several programs may read it while a crawl writes."""

    _begin = "BEGIN IMMEDIATE"

    def __init__(self, path: Path, crawling: bool) -> None:
        self.path = path
        self.place = str(path)
        self._lock = -1
        if not crawling and not path.exists():
            raise StoreError(f"there is no crawl in {path}", "name the file that a crawl wrote")
        try:
            # flock and the locks of SQLite do not meet; this one says only "a crawl is running".
            flags = os.O_RDWR | os.O_CREAT if crawling else os.O_RDONLY
            self._lock = os.open(path, flags, 0o644)
            if crawling:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise StoreError(
                f"another crawl is writing {path}", "let it end, or crawl into another file"
            ) from error
        except OSError as error:
            raise StoreError(
                f"cannot open {path}: {error.strerror}",
                "name a file in a folder that exists and that you may write to",
            ) from error
        try:
            with self._errors():
                self._connection = sqlite3.connect(
                    path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False
                )
                if crawling:
                    # Readers do not wait for the writer. A power cut may cost the last commits, never the file.
                    self._run("PRAGMA journal_mode = WAL")
                    self._run("PRAGMA synchronous = NORMAL")
                    self._connection.executescript(SCHEMA)
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        self._connection.close()
        os.close(self._lock)

    def _run(self, query: str, values: Sequence[Any] = ()) -> Any:
        return self._connection.execute(query, values)

    def _run_many(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            self._connection.executemany(query, rows)

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._run("ROLLBACK")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            text = str(error)
            hint = "the message is SQLite's; what was stored before stays"
            if "locked" in text:
                hint = HELD_HINT
            elif "full" in text or "disk I/O" in text:
                hint = "make room on the disk and run this again; it goes on where it stopped"
            elif "readonly" in text:
                hint = "the file or its folder may not be written to"
            elif "not a database" in text or "no such table" in text:
                hint = "this file is something else; name another one"
            raise StoreError(f"{self.path}: {text}", hint) from error


class PostgresStore(Store):
    """A PostgreSQL database, by its DSN."""

    def __init__(self, dsn: str, crawling: bool) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise StoreError(
                f"PostgreSQL needs psycopg, which cannot be imported: {error}",
                "pip install 'psycopg[binary]', or crawl into a file",
            ) from error
        self.place = without_password(dsn)
        self._driver = psycopg
        with self._errors("cannot connect"):
            self._connection = psycopg.connect(dsn, autocommit=True, connect_timeout=10)
        try:
            with self._errors():
                # PostgreSQL itself would wait without an end.
                patience = f"{1000 * PATIENCE_S:.0f}ms"
                self._run("SELECT set_config('lock_timeout', ?, false)", (patience,))
                if crawling:
                    self._claim()
                    self._connection.execute(SCHEMA)
        except BaseException:
            self._connection.close()
            raise

    def _claim(self) -> None:
        """Takes the lock that says "a crawl uses this database"; waits for a while, as SQLite does.

        The lock ends with its connection, but a server takes a moment to see that a client was killed.
        """
        until = time.monotonic() + PATIENCE_S
        while True:
            [free] = self._run("SELECT pg_try_advisory_lock(?)", (ADVISORY_LOCK,)).fetchone()
            if free:
                return
            if time.monotonic() >= until:
                raise StoreError(
                    f"another crawl is writing {self.place}",
                    "let it end, or crawl into another database",
                )
            time.sleep(0.05)

    def close(self) -> None:
        self._connection.close()

    def _run(self, query: str, values: Sequence[Any] = ()) -> Any:
        return self._connection.execute(query.replace("?", "%s"), values)

    def _run_many(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            with self._connection.cursor() as cursor:
                cursor.executemany(query.replace("?", "%s"), rows)

    def _roll_back(self) -> None:
        if not self._connection.closed and not self._connection.broken:
            self._connection.rollback()

    @contextmanager
    def _errors(self, doing: str = "") -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            text = " ".join(str(error).split())
            hint = "run this again when the server is well; it goes on where it stopped"
            if doing:
                hint = (
                    "check host, port, user, password and name in --store, and that the server runs"
                )
            elif isinstance(error, self._driver.errors.UndefinedTable):
                hint = "no crawl has written to this database yet"
            elif isinstance(error, self._driver.errors.LockNotAvailable):
                hint = HELD_HINT
            elif isinstance(error, self._driver.errors.DiskFull):
                hint = (
                    "make room on the server's disk and run this again; it goes on where it stopped"
                )
            where = f"{doing} to {self.place}" if doing else self.place
            raise StoreError(f"{where}: {text}", hint) from error


def open_store(place: str, crawling: bool = True) -> Store:
    """The store at `place`: a `postgresql://` DSN, or a file for SQLite.

    With `crawling` the tables are made, and a second crawl of the same store is refused.

    Raises:
        StoreError: it cannot be opened.
    """
    scheme, mark, _rest = place.partition("://")
    if not mark:
        return SQLiteStore(Path(place), crawling)
    if scheme in ("postgresql", "postgres"):
        return PostgresStore(place, crawling)
    raise StoreError(
        f"there is no store {without_password(place)}",
        "--store takes a file name, or postgresql://user:password@host:port/database",
    )


def without_password(dsn: str) -> str:
    """A DSN as it may be shown."""
    try:
        parts = urlsplit(dsn)
        secret = parts.password
    except ValueError:
        return dsn.partition("://")[0] + "://…"
    if secret is None:
        return dsn
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{secret}@", ":…@", 1)))
