"""The memory of idle workers whose main module imports next to nothing: what a pool itself costs.

    python -m benches.whole.bare CONTENDER WORKERS

prints the mean proportional set size of the idle workers, in bytes (Linux). The peers' workers import the main module each for
itself, and forks of a zygote share it: all that measures is imported in the function, which runs in the program alone.
"""

import os
import sys
import time


def worker_pid(seconds: float) -> int:
    """The process that ran this, after so many seconds."""
    time.sleep(seconds)
    return os.getpid()


if __name__ == "__main__":
    from benches.whole.fresh import idle_memory

    print(idle_memory(sys.argv[1], int(sys.argv[2]), worker_pid))
