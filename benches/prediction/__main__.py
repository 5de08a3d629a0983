"""``python -m benches.prediction``: predicts, races, and prints how far apart the two are.

Each function of ``workloads.py`` is raced under the plans named there, whatever the prediction says of
them. The error is predicted over measured, less one; its distribution is printed for each strategy. On a
machine that others use, the errors are theirs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict

from benches.prediction.workloads import WORKLOADS


def compared(name: str, plans: str, budget: float) -> dict[str, object]:
    """The comparison of one function, as ``treadle compare --json`` writes it."""
    command = [
        os.path.join(os.path.dirname(sys.executable), "treadle"), "compare",
        f"benches.prediction.workloads:{name}",
        "--items", "range:5000", "--plans", plans, "--budget", str(budget), "--seed", "1", "--json", "-",
    ]  # fmt: skip
    environment = {**os.environ, "TREADLE_NOISE": "ignore"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    if not run.stdout.startswith("{"):
        sys.exit(f"{name}: {run.stderr}")
    return json.loads(run.stdout)


def quantile(values: list[float], share: float) -> float:
    """The quantile of sorted `values`, between order statistics."""
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


def label(plan: dict[str, int]) -> str:
    """``threads=8``; ``serial`` for the empty plan."""
    return "+".join(f"{key}={size}" for key, size in plan.items()) or "serial"


def main() -> None:
    """Prints a line a plan, then the distribution."""
    parser = argparse.ArgumentParser(prog="python -m benches.prediction", description=__doc__)
    parser.add_argument("--only", help="names of functions, separated by commas")
    parser.add_argument("--budget", type=float, default=6.0, help="seconds for each race")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else list(WORKLOADS)
    errors: dict[str, list[float]] = defaultdict(list)
    print(
        f"{'function':14}{'plan':16}{'predicted/s':>12}{'interval':>20}{'measured/s':>12}{'error':>8}  limit"
    )
    for name in names:
        found = compared(name, WORKLOADS[name], arguments.budget)
        candidates = found["candidates"]
        assert isinstance(candidates, list)
        for one in candidates:
            error = one["prediction_error"]
            if error is None:
                continue
            strategy = next(iter(one["plan"]), "serial")
            errors[strategy].append(error)
            ends = f"{one['predicted_low_per_s']:.0f} to {one['predicted_high_per_s']:.0f}"
            print(
                f"{name:14}{label(one['plan']):16}{one['predicted_per_s']:12.1f}{ends:>20}"
                f"{one['measured_per_s']:12.1f}{error:+8.0%}  {one['limit']}",
                flush=True,
            )
    print(
        f"\n{'strategy':14}{'plans':>6}{'median':>8}{'90 %':>8}{'worst':>8}   (of the absolute error)"
    )
    everything = [error for some in errors.values() for error in some]
    for strategy, some in [*errors.items(), ("all", everything)]:
        sizes = sorted(abs(error) for error in some)
        print(
            f"{strategy:14}{len(sizes):6}{quantile(sizes, 0.5):8.0%}{quantile(sizes, 0.9):8.0%}{sizes[-1]:8.0%}"
        )


if __name__ == "__main__":
    main()
