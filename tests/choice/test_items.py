"""Every form of --items, and every way in which it can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from treadle._laboratory import items
from treadle._laboratory.refusal import Refusal

Write = Callable[[str, str], Path]


@pytest.fixture(autouse=True)
def _in_the_tests_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def refusal(spec: str, star: bool = False) -> Refusal:
    with pytest.raises(Refusal) as caught:
        items.load(spec, 100, star)
    assert caught.value.hint, "every refusal says what to do next"
    return caught.value


def test_range() -> None:
    found = items.load("range:5", 100, False)
    assert found.values == [0, 1, 2, 3, 4] and not found.truncated


def test_more_than_the_limit_is_cut_and_said(write: Write) -> None:
    write("endless_source.py", "import itertools\ndef numbers():\n    return itertools.count()\n")
    found = items.load("endless_source:numbers", 7, False)
    assert found.values == list(range(7)) and found.truncated
    assert not items.load("range:7", 7, False).truncated


def test_lines(write: Write) -> None:
    write("urls.txt", "http://a\nhttp://b\r\n\nlast")
    assert items.load("lines:urls.txt", 100, False).values == ["http://a", "http://b", "", "last"]


def test_json_lines(write: Write) -> None:
    write("rows.jsonl", '{"a": 1}\n\n[1, 2]\n"x"\n')
    assert items.load("json:rows.jsonl", 100, False).values == [{"a": 1}, [1, 2], "x"]
    assert items.load("json:rows.jsonl", 100, True).values == [{"a": 1}, (1, 2), "x"]


def test_glob_is_sorted(write: Write) -> None:
    for name in ("p/b.jpg", "p/a.jpg", "p/c.png", "p/q/d.jpg"):
        write(name, "")
    assert items.load("p/*.jpg", 100, False).values == ["p/a.jpg", "p/b.jpg"]
    assert items.load("p/**/*.jpg", 100, False).values == ["p/a.jpg", "p/b.jpg", "p/q/d.jpg"]


def test_callables_return_or_yield(write: Write) -> None:
    write("listed_source.py", "def listed():\n    return [1, 2]\ndef yielded():\n    yield 3\n")
    assert items.load("listed_source:listed", 100, False).values == [1, 2]
    assert items.load("listed_source.py:yielded", 100, False).values == [3]


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("range:many", "items-spec"),
        ("range:-1", "items-spec"),
        ("what:is this", "items-spec"),
        ("range:0", "items-empty"),
        ("lines:absent.txt", "items-file"),
        ("lines:empty.txt", "items-empty"),
        ("lines:binary.bin", "items-file"),
        ("json:broken.jsonl", "items-file"),
        ("p/*.gif", "items-glob-empty"),
        ("absent/file.txt", "items-glob-empty"),
        ("absent_module:f", "items-callable"),
        ("absent.py:f", "items-callable"),
        ("wrong_source:absent", "items-callable"),
        ("wrong_source:number", "items-callable"),
        ("wrong_source:asynchronous", "items-callable"),
        ("wrong_source:raising", "items-raised"),
        ("wrong_source:exiting", "items-raised"),
        ("wrong_source:raising_later", "items-raised"),
        ("wrong_source:text", "items-not-iterable"),
        ("wrong_source:nothing", "items-not-iterable"),
        ("wrong_source:empty", "items-empty"),
        ("raising_source:f", "items-raised"),
    ],
)
def test_each_mistake_has_its_kind(spec: str, kind: str, write: Write) -> None:
    write("empty.txt", "")
    write("broken.jsonl", '1\n{"a"\n')
    Path("binary.bin").write_bytes(b"\xff\xfe\x00\x81")
    write("raising_source.py", "raise ValueError('at import')\n")
    write(
        "wrong_source.py",
        "import sys\nnumber = 3\n"
        "async def asynchronous(): return [1]\n"
        "def raising(): raise ValueError('no')\n"
        "def exiting(): sys.exit(2)\n"
        "def raising_later():\n    yield 1\n    raise KeyError('later')\n"
        "def text(): return 'abc'\ndef nothing(): pass\ndef empty(): return []\n",
    )
    assert refusal(spec).kind == kind


def test_the_broken_line_is_named(write: Write) -> None:
    write("broken.jsonl", '1\n{"a"\n')
    assert "line 2" in refusal("json:broken.jsonl").message


def test_the_users_own_frames_are_shown(write: Write) -> None:
    write("deep_source.py", "def f():\n    return g()\ndef g():\n    raise ValueError('deep')\n")
    detail = refusal("deep_source:f").detail
    assert detail is not None
    assert "in g" in detail and "_laboratory" not in detail and "ValueError: deep" in detail
