"""What one task costs: the face of the engine's profile.

Its name is not ``measure`` because importing a module of that name would replace the function
`treadle.measure` in the package.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

_T = TypeVar("_T")


def from_json(kind: type[_T], found: dict[str, Any], **given: Any) -> _T:
    """Builds the dataclass `kind` from a JSON object: keys by name, absent ones None, the rest kept whole.

    `given` replaces keys that need more than copying; the object itself goes to the field ``json``.
    """
    values: dict[str, Any] = {}
    for one in fields(kind):  # type: ignore[arg-type]
        if one.name == "json":
            values["json"] = found
        elif one.name in given:
            values[one.name] = given[one.name]
        else:
            values[one.name] = found.get(one.name)
    return kind(**values)


@dataclass(frozen=True)
class Profile:
    """What one task costs, measured serially; seconds and bytes are means per task, None is "not measured".

    ``workload`` is the class of the work (``class`` in JSON): ``cpu-bound``, ``cpu-bound-releasing``,
    ``io-bound``, ``mixed``, ``transfer-bound`` or ``too-small``. `to_json` has more than the fields.
    """

    count: int
    errors: int
    wall_s: float
    thread_cpu_s: float
    native_cpu_s: float
    wait_s: float
    gil_cpu_s: float | None
    gil_blocked_s: float | None
    free_cpu_s: float | None
    argument_bytes: float | None
    result_bytes: float | None
    pickle_s: float | None
    peak_rss_bytes: float | None
    workload: str
    json: dict[str, Any] = field(repr=False, compare=False)

    @classmethod
    def of(cls, found: dict[str, Any]) -> Profile:
        """From the ``profile`` object of ``treadle compare --json``."""
        return from_json(cls, found, workload=found["class"])

    def to_json(self) -> dict[str, Any]:
        """The whole ``profile`` object as the engine gave it."""
        return self.json


def measure(
    function: Callable[..., Any],
    items: Iterable[Any],
    *,
    star: bool = False,
    sample: int | None = None,
    max_seconds: float = 10.0,
) -> Profile:
    """Profiles `function` over `items` in a process of its own.

    With `star`, an input that is a tuple is passed as the argument list. `sample` inputs, spread evenly over
    all, are taken (default: as many as `max_seconds` allows). The function and the inputs travel by pickle,
    or by cloudpickle where pickle refuses and it is installed.

    Raises ``pickle.PicklingError`` if they cannot travel, and a `treadle.TreadleError` if the function fails
    on every input, ends its process or does not return in time.
    """
    inputs = list(items)
    if sample is not None:
        if sample < 1:
            raise ValueError(f"sample is {sample}, but at least one input is needed")
        taken = min(sample, len(inputs))
        inputs = [inputs[position * len(inputs) // taken] for position in range(taken)]
    found = ask(function, inputs, star=star, budget_s=max_seconds, profile_only=True)
    return Profile.of(found["profile"])


def ask(
    function: Callable[..., Any], items: list[Any], *, star: bool, budget_s: float, **more: Any
) -> dict[str, Any]:
    """Hands the function, its inputs and the request to the engine; gives the comparison's JSON object."""
    refuse_within_laboratory()
    if not callable(function):
        raise TypeError(f"a function is needed, not {type(function).__name__}")
    if not items:
        raise ValueError("the inputs are empty: there is nothing to measure")
    from treadle import _core

    with _delivered(function, items) as path:
        request = {
            "pickled": path,
            "star": star,
            "limit": len(items),
            "budget_s": budget_s,
            "python": sys.executable,
            "ignore_noise": os.environ.get("TREADLE_NOISE") == "ignore",
            **{key: value for key, value in more.items() if value is not None},
        }
        found: dict[str, Any] = json.loads(_core.compare(json.dumps(request)))
    return found


def refuse_within_laboratory() -> None:
    """Raises where measuring would start itself again: in the process that measures."""
    if os.environ.get("TREADLE_LABORATORY"):
        raise RuntimeError(
            "measuring was started again from within the process that measures\n\n"
            'hint: the script runs it on import; put it under `if __name__ == "__main__":`'
        )


@contextlib.contextmanager
def _delivered(function: Callable[..., Any], items: list[Any]) -> Iterator[str]:
    """The path of a private file that carries both, gone afterwards."""
    from treadle._laboratory import delivery

    descriptor, path = tempfile.mkstemp(prefix="treadle-", suffix=".pickle")
    os.close(descriptor)
    try:
        delivery.write(path, function, items)
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
