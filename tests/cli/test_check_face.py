"""``treadle.check`` from programs: the same answers as the command's, as objects, and the same refusals."""

from __future__ import annotations

from typing import Any

import pytest
import treadle
from treadle.record import decided


def test_the_answers_as_objects(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREADLE_NOISE", "ignore")
    found = treadle.check(directory=recorded.folder)
    assert isinstance(found, treadle.Check)
    assert (found.answer, found.exit_code) == ("holds", 0)
    (one,) = found.decisions
    assert one.plan == decided("work", recorded.folder)
    assert one.instead is None
    assert "work: holds" in str(one)
    assert found.to_json()["decisions"][0]["name"] == "work"
    path = recorded.folder / "work.py"
    path.write_text(path.read_text().replace("spin(SECONDS)", "time.sleep(SECONDS)"))
    found = treadle.check("work", directory=recorded.folder)
    assert (found.answer, found.exit_code) == ("overturned", 2)
    (one,) = found.decisions
    assert one.instead is not None
    assert one.instead.threads
    assert any("CPU share" in change for change in one.changes)


def test_what_cannot_be_read_raises(recorded: Any) -> None:
    with pytest.raises(treadle.RecordError, match="recorded are: work") as caught:
        treadle.check("works", directory=recorded.folder)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(treadle.RecordError, match="budget"):
        treadle.check(directory=recorded.folder, budget=0)
    (recorded.folder / "treadle.toml").write_text("[decision\n")
    with pytest.raises(treadle.RecordError, match="not valid TOML"):
        treadle.check(directory=recorded.folder)
