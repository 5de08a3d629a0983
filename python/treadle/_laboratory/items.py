"""The inputs, read from their SPEC: a callable, a glob, ``lines:FILE``, ``json:FILE`` or ``range:N``."""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
from collections.abc import Awaitable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from treadle._laboratory import failure, target
from treadle._laboratory.refusal import Refusal

_FORMS = (
    "write --items as module:function, file.py:function, a quoted glob ('photos/*.jpg'), "
    "lines:FILE, json:FILE or range:N"
)
_CALLABLE = re.compile(r"(?P<place>[^:*?\[\]]+\.py|[A-Za-z_][\w.]*):(?P<name>[A-Za-z_][\w.]*)")


@dataclass(frozen=True)
class Items:
    """The inputs that were read; `truncated` if there were more than the limit."""

    values: list[Any]
    spec: str
    truncated: bool


def load(spec: str, limit: int, star: bool) -> Items:
    """Reads at most `limit` inputs named by `spec`; raises `Refusal` (kinds ``items-*``).

    With `star`, a JSON array becomes a tuple, so that it is passed as the argument list.
    """
    form, _, rest = spec.partition(":")
    if form == "range":
        source: Iterable[Any] = _range(rest)
    elif form == "lines":
        source = _lines(rest)
    elif form == "json":
        source = _json_lines(rest, star)
    elif _CALLABLE.fullmatch(spec):
        source = _called(spec)
    else:
        source = _paths(spec)
    values, truncated = _take(source, limit, spec)
    if not values:
        raise Refusal(
            "items-empty",
            f"{spec} gave no inputs",
            "there is nothing to measure; check the --items",
        )
    return Items(values, spec, truncated)


def refuse_consumed(items: Items) -> None:
    """Raises `Refusal` ``items-consumed`` if running the function on an input may use it up.

    An iterator (a generator, a file, a ``map``) gives what it holds once; a coroutine can be awaited once. The
    race runs an input several times, and the second time would find nothing.
    """
    for index, value in enumerate(items.values):
        # What a tuple or a list of arguments holds directly is used up with it.
        parts = value if isinstance(value, (tuple, list)) else (value,)
        for part in parts:
            if isinstance(part, (Iterator, Awaitable)):
                raise Refusal(
                    "items-consumed",
                    f"input {index} is or holds a {failure.type_name(type(part))}, "
                    "which can be used once only",
                    "--once (once=True) runs no input twice; or give inputs that can be read again, "
                    "such as paths or lists",
                )


def source_hash(spec: str) -> str | None:
    """The hash of the callable that `spec` names and of what it uses; None for the other forms."""
    from treadle._laboratory import source

    if spec.partition(":")[0] in ("range", "lines", "json") or not _CALLABLE.fullmatch(spec):
        return None
    try:
        _, name = target.find(spec, "items")
    except Refusal:
        return None
    return source.combined(name)


def _take(source: Iterable[Any], limit: int, spec: str) -> tuple[list[Any], bool]:
    try:
        values = list(itertools.islice(source, limit + 1))
    except Refusal:
        raise
    except BaseException as exception:
        raise Refusal(
            "items-raised",
            f"{spec} raised {failure.type_name(type(exception))} while its inputs were read: "
            f"{failure.message(exception)}",
            "call it alone to see why",
            failure.user_traceback(exception),
        ) from None
    return values[:limit], len(values) > limit


def _range(text: str) -> range:
    try:
        count = int(text.replace("_", ""))
        if count < 0:
            raise ValueError
    except ValueError:
        raise Refusal(
            "items-spec", f"range:{text} needs a whole number", "for example range:1000"
        ) from None
    return range(count)


def _open(path: str) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8") as file:
            yield from file
    except FileNotFoundError:
        raise Refusal(
            "items-file", f"there is no file {path}", f"it was looked for from {os.getcwd()}"
        ) from None
    except (OSError, UnicodeDecodeError) as exception:
        raise Refusal(
            "items-file", f"{path} cannot be read: {exception}", "give a text file in UTF-8"
        ) from None


def _lines(path: str) -> Iterator[str]:
    for line in _open(path):
        yield line.rstrip("\r\n")


def _json_lines(path: str, star: bool) -> Iterator[Any]:
    for number, line in enumerate(_open(path), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as exception:
            raise Refusal(
                "items-file",
                f"{path}, line {number} is not JSON: {exception}",
                "the file holds one JSON value a line",
            ) from None
        yield tuple(value) if star and isinstance(value, list) else value


def _paths(pattern: str) -> list[str]:
    found = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
    if found:
        return found
    if ":" in pattern and not glob.has_magic(pattern):
        raise Refusal("items-spec", f"'{pattern}' is not a form of --items", _FORMS)
    if glob.has_magic(pattern):
        hint = f"it was looked for from {os.getcwd()}; put quotes around it and check the folder"
        raise Refusal("items-glob-empty", f"no path matches '{pattern}'", hint)
    raise Refusal("items-glob-empty", f"there is no path '{pattern}'", _FORMS)


def _called(spec: str) -> Iterable[Any]:
    function, _ = target.find(spec, "items")
    if target.is_async(function):
        raise Refusal(
            "items-callable",
            f"{spec} is an async function",
            "name a plain function that returns or yields the inputs",
        )
    try:
        result = function()
    except BaseException as exception:
        raise Refusal(
            "items-raised",
            f"{spec} raised {failure.type_name(type(exception))}: {failure.message(exception)}",
            "it is called without arguments; call it alone to see why",
            failure.user_traceback(exception),
        ) from None
    if isinstance(result, (str, bytes)) or not hasattr(result, "__iter__"):
        raise Refusal(
            "items-not-iterable",
            f"{spec} returned {failure.type_name(type(result))}, not a sequence of inputs",
            "return a list, or yield the inputs one by one",
        )
    return result
