"""Programs whose main module imports nothing: what their workers have loaded, and what tasks find that load it first."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from treadle import _core

#: What of the standard library and of treadle costs memory in each worker and is for threads, logs, errors and the parent.
NOT_IN_A_WORKER = {
    "_socket",
    "array",
    "asyncio",
    "concurrent.futures",
    "contextlib",
    "dataclasses",
    "enum",
    "importlib",
    "logging",
    "multiprocessing",
    "pickle",
    "re",
    "select",
    "signal",
    "socket",
    "string",
    "subprocess",
    "threading",
    "traceback",
    "treadle._helping",
    "treadle._payload",
    "treadle._worker.crew",
    "treadle._worker.turning",
    "treadle.executor",
    "treadle.future",
    "treadle.plan",
    "treadle.strategies",
    "typing",
}

TAIL = """
if __name__ == "__main__":
    import json
    json.dump(main(), sys.stdout)
"""


def run(folder: Path, body: str) -> Any:
    """What ``main`` of a program returns whose main module is this text."""
    program = folder / "bare.py"
    program.write_text("import os, sys, treadle\n" + textwrap.dedent(body) + TAIL)
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def modules_after(code: str) -> set[str]:
    """What an interpreter has loaded after this code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("beside", ["", "multiprocessing.managers"])
def test_an_idle_worker_has_loaded_little(start: str, beside: str, tmp_path: Path) -> None:
    loaded = run(
        tmp_path,
        f"""
        def double(value):
            return value + value
        def loaded():
            return list(sys.modules)
        def main():
            # The program's own: it is not at the top of the main module.
            import {beside or "os"}
            context = None
            if {start!r} == "spawn":
                import multiprocessing
                context = multiprocessing.get_context("spawn")
            with treadle.Executor(processes=1, mp_context=context) as pool:
                pool.submit(double, 3).result()
                pool.submit(double, [3]).result()
                list(pool.map(double, [[1], 2.0, "three"], chunksize=2))
                return pool.submit(loaded).result()
        """,
    )
    assert "treadle._worker.main" in loaded
    # What a worker imports itself is memory of its own, and time at every start.
    zygote = modules_after(
        "from treadle._worker import zygote\nfor module in zygote._SHARED: __import__(module)"
    )
    assert {name for name in loaded if name.startswith("treadle")} <= zygote
    assert (set(loaded) & NOT_IN_A_WORKER) - modules_after("") == set()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap of glibc is settled")
@pytest.mark.parametrize("start", ["forkserver", "spawn"])
def test_a_task_finds_the_memory_that_the_one_before_has_freed(start: str, tmp_path: Path) -> None:
    """Else a page fault for every 4 KiB of every call, or none, as it happens to lie."""
    first, second = run(
        tmp_path,
        f"""
        import resource
        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(20):
                pieces = [bytes(100 << 10) for _ in range(20)]
                pieces.clear()
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        def main():
            with treadle.Executor(processes=1, mp_context={start!r}) as pool:
                return [pool.submit(faults).result() for _ in range(2)]
        """,
    )
    assert first < 20 * 500, "not anew in each of the 20 rounds"
    assert second < 500


DROPPED = """
    import resource
    def results():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        kept = [b"x" * (256 << 10) for _ in range({count})]
        kept.clear()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    def main():
        with treadle.Executor(processes=1):
            return [results() for _ in range(2)]
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap of glibc is settled")
def test_a_program_finds_the_memory_of_results_that_it_has_dropped(tmp_path: Path) -> None:
    # A 64th of the available memory is kept, between 64 and 256 MiB.
    kept = min(256 << 20, max(64 << 20, _core.available_memory() // 64))
    count = kept * 3 // 4 // (256 << 10)
    first, second = run(tmp_path, DROPPED.format(count=count))
    assert first > count * 50, "memory that the system gives"
    assert second < count * 5


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap of glibc is settled")
@pytest.mark.parametrize(
    "variable",
    [
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
        ("MALLOC_MMAP_MAX_", "0"),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=8388608"),
    ],
)
def test_a_heap_that_the_environment_has_settled_stays_so(
    variable: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable)
    _, second = run(tmp_path, DROPPED.format(count=200))
    assert second > 200 * 50, "the system has got it back"


LOG = {
    "in a task": """
        def task():
            import logging
            logging.getLogger("deep.down").info("told %d", 7)
    """,
    "through a part of it": """
        def task():
            import logging.handlers
            logging.handlers.logging.getLogger("deep.down").info("told %d", 7)
    """,
    "through another module": """
        def task():
            import concurrent.futures
            concurrent.futures._base.logging.getLogger("deep.down").info("told %d", 7)
    """,
    "in a thread of a task": """
        def tell():
            import logging
            logging.getLogger("deep.down").info("told %d", 7)
        def task():
            import threading
            thread = threading.Thread(target=tell)
            thread.start()
            thread.join()
    """,
    "in a thread that threading does not know": """
        def tell(lock):
            import logging
            logging.getLogger("deep.down").info("told %d", 7)
            lock.release()
        def task():
            import _thread, threading
            lock = _thread.allocate_lock()
            lock.acquire()
            _thread.start_new_thread(tell, (lock,))
            lock.acquire()
    """,
    "by a module of the program": """
        def task():
            folder = os.path.dirname(os.path.abspath(sys.argv[0]))
            with open(os.path.join(folder, "telling.py"), "w") as module:
                module.write("import logging\\nlogging.getLogger('deep.down').info('told %d', 7)\\n")
            sys.path.insert(0, folder)
            import telling
    """,
    "by what was found and not imported before": """
        def task():
            import importlib.util
            spec = importlib.util.find_spec("logging")
            assert spec.loader.get_source("logging").startswith("#")
            copy = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(copy)
            assert copy.root.handlers == []
            import logging
            assert logging is not copy
            logging.getLogger("deep.down").info("told %d", 7)
    """,
}

MAIN_OF_LOGS = """
def main():
    import logging
    heard = []
    class Hear(logging.Handler):
        def emit(self, record):
            heard.append([record.name, record.levelname, record.getMessage(), record.processName, record.treadle_worker])
    logging.getLogger().addHandler(Hear())
    logging.getLogger().setLevel(logging.INFO)
    with treadle.Executor(processes=1, name="crew", **OPTIONS) as pool:
        pool.submit(abs if INITIALIZER else task, *([1] if INITIALIZER else [])).result()
    return heard
"""
TOLD = [["deep.down", "INFO", "told 7", "crew-0", 0]]


@pytest.mark.parametrize("place", LOG, ids=lambda place: place.replace(" ", "_"))
def test_the_first_record_of_a_worker_reaches_the_parent(place: str, tmp_path: Path) -> None:
    body = textwrap.dedent(LOG[place]) + "INITIALIZER, OPTIONS = False, {}\n" + MAIN_OF_LOGS
    assert run(tmp_path, body) == TOLD


def test_the_first_record_of_an_initializer_reaches_the_parent(tmp_path: Path) -> None:
    body = textwrap.dedent(LOG["in a task"])
    body += "INITIALIZER, OPTIONS = True, dict(initializer=task)\n" + MAIN_OF_LOGS
    assert run(tmp_path, body) == TOLD


def test_the_first_record_of_a_thread_of_a_hybrid_reaches_the_parent(tmp_path: Path) -> None:
    body = textwrap.dedent(LOG["in a task"])
    body += "INITIALIZER, OPTIONS = False, dict(threads=2)\n" + MAIN_OF_LOGS
    assert run(tmp_path, body) == TOLD


def test_a_main_module_that_logs_keeps_its_workers_records(tmp_path: Path) -> None:
    body = "import logging\n" + textwrap.dedent(LOG["in a task"])
    assert run(tmp_path, body + "INITIALIZER, OPTIONS = False, {}\n" + MAIN_OF_LOGS) == TOLD


def test_logging_is_made_by_its_own_loader(tmp_path: Path) -> None:
    kinds = run(
        tmp_path,
        """
        def task():
            import logging, concurrent.futures
            return [type(kind).__name__ for module in (logging, concurrent.futures)
                    for kind in (module.__loader__, module.__spec__.loader)]
        def main():
            with treadle.Executor(processes=1) as pool:
                return pool.submit(task).result()
        """,
    )
    assert kinds == ["SourceFileLoader"] * 4


def test_errors_are_the_standard_ones_once_these_can_be_named(tmp_path: Path) -> None:
    seen = run(
        tmp_path,
        """
        def task():
            early = treadle.TaskInterrupted("early")
            died = treadle.WorkerDied(1, 2, "ended", 1, 3, "f")
            assert isinstance(died, RuntimeError)
            before = "concurrent.futures" in sys.modules
            import concurrent.futures as futures
            try:
                raise early
            except futures.CancelledError:
                pass
            return [before, isinstance(died, futures.BrokenExecutor), died.worker,
                    issubclass(treadle.PoolBroken, futures.BrokenExecutor),
                    issubclass(treadle.TaskTimeout, futures.TimeoutError),
                    issubclass(treadle.TaskTimeout, TimeoutError),
                    issubclass(treadle.EngineLostTask, futures.BrokenExecutor),
                    all(issubclass(kind, treadle.TreadleError) for kind in
                        (treadle.TaskInterrupted, treadle.TaskTimeout, treadle.WorkerDied, treadle.PoolBroken))]
        def main():
            with treadle.Executor(processes=1) as pool:
                return pool.submit(task).result()
        """,
    )
    assert seen == [False, True, 1, True, True, True, True, True]


@pytest.mark.parametrize("threads", [0, 2])
def test_a_task_is_interrupted_that_has_loaded_nothing(threads: int, tmp_path: Path) -> None:
    seen = run(
        tmp_path,
        f"""
        def spin(fifo):
            before = "concurrent.futures" in sys.modules
            try:
                with open(fifo, "w"):
                    pass
                while True:
                    pass
            except treadle.TaskInterrupted as caught:
                import concurrent.futures
                return [before, isinstance(caught, concurrent.futures.CancelledError)]
        def main():
            os.mkfifo("fifo")
            with treadle.Executor(processes=1, threads={threads} or None) as pool:
                future = pool.submit(spin, "fifo")
                open("fifo").close()
                future.interrupt(60)
                return future.result()
        """.replace('"fifo"', repr(str(tmp_path / "fifo"))),
    )
    assert seen == [False, True]


@pytest.mark.parametrize("threads", [0, 2])
def test_the_main_thread_is_the_worker_s(threads: int, tmp_path: Path) -> None:
    seen = run(
        tmp_path,
        f"""
        def task():
            import threading, _thread
            return [threading.main_thread().ident == _thread.get_ident(),
                    threading.current_thread() is threading.main_thread()]
        def main():
            with treadle.Executor(processes=1, threads={threads} or None) as pool:
                return pool.submit(task).result()
        """,
    )
    assert seen == [not threads, not threads]


def test_threads_of_a_task_are_joined_when_the_worker_leaves(tmp_path: Path) -> None:
    seen = run(
        tmp_path,
        """
        def write(path, fifo):
            with open(fifo) as waited:
                waited.read()
            with open(path, "w") as file:
                file.write("written")
        def task(path, fifo):
            import threading
            threading.Thread(target=write, args=(path, fifo)).start()
        def main():
            path, fifo = sys.argv[0] + ".out", sys.argv[0] + ".fifo"
            os.mkfifo(fifo)
            with treadle.Executor(processes=1) as pool:
                pool.submit(task, path, fifo).result()
                open(fifo, "w").close()
            return open(path).read()
        """,
    )
    assert seen == "written"


def test_a_task_that_holds_every_descriptor_fails_with_its_own_error(tmp_path: Path) -> None:
    """Nothing can be loaded then: what says so must be there already."""
    import errno

    seen = run(
        tmp_path,
        """
        def task():
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            held = []
            while True:
                held.append(open(os.devnull))
        def main():
            with treadle.Executor(processes=1) as pool:
                caught = pool.submit(task).exception()
                return [type(caught).__name__, caught.errno, str(caught.__cause__)]
        """,
    )
    assert seen[:2] == ["OSError", errno.EMFILE]
    assert "in task" in seen[2]
    assert "Too many open files" in seen[2]


def test_an_import_that_fails_is_prepared_when_it_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "flaky.py").write_text(
        "import os\nif not os.path.exists(__file__ + '.ok'):\n    raise ValueError('not yet')\n"
    )
    seen = run(
        tmp_path,
        """
        def main():
            from treadle._worker import importing
            prepared = []
            importing.prepare("flaky", prepared.append)
            try:
                import flaky
            except ValueError:
                seen = len(prepared)
            open(os.path.join(os.path.dirname(sys.argv[0]), "flaky.py.ok"), "w").close()
            import flaky
            import importlib
            importlib.reload(flaky)
            importing.prepare("flaky", prepared.append)
            return [seen, [module is flaky for module in prepared]]
        """,
    )
    assert seen == [0, [True, True]]


def test_a_task_speaks_to_the_managers_of_its_program(tmp_path: Path) -> None:
    seen = run(
        tmp_path,
        """
        def task(address):
            before = "multiprocessing" in sys.modules
            import multiprocessing.managers
            manager = multiprocessing.managers.BaseManager(address)
            manager.connect()
            return before
        def main():
            import multiprocessing.managers
            with multiprocessing.Manager() as manager, treadle.Executor(processes=1) as pool:
                return pool.submit(task, manager.address).result()
        """,
    )
    assert seen is False


def run_module(name: str, folder: Path) -> Any:
    """What ``python -m name`` prints in this folder, as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", name],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_main_module_that_is_named_is_found_without_more(tmp_path: Path) -> None:
    """``python -m``: the package is imported, and the module is the main module once."""
    package = tmp_path / "outer" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "outer" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "named.py").write_text(
        textwrap.dedent("""
        import sys
        def loaded():
            return [__name__, __spec__.name, list(sys.modules)]
        if __name__ == "__main__":
            import json, treadle
            with treadle.Executor(processes=1) as pool:
                json.dump(pool.submit(loaded).result(), sys.stdout)
        """)
    )
    name, named, loaded = run_module("outer.inner.named", tmp_path)
    assert (name, named) == ("__mp_main__", "outer.inner.named")
    assert "outer.inner" in loaded
    assert "outer.inner.named" not in loaded
    assert (set(loaded) & NOT_IN_A_WORKER) - modules_after("") == set()


def test_the_modules_of_a_package_that_is_run_are_imported_once_for_all_workers(
    tmp_path: Path,
) -> None:
    """``python -m package`` runs ``__main__``, which no worker runs again; what that uses they have from the start, and share."""
    package = tmp_path / "program"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "work.py").write_text(
        textwrap.dedent("""
        import os
        IMPORTED_BY = os.getpid()
        def who(_number):
            return [IMPORTED_BY, os.getpid(), os.getppid()]
        """)
    )
    (package / "late.py").write_text(
        textwrap.dedent("""
        import os
        from pathlib import Path
        # The first import is the program's, the second the zygote's.
        with open(Path(__file__).with_name("imports"), "a+") as imports:
            imports.seek(0)
            before = imports.read().split()
            imports.write(f"{os.getpid()}\\n")
        if len(before) == 1:
            raise RuntimeError("not here")
        def late():
            return [*before, str(os.getpid())]
        """)
    )
    (package / "lazy.py").write_text("raise RuntimeError('nobody uses it')")
    (package / "__main__.py").write_text(
        textwrap.dedent("""
        import json, sys
        import treadle
        from program import late
        from program.work import who
        class Proxy:
            @property
            def __class__(self):
                raise RuntimeError("nobody may look")
        proxy = Proxy()
        class Shy(type):
            def __getattribute__(cls, name):
                raise RuntimeError("nobody may ask")
        shy = Shy("shy", (), {})
        import importlib.util
        spec = importlib.util.find_spec("program.lazy")
        spec.loader = importlib.util.LazyLoader(spec.loader)
        lazy = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(lazy)
        if __name__ == "__main__":
            with treadle.Executor(processes=2) as pool:
                found = list(pool.map(who, range(20), chunksize=1))
                json.dump([found, pool.submit(late.late).result()], sys.stdout)
        """)
    )
    found, late = run_module("program", tmp_path)
    assert {importer == parent != own for importer, own, parent in found} == {True}
    program, zygote, worker = late
    assert len({program, zygote, worker}) == 3
    assert zygote == str(found[0][2])
