"""The demo: two functions, two comparisons, two decisions.

    make demo                                  or, with options:
    python demo/run.py --budget 10 --photographs 60

First a batch that computes (thumbnails of photographs), then a crawl that waits (pages over HTTP).
Nobody tells treadle which is which. The decisions at the end are read from what it measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import photographs

DEMO = Path(__file__).resolve().parent
DATA = DEMO / "data"
TREADLE = Path(sys.executable).with_name("treadle")  # of the same environment
PAGES = 2000
TOO_NOISY = 3  # compare's exit code for "this machine is too noisy to decide"
PAUSE_S = 20  # twice the ten seconds over which the kernel averages the pressure
OPEN_FILES = 8192  # a thousand connections need a descriptor each, at both ends


class DemoError(Exception):
    """The demo cannot go on; carries the exit code of what failed."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def say(text: str = "") -> None:
    """The demo's own words, apart from the command's report on stdout."""
    print(text, file=sys.stderr, flush=True)


def compare(name: str, arguments: list[str], budget: float) -> dict[str, Any]:
    """Runs `treadle compare`, its report on our stdout, and returns what --json wrote."""
    result = DATA / f"{name}.json"
    result.unlink(missing_ok=True)
    shown = ["treadle", "compare", *arguments, "--budget", f"{budget:g}"]
    say(f"\n$ {shlex.join(shown)}\n")
    command = [str(TREADLE), *shown[1:], "--json", str(result)]
    code = run(command)
    if code == TOO_NOISY:
        say(f"\nThe machine is too busy to tell plans apart. Once more, in {PAUSE_S} s.\n")
        time.sleep(PAUSE_S)
        code = run(command)
    if code == TOO_NOISY:
        say(
            "\nIt stays busy. The demo races all the same (TREADLE_NOISE=ignore) and trusts it less.\n"
        )
        code = run(command, TREADLE_NOISE="ignore")
    if code != 0:
        raise DemoError(f"the comparison {name!r} ended with exit code {code}", code)
    comparison: dict[str, Any] = json.loads(result.read_text())
    return comparison


def run(command: list[str], **environment: str) -> int:
    """The exit code of `command`; Ctrl-C reaches it too, and it is let finish."""
    with subprocess.Popen(command, cwd=DEMO.parent, env=os.environ | environment) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise


@contextmanager
def server() -> Iterator[str]:
    """Starts the HTTP server in a process of its own; gives its address, and stops it after.

    The server ends when its standard input does, so it goes even if this program is killed.
    """
    process = subprocess.Popen(
        [sys.executable, str(DEMO / "server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address:
            raise DemoError("the demo's server did not start; its message is above", 1)
        yield address
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def call_of(plan: dict[str, int]) -> str:
    """A plan as a reader would write it: `threads=2`, or `serial` for the empty one."""
    return ", ".join(f"{name}={size}" for name, size in plan.items()) or "serial"


def measured(comparison: dict[str, Any], plan: dict[str, int]) -> float | None:
    """The measured tasks a second of `plan`, if it was raced."""
    for candidate in comparison["candidates"]:
        if candidate["plan"] == plan:
            speed: float | None = candidate["measured_per_s"]
            return speed
    return None


def summary(title: str, comparison: dict[str, Any]) -> str:
    """One decision in four lines."""
    decision = comparison["decision"]
    chosen, serial = measured(comparison, decision["plan"]), measured(comparison, {})
    speed = "not measured"
    if chosen is not None:
        speed = f"{chosen:,.1f} a second"
        if serial:
            speed += f", {chosen / serial:.1f} times serial"
    return "\n".join(
        [
            f"{title}: {call_of(decision['plan'])}",
            f"  class       {comparison['profile']['class']}",
            f"  throughput  {speed}",
            f"  confidence  {decision['confidence']}",
        ]
    )


def raise_open_files() -> None:
    """Lifts the soft limit on open files, which this program's children inherit."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def demonstrate(count: int, budget: float) -> None:
    """The story, from photographs to two decisions."""
    folder = DATA / "photographs"
    say(f"Treadle's demo. First, {count} photographs of 12 megapixels, made once.")
    photographs.make(folder, count)

    say("\n1. A batch: every photograph becomes a sharpened thumbnail (Pillow and NumPy).")
    pattern = (folder / "*.jpg").relative_to(DEMO.parent)
    batch = compare("thumbnails", ["demo/thumbnails.py:thumbnail", "--items", str(pattern)], budget)

    say(f"\n2. A crawl: {PAGES} pages from a local server that answers as slowly as a real one.")
    with server() as address:
        pages = DATA / "pages.txt"
        pages.write_text("".join(f"{address}/page/{page}\n" for page in range(PAGES)))
        items = f"lines:{pages.relative_to(DEMO.parent)}"
        crawl = compare("fetch", ["demo/fetch.py:fetch", "--items", items], budget)

    print("\nThe two decisions\n")
    print(summary("thumbnails", batch) + "\n")
    print(summary("fetch", crawl) + "\n")
    say("Everything measured is in demo/data/thumbnails.json and demo/data/fetch.json.")


def main() -> int:
    """Parses the options and turns what went wrong into one message and an exit code."""
    parser = argparse.ArgumentParser(description="Compares a batch and a crawl.")
    parser.add_argument("--photographs", type=int, default=240, metavar="N")
    parser.add_argument("--budget", type=float, default=20, metavar="SECONDS", help="each race")
    options = parser.parse_args()
    raise_open_files()
    try:
        demonstrate(options.photographs, options.budget)
    except DemoError as error:
        say(f"\nerror: {error}")
        return error.code
    except KeyboardInterrupt:
        say("\ninterrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
