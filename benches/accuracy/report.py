"""The report: a line for each workload, the summary, the requirements."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from typing import Any

from benches.accuracy.advice import label
from benches.accuracy.outcome import Outcome
from benches.accuracy.regret import LIMIT_FEW, Summary, requirements, summarise

METHOD = (
    "regret: throughput of the whole batch of the given inputs, start of the pool included, lost "
    "against the best plan of the grid;",
    "from fresh head-to-head rounds in random order, each judged by the winner of the others; 95 % intervals",
)


def header(facts: dict[str, Any], settings: dict[str, Any]) -> str:
    """Where and how it was measured."""
    load = ", ".join(f"{value:.2f}" for value in facts["load_before"])
    return "\n".join(
        [
            f"machine   {facts['processor']}, {facts['usable_cores']} usable cores, "
            f"{facts['memory_bytes'] / 2**30:.0f} GiB, {facts['system']}",
            f"versions  CPython {facts['python']}, commit {facts['commit']}, requirements/corpus.txt",
            f"method    {METHOD[0]}",
            f"          {METHOD[1]}",
            f"          compare --budget {settings['budget']:g}; up to {settings['grid_s']:g} s of grid and "
            f"{settings['duel_s']:g} s of duel a workload; seed {facts['seed']}",
            f"when      {facts['date']}, load averages before {load}",
            "",
            f"{'workload':18} {'class':21} {'advised':22} {'best of the grid':22} {'regret':>8} "
            f"{'interval':>18}  {'sure':4} {'decided':>7}",
        ]
    )


def line(outcome: Outcome) -> str:
    """One workload in a line, and a second one for what is wrong with it."""
    advice, measured = outcome.advice, outcome.measured
    found = advice.found_class or "none"
    advised = "undecided" if advice.plan is None else label(advice.plan)
    if measured.regret is None:
        share, interval = "none", ""
    else:
        regret = measured.regret
        share = f"{'>' if regret.censored else ''}{regret.share:.1%}"
        interval = f"{regret.low:.1%} to {regret.high:.1%}" if regret.rounds else "no rival"
    best = measured.best if measured.seconds else "none ran"
    text = (
        f"{outcome.name:18} {found:21} {advised:22} {best:22} {share:>8} {interval:>18}  "
        f"{advice.confidence:4} {advice.seconds:5.1f} s"
    )
    if not outcome.class_right:
        text += f"\n    class WRONG: {' or '.join(outcome.classes)}, for {outcome.because}"
    if measured.regret is None:
        text += f"\n    NO REGRET: {advice.why or measured.failed.get(advised, 'no batch ran')}"
    elif measured.regret.share >= LIMIT_FEW:
        text += f"\n    LOSES {measured.regret.share:.0%}: compare said: {advice.why}"
        shown = list(advice.raced.items())
        text += "\n    it raced " + ", ".join(f"{name} {rate:,.4g}/s" for name, rate in shown)
    if advice.forced:
        text += "\n    (the machine was too noisy twice; decided with TREADLE_NOISE=ignore)"
    return text


def summary_text(outcomes: list[Outcome], summary: Summary) -> str:
    """The summary and the requirements."""
    sure = Counter(outcome.advice.confidence for outcome in outcomes)
    low, high = summary.median_interval
    misled = [
        outcome.name
        for outcome in outcomes
        if outcome.advice.confidence == "high"
        and outcome.measured.regret is not None
        and outcome.measured.regret.low >= LIMIT_FEW
    ]
    lines = [
        f"workloads         {summary.workloads}, undecided {summary.undecided}",
        f"regret            median {summary.median:.2%} ({low:.2%} to {high:.2%}), "
        f"under {LIMIT_FEW:.0%} for {summary.under_few:.1%} of the workloads, worst "
        + ("undecided" if math.isinf(summary.worst) else f"{summary.worst:.1%}"),
        f"class             right for {summary.classes_right:.1%}",
        f"decision          median {summary.decision_median_s:.1f} s, 90th percentile "
        f"{summary.decision_p90_s:.1f} s, longest {summary.decision_most_s:.1f} s",
        f"confidence        {', '.join(f'{name} {count}' for name, count in sure.most_common())}; "
        f"high and yet surely {LIMIT_FEW:.0%} lost: {', '.join(misled) or 'none'}",
    ]
    if summary.error_median is not None and summary.error_p90 is not None:
        lines.insert(
            3,
            f"prediction error  median {summary.error_median:.1%}, 90th percentile "
            f"{summary.error_p90:.1%}, over {summary.errors} raced candidates",
        )
    lines.append("")
    for words, found, met in requirements(summary):
        lines.append(f"required: {words}: {found}, {'met' if met else 'NOT MET'}")
    return "\n".join(lines)


def data(
    facts: dict[str, Any], settings: dict[str, Any], outcomes: list[Outcome], summary: Summary
) -> dict[str, Any]:
    """Everything, for the file of results."""
    return {
        "schema": 1,
        "machine": facts,
        "settings": settings,
        "summary": {name: finite(value) for name, value in asdict(summary).items()},
        "requirements": [
            {"requirement": words, "measured": found, "met": met}
            for words, found, met in requirements(summary)
        ],
        "workloads": [outcome.data() for outcome in outcomes],
    }


def finite(value: Any) -> Any:
    """None for what JSON has no word for: the worst regret where something was not decided."""
    if isinstance(value, tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and math.isinf(value) else value


def summarised(outcomes: list[Outcome], seed: int) -> Summary:
    """The summary of these outcomes."""
    return summarise([outcome.judged for outcome in outcomes], seed)
