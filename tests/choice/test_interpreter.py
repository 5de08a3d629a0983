"""The start of a sub-interpreter, tried where a crash hurts nobody."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from treadle._laboratory import interpreter

newer = pytest.mark.skipif(
    not interpreter.HAS_INTERPRETERS, reason="sub-interpreters came with Python 3.14"
)


def test_an_older_python_says_nothing_of_them() -> None:
    if interpreter.HAS_INTERPRETERS:
        pytest.skip("this Python has them")
    assert interpreter.start("json") == (None, None)


@newer
def test_one_is_started_and_imports_the_module() -> None:
    seconds, refused = interpreter.start("json")
    assert refused is None
    assert seconds is not None
    assert seconds > 0


@newer
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise ImportError('not twice')", "not twice"),
        ("import os; os._exit(9)", "code 9"),
        ("import signal; signal.pause()", "did not end within 2 s"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "code -11"),
    ],
)
def test_what_does_not_bear_one_is_told(
    text: str, told: str, write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write("bears_none.py", text).parent
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    seconds, refused = interpreter.start("bears_none")
    assert seconds is None
    assert refused is not None
    assert told in refused
