"""The function under study: ``module:function`` or ``file.py:function``, importable in workers too."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from treadle._laboratory import failure
from treadle._laboratory.refusal import Refusal

_FORMS = "write it as module:function or file.py:function"


@dataclass(frozen=True)
class Target:
    """A loaded function: what it is called, where it is from, what it was when measured."""

    function: Callable[..., Any]
    name: str
    file: str | None
    source_hash: str | None
    is_async: bool

    @classmethod
    def of(cls, function: Callable[..., Any], name: str) -> Target:
        """Describes `function`; file and SHA-256 of its source are None where Python cannot tell."""
        plain = function
        while hasattr(plain, "func") and hasattr(plain, "keywords"):  # functools.partial
            plain = plain.func
        file = digest = None
        try:
            file = inspect.getsourcefile(plain)
            digest = hashlib.sha256(inspect.getsource(plain).encode()).hexdigest()
        except (TypeError, OSError, SyntaxError, IndexError):
            pass
        return cls(function, name, file, digest, is_async(function))


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: ``async def``, a partial of one, or an async ``__call__``."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004
    )


def make_folder_importable(folder: str) -> None:
    """Puts `folder` first on ``sys.path`` (which worker processes inherit), as running a script would."""
    folder = os.path.abspath(folder)
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)


def load(text: str) -> Target:
    """The target named by `text`; raises `Refusal` (kinds ``target-*``) with the next step."""
    function, name = find(text, "target")
    return Target.of(function, name)


def find(text: str, role: str) -> tuple[Callable[..., Any], str]:
    """(callable, ``module:name``) for ``module:name`` or ``file.py:name``.

    `role` is ``target`` or ``items``: the first part of the refusals' kinds.
    """
    place, colon, attribute = text.rpartition(":")
    if not colon or not place or not attribute:
        kind = "target-syntax" if role == "target" else "items-spec"
        raise Refusal(kind, f"'{text}' does not name a function", _FORMS)
    if place.endswith(".py") or "/" in place or os.sep in place:
        module = _module_from_file(place, attribute, role)
    else:
        module = _module_from_name(place, role)
    return _attribute(module, attribute, text, role), f"{module.__name__}:{attribute}"


def _kind(role: str, target_kind: str) -> str:
    """The items' callable has fewer kinds than the target: all that is not its own fault is one."""
    if role == "target":
        return target_kind
    return "items-raised" if target_kind == "target-raised" else "items-callable"


def _module_from_file(path: str, attribute: str, role: str) -> ModuleType:
    whole = os.path.abspath(path)
    if not os.path.isfile(whole):
        near = _near_files(whole)
        hint = f"did you mean {near}:{attribute}?" if near else f"no such file below {os.getcwd()}"
        if not whole.endswith(".py") and os.path.isfile(whole + ".py"):
            hint = f"did you mean {path}.py:{attribute}?"
        raise Refusal(_kind(role, "target-file"), f"there is no file {path}", hint)
    folder, base = os.path.split(whole)
    stem = base[: -len(".py")] if base.endswith(".py") else ""
    if not stem or "." in stem:
        raise Refusal(
            _kind(role, "target-file"),
            f"{path} cannot be imported: its name must be one word and .py",
            "rename it, so that worker processes can import it too",
        )
    parts = [] if stem == "__init__" else [stem]
    while os.path.isfile(
        os.path.join(folder, "__init__.py")
    ):  # a file of a package keeps its name there
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    name = ".".join(parts)
    imported = sys.modules.get(name) or sys.modules.get(parts[0])
    clash = parts[0] in sys.stdlib_module_names
    if imported is not None and not clash:
        known = getattr(sys.modules.get(name), "__file__", None)
        clash = name in sys.modules and (known is None or os.path.abspath(known) != whole)
    if clash:
        raise Refusal(
            _kind(role, "target-file"),
            f"{path} has the name of another module, '{parts[0]}', which is already in use",
            "rename the file, so that every process imports the same one",
        )
    make_folder_importable(folder)
    module = _import(name, path, role)
    known = getattr(module, "__file__", None)
    if known is None or os.path.realpath(known) != os.path.realpath(whole):
        raise Refusal(
            _kind(role, "target-file"),
            f"importing {path} as '{name}' gave another file: {known}",
            "rename the file, so that every process imports the same one",
        )
    return module


def _module_from_name(name: str, role: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        kind = "target-syntax" if role == "target" else "items-spec"
        raise Refusal(kind, f"'{name}' is not a module's name", _FORMS)
    return _import(name, name, role)


def _import(name: str, shown: str, role: str) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exception:
        if exception.name and (name == exception.name or name.startswith(exception.name + ".")):
            file = name.replace(".", os.sep) + ".py"
            raise Refusal(
                _kind(role, "target-module"),
                f"there is no module '{exception.name}'",
                f"it was looked for in {os.getcwd()} and in this Python's packages; "
                f"for a file elsewhere, give its path: folder/{os.path.basename(file)}:function",
            ) from None
        raise Refusal(
            _kind(role, "target-raised"),
            f"importing {shown} failed: {failure.message(exception)}",
            f"install '{exception.name}' in this Python ({sys.executable})",
            failure.user_traceback(exception),
        ) from None
    except SyntaxError as exception:
        where = f"{exception.filename}, line {exception.lineno}" if exception.filename else shown
        raise Refusal(
            _kind(role, "target-raised"),
            f"{shown} has a syntax error ({where}): {exception.msg}",
            f"`{os.path.basename(sys.executable)} -m py_compile` on that file shows it alone",
            failure.user_traceback(exception),
        ) from None
    except BaseException as exception:
        name_of_type = failure.type_name(type(exception))
        raise Refusal(
            _kind(role, "target-raised"),
            f"importing {shown} raised {name_of_type}: {failure.message(exception)}",
            'code that runs at import time belongs under `if __name__ == "__main__":`',
            failure.user_traceback(exception),
        ) from None


def _attribute(module: ModuleType, attribute: str, text: str, role: str) -> Callable[..., Any]:
    value: Any = module
    for part in attribute.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            names = [
                name
                for name, candidate in vars(module).items()
                if callable(candidate) and not name.startswith("__")
            ]
            near = difflib.get_close_matches(attribute, names, n=1)
            own = [
                name
                for name in names
                if getattr(vars(module)[name], "__module__", "") == module.__name__
            ]
            if near:
                hint = f"did you mean '{near[0]}'?"
            elif own:
                hint = "it has " + ", ".join(own[:8]) + (", …" if len(own) > 8 else "")
            else:
                hint = "it defines no function"
            raise Refusal(
                _kind(role, "target-function"),
                f"{module.__name__} has no function '{attribute}'",
                hint,
            ) from None
    if not callable(value):
        hint = (
            "name a function that takes one input"
            if role == "target"
            else "name a function that returns or yields the inputs"
        )
        raise Refusal(
            _kind(role, "target-not-callable"),
            f"{text} is not callable: it is of type {failure.type_name(type(value))}",
            hint,
        )
    return value


def _near_files(path: str) -> str | None:
    folder, base = os.path.split(path)
    try:
        files = [name for name in os.listdir(folder) if name.endswith(".py")]
    except OSError:
        return None
    near = difflib.get_close_matches(base, files, n=1)
    return os.path.relpath(os.path.join(folder, near[0])) if near else None
