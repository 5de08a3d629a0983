"""What the figures were measured on: machine, interpreter, versions, load."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from benches.whole.pools import versions

ROOT = Path(__file__).resolve().parents[2]


def processor() -> str:
    """The processor's model, or its architecture where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def commit() -> str | None:
    """The commit of the tree, with a + when it has changes; None outside of a repository."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def describe(workers: int, repetitions: int, seed: int) -> dict[str, Any]:
    """Everything a reader needs to judge the figures, as data."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "processor": processor(),
        "usable_cores": usable_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "gil": not sysconfig.get_config_var("Py_GIL_DISABLED"),
        "versions": versions(),
        "commit": commit(),
        "load_before": os.getloadavg(),
        "workers": workers,
        "repetitions": repetitions,
        "seed": seed,
        "method": "contenders warmed, then sampled in turn in a new random order each repetition; "
        "medians; processes start from a forkserver",
        "arguments": sys.argv[1:],
    }


def header(facts: dict[str, Any]) -> str:
    """`facts` for a reader."""
    packages = ", ".join(
        f"{name} {version}" for name, version in facts["versions"].items() if version
    )
    build = "" if facts["gil"] else " (free-threaded)"
    load = ", ".join(f"{value:.2f}" for value in facts["load_before"])
    return "\n".join(
        [
            f"machine   {facts['processor']}, {facts['usable_cores']} usable cores, "
            f"{facts['memory_bytes'] / 2**30:.0f} GiB, {facts['system']}",
            f"versions  CPython {facts['python']}{build}, {packages}; commit {facts['commit']}",
            f"method    {facts['method']}",
            f"          {facts['workers']} workers, {facts['repetitions']} repetitions, "
            f"seed {facts['seed']}",
            f"when      {facts['date']}, load averages before {load}",
        ]
    )
