"""What the figures were measured on: machine, interpreter, versions, load."""

from __future__ import annotations

import datetime
import os
import platform
import re
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


def facts() -> dict[str, Any]:
    """The machine, the interpreter, the tree and the load, as data."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "processor": processor(),
        "usable_cores": usable_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "gil": not sysconfig.get_config_var("Py_GIL_DISABLED"),
        "commit": commit(),
        "load_before": os.getloadavg(),
        "arguments": sys.argv[1:],
    }


def describe(workers: int, repetitions: int, seed: int) -> dict[str, Any]:
    """Everything a reader needs to judge the figures, as data."""
    return {
        **facts(),
        "versions": versions(),
        "workers": workers,
        "repetitions": repetitions,
        "seed": seed,
        "method": "contenders warmed, then sampled in turn in a new random order each repetition; "
        "medians; processes start from a forkserver",
    }


def stem(known: dict[str, Any], subject: str = "") -> str:
    """The name of a file of results: date, subject, machine and Python."""
    label = re.sub(r"[^a-z0-9]+", "-", str(known["processor"]).lower()).strip("-")
    place = f"{label}-{known['usable_cores']}cores-python{known['python']}"
    return "-".join(part for part in (str(known["date"])[:10], subject, place) if part)


def header(known: dict[str, Any]) -> str:
    """What `describe` gave, for a reader."""
    packages = ", ".join(
        f"{name} {version}" for name, version in known["versions"].items() if version
    )
    build = "" if known["gil"] else " (free-threaded)"
    load = ", ".join(f"{value:.2f}" for value in known["load_before"])
    return "\n".join(
        [
            f"machine   {known['processor']}, {known['usable_cores']} usable cores, "
            f"{known['memory_bytes'] / 2**30:.0f} GiB, {known['system']}",
            f"versions  CPython {known['python']}{build}, {packages}; commit {known['commit']}",
            f"method    {known['method']}",
            f"          {known['workers']} workers, {known['repetitions']} repetitions, "
            f"seed {known['seed']}",
            f"when      {known['date']}, load averages before {load}",
        ]
    )
