"""A function and its inputs carried by file from the program that asks to the process that measures.

The file is a pickle of plain data around another pickle: ``{"path", "main", "payload"}``, where ``path`` is
the asker's ``sys.path``, ``main`` says how to load its main module, and ``payload`` is the pickle of
(function, list of inputs). What the payload refers to in ``__main__`` is found by importing the asker's main
file once more under the name ``__mp_main__``, as ``multiprocessing`` does, so a script needs the usual
``if __name__ == "__main__":`` guard.
"""

from __future__ import annotations

import io
import os
import pickle
import runpy
import sys
import types
from collections.abc import Callable
from typing import Any

from treadle import _pickling
from treadle._laboratory import failure
from treadle._laboratory.items import Items
from treadle._laboratory.refusal import Refusal
from treadle._laboratory.target import Target


def main_location() -> dict[str, str] | None:
    """How the present main module can be loaded elsewhere; None in a shell, a notebook or ``-c``."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return {"name": spec.name}
    file = getattr(main, "__file__", None)
    if file is not None and os.path.isfile(file):
        return {"file": os.path.abspath(file)}
    return None


def write(path: str, function: Callable[..., Any], items: list[Any]) -> None:
    """Writes the delivery to `path`; raises a ``pickle.PicklingError`` that says what cannot travel."""
    main = main_location()
    payload, exception = _dumps(pickle.dumps, (function, items))
    if payload is None or (main is None and b"__main__" in payload):
        payload = _by_value(function, items, main, exception)
    with open(path, "wb") as file:
        pickle.dump({"path": _absolute_path(), "main": main, "payload": payload}, file, protocol=5)


def _by_value(
    function: Any, items: list[Any], main: dict[str, str] | None, exception: Exception | None
) -> bytes:
    try:
        import cloudpickle
    except ImportError:
        payload = None
    else:
        payload, exception = _dumps(cloudpickle.dumps, (function, items))
    if payload is not None:
        return payload
    if main is None and exception is None:
        from treadle.errors import PayloadError

        raise PayloadError(
            "the function is defined in a program without a file, so no other process can import it"
            "\n\nhint: define it in a module, or install cloudpickle, which carries it by value"
        )
    error = exception if exception is not None else pickle.PicklingError("not importable")
    raise _pickling.explain_call(
        function, tuple(items), {}, error, have_cloudpickle="cloudpickle" in sys.modules
    ) from error


def _dumps(dumps: Callable[..., bytes], value: Any) -> tuple[bytes | None, Exception | None]:
    try:
        return dumps(value, protocol=5), None
    except Exception as exception:
        return None, exception


def _absolute_path() -> list[str]:
    return [os.path.abspath(entry) if entry else os.getcwd() for entry in sys.path]


class _Unpickler(pickle.Unpickler):
    """Loads the asker's main module when, and only when, something in it is referred to."""

    def __init__(self, data: bytes, main: dict[str, str] | None) -> None:
        super().__init__(io.BytesIO(data))
        self._main = main

    def find_class(self, module: str, name: str) -> Any:
        if module == "__main__" and self._main is not None:
            _become(self._main)
            self._main = None
        return super().find_class(module, name)


def _become(main: dict[str, str]) -> None:
    """Makes the asker's main module this process's ``__main__``, so that its workers find it too."""
    module = types.ModuleType("__mp_main__")
    if "name" in main:
        content = runpy.run_module(main["name"], run_name="__mp_main__", alter_sys=True)
    else:
        content = runpy.run_path(main["file"], run_name="__mp_main__")
    module.__dict__.update(content)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


def load(path: str, limit: int) -> tuple[Target, Items]:
    """(target, items) of the delivery at `path`; raises `Refusal` if they cannot be loaded here."""
    with open(path, "rb") as file:
        delivery = pickle.load(file)
    sys.path[:] = delivery["path"] + [entry for entry in sys.path if entry not in delivery["path"]]
    try:
        function, items = _Unpickler(delivery["payload"], delivery["main"]).load()
    except BaseException as exception:
        raise Refusal(
            "target-raised",
            "the function and its inputs could not be loaded in the measuring process: "
            f"{failure.type_name(type(exception))}: {failure.message(exception)}",
            'a script that measures needs `if __name__ == "__main__":` around what it runs',
            failure.user_traceback(exception),
        ) from None
    if not items:
        raise Refusal("items-empty", "the list of inputs is empty", "there is nothing to measure")
    name = getattr(function, "__qualname__", type(function).__qualname__)
    module = getattr(function, "__module__", None) or type(function).__module__
    target = Target.of(function, f"{module}:{name}")
    return target, Items(
        list(items[:limit]), f"{len(items)} inputs given by the program", len(items) > limit
    )
