"""What a task brought, as bytes: its result or its exception, and the error that stands in where one of these cannot travel.

The engine calls these by name, in workers and in the parent. A worker has this module from its start, so it imports what everything has; the rest where
it is needed. What a task has used up (descriptors, memory) may be missing there: then the error says less, and is the task's all the same.
"""

from __future__ import annotations

import _pickle

from treadle import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: How `pip` names the extra that carries what a worker cannot import.
BY_VALUE_HINT = (
    "install cloudpickle, which carries it by value (pip install 'treadle[cloudpickle]')"
)


def unreadable_call(error: BaseException) -> BaseException:
    """The exception of a task whose call could not be rebuilt in the worker."""
    if isinstance(error, errors.TaskInterrupted):
        # The interruption came while the arguments were read: it says by itself what happened.
        return error
    text = f"the call could not be rebuilt in the worker: {type(error).__name__}: {error}"
    if isinstance(error, AttributeError) and "__mp_main__" in str(error):
        text += (
            "\n\nhint: workers import the main module once, at their start; define the function at its top level, "
            "outside `if __name__ == '__main__':`"
        )
    elif isinstance(error, AttributeError) and "__main__" in str(error):
        text += f"\n\nhint: a worker cannot import what is defined at a prompt or in a notebook; put it into a module, or {BY_VALUE_HINT}"
    made = as_broken_process_pool(errors.PayloadError)(text)
    made.__cause__ = error
    return made


def as_broken_process_pool(kind: type[errors.TreadleError]) -> Callable[..., BaseException]:
    """This kind of error as what a program catches that was written for the standard library's pool of processes."""
    return errors.as_standard(kind, "process", "BrokenProcessPool")


def interrupted_early() -> BaseException:
    """``interrupt`` came when a worker had taken the task and not begun it."""
    return errors.TaskInterrupted("the task was interrupted")


def no_memory(message: str) -> BaseException:
    """No shared memory for a payload or a result."""
    return errors.PayloadMemoryError(message)


def may_run_again(error: BaseException) -> bool:
    """Whether ``retries`` is for this failure: not for an interrupted call, nor for one that asked the program to end."""
    return isinstance(error, Exception) and not isinstance(error, errors.TaskInterrupted)


# ---- results


def dump_result_otherwise(result: Any, error: BaseException) -> bytes:
    """A result that pickle refused, by value if cloudpickle is installed; else raises the error that explains."""
    if not isinstance(error, Exception):
        raise error
    try:
        import cloudpickle

        by_value: bytes = cloudpickle.dumps(result, 5)
        return by_value
    except Exception:
        raise _unpicklable_result(result, error) from error


def _unpicklable_result(result: Any, error: BaseException) -> BaseException:
    """The exception of a task whose result cannot travel."""
    if isinstance(error, errors.TaskInterrupted):
        return error
    if not isinstance(error, Exception):
        # SystemExit, KeyboardInterrupt: the result's class asked for that, nothing is to be explained.
        return error
    from treadle import _pickling

    made = _pickling.explain_result(result, error)
    made.__cause__ = error
    return made


def unreadable_result(error: BaseException) -> BaseException:
    """The exception of a task whose result cannot be rebuilt in this process."""
    made = as_broken_process_pool(errors.PayloadError)(
        f"the result could not be rebuilt in this process: {type(error).__name__}: {error}\n\n"
        "hint: the worker pickled it; look at the __reduce__ or __setstate__ of its class"
    )
    made.__cause__ = error
    return made


# ---- exceptions


def dump_exception(error: BaseException) -> bytes:
    """An exception and its traceback as bytes, whatever the exception is made of."""
    text = text_of(error)
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    pickled = None
    try:
        pickled = _pickle.dumps(error, 5)
        # Many exceptions pickle and cannot be unpickled: learn it here, where the object still is.
        _pickle.loads(pickled)
    except Exception:
        pickled = None
        try:
            import cloudpickle

            pickled = cloudpickle.dumps(error, 5)
            _pickle.loads(pickled)
        except Exception:
            pickled = None
    return _pickle.dumps((pickled, kind, str_of(error), text), 5)


def text_of(error: BaseException) -> str:
    """An exception with its traceback, as Python prints it."""
    try:
        import traceback

        return "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception as trouble:
        return _text_without_source(error, trouble)


def _text_without_source(error: BaseException, trouble: BaseException) -> str:
    """A traceback of names and lines alone: the task holds all descriptors, say, and no module can be loaded and no source read."""
    lines = ["Traceback (most recent call last):\n"]
    place = error.__traceback__
    while place is not None:
        code = place.tb_frame.f_code
        lines.append(f'  File "{code.co_filename}", line {place.tb_lineno}, in {code.co_name}\n')
        place = place.tb_next
    lines.append(f"{type(error).__name__}: {str_of(error)}\n")
    lines.append(f"(without more, for {type(trouble).__name__}: {str_of(trouble)})\n")
    return "".join(lines)


def str_of(error: BaseException) -> str:
    """The exception's text, even when its ``__str__`` raises."""
    try:
        return str(error)
    except Exception:
        return "(its text could not be made)"


def load_exception(pickled: bytes, buffers: list[Any] = []) -> BaseException:  # noqa: B006
    """The exception of :func:`dump_exception`, with the worker's traceback as its cause."""
    inner, kind, message, text = _pickle.loads(pickled, buffers=buffers)
    error = None
    if inner is not None:
        try:
            error = _pickle.loads(inner)
        except Exception as trouble:
            text += f"\n(the exception itself could not be unpickled here: {type(trouble).__name__}: {trouble})\n"
    if not isinstance(error, BaseException):
        error = errors.PayloadError(
            f"the task raised {kind}: {message}\n\nhint: that exception cannot be pickled, so this one stands in its place; "
            "give it arguments that pickle, or a __reduce__"
        )
    error.__cause__ = errors.RemoteTraceback(f'\n"""\n{text}"""')
    return error
