"""What a workload of the corpus is, and the decorator that declares one."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

CLASSES = (
    "cpu-bound",
    "cpu-bound-releasing",
    "io-bound",
    "mixed",
    "transfer-bound",
    "too-small",
)
KINDS = ("native-threaded", "memory-hungry", "skewed", "few-inputs")

ADDRESS = "TREADLE_CORPUS_SERVER"
"""The environment variable with the base address of the local HTTP server, demo/server.py."""

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Workload:
    """A function, its inputs, and the class that it has by construction.

    `classes` has more than one entry only where the construction lies on a border; `because` is
    the knowledge of the library that the class rests on. `kinds` names what else it stands for.
    """

    function: Callable[..., Any]
    inputs: Callable[[], Iterable[Any]]
    classes: tuple[str, ...]
    because: str
    kinds: tuple[str, ...] = ()
    server: bool = False

    @property
    def name(self) -> str:
        """The function's name, unique in the corpus."""
        return self.function.__name__

    @property
    def module(self) -> str:
        """The last part of its module's name: the group that `--only` takes."""
        return self.function.__module__.rpartition(".")[2]

    @property
    def target(self) -> str:
        """The TARGET of `treadle compare`."""
        return f"{self.function.__module__}:{self.function.__name__}"

    @property
    def items(self) -> str:
        """The SPEC of `treadle compare --items`."""
        return f"{self.inputs.__module__}:{self.inputs.__name__}"

    @property
    def is_async(self) -> bool:
        """Whether it is an async function."""
        return inspect.iscoroutinefunction(self.function)


def workload(
    inputs: Callable[[], Iterable[Any]],
    *classes: str,
    because: str,
    kinds: tuple[str, ...] = (),
    server: bool = False,
) -> Callable[[Function], Function]:
    """Declares the decorated function a workload; the function itself stays as it is.

    Raises ValueError for a class or a kind that does not exist.
    """
    for name in (*classes, *kinds):
        if name not in CLASSES + KINDS:
            raise ValueError(f"there is no class or kind {name!r}")

    def declared(function: Function) -> Function:
        one = Workload(function, inputs, classes, because, kinds, server)
        function.__globals__.setdefault("_workloads", []).append(one)
        return function

    return declared


def of_module(module: ModuleType) -> list[Workload]:
    """The workloads that `module` declares, in the order of the text."""
    found: list[Workload] = module.__dict__.get("_workloads", [])
    return found


def pages(count: int) -> list[str]:
    """The addresses of pages 0 to `count` - 1 of the local server; raises RuntimeError without."""
    base = os.environ.get(ADDRESS)
    if not base:
        raise RuntimeError(
            f"no server\nhint: run `python demo/server.py` and export {ADDRESS}=<the address it prints>"
        )
    return [f"{base}/page/{number}" for number in range(count)]
