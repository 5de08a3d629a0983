"""The pytest plug-in: recorded decisions as tests, in a pytest of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

PLUGIN = ("-p", "treadle.integrations.pytest", "-p", "no:cacheprovider")


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Runs pytest there in a process of its own; the plug-in is named where no entry point is installed."""
    from importlib.metadata import entry_points

    known = any(one.value == PLUGIN[1] for one in entry_points(group="pytest11"))
    return project.runpytest_subprocess(*(PLUGIN[2:] if known else PLUGIN), *arguments)


def edit(project: pytest.Pytester, old: str, new: str) -> None:
    """Changes the function as a person would."""
    path: Path = project.path / "work.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_it_is_silent_unless_asked(project: pytest.Pytester) -> None:
    run(project).assert_outcomes(passed=1)


def test_a_decision_that_holds_passes(project: pytest.Pytester) -> None:
    found = run(project, "--treadle", "-v")
    found.assert_outcomes(passed=2)
    found.stdout.fnmatch_lines(["*treadle.toml::work PASSED*"])


def test_the_setting_asks_for_it_too(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\ntreadle_decisions = true\n")
    run(project, "--strict-markers").assert_outcomes(passed=2)


def test_an_overturned_decision_fails_and_says_why(project: pytest.Pytester) -> None:
    edit(project, "end = time.thread_time() + 0.004", "time.sleep(0.004)\n    return number")
    found = run(project, "--treadle")
    found.assert_outcomes(passed=1, failed=1)
    found.stdout.fnmatch_lines(["*work: overturned*", "*changed: *", "*why: *", "*do: *"])
    assert "Traceback" not in found.stdout.str()


@pytest.mark.parametrize("how", ["option", "setting"])
def test_a_stale_decision_warns_or_fails(how: str, project: pytest.Pytester) -> None:
    edit(project, "return number", "return bytes(60_000)")
    found = run(project, "--treadle")
    found.assert_outcomes(passed=2, warnings=1)
    found.stdout.fnmatch_lines(["*StaleDecisionWarning: work: stale*"])
    if how == "option":
        found = run(project, "--treadle", "--treadle-stale=fail")
    else:
        project.makeini("[pytest]\ntreadle_stale = fail\n")
        found = run(project, "--treadle")
    found.assert_outcomes(passed=1, failed=1)


def test_an_inconclusive_decision_is_skipped_with_its_reason(project: pytest.Pytester) -> None:
    edit(project, "return number", "raise OSError('no disk')")
    found = run(project, "--treadle", "-rs")
    found.assert_outcomes(passed=1, skipped=1)
    found.stdout.fnmatch_lines(["*inconclusive: it could not be measured: *every input*"])


def test_files_alone_on_request(project: pytest.Pytester) -> None:
    edit(project, "return number", "return +number")
    found = run(project, "--treadle", "--treadle-level=static")
    found.assert_outcomes(passed=2, warnings=1)


def test_one_decision_by_its_name(project: pytest.Pytester) -> None:
    run(project, "--treadle", "treadle.toml::work").assert_outcomes(passed=1)
    run(project, "--treadle", "test_own.py::test_own").assert_outcomes(passed=1)
    found = run(project, "--treadle", "-k", "own and not work")
    found.assert_outcomes(passed=1, deselected=1)


def test_what_cannot_be_read_is_told(project: pytest.Pytester) -> None:
    (project.path / "treadle.toml").write_text("[decision\n")
    found = run(project, "--treadle")
    assert found.ret != 0
    assert "not valid TOML" in found.stdout.str() + found.stderr.str()
    (project.path / "treadle.toml").unlink()
    found = run(project, "--treadle")
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    assert "there is no treadle.toml" in found.stderr.str()
    found = run(project, "--treadle", "-o", "treadle_stale=perhaps")
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    assert "perhaps" in found.stderr.str()
