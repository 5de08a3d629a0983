"""The report: a block for each workload, with what the speed table requires beside it."""

from __future__ import annotations

from typing import Any

from benches.whole.interleave import Outcome
from benches.whole.workload import TREADLE, Requirement

SCALES = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")),
    "B": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
}


def quantity(value: float, unit: str) -> str:
    """`value` with three digits and a fitting unit."""
    scale, name = next(
        (pair for pair in SCALES[unit] if value >= pair[0]),
        SCALES[unit][-1],
    )
    return f"{value / scale:.3g} {name}"


def block(outcome: Outcome) -> str:
    """One workload: every contender's median, and its ratio to the baseline with its range."""
    workload = outcome.workload
    lines = [f"{workload.name}: {workload.title}"]
    for name in workload.contenders:
        if name in outcome.absent:
            lines.append(f"  {name:28} not measured: {outcome.absent[name]}")
            continue
        line = f"  {name:28} {quantity(outcome.medians[name], workload.unit):>10}"
        ratio = outcome.ratio(name)
        if ratio is not None:
            line += f"  {ratio[0]:8.2f} x   ({ratio[1]:.2f} to {ratio[2]:.2f})"
        lines.append(line)
    lines += [f"  {verdict(outcome, requirement)}" for requirement in workload.requirements]
    if workload.remark:
        lines.append(f"  ({workload.remark})")
    return "\n".join(lines)


def verdict(outcome: Outcome, requirement: Requirement) -> str:
    """One requirement, and what was measured beside it."""
    word = "at most" if requirement.at_most else "at least"
    wanted = (
        f"required against {requirement.against}: {word} {requirement.required:g}, "
        f"go for {requirement.go_for:g}"
    )
    ratio = requirement.ratio(outcome.medians)
    if ratio is None:
        return f"{wanted}: not measured"
    return f"{wanted}: {ratio:.2f}, {'met' if requirement.met(ratio) else 'NOT MET'}"


def verdicts(outcomes: list[Outcome]) -> list[bool | None]:
    """Of every requirement: met, not met, or None where it was not measured."""
    found: list[bool | None] = []
    for outcome in outcomes:
        for requirement in outcome.workload.requirements:
            ratio = requirement.ratio(outcome.medians)
            found.append(None if ratio is None else requirement.met(ratio))
    return found


def summary(outcomes: list[Outcome]) -> str:
    """The last line of the report."""
    found = verdicts(outcomes)
    return (
        f"requirements: {found.count(True)} met, {found.count(False)} not met, "
        f"{found.count(None)} not measured"
    )


def data(facts: dict[str, Any], outcomes: list[Outcome]) -> dict[str, Any]:
    """Everything measured, for --json."""
    return {
        "schema": 1,
        "machine": facts,
        "workloads": [
            {
                "group": outcome.workload.group,
                "name": outcome.workload.name,
                "title": outcome.workload.title,
                "unit": outcome.workload.unit,
                "baseline": outcome.workload.baseline,
                "medians": outcome.medians,
                "samples": outcome.samples,
                "not_measured": outcome.absent,
                "treadle_ratio": outcome.ratio(TREADLE),
                "requirements": [
                    {
                        "against": requirement.against,
                        "required": requirement.required,
                        "go_for": requirement.go_for,
                        "at_most": requirement.at_most,
                        "ratio": requirement.ratio(outcome.medians),
                    }
                    for requirement in outcome.workload.requirements
                ],
            }
            for outcome in outcomes
        ],
    }
