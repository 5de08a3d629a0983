"""The queue: jobs in SQLite, which is what survives a kill of the server.

::

    waiting ─► running ─► done
       ▲          ├─► failed      it raised, or its workers died too often
       └──────────┤
     died, killed └─► cancelled

*Guarantees*: each step is one transaction. A job that was accepted is there until it ended; a job that ended stays ended.
*Assumes*: one server at a time, which a lock on the file holds; one thread at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from live.errors import QueueError, Refused

PATIENCE_S = 2.0  # how long another program may hold SQLite's write lock
MOST_WAITING = 10_000  # jobs of all clients
MOST_OF_ONE = 200  # waiting jobs of one client
ATTEMPTS = 3  # a job whose worker, or whose server, died as often is not run again

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    job INTEGER PRIMARY KEY AUTOINCREMENT,
    client TEXT NOT NULL,
    report TEXT NOT NULL,
    parameters TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting'
        CHECK (state IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
    attempts INTEGER NOT NULL DEFAULT 0,
    result TEXT,
    problem TEXT,
    submitted_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, job);
CREATE INDEX IF NOT EXISTS jobs_of_client ON jobs (client, state);
"""
COLUMNS = (
    "job, client, report, parameters, state, attempts, problem, submitted_at, started_at, ended_at"
)


class Job(NamedTuple):
    """A job; times are of the wall clock. Its result is read by :meth:`Queue.result`."""

    job: int
    client: str
    report: str
    parameters: dict[str, Any]
    state: str
    attempts: int
    problem: str | None
    submitted_at: float
    started_at: float | None
    ended_at: float | None


class Queue:
    """The jobs in the file at `path`. Methods raise QueueError when the file fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # flock and the locks of SQLite do not meet; this one says only "a server uses this".
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise QueueError(
                f"cannot open {path}: {error.strerror}",
                "name a file in a folder that exists and that you may write to",
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with self._errors():
                self._connection = sqlite3.connect(
                    path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False
                )
                # FULL: an accepted job survives a power cut too.
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.executescript(SCHEMA)
        except BlockingIOError as error:
            os.close(self._lock)
            raise QueueError(
                f"another server uses {path}", "end it, or name another file with --queue"
            ) from error
        except BaseException:
            os.close(self._lock)
            raise

    def resume(self) -> int:
        """Puts back what a former server was running; returns how many jobs that were."""
        with self._transaction():
            back = self._connection.execute(
                "UPDATE jobs SET state = 'waiting', started_at = NULL WHERE state = 'running'"
                " AND attempts < ?",
                (ATTEMPTS,),
            ).rowcount
            self._connection.execute(
                "UPDATE jobs SET state = 'failed', ended_at = ?, problem = ? WHERE state = 'running'",
                (time.time(), f"the server died {ATTEMPTS} times while it ran this job"),
            )
        return back

    def add(self, client: str, report: str, parameters: dict[str, Any]) -> int:
        """Accepts a job; returns its number.

        Raises:
            Refused: too many wait.
        """
        with self._transaction():
            [whole] = self._one("SELECT count(*) FROM jobs WHERE state = 'waiting'")
            [own] = self._one(
                "SELECT count(*) FROM jobs WHERE client = ? AND state = 'waiting'", client
            )
            if own >= MOST_OF_ONE:
                raise Refused(f"{own} of your jobs wait already; more are taken when some have run")
            if whole >= MOST_WAITING:
                raise Refused(f"the queue is full: {whole:,} jobs wait; try again later")
            cursor = self._connection.execute(
                "INSERT INTO jobs (client, report, parameters, submitted_at) VALUES (?, ?, ?, ?)",
                (client, report, json.dumps(parameters), time.time()),
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def take(self) -> Job | None:
        """Marks the next job as running and returns it; None if none waits.

        The clients take turns: next is the oldest job of the client that has fewest running, so that one with a
        hundred jobs does not keep another with one waiting.
        """
        with self._transaction():
            row = self._one(
                f"SELECT {COLUMNS} FROM jobs AS next WHERE state = 'waiting' ORDER BY (SELECT count(*)"
                " FROM jobs WHERE client = next.client AND state = 'running'), job LIMIT 1"
            )
            if row is None:
                return None
            taken = _job(row)._replace(state="running", started_at=time.time())
            taken = taken._replace(attempts=taken.attempts + 1)
            self._connection.execute(
                "UPDATE jobs SET state = 'running', started_at = ?, attempts = ? WHERE job = ?",
                (taken.started_at, taken.attempts, taken.job),
            )
        return taken

    def end(self, job: int, state: str, result: Any = None, problem: str | None = None) -> bool:
        """Writes how a job ended: done, failed or cancelled. False if it had ended before."""
        text = json.dumps(result) if result is not None else None
        with self._transaction():
            changed = self._connection.execute(
                "UPDATE jobs SET state = ?, result = ?, problem = ?, ended_at = ?"
                " WHERE job = ? AND state IN ('waiting', 'running')",
                (state, text, problem, time.time(), job),
            ).rowcount
        return changed == 1

    def put_back(self, job: int, forgive: bool = False) -> None:
        """A running job waits again. With `forgive` its attempt does not count."""
        with self._transaction():
            self._connection.execute(
                "UPDATE jobs SET state = 'waiting', started_at = NULL, attempts = attempts - ?"
                " WHERE job = ? AND state = 'running'",
                (int(forgive), job),
            )

    def job(self, number: int) -> Job:
        """One job.

        Raises:
            Refused: there is no such job.
        """
        with self._errors():
            row = self._one(f"SELECT {COLUMNS} FROM jobs WHERE job = ?", number)
        if row is None:
            raise Refused(f"there is no job {number}")
        return _job(row)

    def result(self, number: int) -> Any:
        """What a job that is done returned; None for others."""
        with self._errors():
            row = self._one("SELECT result FROM jobs WHERE job = ?", number)
        return json.loads(row[0]) if row is not None and row[0] is not None else None

    def of_client(self, client: str, limit: int = 100) -> list[Job]:
        """A client's jobs, the newest first."""
        return self._jobs("WHERE client = ? ORDER BY job DESC LIMIT ?", client, limit)

    def latest(self, limit: int) -> list[Job]:
        """What a page shows: running jobs, some that wait, then those that ended last."""
        return (
            self._jobs("WHERE state = 'running' ORDER BY job LIMIT ?", limit)
            + self._jobs("WHERE state = 'waiting' ORDER BY job LIMIT ?", limit)
            + self._jobs("WHERE ended_at IS NOT NULL ORDER BY job DESC LIMIT ?", limit)
        )

    def unfinished(self, client: str) -> bool:
        """Whether a job of this client waits or runs."""
        return bool(
            self._jobs("WHERE client = ? AND state IN ('waiting', 'running') LIMIT 1", client)
        )

    def busiest(self, limit: int) -> list[tuple[str, int, int]]:
        """The clients with most jobs that have not ended: name, how many run, how many wait."""
        with self._errors():
            return self._connection.execute(
                "SELECT client, sum(state = 'running'), sum(state = 'waiting') FROM jobs"
                " WHERE state IN ('running', 'waiting') GROUP BY client ORDER BY count(*) DESC, client LIMIT ?",
                (limit,),
            ).fetchall()

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        with self._errors():
            return dict(
                self._connection.execute(
                    "SELECT state, count(*) FROM jobs GROUP BY state"
                ).fetchall()
            )

    def close(self) -> None:
        """Lets another server use the file."""
        self._connection.close()
        os.close(self._lock)

    def _one(self, query: str, *values: Any) -> Any:
        return self._connection.execute(query, values).fetchone()

    def _jobs(self, condition: str, *values: Any) -> list[Job]:
        with self._errors():
            rows = self._connection.execute(f"SELECT {COLUMNS} FROM jobs {condition}", values)
            return [_job(row) for row in rows.fetchall()]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            text = str(error)
            hint = "the message is SQLite's; what was written before stays"
            if "locked" in text:
                hint = f"another program has held it for {PATIENCE_S:g} s; close that"
            elif "full" in text or "disk I/O" in text:
                hint = "make room on the disk"
            elif "not a database" in text:
                hint = "this file is something else; name another one with --queue"
            raise QueueError(f"{self.path}: {text}", hint) from error


def _job(row: tuple[Any, ...]) -> Job:
    job = Job(*row)
    return job._replace(parameters=json.loads(row[3]))
