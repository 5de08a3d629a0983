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
class Estimate:
    """A mean per task in seconds, and the ends of its 95 % interval."""

    mean_s: float
    low_s: float
    high_s: float


@dataclass(frozen=True)
class Split:
    """Where the time of a task goes, by the interpreter lock; each part an `Estimate` in seconds per task.

    ``gil_cpu`` and ``free_cpu`` are the calling thread's CPU time with the lock and without it (their sum is
    exact), ``gil_blocked`` and ``wait`` the time that it slept with the lock and without it, ``native_cpu``
    the CPU time of other threads that the function kept busy, ``run_queue`` the time that it was ready and
    had no processor. ``samples`` is how often was looked, at ``rate_hz`` a second in the mean, and ``late``
    how many looks came too late to be used; ``releases_per_task`` how often a call gave the lock up, None where the looks do not tell; ``overhead``
    what looking cost, as a share of another core.
    """

    samples: int
    late: int
    rate_hz: float
    gil_cpu: Estimate
    gil_blocked: Estimate
    free_cpu: Estimate
    wait: Estimate
    native_cpu: Estimate
    run_queue: Estimate
    releases_per_task: float | None
    overhead: float

    @classmethod
    def of(cls, found: dict[str, Any]) -> Split:
        """From the ``split`` object of a profile."""
        parts = {
            name: Estimate(**value) for name, value in found.items() if isinstance(value, dict)
        }
        return from_json(cls, found, **parts)


@dataclass(frozen=True)
class Profile:
    """What one task costs, measured serially; seconds and bytes are means per task, None is "not measured".

    ``workload`` is the class of the work (``class`` in JSON): ``cpu-bound``, ``cpu-bound-releasing``,
    ``io-bound``, ``mixed``, ``transfer-bound`` or ``too-small``. ``split`` has the intervals of the parts of
    the time; where it is None, ``split_absent`` says why. ``walls`` and ``cpus`` are the seconds of each task
    of the sample, from call to return and on the processor. ``worker_start_s`` has the seconds that a
    ``process``, a ``thread`` and (on 3.14 and later) an ``interpreter`` take to start. `to_json` has more
    than the fields.
    """

    count: int
    errors: int
    wall_s: float
    wall_p50_s: float
    wall_p99_s: float
    wall_max_s: float
    thread_cpu_s: float
    native_cpu_s: float
    wait_s: float
    run_queue_s: float | None
    gil_cpu_s: float | None
    gil_blocked_s: float | None
    free_cpu_s: float | None
    split: Split | None
    split_absent: str | None
    walls: list[float] = field(repr=False)
    cpus: list[float] = field(repr=False)
    argument_bytes: float | None
    result_bytes: float | None
    argument_buffer_bytes: float | None
    result_buffer_bytes: float | None
    argument_dumps_s: float | None
    argument_loads_s: float | None
    result_dumps_s: float | None
    result_loads_s: float | None
    pickle_s: float | None
    peak_rss_bytes: float | None
    rss_growth_bytes: float | None
    worker_rss_bytes: float | None
    worker_start_s: dict[str, Any] | None
    workload: str
    json: dict[str, Any] = field(repr=False, compare=False)

    @classmethod
    def of(cls, found: dict[str, Any]) -> Profile:
        """From the ``profile`` object of ``treadle compare --json``."""
        split = found.get("split")
        return from_json(
            cls, found, workload=found["class"], split=None if split is None else Split.of(split)
        )

    def to_json(self) -> dict[str, Any]:
        """The whole ``profile`` object as the engine gave it."""
        return self.json


def measure(
    fn: Callable[..., Any],
    items: Iterable[Any],
    *,
    star: bool = False,
    sample: int | None = None,
    max_seconds: float = 10.0,
    once: bool = False,
) -> Profile:
    """Profiles `fn` over `items` in a process of its own: every number per task, with its interval.

    With `star`, an input that is a tuple is passed as the argument list. `sample` inputs, spread evenly over
    all, are taken (default: as many as `max_seconds` allows; somewhat more than half of that goes to the calls,
    and 4 seconds of it give a margin of 2 points for every part of the time). The function and the inputs
    travel by pickle, or by cloudpickle where pickle refuses and it is installed.

    A plain function runs on each input once at most, if the interpreter lock can be watched: on CPython with a
    lock, on Linux. Elsewhere a function that computes is also run in two threads, and an async function also on
    a loop that many of its tasks share. With `once`, no input is run twice anywhere, and an input may be one
    that running uses up.

    Raises:
        TypeError: `fn` cannot be called.
        ValueError: there are no inputs, or `sample` is below 1.
        pickle.PicklingError: function or inputs cannot travel.
        RuntimeError: the main module asks for this while it is imported, without a ``__main__`` guard.
        MeasureError: the function fails on every input, ends its process or does not return in time.
    """
    inputs = list(items)
    if sample is not None:
        if sample < 1:
            raise ValueError(f"sample is {sample}, but at least one input is needed")
        taken = min(sample, len(inputs))
        inputs = [inputs[position * len(inputs) // taken] for position in range(taken)]
    found = ask(fn, inputs, star=star, budget_s=max_seconds, profile_only=True, once=once or None)
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
