"""The loop of the measuring process: one JSON request a line in, one JSON reply a line out.

*Guarantees*: the protocol has file descriptors of its own; the function's prints go nowhere and its reads
find nothing. A request that fails gives ``{"error": ...}``, never silence. When nobody reads the replies any
more, the process and its group end, even in the middle of a call.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
from typing import Any, TextIO

from treadle import _core
from treadle._laboratory import failure
from treadle._laboratory.position import Position
from treadle._laboratory.refusal import Refusal

#: Set in the measuring process and below it: measuring from within would start itself again.
INSIDE = "TREADLE_LABORATORY"


#: The requests that are served, each by the method of its name.
_WORDS = (
    "load",
    "fingerprint",
    "locate",
    "profile",
    "worker",
    "loop",
    "handover",
    "plan",
    "block",
)


def _take_streams() -> tuple[TextIO, int]:
    """(requests, descriptor of replies): ours alone; descriptors 0 and 1 become the null device."""
    requests = os.dup(0)
    replies = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)

    def forget() -> None:
        for descriptor in (requests, replies):
            try:
                os.close(descriptor)
            except OSError:
                pass

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)
    return open(requests, encoding="utf-8", closefd=False), replies


def _end_when_unheard(replies: int) -> None:
    """Starts the watch: the other end of `replies` closed (its process died) ends this process's group.

    Where there is no ``poll`` (Windows), the starter's own watch over its children has to do.
    """
    if not hasattr(select, "poll"):
        return

    def watch() -> None:
        poll = select.poll()
        poll.register(replies, 0)  # only errors and hang-ups
        poll.poll()
        end_group()

    threading.Thread(target=watch, name="treadle-watch", daemon=True).start()


def end_group() -> None:
    """Kills this process and, if it leads its group, everything in it."""
    if hasattr(os, "getpgrp") and os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def end_others() -> None:
    """Kills what is left below this process or in the group that it leads: what the function started too."""
    from treadle._laboratory import readings

    for pid in readings.tree():
        if pid != os.getpid():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


class Laboratory:
    """Holds what was loaded and the plan being tried; each protocol word is a method."""

    def __init__(self, replies: int, position: Position) -> None:
        self._replies = replies
        self._position = position
        self._target: Any = None
        self._items: Any = None
        self._star = False
        self._trial: Any = None
        #: Whether a sub-interpreter could be started and import the function's module.
        self._interpreters = False

    def say(self, message: dict[str, Any]) -> None:
        """Writes one line, whole."""
        data = memoryview((json.dumps(message, default=str) + "\n").encode())
        while data:
            try:
                data = data[os.write(self._replies, data) :]
            except BrokenPipeError:
                end_group()

    def progress(self, facts: dict[str, Any]) -> None:
        """A ``{"progress": ...}`` line."""
        self.say({"progress": facts})

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Loads target and items, by name or from a pickle."""
        from treadle._laboratory import items, target

        self._find_modules()
        self._star = bool(request.get("star"))
        limit = int(request.get("limit") or 10_000)
        if request.get("pickled"):
            from treadle._laboratory import delivery

            self._target, self._items = delivery.load(request["pickled"], limit)
        else:
            self._target = target.load(request["target"])
            self._items = items.load(request["items"], limit, self._star)
        if not request.get("once"):
            items.refuse_consumed(self._items)
        gil = getattr(sys, "_is_gil_enabled", lambda: True)()
        return {
            "target": self._target.name,
            "file": self._target.file,
            "source_hash": self._target.source_hash,
            "count": len(self._items.values),
            "spec": self._items.spec,
            "async": self._target.is_async,
            "items_truncated": self._items.truncated,
            "python": ".".join(map(str, sys.version_info[:3])),
            "implementation": sys.implementation.name,
            "gil": gil,
        }

    @staticmethod
    def _find_modules() -> None:
        """Puts the current folder on the path: workers inherit the path, perhaps not the folder."""
        if "" in sys.path:
            sys.path.remove("")
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())

    def profile(self, request: dict[str, Any]) -> dict[str, Any]:
        """Runs the sample serially; unless ``workers`` is false, also starts one worker of each kind."""
        from treadle._laboratory import serial

        self._need_loaded()
        enough = None
        if request.get("enough_seconds") is not None:
            enough = serial.Enough(
                float(request["enough_seconds"]), int(request.get("enough_count") or 1)
            )
        found = serial.profile(
            self._target,
            self._items.values,
            self._star,
            self._position,
            float(request.get("max_seconds") or 10.0),
            int(request.get("max_count") or 1000),
            self.progress,
            once=bool(request.get("once")),
            enough=enough,
        )
        if request.get("workers", True):
            found.update(self.worker(request))
        return found

    def worker(self, request: dict[str, Any]) -> dict[str, Any]:
        """Starts one worker of each kind; no process and no interpreter if ``apart`` is false."""
        from treadle._laboratory import worker

        self._need_loaded()
        costs = worker.start_costs(self._target, bool(request.get("apart", True)))
        self._interpreters = costs["worker_start_s"]["interpreter"] is not None
        return costs

    def loop(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Runs sampled inputs of an async function with many at a time on one loop."""
        from treadle._laboratory import loop

        self._need_loaded()
        return loop.shared_cost(
            self._target,
            self._items.values,
            self._star,
            self._position,
            int(request["concurrency"]),
            float(request["seconds"]),
        )

    def handover(self, request: dict[str, Any]) -> dict[str, Any]:
        """Measures what handing over costs, with tasks that do nothing."""
        from treadle._laboratory import handover

        self._need_loaded()
        return handover.costs(
            self._target.is_async,
            with_processes=bool(request.get("processes", True)),
            with_interpreters=self._interpreters,
            seconds=float(request["seconds"]),
        )

    def plan(self, request: dict[str, Any]) -> dict[str, Any]:
        """Starts and warms up the executor of a plan, in place of the one before."""
        from treadle._laboratory.trial import Trial

        self._need_loaded()
        self.close()
        self._trial = Trial(
            dict(request.get("plan") or {}),
            self._target,
            self._items.values,
            self._star,
            self._position,
            dict(request.get("efforts") or ()),
        )
        return self._trial.started()

    def block(self, request: dict[str, Any]) -> dict[str, Any]:
        """Runs a block through the plan."""
        if self._trial is None:
            raise Refusal("protocol", "a block was asked for before a plan")
        inputs = request.get("inputs")
        if inputs is not None:
            return self._trial.block(0, len(inputs), float(request["seconds"]), inputs)
        return self._trial.block(
            int(request["first"]), int(request["count"]), float(request["seconds"])
        )

    def fingerprint(self, request: dict[str, Any]) -> dict[str, Any]:
        """What a record keeps of source and environment; loads the target by name if nothing is loaded yet."""
        from treadle._laboratory import environment, items, source, target

        if self._target is None:
            self._find_modules()
            self._target = target.load(request["target"])
        return {
            "target": self._target.name,
            "source": {
                **source.fingerprint(self._target.name),
                "items": items.source_hash(request.get("items") or ""),
            },
            "environment": environment.describe(request.get("distributions")),
        }

    def locate(self, request: dict[str, Any]) -> dict[str, Any]:
        """Where a function that is not where it was may be now."""
        from treadle._laboratory import source

        return {"found": source.locate(request["target"], request.get("hash"))}

    def _need_loaded(self) -> None:
        if self._target is None:
            raise Refusal("protocol", "nothing has been loaded yet")

    def close(self) -> None:
        """Ends the plan's workers, if any."""
        if self._trial is not None:
            self._trial.close()
            self._trial = None

    def answer(self, line: str) -> bool:
        """Serves one request line; False after ``quit``."""
        try:
            request = json.loads(line)
            word = request.get("do")
            if word == "quit":
                return False
            if word not in _WORDS:
                raise Refusal("protocol", f"unknown request '{word}'")
            reply = {"ok": getattr(self, word)(request)}
        except Refusal as refusal:
            reply = {"error": refusal.to_json()}
        except BaseException as exception:  # whatever it is, the starter must hear of it
            import traceback

            told = Refusal(
                "laboratory",
                f"{failure.type_name(type(exception))}: {failure.message(exception)}",
                "this is a fault in Treadle; please report it with the text below",
                "".join(traceback.format_exception(exception)).rstrip(),
            )
            reply = {"error": told.to_json()}
        self._position.idle()
        self.say(reply)
        return True


def main(arguments: list[str]) -> int:
    """Serves requests until ``quit`` or the end of input; then this process is gone, threads and all."""
    requests, replies = _take_streams()
    os.environ[INSIDE] = "1"
    # As in workers: what a call costs shall not hang on what lies at the end of the heap.
    _core.keep_freed_memory()
    _end_when_unheard(replies)
    laboratory = Laboratory(replies, Position(arguments[0] if arguments else None))
    for line in requests:
        if line.strip() and not laboratory.answer(line):
            break
    laboratory.close()
    end_others()
    os._exit(0)  # the function may have left threads that never end
