"""The batch: every photograph of a folder through an executor, and a line in the journal for each.

    files ─► executor.submit(develop), a window of them ─► as they end ─► journal ─► contact sheets

Nothing here depends on the executor: treadle's under any plan, or the standard library's `ProcessPoolExecutor`. What
differs is what happens when a worker dies: treadle's pool fails the file that it was at, which is reported, and goes on.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import treadle

from images.developing import Settings, develop
from images.errors import BatchError, Damaged
from images.journal import Entry, Journal, fingerprint
from images.sheet import make_sheet, sheets

SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe"))
WINDOW = 64  # files that are handed out at a time, at least; four for each worker otherwise


class Task(NamedTuple):
    """A file that is to be developed, and where to."""

    source: Path
    mark: str
    picture: Path
    thumbnail: Path


class Outcome(NamedTuple):
    """What a run did. `problems` are files and reasons, also those of earlier runs."""

    developed: int
    before: int
    problems: list[tuple[str, str]]
    seconds: float
    sheets: list[Path]


class Batch:
    """The photographs below `source`, developed into the folder `target`."""

    def __init__(self, source: Path, target: Path, settings: Settings) -> None:
        self.source = source
        self.target = target
        self.settings = settings

    def prepare(self) -> list[Path]:
        """Makes the target's folders and finds the photographs, sorted. What is in the target is none.

        Raises:
            BatchError: there are none, or a folder cannot be used.
        """
        if self.target.resolve() == self.source.resolve():
            raise BatchError(
                f"the target is the folder {self.source} itself", "choose another with --target"
            )
        try:
            found = walk(self.source, self.target.resolve())
            paths = sorted(path for path in found if path.suffix.lower() in SUFFIXES)
        except OSError as error:
            raise BatchError(
                f"cannot read the folder {error.filename}: {error.strerror}",
                "name a folder of JPEG files that you may read",
            ) from error
        if not paths:
            raise BatchError(
                f"there is no JPEG file in {self.source}", "files end in .jpg, .jpeg or .jpe"
            )
        try:
            for kind in ("pictures", "thumbnails"):
                for folder in {path.parent.relative_to(self.source) for path in paths}:
                    (self.target / kind / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BatchError(
                f"cannot write to {self.target}: {error.strerror}", "choose another with --target"
            ) from error
        return paths

    def run(
        self,
        executor: concurrent.futures.Executor,
        workers: int,
        report: Callable[[int, int, int], None] = lambda done, total, problems: None,
    ) -> Outcome:
        """Develops what is not developed yet. `report` hears how many files of how many are done, and how many failed.

        Raises:
            BatchError: nothing more can be written, the pool is broken, or another batch is at it; another run goes on
                from there.
        """
        began = time.monotonic()
        paths = self.prepare()
        try:
            journal = Journal(self.target / "journal.jsonl")
        except BlockingIOError as error:
            raise BatchError(
                f"another batch is writing to {self.target}",
                "let it end, or choose another folder with --target",
            ) from error
        except OSError as error:
            raise BatchError(f"cannot write to {self.target}: {error.strerror}") from error
        try:
            # What a killed run was at.
            for leftover in self.target.rglob("*.part"):
                leftover.unlink(missing_ok=True)
            tasks = [task for path in paths if (task := self.task(path, journal)) is not None]
            passing: dict[str, str] = {}  # problems that another run may not have
            done, failed = 0, 0
            for task, call in as_they_end(executor, self.settings, tasks, max(WINDOW, 4 * workers)):
                name, picture = self.name(task.source), str(task.picture.relative_to(self.target))
                problem = problem_of(call)
                if isinstance(call.exception(), treadle.WorkerDied):
                    passing[name] = problem
                else:
                    journal.add(Entry(name, task.mark, picture, problem))
                done += 1
                failed += bool(problem)
                report(done, len(tasks), failed)
            journal.sync()
            made = self.make_sheets(executor, paths, journal)
        except OSError as error:
            raise BatchError(
                f"cannot write to {error.filename or self.target}: {error.strerror}",
                "make room and run this again; it goes on where it stopped",
            ) from error
        finally:
            journal.close()
        names = {self.name(path) for path in paths}
        lasting = {name: entry.problem for name, entry in journal.entries.items() if name in names}
        problems = [(name, problem) for name, problem in (lasting | passing).items() if problem]
        seconds = time.monotonic() - began
        return Outcome(done - failed, len(paths) - len(tasks), sorted(problems), seconds, made)

    def name(self, path: Path) -> str:
        """How the journal calls a photograph."""
        return path.relative_to(self.source).as_posix()

    def task(self, path: Path, journal: Journal) -> Task | None:
        """What is to be done for a photograph; None when that is done."""
        # The whole name stays in the picture's: a.jpg and a.jpeg are two photographs.
        relative = path.relative_to(self.source)
        picture = self.target / "pictures" / relative.with_name(f"{relative.name}.webp")
        thumbnail = self.target / "thumbnails" / relative.with_name(f"{relative.name}.webp")
        try:
            mark = fingerprint(path, self.settings)
        except OSError as error:
            mark = f"unreadable-{error.errno}"
        known = journal.entries.get(self.name(path))
        same = known is not None and known.mark == mark
        if known and same and (known.problem or (picture.exists() and thumbnail.exists())):
            return None
        return Task(path, mark, picture, thumbnail)

    def make_sheets(
        self, executor: concurrent.futures.Executor, paths: list[Path], journal: Journal
    ) -> list[Path]:
        """Contact sheets of all that was developed, in this run or before."""
        for old in self.target.glob("contact-sheet-*.jpg"):
            old.unlink()
        entries = [journal.entries.get(self.name(path)) for path in paths]
        thumbnails = [
            self.target / "thumbnails" / Path(entry.picture).relative_to("pictures")
            for entry in entries
            if entry is not None and not entry.problem
        ]
        calls = [
            executor.submit(make_sheet, self.target / f"contact-sheet-{number:03}.jpg", part)
            for number, part in enumerate(sheets(thumbnails), start=1)
        ]
        return [call.result() for call in calls]


def problem_of(call: concurrent.futures.Future[Any]) -> str:
    """Why a photograph was not developed; empty if it was. Raises what ends the batch."""
    error = call.exception()
    if error is None:
        return ""
    if isinstance(error, Damaged):
        return str(error)
    if isinstance(error, treadle.WorkerDied):
        return f"its worker {error.ending}"
    if isinstance(error, MemoryError):
        return "it needs more memory than a worker may use"
    if isinstance(error, concurrent.futures.BrokenExecutor):
        raise BatchError(
            f"the pool is broken: {str(error).splitlines()[0]}",
            "run this again; it goes on where it stopped",
        ) from error
    raise error


def walk(folder: Path, without: Path) -> Iterator[Path]:
    """All files below a folder, `without` those of one below it.

    Raises:
        OSError: a folder cannot be read, where `Path.rglob` would be silent.
    """
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path.resolve() != without:
                yield from walk(path, without)
        else:
            yield path


def as_they_end(
    executor: concurrent.futures.Executor, settings: Settings, tasks: Iterable[Task], window: int
) -> Iterator[tuple[Task, concurrent.futures.Future[Any]]]:
    """Submits the tasks, at most `window` at a time, and yields each with its call when that has ended.

    `Executor.map` would be shorter, but it ends at the first exception; here a damaged file is a result like others.
    """
    ended: SimpleQueue[tuple[Task, concurrent.futures.Future[Any]]] = SimpleQueue()
    running: set[concurrent.futures.Future[Any]] = set()
    waiting = iter(tasks)
    try:
        while True:
            for task in waiting:
                call = executor.submit(develop, task.source, task.picture, task.thumbnail, settings)
                running.add(call)
                call.add_done_callback(partial(_note, ended, task))
                # What has ended is told before more is begun: in a serial plan that is after each file.
                if len(running) >= window or not ended.empty():
                    break
            if not running:
                return
            task, call = ended.get()
            running.discard(call)
            yield task, call
    finally:
        for call in running:
            call.cancel()


def _note(
    ended: SimpleQueue[tuple[Task, concurrent.futures.Future[Any]]],
    task: Task,
    call: concurrent.futures.Future[Any],
) -> None:
    ended.put((task, call))
