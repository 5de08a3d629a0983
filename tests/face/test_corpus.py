"""The workload corpus: every workload is declared well and runs on its first input."""

from __future__ import annotations

import asyncio
import importlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
try:
    from benches import corpus
    from benches.corpus.workload import ADDRESS, CLASSES, KINDS, of_module, workload
finally:
    sys.path.remove(str(ROOT))

#: compare reads so many inputs by default; a batch beyond it is charged no start-up.
LIMIT = 10_000


@pytest.fixture(autouse=True)
def root_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def module_or_skip(name: str) -> ModuleType:
    """The module of the corpus, unless a library of requirements/corpus.txt is absent."""
    try:
        return importlib.import_module(f"benches.corpus.{name}")
    except ModuleNotFoundError as absent:
        pytest.skip(f"requirements/corpus.txt is not installed: {absent}")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "demo" / "server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.kill()
    process.communicate()


@pytest.mark.parametrize("name", corpus.MODULES)
def test_every_workload_runs(name: str, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, server)
    module = module_or_skip(name)
    assert of_module(module), f"{name} declares no workload"
    for one in of_module(module):
        items = list(one.inputs())
        assert 8 <= len(items) <= LIMIT, one.name
        again = next(iter(one.inputs()))
        assert pickle.dumps(items[0]) == pickle.dumps(again), f"{one.name}: other inputs each time"
        found = asyncio.run(one.function(items[0])) if one.is_async else one.function(items[0])
        assert found is not None, one.name
        pickle.dumps(found)


@pytest.mark.parametrize("name", corpus.MODULES)
def test_every_workload_is_declared_well(name: str) -> None:
    for one in of_module(module_or_skip(name)):
        assert one.classes, one.name
        assert set(one.classes) <= set(CLASSES), one.name
        assert set(one.kinds) <= set(KINDS), one.name
        assert len(one.because) > 20, f"{one.name} does not say why"
        for spec in (one.target, one.items):
            place, _colon, attribute = spec.partition(":")
            assert callable(getattr(importlib.import_module(place), attribute)), spec
        assert one.function.__doc__, one.name


def test_the_corpus_is_broad() -> None:
    for name in corpus.MODULES:
        module_or_skip(name)
    known = corpus.workloads()
    names = [one.name for one in known]
    assert len(names) == len(set(names)) >= 44
    assert not set(names) & set(corpus.MODULES), "--only could mean either"
    for name in CLASSES:
        assert sum(one.classes == (name,) for one in known) >= 3, name
    for name in KINDS:
        assert any(name in one.kinds for one in known), name
    borders = [one.name for one in known if len(one.classes) > 1]
    assert len(borders) <= len(known) / 10, f"too many on a border: {borders}"
    assert sum(one.is_async for one in known) >= 5


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(ValueError, match="disk-bound"):
        workload(list, "disk-bound", because="there is no such class")
