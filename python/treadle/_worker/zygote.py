"""The zygote: one thread, the main module imported once, forks workers on request.

It speaks over the socket that it gets as descriptor 0: ``zygote_end.rs``, so that next to nothing of Python runs between two forks. What runs there
writes to memory that all workers share.

*Guarantees*: it ends when its parent ends or closes the socket, and the kernel then kills its workers. It has one thread unless the main module
starts others at its top level.
"""

from __future__ import annotations

import _signal
import gc
import os
import sys

from treadle import _core, _worker
from treadle._worker.main_module import import_main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

#: What every worker needs, imported before the forks: done in each worker it would be memory of each, and a millisecond. It needs little: what the
#: standard library has for threads and logs has hooks that run after a fork and write to what is shared.
_SHARED = ("treadle._outcome", "treadle._worker.main")

#: After so many runs the interpreter (CPython 3.11 and later) tries no other form of an instruction for a while.
_RUNS_UNTIL_WARM = 64

#: What a fork begins with and then runs, once they are loaded: looking them up there would write to pages that all workers share.
_begin: Callable[[], None]
_run: Callable[[int, list[bytes], list[int]], int]


def main() -> None:
    """Serves until the parent is gone."""
    _worker.child = True
    end = _core.ZygoteEnd(_take_channel())
    # The thread that started this process blocks every signal, and a child inherits that.
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
    # Ctrl-C reaches the whole process group: the parent decides what it means.
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    preparation = end.preparation()
    if preparation is None:
        return
    start, parent, key, folder, kind, value, *arguments = (
        field.decode(errors="surrogateescape") for field in preparation
    )
    sys.argv[:] = arguments
    if folder:
        try:
            os.chdir(folder)
        except OSError:
            pass
    if start == "fork":
        # Before the main module: what is free in the heap after their import, its own imports fill.
        for module in _SHARED:
            __import__(module)
        if key:
            from treadle._worker import inheritance

            inheritance.adopt_key(bytes.fromhex(key))
        try:
            import_main(kind, value)
        except BaseException:
            import traceback

            text = f"the main module could not be imported for the workers:\n\n{traceback.format_exc()}"
            end.say_failed(text.encode(errors="replace"))
            return
        _prepare_forks()
    end.say_ready()
    if end.watch_parent(int(parent)):
        _serve(end, preparation)


def _prepare_forks() -> None:
    """Does everything that workers have in common, and puts it out of the way of what writes."""
    global _begin, _run
    from treadle._worker import inheritance, native
    from treadle._worker import main as worker_main

    native.look()
    worker_main.settle()
    _begin, _run = inheritance.begin, worker_main.run
    _warm_forks()
    _share_what_is_alive()
    # And what is not alive any more, after all the reading of modules, shall not be there at all.
    _core.trim_heap()
    _core.set_holes_aside()


def _prepare_shape(threads: bytes, coroutines: bytes) -> None:
    """Loads what workers of this shape need beside the others. A worker's main thread is also the one that ``threading`` takes for that."""
    module = "crew" if threads != b"0" else "turning" if coroutines != b"0" else None
    if module is not None and f"treadle._worker.{module}" not in sys.modules:
        __import__(f"treadle._worker.{module}")
        _share_what_is_alive()


def _warm_forks() -> None:
    """Lets what ``threading`` does after a fork be known to the interpreter before: code that is new to it is written to as it runs."""
    threading = sys.modules.get("threading")
    hook = getattr(threading, "_after_fork", None)
    # It takes every thread but the one that calls it for gone.
    if hook is None or len(sys._current_frames()) > 1:
        return
    for _ in range(_RUNS_UNTIL_WARM):
        hook()


def _share_what_is_alive() -> None:
    """What is alive now is shared by all workers: neither the collector nor who counts references shall write into it."""
    gc.collect()
    _core.make_definitions_immortal()
    gc.freeze()


def _take_channel() -> int:
    descriptor = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return descriptor


def _serve(end: _core.ZygoteEnd, preparation: list[bytes]) -> None:
    zygote = os.getpid()
    # Who ignores the ends of its children cannot tell of them. The main module may have said so.
    if _signal.getsignal(_signal.SIGCHLD) == _signal.SIG_IGN:
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    while True:
        order = end.next_order()
        if order is None:
            return
        worker, descriptors = order
        if preparation[0] != b"spawn":
            _prepare_shape(*worker[-2:])
        try:
            pid = os.fork()
        except OSError as error:
            sys.stderr.write(f"treadle: a worker could not be forked: {error}\n")
            end.say_forked(0)
            continue
        if pid == 0:
            _work(end, zygote, worker, descriptors, preparation)
        end.say_forked(pid)


def _work(
    end: _core.ZygoteEnd,
    zygote: int,
    worker: list[bytes],
    descriptors: list[int],
    preparation: list[bytes],
) -> NoReturn:
    code = 70
    try:
        end.leave()
        if preparation[0] == b"spawn":
            _replace(worker, descriptors, preparation)
        _begin()
        code = _run(zygote, worker, descriptors)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _replace(worker: list[bytes], descriptors: list[int], preparation: list[bytes]) -> None:
    """Becomes a fresh interpreter (start method ``spawn``); its process id, and so its pidfd, stay."""
    # Not among the arguments: those everybody on the machine may read.
    key = os.memfd_create("treadle-key")
    os.write(key, preparation[2])
    descriptors = [key, *descriptors]
    preparation = [*preparation[:2], b"", *preparation[3:]]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    boot = (
        "import sys; sys.path[:] = sys.argv[3:]; from treadle import _worker; _worker.child = True; "
        "from treadle._worker.main import spawned; spawned(sys.argv[1], sys.argv[2])"
    )
    numbers = [str(number).encode() for number in (len(descriptors), *descriptors)]
    told = b"\0".join([*numbers, *worker])
    from treadle.strategies.processes import _interpreter_flags

    os.execv(
        sys.executable,
        [
            sys.executable,
            *_interpreter_flags(),
            "-c",
            boot,
            told.hex(),
            b"\0".join(preparation).hex(),
            *sys.path,
        ],
    )
