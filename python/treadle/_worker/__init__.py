"""All that runs in a child: the zygote that forks workers, and a worker's main.

This module is imported at the start of every zygote and worker, so it imports nothing: bare Python starts in about 15 ms, and the standard library's pool
machinery would add 57.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Set while the zygote imports the program's main module: executors of processes made then are a missing main guard.
importing_main = False

#: This process's end of the pool, once it is a worker.
current: Any = None

#: How many threads this worker's pool gave its native libraries through the environment; 0 when it gave none.
native_threads = 0

#: The signal on which a worker writes its stacks: the sixth real-time signal, which no library here uses.
DUMP_SIGNAL = 39
