"""What is kept of one workload: as data for the results, and cached until its sources change."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benches.accuracy.advice import Advice, label
from benches.accuracy.grid import Measured, slower
from benches.accuracy.regret import Judged, Regret
from benches.corpus.workload import Workload

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "target" / "accuracy"


@dataclass(frozen=True)
class Outcome:
    """One workload: what it should be, what was advised, what was measured."""

    name: str
    module: str
    classes: tuple[str, ...]
    because: str
    kinds: tuple[str, ...]
    inputs: int
    advice: Advice
    measured: Measured

    @property
    def class_right(self) -> bool:
        """Whether compare's class is one that the construction allows."""
        return self.advice.found_class in self.classes

    @property
    def judged(self) -> Judged:
        """What the summary needs of it."""
        return Judged(
            regret=self.measured.regret,
            class_right=self.class_right,
            errors=tuple(self.advice.errors.values()),
            decision_s=self.advice.seconds,
        )

    def data(self) -> dict[str, Any]:
        """As JSON."""
        losses = slower(self.measured) if self.measured.seconds else {}
        return {
            "name": self.name,
            "module": self.module,
            "expected": list(self.classes),
            "because": self.because,
            "kinds": list(self.kinds),
            "inputs": self.inputs,
            "advice": asdict(self.advice),
            "advised": None if self.advice.plan is None else label(self.advice.plan),
            "class_right": self.class_right,
            "best": self.measured.best if self.measured.seconds else None,
            "measured": asdict(self.measured),
            "grid_loss": losses,
        }

    @classmethod
    def of(cls, data: dict[str, Any]) -> Outcome:
        """From what `data` gave."""
        measured = dict(data["measured"])
        if measured["regret"] is not None:
            measured["regret"] = Regret(**measured["regret"])
        return cls(
            name=data["name"],
            module=data["module"],
            classes=tuple(data["expected"]),
            because=data["because"],
            kinds=tuple(data["kinds"]),
            inputs=data["inputs"],
            advice=Advice(**data["advice"]),
            measured=Measured(**measured),
        )


def key(one: Workload, settings: dict[str, Any]) -> str:
    """Changes with the workload's module, this benchmark, treadle, the interpreter and `settings`."""
    digest = hashlib.sha256(json.dumps([sys.version, one.name, settings]).encode())
    for path in _sources(one):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources(one: Workload) -> Iterable[Path]:
    corpus, product = ROOT / "benches" / "corpus", ROOT / "python" / "treadle"
    yield corpus / f"{one.module}.py"
    yield corpus / "material.py"
    yield ROOT / "requirements" / "corpus.txt"
    yield ROOT / "demo" / "server.py"
    for name in ("advice", "batch", "grid", "regret"):
        yield ROOT / "benches" / "accuracy" / f"{name}.py"
    yield from sorted([*product.rglob("*.py"), *product.glob("*.so")])


def load(one: Workload, settings: dict[str, Any]) -> Outcome | None:
    """The outcome of an earlier run of the same sources; None where there is none."""
    try:
        kept = json.loads((FOLDER / f"{one.name}.json").read_text())
        return Outcome.of(kept["outcome"]) if kept["key"] == key(one, settings) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent, or of another version: it is measured anew


def keep(outcome: Outcome, one: Workload, settings: dict[str, Any]) -> None:
    """Keeps it for `load`."""
    kept = {"key": key(one, settings), "outcome": outcome.data()}
    path = FOLDER / f"{one.name}.json"
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(kept, indent=1) + "\n")
    unfinished.replace(path)
