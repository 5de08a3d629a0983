"""The program's main module, in an interpreter that is not the program's: a zygote, a worker, a sub-interpreter.

*Guarantees*: it needs nothing of the extension module, which a sub-interpreter cannot load.
"""

from __future__ import annotations

import os
import sys

from treadle import _worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec


def import_main(kind: str, value: str) -> None:
    """Imports the program's main module as ``__mp_main__``, as ``multiprocessing`` does, and makes it ``__main__``; of ``uses``, only these modules."""
    if kind == "uses":
        _import_each(value.split("/"))
        return
    if kind == "none" or value.endswith(".__main__"):
        return
    import types

    main = types.ModuleType("__mp_main__")
    _worker.importing_main = True
    try:
        if kind == "module":
            spec = _find(value)
            if spec is None or spec.loader is None:
                raise ImportError(f"the main module {value!r} cannot be found from here")
            code = spec.loader.get_code(value)  # type: ignore[attr-defined]
            main.__spec__ = spec
            main.__file__ = spec.origin
            main.__package__ = spec.parent
        else:
            if not os.path.isfile(value):
                # A REPL that says "<stdin>", a notebook, an archive: there is no file to import.
                return
            with open(value, "rb") as file:
                code = compile(file.read(), value, "exec", dont_inherit=True)
            main.__file__ = value
        # Before it runs: pickles made by it name __main__.
        sys.modules["__main__"] = sys.modules["__mp_main__"] = main
        if code is not None:
            exec(code, main.__dict__)
    finally:
        _worker.importing_main = False


def _import_each(names: list[str]) -> None:
    """Imports what the workers of a package's ``__main__`` have in common. What fails is left to the worker that needs it, which tells."""
    _worker.importing_main = True
    try:
        for name in names:
            try:
                __import__(name)
            except (Exception, SystemExit):
                continue
    finally:
        _worker.importing_main = False


def _find(module: str) -> ModuleSpec | None:
    """Where the main module is that the program names."""
    from treadle._worker import importing

    package = module.rpartition(".")[0]
    path = __import__(package, fromlist=["__path__"]).__path__ if package else None
    loaded = sys.modules.get(module)
    return importing.find(module, path) if loaded is None else loaded.__spec__
