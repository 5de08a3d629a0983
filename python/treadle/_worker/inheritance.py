"""What an initializer may take along into the workers: locks, queues and pipes of ``multiprocessing``.

::

    parent: initializer ─► pickle + descriptors ─► (arena, SCM_RIGHTS with every start) ─► worker: pickle + descriptors ─► initializer

``multiprocessing`` lets such objects be pickled only while a process is being started, because a descriptor must travel beside the bytes. Starting a
worker is that moment here too: the descriptors are kept open for as long as the pool, and each worker gets copies of them.

*Guarantees*: a descriptor has the same place in every worker; no object of this kind is pickled at any other time.
"""

from __future__ import annotations

import _pickle
import io
import os
import sys

from treadle._worker import importing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: The descriptors that came with this worker's start, in the order in which the parent counted them. In workers only.
arrived: list[int] = []


class InheritedDescriptor:
    """A descriptor that travels with a worker's start; ``detach`` gives the worker's own."""

    def __init__(self, place: int) -> None:
        self.place = place

    def detach(self) -> int:
        """The descriptor, which the caller owns."""
        return os.dup(arrived[self.place])


class _Passing:
    """Stands where ``multiprocessing`` expects the process that is being started."""

    DupFd = InheritedDescriptor

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def duplicate_for_child(self, descriptor: int) -> int:
        """Takes note of a descriptor; returns its place."""
        self.descriptors.append(descriptor)
        return len(self.descriptors) - 1


def dump(value: Any) -> tuple[bytes, list[int]]:
    """The pickle of a value and the descriptors that must travel with it, which stay the value's own."""
    context = sys.modules.get("multiprocessing.context")
    if context is None:
        return _pickle.dumps(value, 5), []
    from multiprocessing.reduction import ForkingPickler

    passing, before = _Passing(), context.get_spawning_popen()
    stream = io.BytesIO()
    context.set_spawning_popen(passing)
    try:
        ForkingPickler(stream, 5).dump(value)
    finally:
        context.set_spawning_popen(before)
    return stream.getvalue(), passing.descriptors


def authentication_key() -> bytes:
    """The key with which this process speaks to the managers of ``multiprocessing``; empty when it has none."""
    process = sys.modules.get("multiprocessing.process")
    return bytes(process.current_process().authkey) if process is not None else b""


def adopt_key(key: bytes) -> None:
    """Speaks to managers as the parent does, from the import of ``multiprocessing`` on."""

    def adopt(process: Any) -> None:
        process.current_process().authkey = key

    importing.prepare("multiprocessing.process", adopt)


def begin() -> None:
    """In a fork of the zygote: what the zygote's own ``multiprocessing`` would do at its end is not for this process."""
    util = sys.modules.get("multiprocessing.util")
    if util is None:
        return
    # Looked at first: calling what has nothing to do writes to pages that all workers share.
    if util._finalizer_registry:
        util._finalizer_registry.clear()
    if util._afterfork_registry.data:
        util._run_after_forkers()


def finish() -> None:
    """What ``multiprocessing`` does at a process's end, once: queues write what they were given, managers are told."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._exit_function()
