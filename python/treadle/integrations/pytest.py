"""The pytest plug-in: each recorded decision is a test that says whether it is still right.

Off unless asked for, by ``--treadle`` or by ``treadle_decisions = true`` in pytest's settings. *Overturned* fails; *stale*
warns, or fails with ``--treadle-stale=fail``; *inconclusive* is skipped with its reason; *holds* passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from treadle.checking import Answer

FILE = "treadle.toml"


class StaleDecisionWarning(pytest.PytestWarning):
    """A recorded decision no longer describes its function; the choice is not contradicted."""

    __module__ = "treadle.integrations.pytest"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declares the options and the settings of the same meaning."""
    group = parser.getgroup("treadle", "recorded decisions (treadle)")
    group.addoption(
        "--treadle",
        action="store_true",
        help="check the decisions recorded in treadle.toml, one test each",
    )
    group.addoption(
        "--treadle-level",
        choices=("static", "measure", "race"),
        help="compare files alone (static), always profile (measure), or race; "
        "unless told, profile where something has changed",
    )
    group.addoption(
        "--treadle-stale",
        choices=("warn", "fail"),
        help="what a stale decision does (default: warn)",
    )
    parser.addini("treadle_decisions", "check recorded decisions on every run", "bool", False)
    parser.addini("treadle_level", "static, measure or race; see --treadle-level", default="")
    parser.addini("treadle_stale", "warn or fail", default="warn")


def _asked(config: pytest.Config) -> bool:
    return bool(config.getoption("--treadle") or config.getini("treadle_decisions"))


def _setting(config: pytest.Config, name: str, allowed: tuple[str, ...]) -> str:
    value = config.getoption(f"--treadle-{name}") or config.getini(f"treadle_{name}")
    if value and value not in allowed:
        raise pytest.UsageError(f"treadle_{name} is '{value}', but it can be {', '.join(allowed)}")
    return str(value)


def pytest_configure(config: pytest.Config) -> None:
    """Refuses settings that mean nothing before anything runs."""
    config.addinivalue_line("markers", "treadle: a recorded decision, checked by treadle")
    if _asked(config):
        _setting(config, "level", ("static", "measure", "race"))
        _setting(config, "stale", ("warn", "fail"))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> DecisionFile | None:
    """Collects a ``treadle.toml`` that is among the paths given."""
    if file_path.name == FILE and _asked(parent.config):
        collected: DecisionFile = DecisionFile.from_parent(parent, path=file_path)
        return collected
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Adds the decisions of the nearest ``treadle.toml``, unless that file was collected by its path."""
    if not _asked(config):
        return
    path = _nearest(config.rootpath)
    present = {item.path for item in items if isinstance(item, DecisionItem)}
    if any(isinstance(item, DecisionItem) for item in items) and (path is None or path in present):
        return
    if path is None:
        raise pytest.UsageError(
            f"--treadle was given, but there is no {FILE} in {config.rootpath} or above; record a decision "
            "with: treadle compare TARGET --items SPEC --save NAME"
        )
    # Whoever names single tests wants those alone.
    if any("::" in str(argument) for argument in config.args):
        return
    file: DecisionFile = DecisionFile.from_parent(session, path=path)
    try:
        items.extend(file.collect())
    except pytest.Collector.CollectError as error:
        raise pytest.UsageError(str(error)) from None


def _nearest(folder: Path) -> Path | None:
    return next(
        (place / FILE for place in (folder, *folder.parents) if (place / FILE).is_file()), None
    )


class DecisionFile(pytest.File):
    """A ``treadle.toml``."""

    def collect(self) -> Iterator[DecisionItem]:
        """One item for each decision; the file's own faults are a collection error."""
        from treadle import _core, errors

        try:
            _, names = _core.list_decisions(str(self.path.parent))
        except errors.RecordError as error:
            raise self.CollectError(str(error)) from None
        for name in names:
            yield DecisionItem.from_parent(self, name=name)


class DecisionItem(pytest.Item):
    """One decision, checked when the test runs."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.add_marker("treadle")

    def runtest(self) -> None:
        """Checks it; the answer decides how the test ends."""
        from treadle.checking import check

        level = _setting(self.config, "level", ("static", "measure", "race"))
        report = check(
            self.name,
            directory=self.path.parent,
            static=level == "static",
            measure=level == "measure",
            race=level == "race",
        )
        (answer,) = report.decisions
        self.user_properties.append(("treadle_answer", answer.answer))
        self.add_report_section("call", "treadle", str(answer))
        self._end(answer)

    def _end(self, answer: Answer) -> None:
        stale = _setting(self.config, "stale", ("warn", "fail"))
        if answer.answer == "overturned" or (answer.answer == "stale" and stale == "fail"):
            pytest.fail(str(answer), pytrace=False)
        if answer.answer == "stale":
            self.warn(StaleDecisionWarning(str(answer)))
        if answer.answer == "inconclusive":
            pytest.skip(f"inconclusive: {answer.why}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What is wrong with the record, without a traceback of ours."""
        from treadle import errors

        if isinstance(excinfo.value, errors.RecordError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it is said to be: the file, the line, and the decision's name."""
        return self.path, self._line(), f"decision {self.name}"

    def _line(self) -> int:
        """The line of its table, counted from 0; 0 where it is written in another form."""
        head = f"[decision.{self.name}]"
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return next((place for place, line in enumerate(lines) if line.strip() == head), 0)
