"""The durable queue: every step, the turns of clients, what survives, what is said when the file fails."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from live import queue as queues
from live.errors import QueueError, Refused
from live.queue import ATTEMPTS, Queue


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """An empty queue."""
    opened = Queue(tmp_path / "queue.sqlite")
    yield opened
    opened.close()


def test_a_job_goes_from_waiting_to_done(queue: Queue) -> None:
    number = queue.add("ann", "forecast", {"rounds": 40})
    assert queue.counts() == {"waiting": 1}
    taken = queue.take()
    assert taken is not None
    assert (taken.job, taken.state, taken.attempts) == (number, "running", 1)
    assert taken.parameters == {"rounds": 40}
    assert queue.take() is None
    assert queue.unfinished("ann")
    assert queue.end(number, "done", {"stores": {}})
    assert queue.result(number) == {"stores": {}}
    assert queue.job(number).state == "done"
    assert not queue.unfinished("ann")


def test_a_job_that_ended_stays_ended(queue: Queue) -> None:
    number = queue.add("ann", "overview", {})
    assert queue.end(number, "cancelled")
    assert not queue.end(number, "done", {"late": True})
    queue.put_back(number)
    assert queue.job(number).state == "cancelled"
    assert queue.result(number) is None
    assert queue.take() is None


def test_clients_take_turns(queue: Queue) -> None:
    for _job in range(5):
        queue.add("many", "overview", {})
    lone = queue.add("lone", "overview", {})
    order = [taken.job for _turn in range(6) if (taken := queue.take()) is not None]
    assert order == [1, lone, 2, 3, 4, 5]


def test_too_many_are_refused(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MOST_OF_ONE", 3)
    monkeypatch.setattr(queues, "MOST_WAITING", 4)
    for _job in range(3):
        queue.add("ann", "overview", {})
    with pytest.raises(Refused, match="3 of your jobs wait already"):
        queue.add("ann", "overview", {})
    queue.add("bob", "overview", {})
    with pytest.raises(Refused, match="the queue is full"):
        queue.add("cleo", "overview", {})
    assert queue.counts() == {"waiting": 4}


def test_what_ran_waits_again_after_the_server_s_death(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    queue = Queue(path)
    number = queue.add("ann", "overview", {})
    for attempt in range(1, ATTEMPTS):
        taken = queue.take()
        assert taken is not None
        assert taken.attempts == attempt
        queue.close()
        queue = Queue(path)
        assert queue.resume() == 1
    assert queue.take() is not None
    queue.close()
    queue = Queue(path)
    assert queue.resume() == 0
    job = queue.job(number)
    assert (job.state, job.problem) == ("failed", "the server died 3 times while it ran this job")
    queue.close()


def test_a_job_put_back_in_peace_has_lost_no_attempt(queue: Queue) -> None:
    number = queue.add("ann", "overview", {})
    queue.take()
    queue.put_back(number, True)
    taken = queue.take()
    assert taken is not None
    assert taken.attempts == 1


def test_latest_shows_running_then_waiting_then_ended(queue: Queue) -> None:
    numbers = [queue.add("ann", "overview", {}) for _job in range(4)]
    queue.end(numbers[0], "cancelled")
    queue.take()
    assert [(job.job, job.state) for job in queue.latest(2)] == [
        (2, "running"),
        (3, "waiting"),
        (4, "waiting"),
        (1, "cancelled"),
    ]


def test_the_busiest_clients_are_those_with_most_jobs_left(queue: Queue) -> None:
    for client in ("ann", "bob", "bob", "cleo", "bob"):
        queue.add(client, "overview", {})
    queue.take()
    queue.take()
    queue.end(4, "cancelled")
    assert queue.busiest(5) == [("bob", 1, 2), ("ann", 1, 0)]
    assert queue.busiest(1) == [("bob", 1, 2)]


def test_no_such_job(queue: Queue) -> None:
    with pytest.raises(Refused, match="there is no job 7"):
        queue.job(7)


def test_a_second_server_is_refused(tmp_path: Path, queue: Queue) -> None:
    with pytest.raises(QueueError, match="another server uses"):
        Queue(queue.path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("These are notes, not a database. " * 40)
    with pytest.raises(QueueError, match="not a database"):
        Queue(tmp_path / "notes.txt")
    for wrong in (tmp_path / "nowhere" / "queue.sqlite", tmp_path):
        with pytest.raises(QueueError, match="cannot open"):
            Queue(wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_locked_file_is_an_error_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "PATIENCE_S", 0.05)
    queue = Queue(tmp_path / "queue.sqlite")
    other = sqlite3.connect(queue.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(QueueError, match="locked") as caught:
        queue.add("ann", "overview", {})
    assert "another program" in caught.value.hint
    other.execute("ROLLBACK")
    other.close()
    assert queue.counts() == {}
    assert queue.add("ann", "overview", {}) == 1
    queue.close()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mounts a tmpfs of this size on the folder; skips the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_refuses_jobs_and_keeps_those_it_took(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "1M"):
        queue = Queue(disk / "queue.sqlite")
        parameters = {"text": os.urandom(4000).hex()}
        taken = []
        with pytest.raises(QueueError, match=r"full|disk I/O") as caught:  # noqa: PT012
            for client in range(1000):
                taken.append(queue.add(str(client), "overview", parameters))
        assert "make room" in caught.value.hint
        assert taken
        queue.close()
        subprocess.run(["mount", "-o", "remount,size=64M", str(disk)], check=True)
        queue = Queue(disk / "queue.sqlite")
        assert queue.counts() == {"waiting": len(taken)}
        first = queue.take()
        assert first is not None
        assert first.parameters == parameters
        assert queue._one("PRAGMA integrity_check") == ("ok",)
        queue.close()
