"""``treadle check`` end to end: the four answers through the real command, and records that are not whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EVIDENCE = "docs/decisions/0001-work.json"
PAGE = "docs/decisions/0001-work.md"


def edit(path: Path, old: str, new: str) -> None:
    """Replaces text as a person would; the old text must be there."""
    text = path.read_text()
    assert old in text, f"{old!r} is not in {path}"
    path.write_text(text.replace(old, new))


def work(treadle: Any, old: str, new: str) -> None:
    """Changes the function's file."""
    edit(treadle.folder / "work.py", old, new)


def answer(finished: Any) -> dict[str, Any]:
    """The one answer on standard output."""
    (one,) = finished.json["decisions"]
    assert finished.code == finished.json["exit_code"], finished
    found: dict[str, Any] = one
    return found


def changes(found: dict[str, Any]) -> str:
    """What weighs, in words."""
    return "; ".join(one["words"] for one in found["changes"] if one["weighs"])


# The four answers.


def test_what_has_not_changed_holds(recorded: Any) -> None:
    finished = recorded("check", "--json")
    assert finished.code == 0, finished
    found = answer(finished)
    assert (found["answer"], found["level"]) == ("holds", "static"), found
    assert changes(found) == ""


def test_comments_docstrings_and_formatting_are_no_change(recorded: Any) -> None:
    work(recorded, '"""Does it."""', '"""Does it, and says so\n\n    at length."""\n    # for now')
    work(recorded, "spin(SECONDS)", "spin(\n        SECONDS,\n    )")
    work(recorded, "SECONDS = 0.005", "SECONDS = (0.005)  # five of them")
    finished = recorded("check", "work", "--json")
    assert finished.code == 0, finished
    found = answer(finished)
    assert (found["answer"], found["level"], changes(found)) == ("holds", "static", ""), found


def test_computing_that_becomes_waiting_is_overturned(recorded: Any) -> None:
    work(recorded, "    spin(SECONDS)", "    time.sleep(SECONDS)")
    finished = recorded("check", "--json")
    assert finished.code == 2, finished
    found = answer(finished)
    assert (found["answer"], found["level"]) == ("overturned", "ranking"), found
    assert "threads" in found["instead"], found
    assert "the source of work.py:work has changed" in changes(found)
    assert "CPU share" in changes(found)
    assert "io-bound" in found["why"]
    assert "--save work" in found["next"]
    assert "--plans" not in found["next"], "the better plan must be among those raced"
    text = recorded("check")
    assert text.code == 2
    for word in ("work: overturned", "changed", "CPU share", "why", "do", "treadle compare"):
        assert word in text.stdout, text


def test_a_change_elsewhere_that_costs_the_same_holds(recorded: Any) -> None:
    work(recorded, "end = time.thread_time() + seconds", "end = seconds + time.thread_time()")
    finished = recorded("check", "--json")
    found = answer(finished)
    assert "what it uses has changed: work:spin" in changes(found)
    assert (found["answer"], found["level"]) == ("holds", "ranking"), found
    alone = recorded("check", "--static", "--json")
    assert alone.code == 1, alone
    assert (answer(alone)["answer"], answer(alone)["level"]) == ("stale", "static")
    assert "treadle check work" in answer(alone)["next"]


def test_a_ratio_that_moves_without_another_winner_is_stale(recorded: Any) -> None:
    work(recorded, "return number", "return bytes(60_000)")
    finished = recorded("check", "--json")
    assert finished.code == 1, finished
    found = answer(finished)
    assert (found["answer"], found["level"]) == ("stale", "ranking"), found
    assert "result size" in changes(found)


def test_a_function_that_fails_now_is_inconclusive(recorded: Any) -> None:
    work(recorded, "    spin(SECONDS)", "    raise OSError('the disk is gone')")
    finished = recorded("check", "--json")
    assert finished.code == 3, finished
    found = answer(finished)
    assert found["answer"] == "inconclusive"
    assert "every input" in found["why"], found
    assert "the disk is gone" in (found["detail"] or "") + found["why"], found


def test_a_module_that_cannot_be_imported_is_inconclusive(recorded: Any) -> None:
    work(recorded, "import time", "import time\nimport absent_package")
    finished = recorded("check", "--json")
    assert finished.code == 3, finished
    assert "absent_package" in changes(answer(finished))


def test_a_race_tests_the_order(recorded: Any) -> None:
    finished = recorded("check", "--race", "--budget", "4", "--json")
    found = answer(finished)
    assert found["level"] == "race", found
    # Which of two plans wins on the tests' machine is its affair; an answer must follow from the race.
    assert found["answer"] in ("holds", "overturned", "inconclusive"), found
    assert "times the throughput" in found["why"] or "won the race" in found["why"], found


# Another machine, another Python.


def test_a_record_from_elsewhere_is_named_and_measured(recorded: Any) -> None:
    path = recorded.folder / EVIDENCE
    evidence = json.loads(path.read_text())
    evidence["comparison"]["machine"]["cpu"] = "A processor of another day"
    evidence["fingerprint"]["environment"]["python"] = "3.8.1"
    path.write_text(json.dumps(evidence))
    finished = recorded("check", "--json")
    found = answer(finished)
    assert "recorded on another machine: A processor of another day" in changes(found)
    assert "recorded with cpython 3.8.1" in changes(found)
    assert found["level"] == "ranking", found
    assert found["answer"] == "holds", found


# Records that are not whole.


def moved(treadle: Any) -> None:
    """The function moves to another file."""
    (treadle.folder / "inner").mkdir()
    shutil.move(treadle.folder / "work.py", treadle.folder / "inner" / "moved.py")


@pytest.mark.parametrize(
    ("damage", "words", "way_out"),
    [
        (
            lambda treadle: (treadle.folder / EVIDENCE).unlink(),
            "its evidence is missing",
            "version control",
        ),
        (
            lambda treadle: (treadle.folder / EVIDENCE).write_text("{"),
            "its evidence is damaged",
            "--save work",
        ),
        (
            lambda treadle: (treadle.folder / EVIDENCE).write_text('{"schema": 1}'),
            "its evidence is not whole",
            "--save work",
        ),
        (
            lambda treadle: edit(treadle.folder / EVIDENCE, '"schema": 1', '"schema": 9'),
            "does not know",
            "update treadle",
        ),
        (
            lambda treadle: work(treadle, "def work(", "def works("),
            "no function 'work'",
            "[decision.work]",
        ),
        (moved, "work.py:work is gone", 'function = "inner/moved.py:work"'),
    ],
    ids=("missing", "damaged", "cut", "newer", "renamed", "moved"),
)
def test_a_record_that_is_not_whole_is_stale(
    damage: Callable[[Any], None], words: str, way_out: str, recorded: Any
) -> None:
    damage(recorded)
    finished = recorded("check", "--json")
    assert finished.code == 1, finished
    found = answer(finished)
    assert found["answer"] == "stale", found
    assert words in changes(found), found
    assert way_out in found["next"], found


def test_the_way_out_of_a_move_works(recorded: Any) -> None:
    moved(recorded)
    edit(recorded.folder / "treadle.toml", '"work.py:work"', '"inner/moved.py:work"')
    finished = recorded("check", "--json")
    assert answer(finished)["answer"] == "stale", "the evidence is that of another place"
    assert "treadle.toml has function inner/moved.py:work" in changes(answer(finished))
    assert "source" not in changes(answer(finished)), finished


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("[decision\n", "work", "not valid TOML"),
        ("[decision.work]\nplan = 3\n", "work", "plan"),
        ("[decision.work]\nplan = { fibers = 2 }\n", "work", "fibers"),
        ("[decision.other]\nplan = {}\n", "work", "recorded are: other"),
        ("# nothing\n", "work", "no decision `work`"),
        (None, "work", "no treadle.toml"),
    ],
    ids=("syntax", "plan", "strategy", "unknown", "empty", "none"),
)
def test_what_cannot_be_read_is_refused_as_decided_refuses_it(
    text: str | None, name: str, words: str, recorded: Any
) -> None:
    path: Path = recorded.folder / "treadle.toml"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    finished = recorded("check", name)
    assert finished.code == 4, finished
    assert finished.stdout == ""
    assert words in finished.stderr, finished
    assert "hint: " in finished.stderr, finished
    program = f"import treadle; treadle.Executor.decided({name!r})"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=recorded.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    message = finished.stderr.removeprefix("treadle: ").splitlines()[0]
    assert message in ran.stderr, (message, ran.stderr)


def test_a_wrong_option_is_no_answer(recorded: Any) -> None:
    assert recorded("check", "--beauty").code == 4
    assert recorded("check", "--static", "--race").code == 4
    assert recorded("check", "--budget", "0").code == 4


def test_two_records_of_one_number_are_named(recorded: Any) -> None:
    shutil.copy(recorded.folder / PAGE, recorded.folder / "docs/decisions/0001-twin.md")
    finished = recorded("check")
    assert finished.code == 0, finished
    assert "warning: two records have the number 0001" in finished.stdout


# What it writes.


def test_junit_says_which_failed_and_why(recorded: Any) -> None:
    settings = recorded.folder / "treadle.toml"
    settings.write_text(
        settings.read_text()
        + '\n[decision.bare]\nplan = { threads = 4 }\nfunction = "work.py:work"\nitems = "range:9"\n'
    )
    finished = recorded("check", "--junit", "answers.xml")
    assert finished.code == 1, finished
    assert "1 holds, 1 stale" in finished.stdout
    suites = ElementTree.parse(recorded.folder / "answers.xml").getroot()
    assert suites.tag == "testsuites"
    (suite,) = suites
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "0")
    holds, stale = suite.findall("testcase")
    assert (holds.get("name"), holds.find("failure")) == ("work", None)
    failure = stale.find("failure")
    assert failure is not None
    assert failure.get("type") == "stale"
    assert "names no record" in (failure.text or "")


def test_json_to_a_file_leaves_the_text(recorded: Any) -> None:
    finished = recorded("check", "--json", "answers.json")
    assert "work: holds" in finished.stdout
    assert json.loads((recorded.folder / "answers.json").read_text())["answer"] == "holds"


# The record.


def test_what_people_wrote_stays(recorded: Any) -> None:
    page, settings = recorded.folder / PAGE, recorded.folder / "treadle.toml"
    edit(page, "## Considered Options", "Grace asked for it.\n\n## Considered Options")
    edit(page, "status:", "decision-makers: [Grace]\nstatus:")
    edit(settings, "[decision.work]", '# nightly\n[decision.work]\nowner = "Grace"')
    more = ("--items", "range:50", "--budget", "2", "--save", "work")
    again = recorded("compare", "work.py:work", *more, "--profile-only")
    assert again.code == 0, again
    text = page.read_text()
    assert "Grace asked for it." in text
    assert "decision-makers: [Grace]" in text
    assert "status: proposed" in text
    assert "superseded on" in text
    assert '# nightly\n[decision.work]\nowner = "Grace"' in settings.read_text()
    records = sorted(path.name for path in (recorded.folder / "docs/decisions").iterdir())
    assert records == ["0001-work.json", "0001-work.md"]
    assert "as proposed" in again.stderr
    assert recorded("check").code == 0


def test_the_page_and_the_evidence_hold_what_they_must(recorded: Any) -> None:
    page = (recorded.folder / PAGE).read_text()
    for part in (
        "status: accepted",
        "## Context and Problem Statement",
        "## Decision Drivers",
        "## Considered Options",
        "## Decision Outcome",
        "### Consequences",
        "### Confirmation",
        "treadle check work",
        "## Revisit when",
    ):
        assert part in page, part
    evidence = json.loads((recorded.folder / EVIDENCE).read_text())
    environment = evidence["fingerprint"]["environment"]
    assert environment["python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
    for key in ("build", "gil", "start_method", "distributions", "native_pools"):
        assert environment[key] is not None, key
    source = evidence["fingerprint"]["source"]
    assert set(source["callees"]) == {"work:spin", "work:SECONDS"}
    assert evidence["margin"]["times"] > 0
    assert evidence["margin"]["measured"] is True
    facts = {one["fact"] for one in evidence["revisit"]}
    assert {"python", "gil"} <= facts
    # Which measured fact turns the choice first depends on how the measurement went.
    assert facts & {"cpu_share", "task_s", "usable_cores", "transfer_bytes"}
    machine = evidence["comparison"]["machine"]
    for key in ("usable_cores", "cpu", "kernel", "readings", "noise"):
        assert key in machine, key
    assert evidence["comparison"]["candidates"]


def test_a_folder_that_cannot_be_written_is_told_before_the_race(treadle: Any) -> None:
    (treadle.folder / "docs").write_text("not a folder")
    finished = treadle("compare", "jobs:nap", "--items", "range:50", "--save", "naps")
    assert finished.code == 2, finished
    assert "docs/decisions" in finished.stderr
    assert "running a sample" not in finished.stderr, "nothing ran"
