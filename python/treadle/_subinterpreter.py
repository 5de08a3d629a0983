"""What runs in a sub-interpreter: calls in, outcomes out. Pure Python, for the engine cannot be loaded there.

::

    run(number, payload) ─► rebuild ─► call ─► (code, bytes)
    pipe ─► listener ─► TaskInterrupted in the call of that number

In the sub-interpreter the package ``treadle`` is a stand-in with the errors and :class:`~treadle.Plan`, so that a module that imports treadle can be imported
there; what needs the engine refuses when it is used.

*Guarantees*: :func:`run` raises nothing; an interruption is raised in the call that it names, once, and in no other.

*Assumes*: one call at a time, always in the same thread; numbers grow. The thread's state is a new one for each call (so does CPython 3.14), so nothing is kept
in a ``threading.local``.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any, NoReturn

from treadle import _outcome

#: What :func:`run` answers: the pickle of a result; that of ``(seconds, results, pieces, failure)`` of a chunk; an exception as
#: :func:`treadle._outcome.dump_exception` makes it.
RESULT, CHUNK, FAILED = 0, 1, 2

#: Types whose values can be rebuilt wherever they were pickled. Other results of a chunk are pickled one by one, so that one that cannot be
#: rebuilt does not take the others along.
_PLAIN = frozenset((type(None), bool, int, float, str, bytes))

#: How extension modules say that they cannot be loaded in a second interpreter: CPython for those that are not made for it, PyO3, Cython, NumPy.
_REFUSALS = ("subinterpreter", "one interpreter per process", "more than once per process")

#: How often a call that has ended looks whether an interruption on its way has been dealt with, in seconds.
_LOOK_S = 0.0002

#: How the main module is found, as in :func:`treadle._worker.main_module.import_main`.
_main = ("none", "")

#: The call that runs (0: none), the one that was last to be interrupted, and the last for which the listener has done what it could.
_current = 0
_struck = 0
_handled = 0


# ---- the start


def begin(
    names: list[str], arguments: list[str], main: tuple[str, str], descriptor: int | None
) -> None:
    """Furnishes this interpreter.

    Args:
        names: what the package offers; what is not an error or a plan refuses to be used.
        arguments: ``sys.argv``.
        main: how the program's main module is found when a call needs it.
        descriptor: where the numbers of calls to interrupt come from, eight bytes each, until its end; None: from nowhere.
    """
    global _main
    sys.argv[:] = arguments
    _main = main
    vars(sys.modules["treadle"])["__getattr__"] = _Package(names)
    if descriptor is not None:
        threading.Thread(
            target=_listen, args=(descriptor, threading.get_ident()), name="treadle-listener"
        ).start()


class _Package:
    """Gives the attributes of the package's stand-in."""

    def __init__(self, names: list[str]) -> None:
        self._names = frozenset(names)

    def __call__(self, name: str) -> Any:
        if name not in self._names:
            raise AttributeError(f"module 'treadle' has no attribute {name!r}")
        # Not `from treadle import`: that asks here first.
        errors = importlib.import_module("treadle.errors")
        if name == "errors":
            return errors
        for module in (errors, importlib.import_module("treadle.plan")):
            if name in module.__all__:
                return getattr(module, name)
        return type(name, (), {"__new__": _refuse, "__module__": "treadle"})


def _refuse(cls: type, *_: Any, **__: Any) -> NoReturn:
    from treadle.errors import PlanError

    raise PlanError(
        f"treadle.{cls.__name__} cannot be used in a sub-interpreter: the engine cannot be loaded there\n\n"
        "hint: use it in the main interpreter, under `if __name__ == '__main__':` if it stands at the top level of the program"
    )


# ---- interruptions


def _listen(descriptor: int, worker: int) -> None:
    """Interrupts the calls that are named on the pipe, until its end."""
    global _struck, _handled
    while message := os.read(descriptor, 8):
        number = int.from_bytes(message, "little")
        # First that it is asked for, then whether it runs; the call first ends, then looks whether it was asked for: one of the two sees the other.
        _struck = max(_struck, number)
        try:
            if _current == number and _handled < number:
                _raise_in(worker)
        finally:
            _handled = max(_handled, number)
    os.close(descriptor)


def _raise_in(worker: int) -> None:
    """Raises ``TaskInterrupted`` at the thread's next Python instruction."""
    import ctypes

    from treadle.errors import TaskInterrupted

    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(worker), ctypes.py_object(TaskInterrupted)
    )


def _await_strike(number: int) -> None:
    """Returns when no interruption of this call can come any more that has not come; one that comes is raised here."""
    while _struck == number and _handled < number:
        time.sleep(_LOOK_S)
    _begin()


def _begin() -> None:
    """Where an exception on its way is raised at the latest: the interpreter looks for one where a function begins, not where one ends."""


# ---- calls


def run(number: int, chunk: bool, needs_main: bool, payload: bytes) -> tuple[int, bytes]:
    """Runs a call, the pickle of ``(function, arguments, keywords)``, or a chunk, that of ``(function, items, single)``; see :data:`RESULT`.

    Args:
        number: the call's, for interruptions: above that of every call before.
        needs_main: the pickle names the main module.
    """
    global _current
    try:
        _current = number
        if _struck == number:
            _await_strike(number)
            raise _interrupted()
        outcome = _chunk(needs_main, payload) if chunk else _call(needs_main, payload)
    except BaseException as error:
        # It came between two steps: of an interruption there is at most one.
        outcome = FAILED, _outcome.dump_exception(error)
    try:
        _current = 0
        _await_strike(number)
    except BaseException as error:
        _current = 0
        outcome = FAILED, _outcome.dump_exception(error)
    return outcome


def leave() -> None:
    """The last call: ends what the others have left."""
    from treadle import _coroutine

    _coroutine.close_loop()


def _interrupted() -> BaseException:
    from treadle.errors import TaskInterrupted

    return TaskInterrupted()


def _call(needs_main: bool, payload: bytes) -> tuple[int, bytes]:
    try:
        function, arguments, keywords = _rebuild(needs_main, payload)
    except BaseException as error:
        return FAILED, _outcome.dump_exception(_unreadable(error))
    try:
        result = _awaited(function(*arguments, **keywords))
    except BaseException as error:
        return FAILED, _outcome.dump_exception(_explained(error))
    return _returned(result)


def _chunk(needs_main: bool, payload: bytes) -> tuple[int, bytes]:
    try:
        function, items, single = _rebuild(needs_main, payload)
    except BaseException as error:
        return FAILED, _outcome.dump_exception(_unreadable(error))
    results: list[Any] = []
    failure = seconds = None
    began = time.perf_counter()
    try:
        for item in items:
            results.append(_awaited(function(item) if single else function(*item)))
        seconds = time.perf_counter() - began
    except BaseException as error:
        failure = _outcome.dump_exception(_explained(error))
    if all(type(result) in _PLAIN for result in results):
        return CHUNK, pickle.dumps((seconds, results, None, failure), 5)
    pieces: list[bytes] = []
    for result in results:
        code, told = _returned(result)
        if code == FAILED:
            seconds, failure = None, told
            break
        pieces.append(told)
    return CHUNK, pickle.dumps((seconds, None, pieces, failure), 5)


def _rebuild(needs_main: bool, payload: bytes) -> Any:
    global _main
    if needs_main and _main[0] != "none":
        from treadle._worker.main_module import import_main

        kind, value = _main
        import_main(kind, value)
        _main = ("none", "")
    return pickle.loads(payload)


def _awaited(value: Any) -> Any:
    """The value, or what it gives when it is awaited."""
    if type(value) is not types.CoroutineType:
        return value
    from treadle import _coroutine

    if not isinstance(_coroutine.own, types.SimpleNamespace):
        # Not in the thread's state, which is another one for every call.
        _coroutine.own = types.SimpleNamespace()
    return _coroutine.run_coroutine(value)


def _returned(result: Any) -> tuple[int, bytes]:
    try:
        return RESULT, pickle.dumps(result, 5)
    except Exception as first:
        try:
            import cloudpickle

            return RESULT, bytes(cloudpickle.dumps(result, 5))
        except Exception:
            from treadle import _pickling

            explained = _pickling.explain_result(result, first)
            explained.__cause__ = first
            return FAILED, _outcome.dump_exception(explained)


# ---- what is said


def refusing_module(error: BaseException | None) -> str | None:
    """What an extension module said that refuses to be loaded in a sub-interpreter, if that is behind this error."""
    for _ in range(20):
        if error is None:
            return None
        text = _outcome.str_of(error)
        if isinstance(error, ImportError) and any(refusal in text for refusal in _REFUSALS):
            # NumPy wraps it into pages of advice: what it quotes is the line that tells.
            lines = [line for line in text.splitlines() if any(one in line for one in _REFUSALS)]
            return lines[0].strip()
        error = error.__cause__ or error.__context__
    return None


def _unreadable(error: BaseException) -> BaseException:
    """The exception of a task whose call could not be rebuilt here."""
    errors = importlib.import_module("treadle.errors")
    if isinstance(error, errors.TaskInterrupted):
        return error
    refusal = refusing_module(error)
    made: BaseException
    if refusal is not None:
        made = errors.PlanError(
            f"the call needs a module that refuses to be loaded in a sub-interpreter ({refusal})\n\n"
            "hint: use processes=… for this function; every module can be loaded in a process of its own"
        )
    else:
        made = errors.PayloadError(
            f"the call could not be rebuilt in the sub-interpreter: {type(error).__name__}: {_outcome.str_of(error)}"
        )
    made.__cause__ = error
    return made


def _explained(error: BaseException) -> BaseException:
    """The task's own exception; an import that failed only because this is a sub-interpreter says so in a note."""
    if refusing_module(error) is not None:
        add_note: Callable[[str], None] | None = getattr(error, "add_note", None)
        if add_note is not None:
            add_note(
                "hint: this ran in a sub-interpreter, in which that module refuses to be loaded; use processes=… for this function"
            )
    return error
