"""A worker's main: becomes a process that runs tasks until its parent asks it to leave."""

from __future__ import annotations

import _pickle
import _signal
import faulthandler
import os
import sys

from treadle import _core, _coroutine, _outcome, _worker, errors
from treadle._worker import importing, inheritance, native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

#: How this worker is named where it logs.
_name = ""

#: The level of the parent's root logger when this worker was started; none in the zygote.
_level: int | None = None


def run(zygote: int, fields: list[bytes], descriptors: list[int]) -> int:
    """Runs tasks; returns the exit code.

    Args:
        zygote: the process that must still be the parent.
        fields: number, block of the initializer (hexadecimal or empty), payload limit, most tasks, most growth in bytes, name, level of the
            parent's root logger, the worker's share of the cores, most threads of a native library (0: what the environment says), how many
            workers the pool has, threads that run tasks in each (0: the main thread, one task at a time), coroutines at a time in each (0:
            no loop).
        descriptors: board, the parent's arena, this worker's arena, file for stacks, what the initializer takes along.
    """
    if not _core.die_with_parent(zygote):
        return 0
    (
        number,
        initializer,
        limit,
        most_tasks,
        most_growth,
        name,
        level,
        cores,
        native_threads,
        *shape,
    ) = (field.decode() for field in fields)
    workers, threads, coroutines = (int(size) for size in shape)
    board, parent_arena, arena, dump, *inheritance.arrived[:] = descriptors
    worker = _core.Worker(
        board=board,
        parent_arena=parent_arena,
        arena=arena,
        worker=int(number),
        workers=workers,
        threads=threads,
        coroutines=coroutines,
        payload_limit=int(limit),
        most_tasks=int(most_tasks) or None,
        most_growth=int(most_growth) or None,
    )
    _worker.current = worker
    _core.limit_cores(float(cores))
    _worker.native_threads = int(native_threads)
    if _worker.native_threads:
        native.limit(_worker.native_threads)
    _settle_in(f"{name}-{number}", dump, int(level))
    try:
        if initializer and not _initialize(worker, initializer):
            return 0
        if coroutines:
            from treadle._worker import turning

            turning.run(worker, dump)
        elif threads:
            from treadle._worker import crew

            crew.run(worker, threads, name)
        else:
            worker.ready()
            worker.run_tasks()
        worker.retire()
    finally:
        _leave()
    return 0


def spawned(worker: str, preparation: str) -> None:
    """The main of a fresh interpreter (start method ``spawn``)."""
    from treadle._worker.main_module import import_main

    count, *told = bytes.fromhex(worker).split(b"\0")
    key, *descriptors = (int(field) for field in told[: int(count)])
    fields = told[int(count) :]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    prepared = [
        field.decode(errors="surrogateescape") for field in bytes.fromhex(preparation).split(b"\0")
    ]
    _, _, _, _, kind, value, *arguments = prepared
    sys.argv[:] = arguments
    code = 70
    try:
        _adopt_key(key)
        import_main(kind, value)
        native.look()
        settle()
        code = run(os.getppid(), fields, descriptors)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _adopt_key(descriptor: int) -> None:
    digits = os.pread(descriptor, 4096, 0)
    os.close(descriptor)
    if digits:
        inheritance.adopt_key(bytes.fromhex(digits.decode()))


def settle() -> None:
    """Does what is alike in every worker. A zygote does it before it forks: each line that runs in a worker itself writes to pages that all
    workers could share (the counts of references to what the line touches)."""
    # Lines of several workers shall not be torn: each is one write.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.reconfigure(line_buffering=True, write_through=False)  # type: ignore[union-attr]
        except (AttributeError, ValueError):
            pass
    importing.prepare("logging", _forward_logs)
    _forward_warnings()
    _core.keep_freed_memory()


def _settle_in(name: str, dump: int, level: int) -> None:
    global _name, _level
    _name, _level = name, level
    _signal.signal(_signal.SIGINT, _on_interrupt)
    faulthandler.register(_worker.DUMP_SIGNAL, file=dump, all_threads=True, chain=False)
    logging = sys.modules.get("logging")
    if logging is not None and logging.root.level != level:
        logging.root.setLevel(level)
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        # Forks of one zygote would all draw the same numbers.
        numpy_random.seed()


def _on_interrupt(signum: int, frame: FrameType | None) -> None:
    # Ctrl-C at the terminal reaches workers too; only the parent's own request counts here.
    if _worker.current.interrupt_requested():
        raise errors.TaskInterrupted("the task was interrupted")


def _forward_logs(logging: Any) -> None:
    before = logging.root.handlers[:]

    class Forward(logging.Handler):  # type: ignore[misc]
        """Hands records to the parent's logging."""

        def emit(self, record: Any) -> None:
            if _worker.current is None:
                # A thread that the main module started in the zygote: there is no parent's pool to tell.
                for handler in before:
                    handler.handle(record)
                return
            try:
                told = dict(record.__dict__)
                told["msg"], told["args"] = record.getMessage(), None
                if record.exc_info:
                    told["exc_text"] = record.exc_text or logging.Formatter().formatException(
                        record.exc_info
                    )
                told["exc_info"] = None
                told["processName"] = _name
                _worker.current.note(_pickle.dumps(told, 5), _worker.task_here())
            except errors.TaskInterrupted:
                # It came while the task was logging, and is the task's.
                raise
            except Exception:
                self.handleError(record)

    logging.root.handlers[:] = [Forward()]
    if _level is not None:
        logging.root.setLevel(_level)


def _forward_warnings() -> None:
    import warnings

    here = warnings.showwarning

    def showwarning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        if _worker.current is None:
            # The zygote's own: there is no parent's pool to tell.
            here(message, category, filename, lineno, file, line)
            return
        try:
            told = _pickle.dumps(
                {"treadle_warning": (str(message), category, filename, lineno, line)}, 5
            )
        except errors.TaskInterrupted:
            raise
        except Exception:
            told = _pickle.dumps(
                {"treadle_warning": (str(message), UserWarning, filename, lineno, line)}, 5
            )
        _worker.current.note(told, _worker.task_here())

    warnings.showwarning = showwarning


def _initialize(worker: _core.Worker, block: str) -> bool:
    try:
        function, arguments, *keywords = _pickle.loads(worker.read_block(block))
        function(*arguments, **(keywords[0] if keywords else {}))
    except BaseException as error:
        text = _outcome.text_of(error)
        try:
            import logging

            logging.getLogger("concurrent.futures").critical(
                "Exception in initializer:", exc_info=True
            )
        except Exception:
            # It left nothing to load a module with; the parent is told all the same.
            pass
        # The parent ends every worker when it reads of this: what was logged leaves first.
        inheritance.finish()
        worker.initializer_failed(f"the initializer failed:\n\n{text}")
        return False
    for descriptor in inheritance.arrived:
        os.close(descriptor)
    inheritance.arrived.clear()
    return True


def _leave() -> None:
    """What an interpreter does at its end, as far as a fork of the zygote should: threads are joined, streams are flushed."""
    _coroutine.close_loop()
    try:
        inheritance.finish()
        threading = sys.modules.get("threading")
        if threading is not None:
            threading._shutdown()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, ValueError, OSError):
                pass
