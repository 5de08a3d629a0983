"""Is a recorded decision still right? The face of the engine's check.

Its name is not ``check`` because importing a module of that name would replace the function `treadle.check` in the
package.
"""

from __future__ import annotations

import json as _json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from treadle.comparing import plan_of
from treadle.measuring import from_json, refuse_within_laboratory

if TYPE_CHECKING:
    from treadle.plan import Plan


@dataclass(frozen=True)
class Answer:
    """The answer about one decision.

    ``answer`` is ``holds``, ``stale`` (facts changed, the choice is not contradicted), ``overturned`` (another plan,
    ``instead``, is better now) or ``inconclusive``. ``level`` is how deep it went: ``static``, ``ratios``, ``ranking`` or
    ``race``. ``changes`` are in words; those that cannot change the choice are among them.
    """

    name: str
    answer: str
    level: str
    plan: Plan
    instead: Plan | None
    changes: tuple[str, ...]
    why: str
    next: str
    json: dict[str, Any] = field(repr=False, compare=False)

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.answer}"]
        lines += [f"changed: {one['words']}" for one in self.json["changes"] if one["weighs"]]
        lines.append(f"why: {self.why}")
        if self.next != "nothing":
            lines.append(f"do: {self.next}")
        if self.json.get("detail"):
            lines += ["", self.json["detail"]]
        return "\n".join(lines)

    @classmethod
    def of(cls, found: dict[str, Any]) -> Answer:
        """From the JSON object."""
        plan = plan_of(found["plan"])
        return from_json(
            cls,
            found,
            plan=plan,
            instead=plan_of(found["instead"]),
            changes=tuple(one["words"] for one in found["changes"]),
        )


@dataclass(frozen=True)
class Check:
    """What ``treadle check --json`` writes: the worst ``answer``, its ``exit_code``, and each decision's answer."""

    answer: str
    exit_code: int
    settings: str
    decisions: tuple[Answer, ...]
    remarks: tuple[str, ...]
    json: dict[str, Any] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return "\n\n".join(str(one) for one in self.decisions)

    def to_json(self) -> dict[str, Any]:
        """The whole object as the engine gave it."""
        return self.json


def check(
    names: str | Iterable[str] | None = None,
    *,
    directory: str | os.PathLike[str] | None = None,
    static: bool = False,
    measure: bool = False,
    race: bool = False,
    budget: float = 15.0,
) -> Check:
    """Checks the decisions `names` (default: all) of the nearest ``treadle.toml``, from the cheapest test to the dearest.

    The file is looked for in `directory` (default: the current one) and above it. With `static`, files alone are
    compared; with `measure`, the function is profiled even where nothing has changed; with `race`, the plans are raced
    for `budget` seconds each. Functions run only in processes of their own. Nothing is written.

    Raises `treadle.RecordError` when there is no such file or decision, or it cannot be read.
    """
    refuse_within_laboratory()
    from treadle import _core

    if isinstance(names, str):
        names = [names]
    request = {
        "names": list(names or ()),
        "directory": os.path.abspath(os.getcwd() if directory is None else directory),
        "static": static,
        "measure": measure,
        "race": race,
        "budget_s": float(budget),
        "ignore_noise": os.environ.get("TREADLE_NOISE") == "ignore",
        "python": sys.executable,
    }
    found: dict[str, Any] = _json.loads(_core.check(_json.dumps(request)))
    return from_json(
        Check,
        found,
        decisions=tuple(Answer.of(one) for one in found["decisions"]),
        remarks=tuple(found["remarks"]),
    )
