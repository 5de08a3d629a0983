"""Which plan to run: the face of the engine's comparison.

Its name is not ``compare`` because importing a module of that name would replace the function
`treadle.compare` in the package.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.errors import PlanError
from treadle.measuring import Profile, ask, from_json

if TYPE_CHECKING:
    from treadle.plan import Plan

_SIZES = ("processes", "interpreters", "threads", "coroutines", "chunk")


def plan_of(found: Mapping[str, Any] | None) -> Plan | None:
    """The plan of a JSON object; None stays None."""
    if found is None:
        return None
    from treadle.plan import Plan

    return Plan.from_mapping({key: size for key, size in found.items() if size is not None})


@dataclass(frozen=True)
class Items:
    """The inputs: how many, and where they came from."""

    count: int
    spec: str


@dataclass(frozen=True)
class Machine:
    """Where it was measured; ``noise`` is ``quiet`` or ``noisy``."""

    usable_cores: float
    python: str
    gil: bool
    noise: str
    json: dict[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Candidate:
    """One plan, predicted and measured; rates in tasks a second, None where it was not raced.

    ``outcome`` is ``chosen``, ``equivalent``, ``slower``, ``not-raced`` or ``infeasible``; ``limit`` names
    what binds its throughput.
    """

    plan: Plan
    predicted_per_s: float
    measured_per_s: float | None
    interval_per_s: tuple[float, float] | None
    p50_s: float | None
    p99_s: float | None
    cpu_cores: float | None
    peak_memory_bytes: float | None
    errors: int
    limit: str
    outcome: str
    reason: str
    json: dict[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Decision:
    """The chosen plan (None: nothing was decided), why, and how sure: ``high``, ``low``, ``none``."""

    plan: Plan | None
    reason: str
    confidence: str
    json: dict[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Comparison:
    """Everything that ``treadle compare --json`` writes, under the same names."""

    schema: int
    target: str
    items: Items
    machine: Machine
    profile: Profile
    candidates: tuple[Candidate, ...]
    decision: Decision
    json: dict[str, Any] = field(repr=False, compare=False)

    @classmethod
    def of(cls, found: dict[str, Any]) -> Comparison:
        """From the JSON object."""
        candidates = []
        for one in found["candidates"]:
            interval = one.get("interval_per_s")
            candidates.append(
                from_json(
                    Candidate,
                    one,
                    plan=plan_of(one["plan"]),
                    interval_per_s=None if interval is None else tuple(interval),
                )
            )
        decision = found["decision"]
        return from_json(
            cls,
            found,
            items=from_json(Items, found["items"]),
            machine=from_json(Machine, found["machine"]),
            profile=Profile.of(found["profile"]),
            candidates=tuple(candidates),
            decision=from_json(Decision, decision, plan=plan_of(decision["plan"])),
        )

    def to_json(self) -> dict[str, Any]:
        """The whole object as the engine gave it."""
        return self.json

    def save_html(self, path: str | os.PathLike[str]) -> None:
        """Writes the page of ``treadle compare --html`` to `path`: one file that needs nothing else.

        The file is replaced whole or not at all. Raises ``OSError`` if it cannot be written.
        """
        from treadle import _core

        text = _core.page(json.dumps(self.json))
        target = Path(path)
        fresh = target.with_name(f"{target.name}.{os.getpid()}.new")
        try:
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise


def compare(
    fn: Callable[..., Any],
    items: Iterable[Any],
    *,
    star: bool = False,
    budget: float = 30.0,
    plans: str | Iterable[Plan | Mapping[str, int]] | None = None,
    targets: str | Mapping[str, str | float] | None = None,
    once: bool = False,
) -> Comparison:
    """Measures `fn` over `items`, races the plans that may win, and says which to run.

    With `star`, an input that is a tuple is passed as the argument list. `budget` is the whole race, in
    seconds. `plans` are raced instead of the engine's own choice (serial always is): plans, their sizes as
    mappings, or the text of ``--plans``. `targets` are requirements: a mapping such as
    ``{"p99": "50ms", "throughput": "200/s"}`` or the text of ``--target``. With `once`, no input is run twice:
    the sample's inputs are used up and the race splits the others; when they are too few, nothing is decided.

    Raises:
        TypeError: `fn` cannot be called.
        ValueError: there are no inputs.
        pickle.PicklingError: function or inputs cannot travel.
        RuntimeError: the main module asks for this while it is imported, without a ``__main__`` guard.
        PlanError: one of `plans` does not exist, or is one of a cluster: those cannot be raced here.
        MeasureError: `plans` or `targets` cannot be read, or the function fails on every input, ends its process or does not
            return in time.
    """
    if plans is not None and not isinstance(plans, str):
        plans = ";".join(_plan_text(plan) for plan in plans)
    if targets is not None and not isinstance(targets, str):
        targets = ",".join(f"{name}={bound}" for name, bound in targets.items())
    found = ask(
        fn,
        list(items),
        star=star,
        budget_s=budget,
        plans=plans,
        targets=targets,
        once=once or None,
    )
    return Comparison.of(found)


def _plan_text(plan: Plan | Mapping[str, int]) -> str:
    """A plan as ``--plans`` writes it: ``processes=2+threads=8``, ``serial``."""
    from treadle.plan import Plan

    if not isinstance(plan, Plan):
        plan = Plan.from_mapping(plan)
    if plan.dask is not None or plan.ray is not None:
        raise PlanError(
            f"{plan} runs on a cluster and cannot be raced on this machine; leave it out of plans"
        )
    sizes = ((name, getattr(plan, name)) for name in _SIZES)
    return "+".join(f"{name}={size}" for name, size in sizes if size is not None) or "serial"
