"""Why a value cannot be pickled: the path of the innermost culprit, its type, and what to do.

``pickle`` says "cannot pickle '_thread.lock' object" and leaves the reader to find where. `find_problem`
walks the value as ``pickle`` would (containers, then what ``__reduce_ex__`` gives) down to the innermost
part that fails alone, and names the way there: ``args[0].session._lock``.

*Guarantees*: None exactly when ``pickle.dumps(value, protocol=5)`` works; never raises, whatever the
value's own methods do (``KeyboardInterrupt`` passes). Buffers are not copied.

*Assumes*: reducing a value twice has no effect that matters, as ``pickle`` itself does.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

#: Deepest path followed; what fails below is reported at this depth. Deeper paths are not read by people.
DEPTH_LIMIT = 50


@dataclass(frozen=True)
class PicklingProblem:
    """What cannot be pickled: where (`path`), its `type`, Python's own `message`, and the next step."""

    path: str
    type: str
    message: str
    hint: str

    def sentence(self) -> str:
        """One sentence: ``args[0].session._lock is a _thread.lock, which cannot be pickled``."""
        article = "an" if self.type[:1].lower() in "aeiou" else "a"
        return f"{self.path} is {article} {self.type}, which cannot be pickled"

    def to_json(self) -> dict[str, str]:
        """The four fields by name."""
        return {
            "path": self.path,
            "type": self.type,
            "message": self.message,
            "hint": self.hint,
        }


def explain_call(
    function: Any,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    error: BaseException,
    *,
    have_cloudpickle: bool,
) -> BaseException:
    """The error to raise for a call that cannot travel, after `error`; it names the part that cannot.

    `have_cloudpickle` says whether cloudpickle was tried too: where it was not, and could help, the hint
    says so.
    """
    problem = (
        find_problem(function, "the function")
        or find_problem(arguments, "args")
        or find_problem(keywords, "kwargs")
    )
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    if problem is None:
        return _payload_error(f"the call of {name} cannot be pickled: {_message(error)}", None)
    hint = problem.hint
    if not have_cloudpickle and problem.type in _BY_VALUE:
        hint += "; or install cloudpickle, which carries it by value (pip install 'treadle[cloudpickle]')"
    return _payload_error(
        f"the call of {name} cannot be sent to a worker: {problem.sentence()} ({problem.message})",
        hint,
    )


def explain_result(result: Any, error: BaseException) -> BaseException:
    """The error of a task whose result cannot travel back; it names the part that cannot."""
    problem = find_problem(result, "result")
    if problem is None:
        return _payload_error(f"the result cannot be pickled: {_message(error)}", None)
    return _payload_error(
        f"the task ended, but its result cannot be sent back: {problem.sentence()} ({problem.message})",
        problem.hint,
    )


def _payload_error(text: str, hint: str | None) -> BaseException:
    from treadle.errors import PayloadError

    return PayloadError(text if hint is None else f"{text}\n\nhint: {hint}")


#: Types that pickle carries by name only, and cloudpickle by value.
_BY_VALUE = ("lambda", "local function", "local class", "function", "class")


class _Sink(io.RawIOBase):
    """Takes the pickle and keeps nothing."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data)


def _discard_buffer(buffer: Any) -> None:
    """Taking the buffer out of band keeps it from being copied; None means out of band."""


def _dump_failure(value: Any) -> BaseException | None:
    try:
        pickle.Pickler(_Sink(), protocol=5, buffer_callback=_discard_buffer).dump(value)
    except KeyboardInterrupt:
        raise
    except BaseException as exception:
        return exception
    return None


def find_problem(value: Any, path: str = "value") -> PicklingProblem | None:
    """Why `value`, called `path` in the answer, cannot be pickled; None if it can."""
    exception = _dump_failure(value)
    if exception is None:
        return None
    if isinstance(exception, RecursionError):
        return PicklingProblem(
            path,
            _type_name(value),
            _message(exception),
            "it is nested too deeply for pickle; pass a flat form of it (a list with indices, an "
            "identifier), or raise sys.setrecursionlimit",
        )
    seen: set[int] = set()
    for _ in range(DEPTH_LIMIT):
        seen.add(id(value))
        inner = _first_failing(value, path, seen)
        if inner is None:
            break
        value, path, exception = inner
    return PicklingProblem(path, _type_name(value), _message(exception), _hint(value, exception))


def find_round_trip_problem(value: Any, path: str = "value") -> PicklingProblem | None:
    """As `find_problem`, but also pickles, unpickles, and says why the pickle cannot be read back."""
    problem = find_problem(value, path)
    if problem is not None:
        return problem
    buffers: list[pickle.PickleBuffer] = []
    try:
        data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        pickle.loads(data, buffers=buffers)
    except KeyboardInterrupt:
        raise
    except BaseException as exception:
        hint = "its pickle cannot be read back; give its class a __reduce__ or __getstate__/__setstate__"
        if isinstance(value, BaseException):
            hint = (
                "an exception is rebuilt by calling its class with exception.args: pass all arguments "
                "to super().__init__(), or define __reduce__"
            )
        return PicklingProblem(path, _type_name(value), _message(exception), hint)
    return None


def _first_failing(value: Any, path: str, seen: set[int]) -> tuple[Any, str, BaseException] | None:
    """The first part of `value` that fails alone, or None if the fault is the value's own."""
    try:
        for part, part_path in _parts(value, path):
            if id(part) in seen:
                continue
            exception = _dump_failure(part)
            if exception is not None:
                return part, part_path, exception
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None  # the value refuses to be taken apart: the fault is its own
    return None


def _parts(value: Any, path: str) -> Iterator[tuple[Any, str]]:
    """What pickle would visit directly below `value`, with the way there."""
    kind = type(value)
    if kind is dict:
        for key, part in value.items():
            yield key, f"key {_key(key)} of {path}"
            yield part, f"{path}[{_key(key)}]"
        return
    if kind in (list, tuple):
        for index, part in enumerate(value):
            yield part, f"{path}[{index}]"
        return
    if kind in (set, frozenset):
        for part in value:
            yield part, f"element {_key(part)} of {path}"
        return
    if isinstance(value, types.MethodType):
        yield value.__self__, f"{path}.__self__"
        return
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return  # pickled by name: it has no parts
    if kind.__module__ == "functools" and kind.__name__ == "partial":
        yield value.func, f"{path}.func"
        for index, part in enumerate(value.args):
            yield part, f"{path}.args[{index}]"
        for name, part in value.keywords.items():
            yield part, f"{path}.keywords[{name!r}]"
        return
    yield from _reduced_parts(value, path)


def _reduced_parts(value: Any, path: str) -> Iterator[tuple[Any, str]]:
    import copyreg

    reducer = copyreg.dispatch_table.get(type(value))
    reduced = reducer(value) if reducer is not None else value.__reduce_ex__(5)
    if not isinstance(reduced, tuple):
        return
    function, arguments, *rest = reduced
    state, elements, pairs = [*rest, None, None, None][:3]
    if isinstance(value, BaseException):
        for index, part in enumerate(value.args):
            yield part, f"{path}.args[{index}]"
    yield from _state_parts(state, path)
    for index, part in enumerate(elements or ()):
        yield part, f"{path}[{index}]"
    for key, part in pairs or ():
        yield part, f"{path}[{_key(key)}]"
    for index, part in enumerate(arguments or ()):
        if part is type(value):
            continue
        name = _attribute_holding(value, part)
        yield part, f"{path}.{name}" if name else f"{path} (argument {index} of its constructor)"
    if function is not type(value):
        yield function, f"{path} (the function that rebuilds it)"
    yield type(value), f"the class of {path}"


def _state_parts(state: Any, path: str) -> Iterator[tuple[Any, str]]:
    if state is None:
        return
    if (
        isinstance(state, tuple)
        and len(state) == 2
        and all(part is None or isinstance(part, dict) for part in state)
    ):
        for part in state:  # (__dict__, slots)
            yield from _state_parts(part, path)
        return
    if isinstance(state, dict):
        for name, part in state.items():
            if isinstance(name, str) and name.isidentifier():
                yield part, f"{path}.{name}"
            else:
                yield part, f"the state of {path}[{_key(name)}]"
        return
    yield state, f"the state of {path}"


def _attribute_holding(value: Any, part: Any) -> str | None:
    """The attribute under which `value` shows `part`, so that the path reads as the user's code."""
    for name, held in getattr(value, "__dict__", {}).items():
        if held is part:
            return name
    for name in getattr(type(value), "_fields", ()):
        if getattr(value, name, None) is part:
            return name
    return None


def _key(key: Any) -> str:
    try:
        text = repr(key)
    except Exception:
        text = f"<{_type_name(key)}>"
    return text if len(text) <= 60 else text[:57] + "..."


def _type_name(value: Any) -> str:
    if isinstance(value, types.FunctionType):
        if value.__name__ == "<lambda>":
            return "lambda"
        return "local function" if "<locals>" in value.__qualname__ else "function"
    if isinstance(value, type):
        return "local class" if "<locals>" in value.__qualname__ else "class"
    kind = type(value)
    if kind.__module__ in ("builtins", "__main__"):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _message(exception: BaseException) -> str:
    try:
        text = str(exception)
    except BaseException as broken:
        text = f"<its __str__ raised {type(broken).__name__}>"
    name = type(exception).__name__
    text = text if len(text) <= 400 else text[:397] + "..."
    return f"{name}: {text}" if text else name


_IN_THE_WORKER = "make it inside the function, or once in each worker with initializer="

#: Advice by the type's full name, or by its module's first part; looked up along the class's bases.
_HINTS: dict[str, str] = {
    "_thread.lock": "a lock guards one process only: leave it out with __getstate__, or make it in the "
    "worker",
    "_thread.RLock": "a lock guards one process only: leave it out with __getstate__, or make it in the "
    "worker",
    "_thread._local": f"it belongs to one thread; {_IN_THE_WORKER}",
    "builtins.generator": "a generator cannot travel: pass list(...) of it, or what it is made from",
    "builtins.coroutine": "a coroutine cannot travel: pass the async function and its arguments",
    "builtins.async_generator": "a generator cannot travel: pass what it is made from",
    "builtins.module": "pass the module's name and import it inside the function",
    "builtins.frame": "pass the values that are needed from it, not the frame",
    "builtins.traceback": "pass traceback.format_exception(...) of it",
    "builtins.memoryview": "pass bytes(...) of it, or the object that it views",
    "builtins.mappingproxy": "pass dict(...) of it",
    "builtins.dict_keys": "pass list(...) of it",
    "builtins.dict_values": "pass list(...) of it",
    "builtins.dict_items": "pass list(...) of it",
    "_io._IOBase": "an open file stays in its process: pass its path and open it in the function",
    "_io.StringIO": "pass its getvalue()",
    "socket.socket": f"a connection stays in its process; {_IN_THE_WORKER}",
    "_socket.socket": f"a connection stays in its process; {_IN_THE_WORKER}",
    "_ssl._SSLContext": f"{_IN_THE_WORKER}",
    "sqlite3.Connection": f"a database connection stays in its process; {_IN_THE_WORKER}",
    "sqlite3.Cursor": f"fetch its rows first, or {_IN_THE_WORKER}",
    "weakref.ReferenceType": "pass what it refers to",
    "re.Match": "pass match.groups() or match.group()",
    "select.epoll": _IN_THE_WORKER,
    "mmap.mmap": "pass the path and map it in the function",
    "_queue.SimpleQueue": "return the values instead of putting them in a queue",
    "threading.Thread": "threads stay in their process; start them in the worker",
    "concurrent.futures._base.Future": "pass its result()",
    "concurrent.futures._base.Executor": "a pool stays in its process; start it in the worker or pass "
    "what it needs",
    "_contextvars.Context": "pass the values that are needed from it",
    "_contextvars.ContextVar": "define it at the top of a module and import it",
    "_hashlib.HASH": "pass its digest(), or the data",
    "_ctypes._Pointer": "an address means nothing in another process: pass the data",
}

_HINTS_BY_PACKAGE: dict[str, str] = {
    "psycopg": f"a database connection stays in its process; {_IN_THE_WORKER}",
    "psycopg2": f"a database connection stays in its process; {_IN_THE_WORKER}",
    "asyncpg": f"a database connection stays in its process; {_IN_THE_WORKER}",
    "pymysql": f"a database connection stays in its process; {_IN_THE_WORKER}",
    "redis": f"a connection stays in its process; {_IN_THE_WORKER}",
    "asyncio": "it belongs to one event loop; pass plain data",
    "_asyncio": "it belongs to one event loop; pass plain data",
    "multiprocessing": f"it may be given to a worker only when the worker starts; {_IN_THE_WORKER}",
}


def _hint(value: Any, exception: BaseException) -> str:
    if isinstance(value, (types.FunctionType, type)):
        return _hint_for_named(value)
    for base in type(value).__mro__:
        found = _HINTS.get(f"{base.__module__}.{base.__qualname__}")
        if found is not None:
            return found
    for base in type(value).__mro__:
        found = _HINTS_BY_PACKAGE.get(base.__module__.partition(".")[0])
        if found is not None:
            return found
    if isinstance(value, BaseException):
        return "raise an exception that holds plain data only"
    return (
        "give its class a __getstate__ that leaves this out (or a __reduce__), or pass what it is made "
        "from and make it in the worker"
    )


def _hint_for_named(value: Callable[..., Any] | type) -> str:
    noun = "class" if isinstance(value, type) else "function"
    if value.__qualname__ == "<lambda>" or value.__name__ == "<lambda>":
        return "a lambda has no name to import it by: write it as a def at the top of a module"
    if "<locals>" in value.__qualname__:
        outer = value.__qualname__.partition(".<locals>")[0]
        return (
            f"it is defined inside {outer}, where no worker can import it: move it to the top of the "
            "module (functools.partial can carry what it needs)"
        )
    module = sys.modules.get(value.__module__)
    if module is None:
        return f"its module '{value.__module__}' cannot be imported: define it in a file"
    found: Any = module
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is None:
        return (
            f"there is no '{value.__qualname__}' in module '{value.__module__}': a {noun} is pickled by "
            "its name, so keep it under the name that it was defined with"
        )
    return (
        f"'{value.__qualname__}' in module '{value.__module__}' is another object now: a decorator that "
        "replaces it must use functools.wraps, and nothing else may take its name"
    )
