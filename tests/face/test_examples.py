"""What the examples share: the marks in their READMEs, and the script that writes measurements between them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MEASURE = runpy.run_path(str(EXAMPLES / "measure.py"))


@pytest.mark.parametrize("name", MEASURE["MODULES"])
def test_a_readme_shows_what_was_measured(name: str) -> None:
    text = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    found = text.partition(MEASURE["FIRST"])[2].partition(MEASURE["LAST"])[0]
    assert "Measured on 20" in found
    assert MEASURE["between_marks"](text, found.strip("\n")) == text


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    text = f"before\n{MEASURE['FIRST']}\nold\n{MEASURE['LAST']}\nafter\n"
    new = MEASURE["between_marks"](text, "| new |")
    assert new == text.replace("old", "| new |")
    with pytest.raises(ValueError, match="there is no place"):
        MEASURE["between_marks"]("before\nafter\n", "new")


def test_the_machine_is_never_more_than_busy() -> None:
    work, whole = MEASURE["processor_times"]()
    assert 0 < work < whole
