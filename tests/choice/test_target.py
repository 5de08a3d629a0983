"""The target is found by name or file, importable elsewhere too, and each mistake is told clearly."""

from __future__ import annotations

import functools
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from treadle._laboratory import target
from treadle._laboratory.refusal import Refusal

Write = Callable[[str, str], Path]


@pytest.fixture(autouse=True)
def _in_the_tests_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The imports of a test are undone after it."""
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(tmp_path))
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def refusal(text: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        target.load(text)
    assert caught.value.hint, "every refusal says what to do next"
    return caught.value


def test_a_module(write: Write) -> None:
    write(
        "resize_job.py",
        "def resize(path):\n    return path\nasync def fetch(url):\n    return url\n",
    )
    found = target.load("resize_job:resize")
    assert found.function(3) == 3 and found.name == "resize_job:resize"
    assert found.file is not None and found.file.endswith("resize_job.py")
    assert found.source_hash is not None and len(found.source_hash) == 64
    assert not found.is_async and target.load("resize_job:fetch").is_async


def test_the_source_hash_follows_the_source(write: Write) -> None:
    write("one_job.py", "def f(x):\n    return x\n")
    write("two_job.py", "def f(x):\n    return x\n")
    write("three_job.py", "def f(x):\n    return x + 1\n")
    hashes = [target.load(f"{name}_job:f").source_hash for name in ("one", "two", "three")]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_file_elsewhere_can_be_pickled_by_name(write: Write) -> None:
    write("elsewhere/crop_job.py", "def crop(x):\n    return x\n")
    found = target.load("elsewhere/crop_job.py:crop")
    assert found.name == "crop_job:crop"
    assert pickle.loads(pickle.dumps(found.function)) is found.function
    assert str(Path("elsewhere").resolve()) in sys.path


def test_a_file_of_a_package_keeps_its_full_name(write: Write) -> None:
    write("outer_pack/__init__.py", "")
    write("outer_pack/base.py", "NUMBER = 5\n")
    write("outer_pack/job.py", "from .base import NUMBER\ndef f(x):\n    return x + NUMBER\n")
    found = target.load("outer_pack/job.py:f")
    assert found.name == "outer_pack.job:f" and found.function(1) == 6


def test_methods_by_their_qualified_name(write: Write) -> None:
    write("method_job.py", "class A:\n    @staticmethod\n    def f(x):\n        return x\n")
    assert target.load("method_job:A.f").function(2) == 2


@pytest.mark.parametrize(
    ("text", "kind", "word"),
    [
        ("nothing", "target-syntax", "nothing"),
        ("module:", "target-syntax", "module:"),
        (":f", "target-syntax", ":f"),
        ("not a module:f", "target-syntax", "not a module"),
        ("absent_module:f", "target-module", "absent_module"),
        ("good_job.absent:f", "target-module", "good_job.absent"),
        ("absent.py:f", "target-file", "absent.py"),
        ("statistics.py:f", "target-file", "statistics"),
        ("two.dots.py:f", "target-file", "two.dots.py"),
        ("good_job:absent", "target-function", "absent"),
        ("good_job:NUMBER", "target-not-callable", "int"),
        ("raising_job:f", "target-raised", "ZeroDivisionError"),
        ("exiting_job:f", "target-raised", "SystemExit"),
        ("missing_import_job:f", "target-raised", "absent_dependency"),
        ("syntax_job.py:f", "target-raised", "line 2"),
    ],
)
def test_each_mistake_has_its_kind(text: str, kind: str, word: str, write: Write) -> None:
    write("good_job.py", "NUMBER = 1\ndef f(x):\n    return x\n")
    write("statistics.py", "def f(x):\n    return x\n")
    write("two.dots.py", "def f(x):\n    return x\n")
    write("raising_job.py", "1 / 0\n")
    write("exiting_job.py", "import sys\nsys.exit(1)\n")
    write("missing_import_job.py", "import absent_dependency\n")
    write("syntax_job.py", "x = 1\ndef f(:\n    pass\n")
    found = refusal(text)
    assert found.kind == kind and word in found.message


def test_a_near_name_is_offered(write: Write) -> None:
    write("near_job.py", "def resize(x):\n    return x\n")
    assert "'resize'" in (refusal("near_job:resise").hint or "")
    assert "near_job.py:resize" in (refusal("near_jop.py:resize").hint or "")


def test_two_files_of_one_name_are_not_mixed_up(write: Write) -> None:
    write("a/same_job.py", "def f(x):\n    return 1\n")
    write("b/same_job.py", "def f(x):\n    return 2\n")
    assert target.load("a/same_job.py:f").function(0) == 1
    assert target.load("a/same_job.py:f").function(0) == 1
    assert refusal("b/same_job.py:f").kind == "target-file"


def test_async_is_seen_through_partials_and_calls() -> None:
    async def fetch(url: str) -> str:
        return url

    class Fetcher:
        async def __call__(self, url: str) -> str:
            return url

    assert target.is_async(fetch)
    assert target.is_async(functools.partial(fetch, "x"))
    assert target.is_async(Fetcher())
    assert not target.is_async(len)
    assert not target.is_async(Fetcher)
