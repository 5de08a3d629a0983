"""An exception of the user's code, told in text that can travel: type, message, the user's own frames."""

from __future__ import annotations

import os
import traceback
from typing import Any

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

#: Longest message kept, in characters: an exception may carry a whole document.
MESSAGE_LIMIT = 600
#: Most frames kept, the innermost ones: enough to see the caller and the culprit.
FRAME_LIMIT = 8


def type_name(kind: type) -> str:
    """The class's name as a reader writes it: ``ValueError``, ``package.module.Name``."""
    if kind.__module__ in ("builtins", "__main__"):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def message(exception: BaseException) -> str:
    """The exception's text, cut to `MESSAGE_LIMIT`; never raises, whatever ``__str__`` does."""
    try:
        text = str(exception)
    except BaseException as broken:
        text = f"<its __str__ raised {type_name(type(broken))}>"
    return text if len(text) <= MESSAGE_LIMIT else text[:MESSAGE_LIMIT] + "…"


def user_traceback(exception: BaseException) -> str:
    """The frames outside Treadle and the import machinery, innermost last, then the exception's line."""
    frames = [
        frame
        for frame in traceback.extract_tb(exception.__traceback__)
        if not frame.filename.startswith(_PACKAGE)
        and not frame.filename.startswith("<frozen")
        and os.sep + "importlib" + os.sep not in frame.filename
    ]
    lines = traceback.format_list(frames[-FRAME_LIMIT:])
    if isinstance(exception, SyntaxError):
        lines.extend(traceback.format_exception_only(type(exception), exception))
    else:
        text = message(exception)
        name = type_name(type(exception))
        lines.append(f"{name}: {text}\n" if text else f"{name}\n")
    return "".join(lines).rstrip("\n")


def describe(exception: BaseException) -> dict[str, Any]:
    """``{"type", "message", "traceback"}`` of `exception`, all text."""
    return {
        "type": type_name(type(exception)),
        "message": message(exception),
        "traceback": user_traceback(exception),
    }
