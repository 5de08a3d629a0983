"""Functions that no worker can import: typed at a prompt, in a notebook's cell, in ``-c``, as lambdas and closures."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

#: A session takes seconds; this only turns a hang into a failure.
WATCHDOG_S = 60.0

HERE = str(Path(__file__).parent)

#: Typed in, line for line; each `say` prints what the test expects.
DEFINITIONS = """
import treadle
base = 100

def square(x): return x * x + base

class Thing:
    def __init__(self, value): self.value = value
    def __eq__(self, other): return type(self) is type(other) and self.value == other.value

def grown(thing): return Thing(thing.value + 1)

def adder(step):
    def add(x): return x + step
    return add

def failing(x):
    class Odd(Exception): pass
    raise Odd(x)

def prepare(value):
    import builtins
    builtins.prepared = value
"""
CALLS = """
ex = treadle.Executor(processes=1, initializer=prepare, initargs=(Thing(5),))
print("A", ex.submit(square, 7).result())
print("B", ex.submit(lambda x: x + 1, 7).result())
print("C", ex.submit(grown, Thing(3)).result() == Thing(4))
print("D", ex.submit(adder(5), 7).result())
print("E", list(ex.map(square, range(5))), list(ex.map(square, range(5), chunksize=2)))
print("F", type(ex.submit(failing, 3).exception()).__name__)
print("G", ex.submit(lambda: prepared.value).result())
print("H", ex.submit(abs, -3).result(), ex.submit(sum, [1, 2]).result())
ex.shutdown()
"""
SEEN = [
    "A 149",
    "B 8",
    "C True",
    "D 12",
    "E [100, 101, 104, 109, 116] [100, 101, 104, 109, 116]",
    "F Odd",
    "G 5",
    "H 3 3",
]

#: What hides an installed cloudpickle.
WITHOUT = "import sys; sys.modules['cloudpickle'] = None\n"


def at_the_prompt(folder: Path, text: str, *arguments: str) -> str:
    """What an interactive interpreter on a terminal says to these lines."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.environ["TERM"] = "dumb"
        os.execv(sys.executable, [sys.executable, "-q", "-i", *arguments])
    said = b""
    deadline = time.monotonic() + WATCHDOG_S
    lines = [*text.strip("\n").splitlines(), "", "exit()"]
    try:
        while True:
            if not select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
                os.kill(pid, signal.SIGKILL)
                pytest.fail(f"the session hangs:\n{said.decode(errors='replace')}")
            try:
                read = os.read(terminal, 65536)
            except OSError:
                break
            if not read:
                break
            said += read
            # One line for each prompt, as a person types.
            if said.endswith((b">>> ", b"... ")) and lines:
                os.write(terminal, lines.pop(0).encode() + b"\n")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    return said.decode(errors="replace").replace("\r\n", "\n")


def answers(said: str) -> list[str]:
    """The lines that the calls printed."""
    return [line for line in said.splitlines() if line[:2] in [seen[:2] for seen in SEEN]]


def test_what_is_typed_at_a_prompt_runs(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    said = at_the_prompt(tmp_path, DEFINITIONS + CALLS)
    assert answers(said) == SEEN, said


def test_what_is_typed_after_a_script_runs(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    (tmp_path / "script.py").write_text("def scripted(x): return -x\n")
    more = "\nex = treadle.Executor(processes=1)\nprint('I', ex.submit(scripted, 4).result())\nex.shutdown()\n"
    said = at_the_prompt(tmp_path, DEFINITIONS + CALLS + more, "script.py")
    assert answers(said) == SEEN, said
    assert "\nI -4\n" in said


def test_at_a_prompt_without_cloudpickle_the_extra_is_named(tmp_path: Path) -> None:
    text = (
        WITHOUT
        + """
import treadle
def square(x): return x * x

class Thing: pass

ex = treadle.Executor(processes=1)
print("A", ex.submit(square, 7).exception())
print("B", ex.submit(lambda x: x + 1, 7).exception())
print("C", ex.submit(repr, Thing()).exception())
print("H", ex.submit(abs, -3).result(), ex.submit(sum, [1, 2]).result())
ex.shutdown()
"""
    )
    said = at_the_prompt(tmp_path, text)
    assert said.count("pip install 'treadle[cloudpickle]'") == 3, said
    assert "the call of __main__.square cannot be sent to a worker" in said
    assert answers(said)[-1] == SEEN[-1]


def run(folder: Path, *arguments: str, text: str | None = None) -> str:
    """What a program prints."""
    ended = subprocess.run(
        [sys.executable, *arguments],
        input=text,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=WATCHDOG_S,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_what_is_given_by_c_or_on_stdin_runs(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    program = DEFINITIONS + CALLS
    assert answers(run(tmp_path, "-c", program)) == SEEN
    assert answers(run(tmp_path, "-", text=program)) == SEEN


#: A notebook's kernel: a main module without a file, and cells compiled under the names of files that are not there.
KERNEL = """
import sys, types
del sys.modules["__main__"].__file__
main = types.ModuleType("__main__")
sys.modules["__main__"] = main
for number, cell in enumerate(CELLS):
    exec(compile(cell, f"/tmp/ipykernel_1/{number}.py", "exec"), main.__dict__)
"""


def test_what_stands_in_a_notebooks_cell_runs(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    (tmp_path / "kernel.py").write_text(f"CELLS = {[DEFINITIONS, CALLS]!r}\n{KERNEL}")
    assert answers(run(tmp_path, "kernel.py")) == SEEN


def test_a_cell_in_a_main_module_with_a_file_runs(tmp_path: Path) -> None:
    """As in IPython at a terminal, whose main module has the file of the program that started it."""
    pytest.importorskip("cloudpickle")
    (tmp_path / "shell.py").write_text(
        "if __name__ == '__main__':\n"
        + textwrap.indent(
            f"for number, cell in enumerate({[DEFINITIONS, CALLS]!r}):\n"
            "    exec(compile(cell, f'<ipython-input-{number}-0>', 'exec'), globals())\n",
            "    ",
        )
    )
    assert answers(run(tmp_path, "shell.py")) == SEEN


def test_a_closure_without_cloudpickle_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        WITHOUT
        + """
import treadle
def adder(step):
    return lambda x: x + step
if __name__ == "__main__":
    with treadle.Executor(processes=1) as pool:
        print(pool.submit(adder(1), 2).exception())
"""
    )
    said = run(tmp_path, "program.py")
    assert "adder.<locals>.<lambda>" in said
    assert "treadle[cloudpickle]" in said
