"""An exception as bytes: itself where that can be, and its traceback as text. Pure Python, for workers that cannot load the engine.

*Guarantees*: whatever an exception is made of, it arrives: as itself, or as a :class:`~treadle.errors.PayloadError` that names its kind and repeats
its text; the worker's traceback is its cause.
"""

from __future__ import annotations

import pickle


def dump_exception(error: BaseException) -> bytes:
    """An exception and its traceback as bytes, whatever the exception is made of."""
    import traceback

    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception as trouble:
        text = f"{type(error).__name__}: (its traceback could not be formatted: {trouble})\n"
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    pickled = None
    try:
        pickled = pickle.dumps(error, 5)
        # Many exceptions pickle and cannot be unpickled: learn it here, where the object still is.
        pickle.loads(pickled)
    except Exception:
        pickled = None
        try:
            import cloudpickle

            pickled = cloudpickle.dumps(error, 5)
            pickle.loads(pickled)
        except Exception:
            pickled = None
    return pickle.dumps((pickled, kind, str_of(error), text), 5)


def str_of(error: BaseException) -> str:
    """The exception's text, even when its ``__str__`` raises."""
    try:
        return str(error)
    except Exception:
        return "(its text could not be made)"


def load_exception(pickled: bytes, buffers: list[object] = []) -> BaseException:  # noqa: B006
    """The exception of :func:`dump_exception`, with the worker's traceback as its cause."""
    from treadle import errors

    inner, kind, message, text = pickle.loads(pickled, buffers=buffers)
    error = None
    if inner is not None:
        try:
            error = pickle.loads(inner)
        except Exception as trouble:
            text += f"\n(the exception itself could not be unpickled here: {type(trouble).__name__}: {trouble})\n"
    if not isinstance(error, BaseException):
        error = errors.PayloadError(
            f"the task raised {kind}: {message}\n\nhint: that exception cannot be pickled, so this one stands in its place; "
            "give it arguments that pickle, or a __reduce__"
        )
    error.__cause__ = errors.RemoteTraceback(f'\n"""\n{text}"""')
    return error
