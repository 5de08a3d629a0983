"""Native libraries' own threads (BLAS, OpenMP) in a worker.

Libraries that are loaded later read their number of threads from the environment, which the zygote has before it imports anything. One that the main
module loaded and sized otherwise is limited here, through ``threadpoolctl`` where the program has it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


#: What the file names of libraries with a pool of threads contain; as in threadpoolctl, which looks at the symbols too.
_MARKS = ("openblas", "mkl_rt", "blis", "flexiblas", "gomp", "iomp", "libomp")

_controller: Any = None


def look() -> None:
    """Finds the libraries that this process has loaded. Done in a zygote, so that its workers need not."""
    global _controller
    try:
        with open("/proc/self/maps") as maps:
            mapped = maps.read()
    except OSError:
        return
    if not any(mark in mapped for mark in _MARKS):
        return
    try:
        import threadpoolctl

        _controller = threadpoolctl.ThreadpoolController()
    except Exception:
        # Not installed, or it cannot tell: then the environment is all that there is.
        return


def limit(most: int) -> None:
    """Lets each loaded library use at most so many threads."""
    if _controller is None:
        return
    for library in _controller.lib_controllers:
        try:
            threads = library.num_threads
            if threads is not None and threads > most:
                library.set_num_threads(most)
        except Exception:
            continue
