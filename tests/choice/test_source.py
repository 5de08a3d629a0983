"""The fingerprint of a function's source: what changes it, what does not, and how far names are followed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from treadle._laboratory import environment, items, source

PLAIN = '''
LIMIT = 3

def inner(x):
    return x + LIMIT

def outer(x):
    """Says what it does."""
    return inner(x) * 2  # twice
'''

#: The hash of `outer` in any version of Python: it must not depend on which one made it.
OUTER = "6b16b953"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Writes modules into a folder that is on the path; they are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write(**texts: str) -> None:
        for name in set(sys.modules) - before:
            del sys.modules[name]
        for name, text in texts.items():
            path = tmp_path / f"{name.replace('.', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def found(name: str) -> dict[str, Any]:
    return source.fingerprint(name)


def test_a_function_and_what_it_uses(project: Callable[..., None]) -> None:
    project(plain=PLAIN)
    one = found("plain:outer")
    assert set(one["callees"]) == {"plain:inner", "plain:LIMIT"}
    assert one["function"].startswith(OUTER), one["function"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('    """Says what it does."""\n', ""),
        ("  # twice", ""),
        ("return inner(x) * 2", "return (\n        inner(x)\n        * 2\n    )"),
        ("inner(x)", "inner( x, )"),
        ("LIMIT = 3", "LIMIT = (3)  # three"),
        ("return x", "'a remark'\n    return x"),
    ],
    ids=("docstring", "comment", "lines", "commas", "parentheses", "string"),
)
def test_what_is_no_change(old: str, new: str, project: Callable[..., None]) -> None:
    project(plain=PLAIN)
    before = found("plain:outer")
    assert old in PLAIN
    project(plain=PLAIN.replace(old, new))
    assert found("plain:outer") == before


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("* 2", "* 3", None),
        ("x + LIMIT", "x - LIMIT", "plain:inner"),
        ("LIMIT = 3", "LIMIT = 4", "plain:LIMIT"),
    ],
)
def test_what_is_a_change(
    old: str, new: str, part: str | None, project: Callable[..., None]
) -> None:
    project(plain=PLAIN)
    before = found("plain:outer")
    project(plain=PLAIN.replace(old, new))
    after = found("plain:outer")
    changed = {
        name for name in before["callees"] if before["callees"][name] != after["callees"][name]
    }
    assert changed == ({part} if part else set())
    assert (before["function"] != after["function"]) == (part is None)


FOLLOWED = {
    "import leaf\ndef f(): return leaf.work()": {"leaf:work"},
    "import leaf as other\ndef f(): return other.work()": {"leaf:work"},
    "from leaf import work as other\ndef f(): return other()": {"leaf:work"},
    "from leaf import *\ndef f(): return work()": {"leaf:work"},
    "def f():\n    from leaf import work\n    return work()": {"leaf:work"},
    "from package import deep\ndef f(): return deep.dig()": {"package.deep:dig"},
    "import package.deep\ndef f(): return package.deep.dig()": {"package.deep:dig"},
    "from bare import deep\ndef f(): return deep.dig()": {"bare.deep:dig"},
    "from package import dig\ndef f(): return dig()": {"package.deep:dig"},
    "class C:\n    def m(self): return g()\ndef g(): pass\ndef f(): return C().m()": {
        "top:C",
        "top:g",
    },
    "try:\n    import absent\nexcept ImportError:\n    def g(): pass\ndef f(): return g()": {
        "top:g"
    },
    "def make(): return lambda x: x\nf = make()": {"top:make"},
    "def keep(g): return g\ndef h(): pass\n@keep\ndef f(): h()": {"top:keep", "top:h"},
    "import json, zlib\ndef f(x): return zlib.crc32(json.dumps(x).encode())": set(),
    "import pytest\ndef f(): return pytest.approx(1)": set(),
    "def work(): pass\ndef f(work): return work()": set(),
    "def f(x):\n    global total\n    total = x\ntotal = 0": {"top:total"},
}


@pytest.mark.parametrize("text", FOLLOWED, ids=lambda text: text.splitlines()[0][:30])
def test_names_are_followed_through_the_project(text: str, project: Callable[..., None]) -> None:
    modules = {
        "leaf": "def work(): pass\n",
        "package.__init__": "from .deep import dig\n",
        "package.deep": "def dig(): pass\n",
        "bare.deep": "def dig(): pass\n",
        "top": text,
    }
    project(**modules)
    assert set(found("top:f")["callees"]) == FOLLOWED[text]


def test_what_has_no_source_has_no_hash(project: Callable[..., None]) -> None:
    assert found("math:sqrt") == {"function": None, "callees": {}}
    assert found("json:loads") == {"function": None, "callees": {}}


def test_functions_that_call_each_other_end(project: Callable[..., None]) -> None:
    project(loop="def f(n): return g(n)\ndef g(n): return f(n)\n")
    assert set(found("loop:f")["callees"]) == {"loop:g"}


def test_what_makes_the_inputs_has_a_hash_too(project: Callable[..., None]) -> None:
    project(inputs="COUNT = 3\ndef make(): return range(COUNT)\n")
    before = items.source_hash("inputs:make")
    assert before is not None
    project(inputs="COUNT = 4\ndef make(): return range(COUNT)\n")
    assert items.source_hash("inputs:make") not in (None, before)
    for spec in ("range:5", "lines:file.txt", "*.jpg", "inputs:absent"):
        assert items.source_hash(spec) is None, spec


def test_a_function_that_moved_is_found_the_same_one_first(project: Callable[..., None]) -> None:
    project(plain=PLAIN)
    known = found("plain:outer")["function"]
    others = {"a": PLAIN.replace("* 2", "* 5"), "inner.z": PLAIN, "node_modules.x": PLAIN}
    project(**others)
    Path("plain.py").unlink()
    places = source.locate("plain:outer", known)
    assert places == [
        {"target": "inner/z.py:outer", "same": True},
        {"target": "a.py:outer", "same": False},
    ]
    assert source.locate("plain:absent", known) == []


def test_the_environment_names_versions_and_build() -> None:
    told = environment.describe()
    assert told["python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
    assert set(told["build"]) >= {"compiler", "debug", "free_threaded", "optimisations"}
    assert "pytest" in told["distributions"], "imported here, and not of the standard library"
    named = environment.describe(["pytest", "no-such-package"])
    assert named["distributions"]["no-such-package"] is None
    assert named["distributions"]["pytest"] == told["distributions"]["pytest"]
