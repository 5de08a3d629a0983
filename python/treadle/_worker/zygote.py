"""The zygote: one thread, the main module imported once, forks workers on request.

It speaks over the socket that it gets as descriptor 0; see ``zygote.rs`` for the messages.

*Guarantees*: it ends when its parent ends or closes the socket, and the kernel then kills its workers. It has one thread unless the main module
starts others at its top level.
"""

from __future__ import annotations

import _signal
import _socket
import gc
import os
import select
import sys
from array import array

from treadle import _worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec

_LONGEST = 128 * 1024

#: What every worker needs, imported before the forks: done in each worker it would be memory of each, and a millisecond. It needs little: what the
#: standard library has for threads and logs costs each worker 1.2 MB, most of it in hooks that run after a fork and dirty what is shared.
_SHARED = ("treadle._outcome", "treadle._worker.main")

#: Most descriptors in one message; as in ``zygote.rs``.
_MOST_DESCRIPTORS = 64

#: What a fork begins with and then runs, once they are loaded: looking them up there would write to pages that all workers share.
_begin: Callable[[], None]
_run: Callable[[int, list[bytes], list[int]], int]


def main() -> None:
    """Serves until the parent is gone."""
    _worker.child = True
    channel = _take_channel()
    # The thread that started this process blocks every signal, and a child inherits that.
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
    # Ctrl-C reaches the whole process group: the parent decides what it means.
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    fields = channel.recv(_LONGEST).split(b"\0")
    if fields[0] != b"prepare":
        return
    start, parent, key, folder, kind, value, *arguments = (
        field.decode(errors="surrogateescape") for field in fields[1:]
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

            text = (
                "the main module could not be imported for the workers:\n\n"
                + traceback.format_exc()
            )
            _send(
                channel,
                [b"failed", text.encode(errors="replace").replace(b"\0", b"?")[: _LONGEST - 64]],
            )
            return
        _prepare_forks()
    _send(channel, [b"ready"])
    _serve(channel, int(parent), fields[1:])


def _prepare_forks() -> None:
    """Does everything that workers have in common, and puts it out of the way of what writes."""
    global _begin, _run
    from treadle import _core
    from treadle._worker import inheritance, native
    from treadle._worker import main as worker_main

    native.look()
    worker_main.settle()
    _begin, _run = inheritance.begin, worker_main.run
    # What is alive now is shared by all workers: the collector shall not write into it.
    gc.collect()
    gc.freeze()
    # And what is not alive any more, after all the reading of modules, shall not be there at all.
    _core.trim_heap()


def _prepare_shape(threads: bytes, coroutines: bytes) -> None:
    """Loads what workers of this shape need beside the others. A worker's main thread is also the one that ``threading`` takes for that."""
    module = "crew" if threads != b"0" else "turning" if coroutines != b"0" else None
    if module is not None and f"treadle._worker.{module}" not in sys.modules:
        __import__(f"treadle._worker.{module}")
        gc.collect()
        gc.freeze()


def _take_channel() -> _socket.socket:
    descriptor = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, descriptor)


def _send(
    channel: _socket.socket, fields: list[bytes], descriptors: list[int] | None = None
) -> None:
    ancillary = []
    if descriptors:
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", descriptors).tobytes())]
    try:
        channel.sendmsg([b"\0".join(fields)], ancillary, _socket.MSG_NOSIGNAL)
    except OSError:
        # The parent is gone; the loop sees it next.
        pass


def import_main(kind: str, value: str) -> None:
    """Imports the program's main module as ``__mp_main__``, as ``multiprocessing`` does, and makes it ``__main__``; of ``uses``, only these modules."""
    if kind == "uses":
        _import_each(value.split("/"))
        return
    if kind == "none" or value.endswith(".__main__"):
        return
    import types

    main = types.ModuleType("__mp_main__")
    _worker.importing_main = True
    try:
        if kind == "module":
            spec = _find(value)
            if spec is None or spec.loader is None:
                raise ImportError(f"the main module {value!r} cannot be found from here")
            code = spec.loader.get_code(value)  # type: ignore[attr-defined]
            main.__spec__ = spec
            main.__file__ = spec.origin
            main.__package__ = spec.parent
        else:
            if not os.path.isfile(value):
                # A REPL that says "<stdin>", a notebook, an archive: there is no file to import.
                return
            with open(value, "rb") as file:
                code = compile(file.read(), value, "exec", dont_inherit=True)
            main.__file__ = value
        # Before it runs: pickles made by it name __main__.
        sys.modules["__main__"] = sys.modules["__mp_main__"] = main
        if code is not None:
            exec(code, main.__dict__)
    finally:
        _worker.importing_main = False


def _import_each(names: list[str]) -> None:
    """Imports what the workers of a package's ``__main__`` have in common. What fails is left to the worker that needs it, which tells."""
    _worker.importing_main = True
    try:
        for name in names:
            try:
                __import__(name)
            except (Exception, SystemExit):
                continue
    finally:
        _worker.importing_main = False


def _find(module: str) -> ModuleSpec | None:
    """Where the main module is that the program names."""
    from treadle._worker import importing

    package = module.rpartition(".")[0]
    path = __import__(package, fromlist=["__path__"]).__path__ if package else None
    loaded = sys.modules.get(module)
    return importing.find(module, path) if loaded is None else loaded.__spec__


def _serve(channel: _socket.socket, parent: int, preparation: list[bytes]) -> None:
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    _signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    watched = select.poll()
    watched.register(channel.fileno(), select.POLLIN)
    watched.register(woken, select.POLLIN)
    try:
        # The socket says so too, but a fork of the parent may hold its other end.
        watched.register(os.pidfd_open(parent), select.POLLIN)
    except OSError:
        if os.getppid() != parent:
            return
    own = {channel.fileno(), woken}
    while True:
        for descriptor, _ in watched.poll():
            if descriptor == woken:
                try:
                    os.read(woken, 4096)
                except BlockingIOError:
                    pass
                _bury(channel)
            elif descriptor == channel.fileno():
                try:
                    message, ancillary, _, _ = channel.recvmsg(
                        _LONGEST,
                        _socket.CMSG_SPACE(_MOST_DESCRIPTORS * 4),
                        _socket.MSG_CMSG_CLOEXEC,
                    )
                except ConnectionResetError:
                    # The parent ended with messages of ours that it had not read.
                    return
                if not message:
                    return
                descriptors = array("i")
                for level, kind, data in ancillary:
                    if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                        descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
                _spawn(channel, message.split(b"\0"), list(descriptors), preparation, own | {wake})
            elif descriptor not in own:
                return


def _spawn(
    channel: _socket.socket,
    fields: list[bytes],
    descriptors: list[int],
    preparation: list[bytes],
    own: set[int],
) -> None:
    tag, worker = fields[1], fields[2:]
    zygote = os.getpid()
    if preparation[0] != b"spawn":
        _prepare_shape(*worker[-2:])
    try:
        pid = os.fork()
    except OSError as error:
        # Reported as a worker that could not live: the parent bounds how often it tries.
        sys.stderr.write(f"treadle: a worker could not be forked: {error}\n")
        _send(channel, [b"spawned", tag, b"0"])
        _send(channel, [b"exited", b"0", b"71"])
        for descriptor in descriptors:
            os.close(descriptor)
        return
    if pid == 0:
        code = 70
        try:
            _signal.set_wakeup_fd(-1)
            _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
            for descriptor in own:
                os.close(descriptor)
            if preparation[0] == b"spawn":
                _replace(worker, descriptors, preparation)
            _begin()
            code = _run(zygote, worker, descriptors)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    try:
        pidfd = [os.pidfd_open(pid)]
    except OSError:
        pidfd = []
    _send(channel, [b"spawned", tag, str(pid).encode()], pidfd)
    for descriptor in (*pidfd, *descriptors):
        os.close(descriptor)


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


def _bury(channel: _socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        code = os.waitstatus_to_exitcode(status)
        _send(channel, [b"exited", str(pid).encode(), str(code).encode()])
