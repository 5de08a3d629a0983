"""What is done with a module when it is first imported: a worker prepares what its tasks may load, without loading it.

::

    import logging ─► the finder here ─► the module's own loader ─► prepare(logging) ─► whoever imports it

*Guarantees*: a module is made by its own loader and prepared before any code but its own sees it, in whichever thread; an import that fails is prepared
when it is tried again.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from typing import Any

_waiting: dict[str, Callable[[Any], object]] = {}


def prepare(name: str, preparation: Callable[[Any], object]) -> None:
    """Calls ``preparation`` with the module of this name: now, or when it is there."""
    if name in sys.modules:
        # Another thread may be in the midst of it: this waits.
        __import__(name)
        preparation(sys.modules[name])
        return
    _waiting[name] = preparation
    # It stays there when it has nothing left to do: another thread may be going through the list.
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def find(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
    """Where a module is, with ``path`` of the package that it is in. :mod:`importlib.util` finds it too, and brings ``threading`` along."""
    for finder in list(sys.meta_path):
        find_spec = None if finder is _Finder else getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = None if find_spec is None else find_spec(name, path, target)
        if spec is not None:
            return spec
    return None


class _Finder:
    """Finds what is waited for where the other finders find it."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in _waiting:
            return None
        spec = find(name, path, target)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec


class _Loader:
    """The module's own loader, and the preparation after it."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def create_module(self, spec: ModuleSpec) -> Any:
        return self._own.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__loader__ = module.__spec__.loader = self._own
        self._own.exec_module(module)
        name = module.__name__
        # Whoever loads a copy of the module beside the real one has not imported it.
        if name in _waiting and sys.modules.get(name) is module:
            _waiting[name](module)
            _waiting.pop(name, None)
