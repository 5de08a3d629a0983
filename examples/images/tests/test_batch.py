"""Whole batches: the same pictures under every plan, going on after kill -9, and what is said when something is wrong."""

from __future__ import annotations

import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import treadle
from PIL import Image

from images import memory
from images.batch import Batch
from images.developing import Settings
from images.errors import BatchError
from images.journal import Entry, Journal
from images.measure import APART, Run, Way, run_apart, table
from images.memory import Watch, share
from images.photographs import make
from images.progress import text
from images.sheet import COLUMNS, ROWS, make_sheet, sheets
from images.trial import DECISION, FOLDER

SMALL = Settings(side=120, thumbnail_side=40)
PLANS = [treadle.Plan(), treadle.Plan(threads=2), treadle.Plan(processes=2)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with twelve photographs, two more in a folder below, three damaged files and a text."""
    folder = tmp_path / "photographs"
    make(folder, 12, 160, 120)
    make(folder / "below", 2, 160, 120)
    (folder / "below" / "photograph-00000.jpeg").write_bytes(
        (folder / "photograph-00001.jpg").read_bytes()
    )
    whole = (folder / "photograph-00000.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.JPG").write_bytes(b"")
    (folder / "text.jpeg").write_text("This is no photograph.")
    (folder / "notes.txt").write_text("This does not claim to be one.")
    return folder


DAMAGED = ["cut.jpg", "empty.JPG", "text.jpeg"]


def results(target: Path) -> dict[str, bytes]:
    return {
        path.relative_to(target).as_posix(): path.read_bytes()
        for path in sorted(target.rglob("*"))
        if path.is_file() and path.name != "journal.jsonl"
    }


def test_every_executor_gives_the_same_pictures(source: Path, tmp_path: Path) -> None:
    made = []
    pools: list[concurrent.futures.Executor] = [treadle.Executor(plan) for plan in PLANS]
    pools.append(concurrent.futures.ProcessPoolExecutor(2))
    for number, pool in enumerate(pools):
        target = tmp_path / f"developed-{number}"
        with pool:
            outcome = Batch(source, target, SMALL).run(pool, 2)
        assert (outcome.developed, outcome.before) == (15, 0)
        assert [name for name, _problem in outcome.problems] == DAMAGED
        made.append(results(target))
    assert all(other == made[0] for other in made)
    assert len(made[0]) == 2 * 15 + 1
    assert "pictures/below/photograph-00000.jpg.webp" in made[0]
    assert "pictures/below/photograph-00000.jpeg.webp" in made[0]


def test_a_second_run_does_nothing_again(source: Path, tmp_path: Path) -> None:
    batch = Batch(source, tmp_path / "developed", SMALL)
    with treadle.Executor(threads=2) as executor:
        batch.run(executor, 2)
        before = {
            path: path.stat().st_mtime_ns for path in (batch.target / "pictures").rglob("*.webp")
        }
        again = batch.run(executor, 2)
        assert (again.developed, again.before) == (0, 18)
        assert [name for name, _problem in again.problems] == DAMAGED
        assert all(path.stat().st_mtime_ns == then for path, then in before.items())

        # What changed is developed anew: a file, a picture that is gone, other settings.
        (source / "text.jpeg").write_bytes((source / "photograph-00002.jpg").read_bytes())
        (batch.target / "pictures" / "photograph-00003.jpg.webp").unlink()
        third = batch.run(executor, 2)
        assert third.developed == 2
        assert [name for name, _problem in third.problems] == DAMAGED[:2]
        other = Batch(source, batch.target, SMALL._replace(quality=60)).run(executor, 2)
        assert other.developed == 16


def test_what_lies_in_the_target_is_no_photograph(source: Path) -> None:
    batch = Batch(source, source / "developed", SMALL)
    with treadle.Executor(threads=2) as executor:
        assert batch.run(executor, 2).developed == 15
        assert (batch.target / "contact-sheet-001.jpg").exists()
        again = batch.run(executor, 2)
    assert (again.developed, again.before) == (0, 18)


def test_a_second_batch_into_the_same_folder_is_refused(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "developed"
    (target / "pictures").mkdir(parents=True)
    at_work = target / "pictures" / "photograph-00000.jpg.webp.1.part"
    at_work.write_bytes(b"the other batch is at this")
    journal = Journal(target / "journal.jsonl")
    done = develop(source, "--target", target, "--plan", "serial")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: another batch is writing to {target}\nhint: ")
    assert at_work.exists()
    journal.close()
    assert develop(source, "--target", target, "--plan", "serial").returncode == 0
    assert not at_work.exists()


def test_a_killed_worker_costs_the_file_that_it_was_at(source: Path, tmp_path: Path) -> None:
    batch = Batch(source, tmp_path / "developed", SMALL)
    killed = []

    def kill_one(done: int, total: int, problems: int) -> None:
        busy = [worker.ident for worker in executor.stats().workers if worker.state == "busy"]
        if busy and not killed:
            killed.append(busy[0])
            os.kill(busy[0], signal.SIGKILL)

    make(source, 40, 1600, 1200)  # long enough at work to be met there
    with treadle.Executor(processes=2) as executor:
        outcome = batch.run(executor, 2, kill_one)
        assert killed
        lost = [problem for name, problem in outcome.problems if name not in DAMAGED]
        assert len(lost) <= 1  # it may have just ended its file
        assert all("SIGKILL" in problem for problem in lost)
        assert outcome.developed == 43 - len(lost)
        assert batch.run(executor, 2).developed == len(lost)


def develop(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "images", "develop", *map(str, arguments)]
    return subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)


def test_kill_9_costs_no_picture_and_develops_none_again(source: Path, tmp_path: Path) -> None:
    make(source, 150, 640, 480)
    target = tmp_path / "developed"
    command = [sys.executable, "-m", "images", "develop", str(source), "--target", str(target)]
    process = subprocess.Popen(
        [*command, "--plan", "processes=2"], cwd=FOLDER, stderr=subprocess.DEVNULL
    )
    journal = target / "journal.jsonl"
    # On a busy machine it may end before it is killed.
    while not journal.exists() or journal.read_text().count("\n") < 20:
        if process.poll() is not None:
            break
        time.sleep(0.005)
    process.kill()
    assert process.wait() in (-signal.SIGKILL, 0)
    pictures = {
        json.loads(line)["picture"]
        for line in journal.read_text().splitlines()
        if line.endswith("}") and not json.loads(line)["problem"]
    }
    before = {name: (target / name).stat().st_mtime_ns for name in pictures}
    for path in target.rglob("*.webp"):
        with Image.open(path) as picture:
            picture.load()  # whole, or not there
    done = develop(source, "--target", target, "--plan", "processes=2", "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["developed"] + outcome["before"] - len(DAMAGED) <= 153
    assert len(list((target / "pictures").rglob("*.webp"))) == 153
    assert len(list((target / "thumbnails").rglob("*.webp"))) == 153
    assert {name: (target / name).stat().st_mtime_ns for name in pictures} == before
    assert not list(target.rglob("*.part"))


def test_ctrl_c_ends_the_batch(source: Path, tmp_path: Path) -> None:
    make(source, 400, 640, 480)  # much work, so that it is met at it
    target = tmp_path / "developed"
    command = [sys.executable, "-m", "images", "develop", str(source), "--target", str(target)]
    process = subprocess.Popen(
        [*command, "--plan", "processes=2"], cwd=FOLDER, stderr=subprocess.PIPE, text=True
    )
    journal = target / "journal.jsonl"
    while not journal.exists() or not journal.read_text():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _out, said = process.communicate()
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "stopped; the same command goes on from here"
    assert "Traceback" not in said


def test_memory_is_bounded_and_a_file_that_needs_more_is_reported(tmp_path: Path) -> None:
    source = tmp_path / "photographs"
    make(source, 6, 800, 600)
    Image.new("RGB", (9000, 9000), "olive").save(source / "huge.jpg", "JPEG")
    options = ("--plan", "processes=2", "--side", "9000", "--memory", "600MiB", "--json")
    command = [sys.executable, "-m", "images", "develop", str(source), *options]
    process = subprocess.Popen(command, cwd=FOLDER, stdout=subprocess.PIPE, text=True)
    with Watch(process.pid) as watch:
        out, _nothing = process.communicate()
    outcome = json.loads(out)
    assert outcome["problems"] == [["huge.jpg", "it needs more memory than a worker may use"]]
    assert outcome["developed"] == 6
    assert 0 < watch.peak <= 600 * 2**20


def test_a_limit_that_is_too_small_is_refused(source: Path) -> None:
    done = develop(source, "--plan", "processes=4", "--memory", "500MiB")
    assert done.returncode == 1
    assert done.stderr == (
        "error: 500 MiB are too little for processes=4\n"
        "hint: allow 864 MiB with --memory, or use fewer workers with --plan\n"
    )
    with pytest.raises(BatchError, match="too little"):
        share(200 * 2**20, treadle.Plan(threads=4))
    assert share(2**30, treadle.Plan(processes=2)) == (2**30 - memory.OWN) // 2


@pytest.mark.parametrize(
    ("amount", "size"), [("1GiB", 2**30), ("1.5 GB", 1_500_000_000), ("800MiB", 800 * 2**20)]
)
def test_amounts_of_memory(amount: str, size: int) -> None:
    assert memory.parse(amount) == size
    with pytest.raises(ValueError, match="no amount"):
        memory.parse(amount + "s")


def test_wrong_folders_are_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    for wrong, said in (
        (tmp_path / "nowhere", "error: cannot read the folder"),
        (source / "notes.txt", "error: cannot read the folder"),
        (tmp_path / "none", "error: there is no JPEG file in"),
    ):
        done = develop(wrong, "--target", tmp_path / "out", "--plan", "serial")
        assert done.returncode == 1
        assert done.stderr.startswith(said)
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()
    done = develop(source, "--target", source / "notes.txt" / "out", "--plan", "serial")
    assert done.stderr.startswith("error: cannot write to")
    done = develop(source, "--target", source, "--plan", "serial")
    assert done.stderr.startswith(f"error: the target is the folder {source} itself\nhint: ")
    for wrong_plan, said in (
        ("many", "error: there is no plan 'many'\nhint: "),
        ("coroutines=4", "error: coroutines=4 is a plan for functions that await"),
        ("threads=0", "error: threads must be at least 1"),
    ):
        done = develop(source, "--plan", wrong_plan)
        assert done.stderr.startswith(said)
    assert not (source / "developed").exists()


def test_a_folder_that_may_not_be_read_is_named(source: Path, tmp_path: Path) -> None:
    closed = source / "closed"
    closed.mkdir()
    closed.chmod(0)
    command = [sys.executable, "-m", "images", "develop", str(source), "--plan", "serial"]
    if os.geteuid() == 0:
        # Root may read everything, unless it gives that up.
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("these tests run as root, and there is no setpriv to give up its rights")
        rights = "-dac_override,-dac_read_search"
        command = [setpriv, f"--bounding-set={rights}", f"--inh-caps={rights}", *command]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = f"error: cannot read the folder {closed}: Permission denied\nhint: "
    assert done.stderr.startswith(said), done.stderr


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


@pytest.mark.parametrize("plan", ["processes=2", "serial"])
def test_a_full_disk_ends_the_batch_and_leaves_no_half_picture(tmp_path: Path, plan: str) -> None:
    source, disk = tmp_path / "photographs", tmp_path / "disk"
    make(source, 60, 320, 240)
    with small_disk(disk, "500k"):
        done = develop(source, "--target", disk, "--plan", plan)
        assert done.returncode == 1
        assert "error: cannot write to" in done.stderr
        assert "No space left on device\nhint: make room and run this again" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(disk.rglob("*.part"))
        pictures = list(disk.rglob("*.webp"))
        assert pictures
        for path in pictures:
            with Image.open(path) as picture:
                picture.load()
        subprocess.run(["mount", "-o", "remount,size=64M", str(disk)], check=True)
        again = develop(source, "--target", disk, "--plan", plan, "--json")
        assert again.returncode == 0, again.stderr
        outcome = json.loads(again.stdout)
        assert outcome["before"] > 0
        assert outcome["developed"] + outcome["before"] == 60
        assert outcome["problems"] == []


def test_a_journal_passes_over_what_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.add(Entry("a.jpg", "1", "pictures/a.jpg.webp"))
    journal.add(Entry("b.jpg", "1", "pictures/b.jpg.webp", "damaged"))
    journal.close()
    path.write_bytes(path.read_bytes()[:-20])
    journal = Journal(path)
    assert list(journal.entries) == ["a.jpg"]
    journal.add(Entry("c.jpg", "2", "pictures/c.jpg.webp"))
    journal.close()
    journal = Journal(path)
    assert list(journal.entries) == ["a.jpg", "c.jpg"]
    journal.close()


def test_contact_sheets_hold_all_thumbnails(tmp_path: Path) -> None:
    thumbnails = []
    for number in range(14):
        thumbnails.append(tmp_path / f"a-very-long-name-of-a-photograph-{number}.jpg.webp")
        Image.new("RGB", (192, 108), (255, 0, 0)).save(thumbnails[-1], "WEBP")
    path = make_sheet(tmp_path / "sheet.jpg", thumbnails)
    with Image.open(path) as sheet:
        assert sheet.width > sheet.height
        reds = sum(
            sheet.getpixel((8 + column * 168 + 80, 8 + row * 184 + 80))[1] < 60
            for column in range(COLUMNS)
            for row in range(2)
        )
    assert reds == 14
    assert [len(part) for part in sheets(thumbnails * 20)] == [COLUMNS * ROWS] * 2 + [40]
    assert sheets([]) == []


def test_the_bar_tells_rate_and_time_left() -> None:
    assert text(120, 400, 2, 4.0) == "120 of 400, 30.0/s, 9 s left, 2 damaged"
    assert text(400, 400, 0, 4.0) == "400 of 400, 100.0/s"
    assert text(0, 400, 0, 0.0) == "0 of 400, 0.0/s"


def test_the_table_compares_with_serial() -> None:
    runs = {
        Way("serial"): [Run(10, 2**20), Run(12, 2**20), Run(11, 2**20)],
        Way("processes=2"): [Run(22, 5 * 2**20), Run(21, 2**20), Run(23, 2**20)],
        Way(APART): [Run(20, 0), Run(22, 0), Run(21, 0)],
    }
    shown = table("Photographs", runs, 60, 2)
    assert "| processes=2 | treadle | 22.0 (21.0 to 23.0) | 2.00 | 100% | 5 MiB |" in shown
    assert "| 2 programs | none | 21.0 (20.0 to 22.0) | 1.91 | 95% |  |" in shown


def test_programs_beside_each_other_develop_all(tmp_path: Path) -> None:
    make(tmp_path / "photographs", 7, 160, 120)
    assert run_apart(tmp_path / "photographs", 3).rate > 0
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]


def test_the_decided_plan_runs(source: Path, tmp_path: Path) -> None:
    done = develop(source, "--target", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    with treadle.Executor.decided(DECISION, FOLDER) as executor:
        assert json.loads(done.stdout)["plan"] == str(executor.plan)
