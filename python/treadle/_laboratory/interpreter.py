"""A sub-interpreter started once, in a process that may crash: how long until it has imported the function.

Run by its path, in a process of its own: an extension module that does not bear a second interpreter may take
the process along. Gives one JSON list: [seconds, null] or [null, why not].
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

#: It starts a process and imports in it as a worker process does, and then once more: so much longer may it take
#: than that did, and never less than this, in seconds.
PATIENCE = 3.0
LEAST_PATIENCE_S = 2.0


def start(module: str, process_s: float | None = None) -> tuple[float | None, str | None]:
    """(seconds, None), or (None, why no sub-interpreter can run functions of `module`).

    `process_s` is what a worker process took, for comparison. (None, None) where Python has no interpreters.
    """
    if not HAS_INTERPRETERS:
        return None, None
    from treadle.strategies.interpreters import boot_source

    patience_s = max(LEAST_PATIENCE_S, PATIENCE * (process_s or 0.0))
    try:
        done = subprocess.run(
            [sys.executable, __file__, json.dumps([boot_source(), module])],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=patience_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"importing {module} in one did not end within {patience_s:.0f} s"
    except OSError as exception:
        return None, f"it could not be tried: {exception}"
    try:
        seconds, why = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return None, f"importing {module} in one ended the process with code {done.returncode}"
    return seconds, why


def _try(boot: str, module: str) -> tuple[float | None, str | None]:
    """Starts one here, made ready as a plan's workers are."""
    interpreters: Any = importlib.import_module("concurrent.interpreters")
    started = time.perf_counter()
    one = interpreters.create()
    try:
        one.exec(boot)
        one.exec(f"import importlib; importlib.import_module({module!r})")
    except interpreters.ExecutionFailed as failed:
        told = getattr(failed.excinfo, "formatted", None) or str(failed)
        return None, " ".join(str(told).split())
    return time.perf_counter() - started, None


if __name__ == "__main__":
    print(json.dumps(_try(*json.loads(sys.argv[1]))))
