"""`treadle compare` as a user runs it: a command, its exit code, the JSON it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benches.corpus.workload import Workload

ROOT = Path(__file__).resolve().parents[2]
TREADLE = Path(sys.executable).with_name("treadle")
TOO_NOISY = 3  # its exit code for "this machine is too noisy to decide"
PAUSE_S = 15  # 1.5 times the ten seconds over which the kernel averages the pressure
WATCHDOG_S = 180  # ten times the time that a decision takes: it hangs


@dataclass(frozen=True)
class Advice:
    """What came back. `plan` is None when nothing was decided; `why` then says why.

    `errors` are |predicted / measured - 1| of the candidates that raced, but for the plain loop's, whose
    prediction is the profile. `attempts` counts the runs
    that a noisy machine took; `forced`: the last one was told to decide all the same.
    """

    plan: dict[str, int] | None
    found_class: str | None
    seconds: float
    why: str = ""
    confidence: str = "none"
    attempts: int = 1
    forced: bool = False
    errors: dict[str, float] = field(default_factory=dict)
    raced: dict[str, float] = field(default_factory=dict)


def label(plan: dict[str, int]) -> str:
    """A plan as `--plans` writes it."""
    return "+".join(f"{name}={size}" for name, size in plan.items()) or "serial"


def ask(one: Workload, budget_s: float, seed: int, folder: Path) -> Advice:
    """Runs the command; again after a pause while the machine is too noisy, the third time forced."""
    result = folder / f"{one.name}.compare.json"
    command = [str(TREADLE), "compare", one.target, "--items", one.items]
    command += ["--budget", f"{budget_s:g}", "--seed", str(seed), "--json", str(result)]
    for attempt in (1, 2, 3):
        result.unlink(missing_ok=True)
        environment = dict(os.environ)
        if attempt == 3:
            environment["TREADLE_NOISE"] = "ignore"
        started = time.perf_counter()
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=WATCHDOG_S,
            )
        except subprocess.TimeoutExpired:
            return Advice(None, None, WATCHDOG_S, f"compare took longer than {WATCHDOG_S} s")
        seconds = time.perf_counter() - started
        (folder / f"{one.name}.compare.txt").write_text(done.stdout + done.stderr)
        if done.returncode != TOO_NOISY or attempt == 3:
            break
        time.sleep(PAUSE_S)
    if not result.exists():
        why = f"exit code {done.returncode}: {complaint(done.stderr)}"
        return Advice(None, None, seconds, why, attempts=attempt)
    return read(json.loads(result.read_text()), seconds, attempt)


def complaint(said: str) -> str:
    """What the command complained of: the last line of its stderr before the hint."""
    lines = [line for line in said.split("\nhint:", 1)[0].splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def read(comparison: dict[str, Any], seconds: float, attempts: int) -> Advice:
    """The advice in the object that `compare --json` wrote."""
    decision = comparison["decision"]
    raced = {
        label(sizes(one["plan"])): one for one in comparison["candidates"] if one["measured_per_s"]
    }
    return Advice(
        plan=None if decision["plan"] is None else sizes(decision["plan"]),
        found_class=comparison["profile"]["class"],
        seconds=seconds,
        why=decision["reason"],
        confidence=decision["confidence"],
        attempts=attempts,
        forced=attempts == 3,
        errors={
            name: abs(one["predicted_per_s"] / one["measured_per_s"] - 1.0)
            for name, one in raced.items()
            if one["predicted_per_s"] and name != "serial"
        },
        raced={name: one["measured_per_s"] for name, one in raced.items()},
    )


def sizes(plan: dict[str, Any]) -> dict[str, int]:
    """The sizes that a plan sets."""
    return {name: size for name, size in plan.items() if size is not None}
