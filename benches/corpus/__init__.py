"""The workload corpus: small real functions over real libraries, with their inputs and their class.

`make accuracy` runs `treadle compare` on every one and measures whether the advice was good. The
class a workload declares follows from its construction, from what the library is known to do. It
is never taken from what compare said.

One by hand: `treadle compare benches.corpus.hashing:digest --items benches.corpus.hashing:blocks`.
Those marked `server` need `python demo/server.py` and its address in TREADLE_CORPUS_SERVER.
"""

from __future__ import annotations

import importlib

from benches.corpus.workload import Workload, of_module

MODULES = (
    "ciphers",
    "compression",
    "computing",
    "crawling",
    "databases",
    "hashing",
    "learning",
    "markup",
    "matrices",
    "moving",
    "parsing",
    "pictures",
    "programs",
    "tables",
    "trifles",
    "waiting",
)


def workloads() -> list[Workload]:
    """All workloads, by module; raises ImportError where requirements/corpus.txt is not installed."""
    found: list[Workload] = []
    for name in MODULES:
        module = importlib.import_module(f"benches.corpus.{name}")
        found += of_module(module)
    return found
