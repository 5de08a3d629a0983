"""Every test of the interpreter's own that is not run against treadle, and why.

Only two reasons count: the test uses attributes that the standard library keeps private, or it asks for a start method that treadle does not offer.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

FORK = "the start method fork is not offered: a fork copies the locks and half-done work of the program's other threads"


@dataclass(frozen=True)
class Exclusion:
    """Tests that are not run.

    ``classes`` and ``test`` are patterns as for file names. ``private`` names what the tests use that is private; the suite asserts that they do.
    ``since`` and ``until`` are the first and the last version of the interpreter that has these tests.
    """

    classes: str
    test: str
    reason: str
    private: tuple[str, ...] = ()
    since: tuple[int, int] = (3, 10)
    until: tuple[int, int] = (3, 99)

    def matches(self, one: str, test: str) -> bool:
        """Whether it excludes this test of this class."""
        return fnmatchcase(one, self.classes) and fnmatchcase(test, self.test)


EXCLUSIONS = (
    Exclusion("ProcessPoolFork[!s]*", "*", FORK),
    Exclusion(
        "ProcessPool*",
        "test_processes_terminate",
        "counts and joins the pool's multiprocessing.Process objects",
        private=("_processes",),
    ),
    Exclusion(
        "ProcessPool*",
        "test_context_manager_shutdown",
        "joins the pool's multiprocessing.Process objects",
        private=("_processes",),
    ),
    Exclusion(
        "ProcessPool*",
        "test_del_shutdown",
        "joins the pool's manager thread, processes and queue",
        private=("_executor_manager_thread", "_processes", "_call_queue"),
    ),
    Exclusion(
        "ProcessPool*",
        "test_shutdown_no_wait",
        "joins the pool's manager thread, processes and queue",
        private=("_executor_manager_thread", "_processes", "_call_queue"),
    ),
    Exclusion(
        "ProcessPool*",
        "test_killed_child",
        "terminates one of the pool's multiprocessing.Process objects (and treadle's pool goes on after the loss of a worker)",
        private=("_processes",),
    ),
    Exclusion(
        "ProcessPool*",
        "test_saturation",
        "counts the pool's multiprocessing.Process objects",
        private=("_processes",),
    ),
    Exclusion(
        "ProcessPool*",
        "test_idle_process_reuse_*",
        "counts the pool's multiprocessing.Process objects",
        private=("_processes",),
    ),
    Exclusion(
        "ProcessPool*",
        "test_max_tasks_per_child",
        "counts the pool's multiprocessing.Process objects",
        private=("_processes",),
        since=(3, 11),
    ),
    Exclusion(
        "ProcessPool*",
        "test_max_tasks_per_child_defaults_to_spawn_context",
        "asks for the pool's context; our zygote, the default, may replace its workers as well",
        private=("_mp_context",),
        since=(3, 11),
    ),
    Exclusion(
        "ProcessPool*",
        "test_traceback",
        "compares the cause's class with a private one; tests/contract checks the worker's traceback",
        private=("_RemoteTraceback",),
    ),
    Exclusion(
        "ProcessPool*",
        "test_shutdown_deadlock_pickle",
        "joins the pool's manager thread",
        private=("_executor_manager_thread",),
    ),
    Exclusion(
        "ProcessPool*",
        "test_python_finalization_error",
        "breaks the pool by failing the start of its second Python thread; treadle's has none",
        private=("_start_joinable_thread",),
        since=(3, 13),
    ),
    Exclusion(
        "ProcessPool*",
        "test_broken_process_pool_traceback",
        "terminates one of the pool's multiprocessing.Process objects (and treadle's pool goes on after the loss of a worker)",
        private=("_processes",),
        since=(3, 14),
    ),
    Exclusion(
        "ProcessPool*",
        "test_*max_tasks_*gh1[15][0-9][0-9]*[27]",
        "joins the pool's manager thread",
        private=("_executor_manager_thread",),
        since=(3, 14),
    ),
    Exclusion(
        "ProcessPool*",
        "test_force_shutdown_during_max_tasks_worker_exit",
        "joins the pool's manager thread",
        private=("_executor_manager_thread",),
        since=(3, 14),
    ),
    Exclusion(
        "ProcessPool*",
        "test_failed_worker_replacement_breaks_pool",
        "replaces the function that starts the pool's processes",
        private=("_spawn_worker",),
        since=(3, 14),
    ),
    Exclusion(
        "ProcessPool*",
        "test_shutdown_gh_132969_case_*",
        "joins the pool's manager thread",
        private=("_executor_manager_thread",),
        since=(3, 14),
    ),
    Exclusion(
        "ProcessPool*",
        "test_[tk]*_workers",
        "replaces the method behind terminate_workers and kill_workers; tests/contract checks what they do",
        private=("_force_shutdown",),
        since=(3, 14),
    ),
    Exclusion(
        "ProcessPool*",
        "test_force_shutdown_workers_invalid_op",
        "calls the method behind terminate_workers and kill_workers",
        private=("_force_shutdown",),
        since=(3, 14),
    ),
    Exclusion(
        "ProcessPool*",
        "test_force_shutdown_workers",
        "replaces methods of the pool's multiprocessing.Process objects",
        private=("_processes",),
        since=(3, 14),
    ),
    Exclusion(
        "ProcessPool*",
        "test_force_shutdown_workers_stops_pool",
        "joins one of the pool's multiprocessing.Process objects",
        private=("_processes",),
        since=(3, 14),
    ),
)


def exclusion_of(one: str, test: str) -> Exclusion | None:
    """The exclusion of this test of this class, if there is one."""
    return next((entry for entry in EXCLUSIONS if entry.matches(one, test)), None)
