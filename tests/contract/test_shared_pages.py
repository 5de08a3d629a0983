"""What workers share with the zygote: pages that nobody writes to."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

GIL_DISABLED = not getattr(sys, "_is_gil_enabled", lambda: True)()
HAS_IMMORTAL_OBJECTS = sys.version_info >= (3, 12) and not GIL_DISABLED
#: CPython 3.14 counts references to a constant also if it is immortal.
CONSTANTS_ARE_COUNTED = sys.version_info[:2] == (3, 14)

TAIL = """
if __name__ == "__main__":
    with treadle.Executor(processes=1) as pool:
        print(json.dumps(pool.submit(look).result()))
"""


def looked(folder: Path, body: str) -> Any:
    """What ``look`` of a program finds in its worker."""
    program = folder / "program.py"
    program.write_text("import gc, json, sys, treadle\n" + textwrap.dedent(body) + TAIL)
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.skipif(not HAS_IMMORTAL_OBJECTS, reason="no immortal objects before CPython 3.12")
def test_nobody_counts_references_to_definitions(tmp_path: Path) -> None:
    counts = looked(
        tmp_path,
        """
        import json.decoder

        class Base:
            def method(self): return "a constant of the method"

        class Derived(Base):
            def method(self): return super().method()

            @property
            def value(self): return 1

        def function(): return ("a constant", 10**30)

        def look():
            definitions = {
                "function": function,
                "code": function.__code__,
                "constant": function.__code__.co_consts[-1],
                "method": Base.method,
                "method that says super": Derived.method,
                "class": Derived,
                "property": Derived.__dict__["value"],
                "module": json.decoder,
                "function of a module": json.decoder.py_scanstring,
                "built-in": gc.collect,
            }
            return {name: sys.getrefcount(thing) for name, thing in definitions.items()}
        """,
    )
    counted = {"constant"} if CONSTANTS_ARE_COUNTED else set()
    assert {name for name, count in counts.items() if count < 2**30} == counted


def test_counts_do_not_grow_with_use(tmp_path: Path) -> None:
    """An immortal object's count that the interpreter does count comes round after a minute of it, and the object is freed."""
    grown = looked(
        tmp_path,
        """
        class Thing:
            kind = ("an attribute of a class", 1.5)
            def method(self): return ("a method", 2.5)

        def constants(): return ["a constant of some length", ("with", "members"), 3.5, 10**30, b"some bytes", Thing.kind]

        def factory():
            def inner(): return "a constant of the inner one"
            return inner

        def use():
            thing = Thing()
            return [constants(), thing.method(), factory()(), factory, thing, Thing, json.dumps, print, len]

        def every_object(code):
            yield code
            for part in (code.co_names, code.co_consts, code.co_name, code.co_qualname, code.co_filename):
                yield part
            for part in (*code.co_names, *code.co_consts):
                if isinstance(part, type(code)):
                    yield from every_object(part)
                else:
                    yield part

        # Some instructions have another form once they have run: before the zygote forks.
        for _ in range(100):
            use()

        def look():
            things = [Thing, Thing.method, constants, factory, use, json, json.dumps, print, len, Thing.kind]
            for function in (Thing.method, constants, factory, use):
                things += every_object(function.__code__)
            before = [sys.getrefcount(thing) for thing in things]
            for _ in range(1000):
                use()
            after = [sys.getrefcount(thing) for thing in things]
            return [repr(thing) for thing, one, other in zip(things, before, after) if other - one >= 1000]
        """,
    )
    assert grown == []


def test_what_holds_something_is_still_given_up(tmp_path: Path) -> None:
    found = looked(
        tmp_path,
        """
        import collections, weakref

        class Resource:
            open = True
            def close(self): pass

        def enclosing(resource):
            def enclosed(): return resource
            return enclosed

        state = {
            "instance": Resource(),
            "closure": enclosing(Resource()),
            "list": [Resource()],
            "method": Resource().close,
            "built-in method": collections.deque([Resource()]).append,
        }
        watched = {
            "instance": weakref.ref(state["instance"]),
            "closure": weakref.ref(state["closure"]()),
            "list": weakref.ref(state["list"][0]),
            "method": weakref.ref(state["method"].__self__),
            "built-in method": weakref.ref(state["built-in method"].__self__[0]),
        }

        def look():
            before = {name: ref() is not None for name, ref in watched.items()}
            state.clear()
            return before, {name: ref() is None for name, ref in watched.items()}
        """,
    )
    before, after = found
    assert before == dict.fromkeys(before, True)
    assert after == dict.fromkeys(before, True)


def test_a_worker_may_collect_what_the_zygote_has_frozen(tmp_path: Path) -> None:
    assert looked(
        tmp_path,
        """
        class Node:
            pass

        def chain():
            node = Node()
            node.itself = node
            return node

        def look():
            gc.unfreeze()
            kept = chain()
            del kept
            first = gc.collect()
            return first > 0, gc.collect(), isinstance(chain(), Node)
        """,
    ) == [True, 0, True]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap of glibc is settled")
def test_what_a_fork_allocates_stands_behind_what_it_shares() -> None:
    code = """
        import ctypes
        from treadle import _core

        malloc = ctypes.CDLL(None).malloc
        malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        sizes = (24, 600, 2000) * 50
        pieces = [bytearray(size) for size in sizes * 4]
        del pieces[::2]
        lines = open("/proc/self/maps").read().splitlines()
        heap = next(line for line in lines if line.endswith("[heap]"))
        end = int(heap.split()[0].split("-")[1], 16)
        aside = _core.set_holes_aside()
        new = [malloc(size) for size in sizes]
        print(aside, sum(place < end for place in new))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    aside, in_holes = map(int, done.stdout.split())
    assert aside > 100 * 2600
    assert in_holes < 10, "of 150"
