"""A sub-interpreter started once, in a process that may crash: how long until it has imported the function.

Run by its path, without Treadle: an extension module that does not bear a second interpreter may take the
process along. Gives one JSON list: [seconds, null] or [null, why not].
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from typing import Any

#: The first version with `concurrent.interpreters`, and with plans of interpreters.
HAS_INTERPRETERS = sys.hexversion >= 0x030E0000

#: Longer than any import that a person would wait for; this only turns a hang into a reason.
PATIENCE_S = 20.0


def start(module: str) -> tuple[float | None, str | None]:
    """(seconds, None), or (None, why no sub-interpreter can run functions of `module`)."""
    if not HAS_INTERPRETERS:
        return None, None
    try:
        done = subprocess.run(
            [sys.executable, __file__, json.dumps([sys.path, module])],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exception:
        return None, f"it could not be tried: {exception}"
    try:
        seconds, why = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return None, f"importing {module} in one ended the process with code {done.returncode}"
    return seconds, why


def _try(path: list[str], module: str) -> tuple[float | None, str | None]:
    """Starts one here."""
    sys.path[:] = path
    interpreters: Any = importlib.import_module("concurrent.interpreters")
    started = time.perf_counter()
    one = interpreters.create()
    try:
        one.exec(
            f"import importlib, sys; sys.path[:] = {path!r}; importlib.import_module({module!r})"
        )
    except interpreters.ExecutionFailed as failed:
        told = getattr(failed.excinfo, "formatted", None) or str(failed)
        return None, " ".join(str(told).split())
    return time.perf_counter() - started, None


if __name__ == "__main__":
    print(json.dumps(_try(*json.loads(sys.argv[1]))))
