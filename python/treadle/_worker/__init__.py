"""All that runs in a child: the zygote that forks workers, and a worker's main.

This module is imported at the start of every zygote and worker, so it imports nothing: bare Python starts in about 15 ms, and the standard library's pool
machinery would add 57.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Whether this process is a zygote or a worker: it loads of the standard library what the program's own code needs, for all else is memory of each.
child = False

#: Set while the zygote imports the program's main module: executors of processes made then are a missing main guard.
importing_main = False

#: This process's end of the pool, once it is a worker.
current: Any = None


def task_here() -> int:
    """Which task the caller runs for, where a loop runs several (:mod:`treadle._worker.turning`); else 0: the engine knows it by the thread."""
    return 0


#: How many threads this worker's pool gave its native libraries through the environment; 0 when it gave none.
native_threads = 0

#: The signal on which a worker writes its stacks: the sixth real-time signal, which no library here uses.
DUMP_SIGNAL = 39

#: The signal on which a worker with a loop writes the stacks of its tasks, which the interpreter must run for; the real-time signal after it.
TASKS_SIGNAL = 40
