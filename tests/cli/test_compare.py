"""``treadle compare`` end to end: what it decides, what it says, how it ends, what it leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BUDGET = ("--budget", "4")


def plans(found: dict[str, Any], strategy: str) -> list[dict[str, Any]]:
    """The candidates that use `strategy`."""
    return [one for one in found["candidates"] if strategy in one["plan"]]


def chosen(found: dict[str, Any]) -> dict[str, Any]:
    """The one candidate that was chosen."""
    (one,) = [one for one in found["candidates"] if one["outcome"] == "chosen"]
    return one


# What it decides.


def test_waiting_is_run_by_many(treadle: Any, validate: Any) -> None:
    finished = treadle.compare("jobs:nap", "range:400", *BUDGET)
    assert finished.code == 0, finished
    found = finished.json
    validate(found)
    assert found["items"] == {**found["items"], "count": 400, "spec": "range:400"}
    assert found["profile"]["class"] == "io-bound"
    profile = found["profile"]
    if profile["split"] is None:
        assert profile["gil_cpu_s"] is None, "what was not measured is not guessed"
        assert profile["split_absent"]
    else:
        assert profile["gil_cpu_s"] == profile["split"]["gil_cpu"]["mean_s"]
        assert profile["gil_cpu_s"] < profile["wait_s"] == profile["split"]["wait"]["mean_s"]
    assert found["decision"]["plan"] not in ({}, None)
    winner = chosen(found)
    assert winner["plan"] == found["decision"]["plan"]
    (serial,) = [one for one in found["candidates"] if one["plan"] == {}]
    assert serial["measured_per_s"] < winner["measured_per_s"]


def test_an_async_function_runs_as_coroutines(treadle: Any, validate: Any) -> None:
    finished = treadle.compare("jobs:async_nap", "range:400", *BUDGET)
    assert finished.code == 0, finished
    validate(finished.json)
    assert "coroutines" in finished.json["decision"]["plan"]


def test_tiny_tasks_stay_serial(treadle: Any, validate: Any) -> None:
    finished = treadle.compare("jobs.py:double", "range:1000", *BUDGET)
    assert finished.code == 0, finished
    validate(finished.json)
    assert finished.json["profile"]["class"] == "too-small"
    assert finished.json["decision"]["plan"] == {}


def test_star_passes_tuples_as_arguments(treadle: Any) -> None:
    finished = treadle.compare("jobs:add", "jobs:pairs", "--star", *BUDGET)
    assert finished.code == 0, finished
    assert chosen(finished.json)["errors"] == 0
    assert treadle.compare("jobs:add", "jobs:pairs", *BUDGET).code == 4


def test_only_the_plans_asked_for_are_raced(treadle: Any) -> None:
    finished = treadle.compare("jobs:nap", "range:200", "--plans", "threads=2,4", *BUDGET)
    assert finished.code == 0, finished
    raced = [one["plan"] for one in finished.json["candidates"] if one["measured_per_s"]]
    assert {} in raced
    assert all(plan in ({}, {"threads": 2}, {"threads": 4}) for plan in raced)


def test_a_target_that_no_plan_meets_is_said(treadle: Any, validate: Any) -> None:
    finished = treadle.compare("jobs:nap", "range:200", "--target", "p99=1us", *BUDGET)
    assert finished.code == 0, finished
    validate(finished.json)
    assert "p99" in finished.json["decision"]["reason"]


def test_profile_only_races_nothing(treadle: Any, validate: Any) -> None:
    finished = treadle.compare("jobs:spin", "range:50", "--profile-only", *BUDGET)
    assert finished.code == 0, finished
    validate(finished.json)
    assert all(one["measured_per_s"] is None for one in finished.json["candidates"])


def test_an_obvious_case_is_certain_after_few_blocks(treadle: Any) -> None:
    finished = treadle.compare("jobs:long_nap", "range:1000", "--budget", "30")
    assert finished.code == 0, finished
    found = finished.json
    race = found["race"]
    assert race["finish"] in ("leader-clear", "equivalent")
    assert race["warmed_up"]
    assert race["error_probability"] == 0.05
    (serial,) = [one for one in found["candidates"] if one["plan"] == {}]
    # On a machine that is busy with other tests some rounds more; smaller sizes then may look as if they were needed.
    assert serial["blocks"] <= 8, "a hundred times as fast is no close question"
    raced = [one["plan"] for one in found["candidates"] if one["measured_per_s"] is not None]
    assert len(raced) <= 4
    assert not any("processes" in plan for plan in raced)
    assert found["profile"]["worker_start_s"]["process"] is None, "it could not win"
    assert race["elapsed_s"] < race["budget_s"]
    took = found["took"]
    assert all(took[part] > 0 for part in ("loading_s", "profiling_s", "racing_s"))


def test_a_target_shuts_out_the_fastest(treadle: Any, validate: Any) -> None:
    more = ("--plans", "threads=2,8", "--target", "cpu=100,throughput=600/s", *BUDGET)
    finished = treadle.compare("jobs:nap", "range:400", *more)
    assert finished.code == 0, finished
    validate(finished.json)
    assert finished.json["decision"]["plan"] == {"threads": 8}
    slow = [one for one in finished.json["candidates"] if one["plan"] in ({}, {"threads": 2})]
    assert all("throughput=600/s is missed" in one["reason"] for one in slow), slow


# Inputs that are run once only.


def seen(treadle: Any) -> list[int]:
    """The inputs that any process has run."""
    return [int(line) for line in (treadle.folder / "seen.txt").read_text().split()]


@pytest.mark.parametrize("target", ["note", "spin_and_note", "note_async"])
def test_once_runs_no_input_twice(target: str, treadle: Any, validate: Any) -> None:
    finished = treadle.compare(f"jobs:{target}", "range:3000", "--once", *BUDGET)
    assert finished.code == 0, finished
    validate(finished.json)
    found = finished.json
    assert found["items"]["once"] is True
    assert found["decision"]["plan"] is not None
    inputs = seen(treadle)
    assert len(inputs) == len(set(inputs))
    assert set(inputs) <= set(range(3000))
    raced = sum(one["tasks"] for one in found["candidates"])
    assert 0 < raced < len(inputs)
    assert found["race"]["inputs_left"] == 3000 - len(inputs)


def test_once_with_too_few_inputs_says_so(treadle: Any, validate: Any) -> None:
    finished = treadle.compare("jobs:note", "range:10", "--once", *BUDGET)
    assert finished.code == 3, finished
    validate(finished.json)
    assert finished.json["race"] is None
    assert "too few for a race" in finished.json["decision"]["reason"]
    inputs = seen(treadle)
    assert len(inputs) == len(set(inputs)), inputs


def test_the_function_runs_on_no_other_inputs_than_the_limit_says(treadle: Any) -> None:
    finished = treadle.compare("jobs:note", "range:1000", "--limit", "50", *BUDGET)
    assert finished.code == 0, finished
    assert set(seen(treadle)) <= set(range(50))


def test_inputs_that_are_used_up_are_told_with_a_way_out(treadle: Any) -> None:
    finished = treadle.compare("jobs:nap", "jobs:generators", *BUDGET)
    assert finished.code == 2, finished
    assert "generator" in finished.stderr
    assert "--once" in finished.stderr
    finished = treadle.compare("jobs:nap", "jobs:generators", "--once", *BUDGET)
    assert finished.code == 0, finished


# What it says.


def test_the_cores_are_measured(treadle: Any) -> None:
    finished = treadle.compare("jobs:nap", "range:200", *BUDGET)
    machine = finished.json["machine"]
    assert machine["spin_threads"] >= 1
    for spun in (machine["spin_cores"], machine["spin_cores_after"]):
        assert 0 < spun <= machine["spin_threads"]
    readings = machine["readings"]
    assert readings["cores_share"] <= 1
    assert readings["cores_share_after"] <= 1
    assert 0 <= readings["disturbed_share"] <= 1
    assert "native" in treadle("compare", "jobs:nap", "--items", "range:200", *BUDGET).stdout


def test_the_report_is_data_and_the_rest_is_not(treadle: Any) -> None:
    finished = treadle("compare", "jobs:nap", "--items", "range:200", *BUDGET)
    assert finished.code == 0, finished
    assert "treadle.Executor(" in finished.stdout
    assert "treadle.Executor(" not in finished.stderr
    assert finished.stderr.strip(), "progress goes to standard error"
    assert "\x1b[" not in finished.stdout, "no colour where nobody sees it"


def test_json_to_a_file_leaves_the_report(treadle: Any, validate: Any) -> None:
    finished = treadle(
        "compare", "jobs:nap", "--items", "range:100", "--json", "found.json", *BUDGET
    )
    assert finished.code == 0, finished
    validate(json.loads((treadle.folder / "found.json").read_text()))


def test_help_lists_what_works(treadle: Any) -> None:
    finished = treadle("--help")
    assert finished.code == 0
    assert "compare" in finished.stdout
    finished = treadle("compare", "--help")
    assert finished.code == 0
    for option in (
        "--items",
        "--budget",
        "--plans",
        "--target",
        "--save",
        "--json",
        "--star",
        "--once",
        "--limit",
    ):
        assert option in finished.stdout


# What is wrong with the request: exit code 2, one message, a next step.


@pytest.mark.parametrize(
    ("target", "items", "word"),
    [
        ("absent_module:f", "range:5", "absent_module"),
        ("jobs:absent", "range:5", "absent"),
        ("jobs:Client.number", "range:5", "number"),
        ("absent.py:f", "range:5", "absent.py"),
        ("no_colon", "range:5", "no_colon"),
        ("broken.py:f", "range:5", "syntax"),
        ("raising.py:f", "range:5", "ZeroDivisionError"),
        ("jobs:double", "range:0", "no inputs"),
        ("jobs:double", "jobs:nothing", "no inputs"),
        ("jobs:double", "absent/*.jpg", "absent/*.jpg"),
        ("jobs:double", "lines:absent.txt", "absent.txt"),
        ("jobs:double", "jobs:absent", "absent"),
        ("jobs:double", "jobs:always", "always"),
    ],
)
def test_a_wrong_request(target: str, items: str, word: str, treadle: Any) -> None:
    (treadle.folder / "broken.py").write_text("def f(:\n    pass\n")
    (treadle.folder / "raising.py").write_text("1 / 0\n")
    finished = treadle("compare", target, "--items", items, *BUDGET)
    assert finished.code == 2, finished
    assert word in finished.stderr, finished
    assert "hint" in finished.stderr, finished
    assert finished.stdout == ""


@pytest.mark.parametrize(
    "more",
    [
        ("--budget", "soon"),
        ("--budget", "-1"),
        ("--plans", "fibers=2"),
        ("--target", "beauty=5"),
        ("--no-such-option",),
    ],
    ids=" ".join,
)
def test_a_wrong_option(more: tuple[str, ...], treadle: Any) -> None:
    finished = treadle("compare", "jobs:double", "--items", "range:5", *more)
    assert finished.code == 2, finished
    assert finished.stderr.strip()
    assert finished.stdout == ""


def test_items_are_needed(treadle: Any) -> None:
    finished = treadle("compare", "jobs:double")
    assert finished.code == 2
    assert "--items" in finished.stderr


# What is wrong with the function.


def test_errors_on_some_inputs_are_counted(treadle: Any, validate: Any) -> None:
    finished = treadle.compare("jobs:half", "range:100", *BUDGET)
    assert finished.code == 0, finished
    validate(finished.json)
    assert chosen(finished.json)["errors"] > 0
    report = treadle("compare", "jobs:half", "--items", "range:100", *BUDGET)
    assert "ValueError" in report.stdout + report.stderr


def test_errors_on_all_inputs_end_it(treadle: Any) -> None:
    finished = treadle("compare", "jobs:always", "--items", "range:20", *BUDGET)
    assert finished.code == 4, finished
    assert "KeyError" in finished.stderr
    assert "hint" in finished.stderr


def test_what_a_measuring_process_cannot_give_is_told(treadle: Any) -> None:
    finished = treadle("compare", "jobs:asks", "--items", "range:20", *BUDGET)
    assert finished.code == 4, finished
    assert "there is no standard input here" in finished.stderr
    finished = treadle("compare", "jobs:fork_and_return", "--items", "range:20", *BUDGET)
    assert finished.code == 4, finished
    assert "its child came back from the call" in finished.stderr


def test_a_function_that_ends_its_process(treadle: Any) -> None:
    finished = treadle("compare", "jobs:leave", "--items", "range:20", *BUDGET)
    assert finished.code == 4, finished
    assert re.search(r"\b7\b", finished.stderr), "the exit code"
    assert re.search(r"\b5\b", finished.stderr), "the input"


def test_a_function_that_never_returns(treadle: Any) -> None:
    finished = treadle("compare", "jobs:hang", "--items", "range:20", "--budget", "2")
    assert finished.code == 4, finished
    assert re.search(r"\b5\b", finished.stderr), "the input"


@pytest.mark.parametrize(
    ("target", "items", "word"),
    [
        ("jobs:anonymous", "range:40", "function"),
        ("jobs:use", "jobs:clients", "args[0]._lock"),
        ("jobs:locked", "range:40", "result"),
    ],
)
def test_what_cannot_be_pickled_makes_processes_infeasible(
    target: str, items: str, word: str, treadle: Any, validate: Any
) -> None:
    finished = treadle.compare(target, items, *BUDGET)
    assert finished.code == 0, finished
    validate(finished.json)
    processes = plans(finished.json, "processes")
    assert processes, "they are listed, with the reason"
    for one in processes:
        assert one["outcome"] == "infeasible", one
        assert word in one["reason"], one
    assert "processes" not in finished.json["decision"]["plan"]


# How it ends.


def test_control_c_leaves_nothing(treadle: Any) -> None:
    pipe = treadle.folder / "pipe"
    os.mkfifo(pipe)
    (treadle.folder / "paths.txt").write_text("pipe\n" * 20)
    process = treadle.start(
        "compare", "jobs:tell_and_hang", "--items", "lines:paths.txt", "--budget", "60"
    )
    with open(pipe) as reader:  # opens when the function runs
        assert reader.read() == "running"
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does
    finished = treadle.finish(process)
    assert finished.code == 130, finished
    assert finished.stderr.strip()


def test_control_c_during_the_race_leaves_nothing(treadle: Any) -> None:
    process = treadle.start("compare", "jobs:nap", "--items", "range:400", "--budget", "120")
    seen = ""
    for line in process.stderr:
        seen += line
        if "/s" in line or "rac" in line.lower():
            break
    os.killpg(process.pid, signal.SIGINT)
    finished = treadle.finish(process)
    assert finished.code in (0, 130), (seen, finished)  # 0: the race was over by then


def test_kill_leaves_nothing(treadle: Any) -> None:
    pipe = treadle.folder / "pipe"
    os.mkfifo(pipe)
    (treadle.folder / "paths.txt").write_text("pipe\n" * 20)
    process = treadle.start(
        "compare", "jobs:tell_and_hang", "--items", "lines:paths.txt", "--budget", "60"
    )
    with open(pipe) as reader:
        assert reader.read() == "running"
    process.kill()
    assert treadle.finish(process).code == -signal.SIGKILL


# What it saves.


def test_a_saved_decision_is_found_again(treadle: Any) -> None:
    finished = treadle.compare("jobs:nap", "range:200", "--save", "naps", *BUDGET)
    assert finished.code == 0, finished
    assert (treadle.folder / "treadle.toml").is_file()
    records = list((treadle.folder / "docs" / "decisions").glob("*naps*"))
    assert {path.suffix for path in records} == {".md", ".json"}
    below = treadle.folder / "below"
    below.mkdir()
    program = (
        "import json, treadle\n"
        "with treadle.Executor.decided('naps') as executor:\n"
        "    plan = executor.plan\n"
        "    total = sum(executor.map(abs, range(5)))\n"
        "sizes = ('threads', 'processes', 'coroutines', 'interpreters')\n"
        "print(json.dumps([{n: getattr(plan, n) for n in sizes if getattr(plan, n, None)}, total]))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=below, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [finished.json["decision"]["plan"], 10]


def test_an_unknown_decision_names_the_known_ones(treadle: Any) -> None:
    finished = treadle.compare("jobs:double", "range:200", "--save", "doubles", *BUDGET)
    assert finished.code == 0, finished
    program = "import treadle\ntreadle.Executor.decided('doubled')\n"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=treadle.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "doubles" in ran.stderr


def test_saving_keeps_what_people_wrote(treadle: Any) -> None:
    path: Path = treadle.folder / "treadle.toml"
    path.write_text('# ours\n[other]\nkey = "kept"\n')
    assert treadle.compare("jobs:double", "range:200", "--save", "doubles", *BUDGET).code == 0
    text = path.read_text()
    assert "# ours" in text
    assert 'key = "kept"' in text
    assert "doubles" in text
