"""Pools under limits that are too small: it works, smaller, or it ends with an error that says so; it never hangs or crashes.

Each case runs in an interpreter of its own, for a limit cannot be taken back.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from load import Wrong

#: No case takes a twentieth of it; past it the case hangs.
WATCHDOG_S = 120

_HEAD = """
import json, os, resource, sys
sys.path.insert(0, {here!r})
import numpy, jobs, treadle

def limit(which, value):
    resource.setrlimit(which, (value, value))

def address_space():
    return int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")

def descriptors():
    return max(map(int, os.listdir("/proc/self/fd")))

seen = {{"values": 0}}

def count(error):
    text = f"{{type(error).__name__}}: {{error}}".split("\\n")[0]
    seen[text] = seen.get(text, 0) + 1

def settle(future, expected):
    try:
        value = future.result(timeout={watchdog} / 2)
    except Exception as error:
        if not future.done():
            raise SystemExit("a hang: " + repr(error))
        count(error)
    else:
        assert numpy.array_equal(value, expected), "a wrong value"
        seen["values"] += 1

def main():
    try:
        work()
    except Exception as error:
        count(error)
    print(json.dumps(seen))

"""

_SMALL_ADDRESS_SPACE = """
def work():
    with treadle.Executor(processes=2) as pool:
        limit(resource.RLIMIT_AS, address_space() + {size})
        array = numpy.arange({size} // 64, dtype=numpy.float64)
        calls = []
        for _ in range(12):
            try:
                calls.append(pool.submit(jobs.doubled, array))
            except Exception as error:
                count(error)
        for call in calls:
            settle(call, array * 2)
        for number in range(20):
            settle(pool.submit(jobs.scaled, number), 3 * number + 1)
"""

_SMALL_FROM_THE_START = """
def work():
    limit(resource.RLIMIT_AS, address_space() + {size})
    array = numpy.arange(40_000, dtype=numpy.float64)
    with treadle.Executor(processes=2) as pool:
        for _ in range(12):
            settle(pool.submit(jobs.doubled, array), array * 2)
        for number in range(20):
            settle(pool.submit(jobs.scaled, number), 3 * number + 1)
"""

#: Payloads that are copied whole into the pickle, in the parent and in the workers.
_SMALL_FOR_PICKLES = """
def work():
    with treadle.Executor(processes=1) as pool:
        pool.submit(jobs.scaled, 1).result()
        limit(resource.RLIMIT_AS, address_space() + {size})
        for length in (1000, 100_000, 1_000_000, 4_000_000):
            try:
                numbers = [float(number) for number in range(length)]
                settle(pool.submit(sorted, numbers), numbers)
                text = "x" * length * 8
                settle(pool.submit(str.upper, text), text.upper())
            except MemoryError as error:
                count(error)
        settle(pool.submit(jobs.scaled, 5), 16)
"""

_FEW_DESCRIPTORS = """
def work():
    limit(resource.RLIMIT_NOFILE, descriptors() + 1 + {size})
    with treadle.Executor(processes=3) as pool:
        calls = [pool.submit(jobs.scaled, number) for number in range(50)]
        for number, call in enumerate(calls):
            settle(call, 3 * number + 1)
        settle(pool.options(timeout=0.05).submit(jobs.slept, 1, 600.0), None)
        pool.submit(jobs.ended, 1).exception(timeout=60)
        settle(pool.submit(jobs.scaled, 5), 16)
"""

_SMALL_FILES = """
def work():
    limit(resource.RLIMIT_FSIZE, {size})
    with treadle.Executor(processes=2) as pool:
        array = numpy.arange(300_000, dtype=numpy.float64)
        for _ in range(4):
            settle(pool.submit(jobs.doubled, array), array * 2)
        settle(pool.submit(jobs.scaled, 5), 16)
"""

_SMALL_ARENA = """
def work():
    from treadle.strategies import processes
    processes._payload_limit = lambda: {size}
    with treadle.Executor(processes=2) as pool:
        array = numpy.arange({size} // 8 // 8, dtype=numpy.float64)
        # Sixteen times the limit in flight: submit waits.
        for call in [pool.submit(jobs.summed, array) for _ in range(128)]:
            settle(call, (array.size, float(array.sum())))
        # Too big an argument, too big a result.
        for job, arguments in ((jobs.summed, [numpy.zeros({size})]), (jobs.filled, [1, {size}])):
            try:
                settle(pool.submit(job, *arguments), None)
            except Exception as error:
                count(error)
        settle(pool.submit(jobs.scaled, 5), 16)
"""

_CASES: list[tuple[str, str, list[int]]] = [
    ("address space", _SMALL_ADDRESS_SPACE, [size << 20 for size in (8, 16, 32, 64, 128, 256)]),
    (
        "address space from the start",
        _SMALL_FROM_THE_START,
        [size << 20 for size in (1, 4, 8, 10, 12, 16, 24, 48, 96)],
    ),
    ("address space for pickles", _SMALL_FOR_PICKLES, [size << 20 for size in (16, 64, 128)]),
    ("descriptors", _FEW_DESCRIPTORS, [0, 1, 2, 4, 6, 8, 11, 14, 17, 20, 25, 30, 40]),
    ("file size", _SMALL_FILES, [4096, 1 << 20, 3 << 20]),
    ("arena", _SMALL_ARENA, [1 << 20, 8 << 20]),
]


def _run(name: str, code: str, size: int, folder: Path) -> dict[str, int]:
    path = folder / f"{name.replace(' ', '-')}-{size}.py"
    head = _HEAD.format(here=str(Path(__file__).parent), watchdog=WATCHDOG_S)
    path.write_text(head + code.format(size=size) + '\nif __name__ == "__main__":\n    main()\n')
    try:
        ran = subprocess.run(
            [sys.executable, str(path)], capture_output=True, text=True, timeout=WATCHDOG_S
        )
    except subprocess.TimeoutExpired as error:
        raise Wrong(f"a hang with {name} {size}: {error.stderr!r}") from error
    try:
        seen: dict[str, int] = json.loads(ran.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise Wrong(
            f"{name} {size} ended with {ran.returncode}: {ran.stdout[-500:]} {ran.stderr[-2000:]}"
        ) from None
    if ran.returncode != 0 or "panicked" in ran.stderr:
        raise Wrong(f"{name} {size} ended with {ran.returncode}: {ran.stderr[-2000:]}")
    return seen


def limits(count: int, seed: int, folder: Path) -> str:
    cases = values = errors = 0
    for _ in range(count):
        for name, code, sizes in _CASES:
            for size in sizes:
                seen = _run(name, code, size, folder)
                cases += 1
                values += seen.pop("values")
                errors += sum(seen.values())
                for text in seen:
                    (folder / "errors.txt").open("a").write(f"{name} {size}: {text}\n")
    return f"{cases} cases, {values} values, {errors} clear errors"
