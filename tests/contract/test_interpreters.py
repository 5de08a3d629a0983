"""Plans of sub-interpreters: what is theirs beyond the contract that all plans share, and what stands in for treadle inside them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import importlib
import importlib.util
import itertools
import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import contract_calls as calls
import pytest
import treadle
from contract_calls import Gate
from treadle import _outcome, _subinterpreter

HAS_INTERPRETERS = importlib.util.find_spec("concurrent.interpreters") is not None
newer = pytest.mark.skipif(not HAS_INTERPRETERS, reason="plans of interpreters need CPython 3.14")


@pytest.mark.skipif(HAS_INTERPRETERS, reason="this Python has sub-interpreters")
def test_an_older_python_says_what_is_needed_and_what_runs_here() -> None:
    with pytest.raises(treadle.PlanError) as caught:
        treadle.Executor(interpreters=3)
    told = str(caught.value)
    assert "CPython 3.14 or later" in told
    assert "interpreters=3" in told
    assert "hint: processes=3" in told


# ---- pools


@pytest.fixture
def pool() -> Iterator[treadle.Executor]:
    with treadle.Executor(interpreters=2) as pool:
        yield pool


_counted = itertools.count(1)


def count() -> int:
    """How often this interpreter has been asked."""
    return next(_counted)


@newer
def test_each_has_its_modules_to_itself_in_one_process() -> None:
    with treadle.Executor(interpreters=1) as pool:
        assert [pool.submit(count).result() for _ in range(3)] == [1, 2, 3]
        assert pool.submit(os.getpid).result() == os.getpid()
    assert count() == 1, "the main interpreter's own"


@newer
def test_they_run_at_the_same_time(pool: treadle.Executor, new_gate: Callable[[], Gate]) -> None:
    gate = new_gate()
    held = [pool.submit(calls.wait_at, gate) for _ in range(2)]
    gate.await_arrivals(2)
    assert {worker.state for worker in pool.stats().workers} == {"busy"}
    gate.open()
    assert [future.result() for future in held] == [None, None]


def list_interpreters() -> list[Any]:
    return list(importlib.import_module("concurrent.interpreters").list_all())


@newer
def test_none_is_left_behind() -> None:
    before = len(list_interpreters())
    for _ in range(3):
        with treadle.Executor(interpreters=2) as pool:
            assert list(pool.map(calls.double, range(10))) == list(range(0, 20, 2))
            assert len(list_interpreters()) > before
    assert len(list_interpreters()) == before


@newer
def test_a_call_over_its_time_is_left_behind_and_its_place_is_taken(gate: Gate) -> None:
    with treadle.Executor(interpreters=1) as pool:
        hanging = pool.options(timeout=0.1).submit(calls.wait_at, gate)
        gate.await_arrivals()
        with pytest.raises(treadle.TaskTimeout, match="a sub-interpreter cannot be stopped"):
            hanging.result()
        assert "processes" in str(hanging.exception())
        assert pool.submit(calls.double, 2).result() == 4, "another one takes its place"
        stats = pool.stats()
        assert sorted(worker.state for worker in stats.workers)[-1] == "overdue"
        assert stats.timed_out == 1
        assert "over its timeout" in pool.dump()
        assert "wait_at" in pool.dump()
        gate.open()


@newer
def test_a_failed_initializer_is_the_standard_librarys_error_too() -> None:
    futures: Any = importlib.import_module("concurrent.futures.interpreter")
    with treadle.Executor(
        interpreters=1, initializer=calls.complain, initargs=("bad set-up",)
    ) as pool:
        error = pool.submit(calls.double, 1).exception()
        assert isinstance(error, treadle.PoolBroken)
        assert "bad set-up" in str(error)
        assert type(error.__cause__) is calls.Complaint
        assert hasattr(futures, "InterpreterPoolExecutor")


@newer
def test_an_initializer_that_cannot_travel_is_refused_at_once() -> None:
    with pytest.raises(treadle.PayloadError, match="lock"):
        treadle.Executor(interpreters=1, initializer=calls.give, initargs=(threading.Lock(),))


@newer
def test_one_that_cannot_be_started_breaks_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    standard: Any = importlib.import_module("concurrent.interpreters")

    def refuse() -> None:
        raise standard.InterpreterError("no room")

    monkeypatch.setattr(standard, "create", refuse)
    pool = treadle.Executor(interpreters=2)
    with pytest.raises(treadle.PoolBroken, match=r"could not be started: no room"):
        pool.submit(calls.double, 1).result()
    pool.shutdown()


class Holder:
    def __init__(self, held: Any) -> None:
        self.inner = {"handles": [1, held]}


def hold_a_lock() -> Holder:
    return Holder(threading.Lock())


class Unreadable:
    """Pickles, and cannot be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return calls.complain, ("not rebuilt",)


def make_unreadable_at(value: int, bad: int) -> Any:
    return Unreadable() if value == bad else [value]


@newer
def test_what_cannot_travel_fails_one_call_and_is_named(pool: treadle.Executor) -> None:
    good = [pool.submit(calls.double, k) for k in range(5)]
    there = pool.submit(calls.give, Holder(threading.Lock())).exception()
    back = pool.submit(hold_a_lock).exception()
    for error in (there, back):
        assert isinstance(error, treadle.PayloadError)
        assert isinstance(error, pickle.PicklingError)
        assert ".inner['handles'][1]" in str(error)
    for future in (
        pool.submit(calls.give, Unreadable()),
        pool.submit(make_unreadable_at, 1, 1),
    ):
        with pytest.raises(treadle.PayloadError, match="not rebuilt"):
            future.result()
    assert [future.result() for future in good] == [0, 2, 4, 6, 8]


@newer
def test_a_result_that_cannot_be_rebuilt_ends_a_chunk_in_its_place(pool: treadle.Executor) -> None:
    results = pool.map(make_unreadable_at, range(20), itertools.repeat(11), chunksize=20)
    assert list(itertools.islice(results, 11)) == [[k] for k in range(11)]
    with pytest.raises(treadle.PayloadError, match="not rebuilt"):
        next(results)


@newer
def test_a_future_or_an_executor_does_not_travel(pool: treadle.Executor) -> None:
    future = pool.submit(calls.double, 1)
    for value in (future, pool):
        with pytest.raises(treadle.PayloadError, match="own pool could wait for ever"):
            pool.submit(calls.give, value).result()


@newer
def test_big_arguments_and_results_are_right(pool: treadle.Executor) -> None:
    value = os.urandom(5_000_000)
    assert pool.submit(calls.give, value).result() == value
    assert pool.submit(calls.give, {"deep": [value]}).result() == {"deep": [value]}


async def which_loop() -> int:
    return id(asyncio.get_running_loop())


@newer
def test_async_functions_share_the_loop_of_their_interpreter() -> None:
    with treadle.Executor(interpreters=1) as pool:
        assert len({pool.submit(which_loop).result() for _ in range(5)}) == 1


@newer
def test_a_lambda_travels_with_cloudpickle_or_is_explained(pool: treadle.Executor) -> None:
    future = pool.submit(lambda value: value * 3, 2)
    if importlib.util.find_spec("cloudpickle"):
        assert future.result() == 6
    else:
        with pytest.raises(treadle.PayloadError, match="cloudpickle"):
            future.result()


# ---- modules that refuse


def needs_the_engine() -> None:
    """The extension module at hand that cannot be loaded in a sub-interpreter is our own."""
    import treadle._core  # noqa: F401


class EngineOnTheWay:
    """Its pickle needs such a module."""

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, ("treadle._core",)


@newer
def test_a_module_that_refuses_is_named_with_the_plan_that_fits(pool: treadle.Executor) -> None:
    error = pool.submit(calls.give, EngineOnTheWay()).exception()
    assert isinstance(error, treadle.PlanError)
    assert "refuses to be loaded in a sub-interpreter" in str(error)
    assert "processes" in str(error)
    inside = pool.submit(needs_the_engine).exception()
    assert type(inside) is ImportError, "a task's own exception arrives as itself"
    told = "".join(traceback.format_exception(inside))
    assert "in needs_the_engine" in told
    assert "use processes=" in told
    assert pool.submit(calls.double, 2).result() == 4


def quoted_refusal() -> BaseException:
    """As NumPy tells it: what happened stands in the midst of advice."""
    advice = "IMPORTANT\n\nOriginal error was: module numpy._core does not support loading in subinterpreters\n"
    error = ImportError(f"{advice}\nSee the manual.")
    error.__cause__ = ImportError("module numpy._core does not support loading in subinterpreters")
    return error


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (ImportError("module x does not support loading in subinterpreters"), "module x does not"),
        (ImportError("PyO3 modules do not yet support subinterpreters, see …"), "PyO3 modules"),
        (ImportError("cannot load module more than once per process"), "more than once"),
        (quoted_refusal(), "Original error was: module numpy._core"),
        (ImportError("No module named 'x'"), None),
        (ValueError("subinterpreters"), None),
    ],
    ids=str,
)
def test_refusals_are_told_from_other_errors(error: BaseException, refusal: str | None) -> None:
    for one in (error, wrapped(error)):
        found = _subinterpreter.refusing_module(one)
        if refusal is None:
            assert found is None
        else:
            assert found is not None
            assert found.startswith(refusal) or refusal in found
            assert "\n" not in found


def wrapped(error: BaseException) -> BaseException:
    outer = RuntimeError("the package could not be set up")
    outer.__cause__ = error
    return outer


# ---- what stands in for treadle


def use_the_stand_in(name: str) -> Any:
    import treadle

    if name == "errors":
        return issubclass(treadle.PlanError, ValueError), treadle.Plan(threads=2).concurrency
    return getattr(treadle, name)()


@newer
def test_inside_treadle_has_its_errors_and_refuses_what_needs_the_engine(
    pool: treadle.Executor,
) -> None:
    assert pool.submit(use_the_stand_in, "errors").result() == (True, 2)
    for name in ("Executor", "compare", "usable_cores"):
        with pytest.raises(treadle.PlanError, match=f"treadle.{name} cannot be used"):
            pool.submit(use_the_stand_in, name).result()
    with pytest.raises(AttributeError, match="nonsense"):
        pool.submit(use_the_stand_in, "nonsense").result()


PROGRAM = """
import treadle

def square(value):
    return value * value

class Point:
    def __init__(self, x):
        self.x = x

def move(point):
    return Point(point.x + 1)

if __name__ == "__main__":
    with treadle.Executor(interpreters=2) as pool:
        print(list(pool.map(square, range(5))), pool.submit(move, Point(3)).result().x)
"""


def run_program(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    program = folder / "program.py"
    program.write_text(text)
    return subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=60
    )


@newer
def test_functions_and_classes_of_the_main_module_are_found(tmp_path: Path) -> None:
    ran = run_program(tmp_path, PROGRAM)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[0, 1, 4, 9, 16] 4\n", "")


@newer
def test_a_missing_guard_is_told(tmp_path: Path) -> None:
    ran = run_program(tmp_path, PROGRAM.replace('if __name__ == "__main__":', "if True:"))
    assert ran.returncode == 1
    assert "treadle.Executor cannot be used in a sub-interpreter" in ran.stderr
    assert "if __name__ == '__main__'" in ran.stderr


# ---- what runs inside, without a sub-interpreter: on every version


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Numbers of calls that no other test has used."""
    for name in ("_current", "_struck", "_handled"):
        monkeypatch.setattr(_subinterpreter, name, 0)
    return itertools.count(1)  # type: ignore[return-value]


def outcome_of(number: int, function: Any, *arguments: Any, chunk: bool = False) -> tuple[int, Any]:
    """What :func:`run` answers, unpickled."""
    whole = (function, *arguments) if chunk else (function, arguments, {})
    code, told = _subinterpreter.run(number, chunk, False, pickle.dumps(whole))
    return code, (
        _outcome.load_exception(told) if code == _subinterpreter.FAILED else pickle.loads(told)
    )


def test_outcomes(numbers: Any) -> None:
    assert outcome_of(next(numbers), calls.double, 2) == (_subinterpreter.RESULT, 4)
    code, error = outcome_of(next(numbers), calls.complain, "bad")
    assert code == _subinterpreter.FAILED
    assert type(error) is calls.Complaint
    assert "in complain" in str(error.__cause__)
    code, error = outcome_of(next(numbers), calls.give, Unreadable())
    assert code == _subinterpreter.FAILED
    assert isinstance(error, treadle.PayloadError)


def test_chunks(numbers: Any) -> None:
    code, (seconds, results, pieces, failure) = outcome_of(
        next(numbers), calls.double, [1, 2, 3], True, chunk=True
    )
    assert code == _subinterpreter.CHUNK
    assert seconds >= 0
    assert (results, pieces, failure) == ([2, 4, 6], None, None)
    call = functools.partial(calls.complain_at, bad=3)
    _, (seconds, results, _, failure) = outcome_of(
        next(numbers), call, [1, 2, 3, 4], True, chunk=True
    )
    assert (seconds, results) == (None, [1, 2])
    assert type(_outcome.load_exception(failure)) is calls.Complaint
    _, (_, results, pieces, _) = outcome_of(
        next(numbers), calls.give, [([1],), ([2],)], False, chunk=True
    )
    assert results is None
    assert [pickle.loads(piece) for piece in pieces] == [[1], [2]]


class Listener:
    """The listener's thread for this one, on a pipe."""

    def __init__(self) -> None:
        reading, self.writing = os.pipe()
        self.thread = threading.Thread(
            target=_subinterpreter._listen, args=(reading, threading.get_ident())
        )
        self.thread.start()

    def strike(self, number: int) -> None:
        os.write(self.writing, number.to_bytes(8, "little"))

    def end(self) -> None:
        os.close(self.writing)
        self.thread.join()


@pytest.fixture
def listener(numbers: Any) -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.end()


def wait_until(handled: int) -> None:
    while _subinterpreter._handled < handled:
        pass


_striking: Any = None


def strike_and_run_on(number: int) -> None:
    _striking.strike(number)
    while True:
        pass


def strike_and_return(number: int) -> str:
    _striking.strike(number)
    return "returned"


def test_an_interruption_is_raised_in_the_call_that_runs(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "_striking", listener)
    code, error = outcome_of(5, strike_and_run_on, 5)
    assert code == _subinterpreter.FAILED
    assert type(error) is treadle.TaskInterrupted
    assert outcome_of(6, calls.double, 2) == (_subinterpreter.RESULT, 4)


def test_an_interruption_that_comes_first_is_not_lost(listener: Listener) -> None:
    listener.strike(3)
    wait_until(3)
    code, error = outcome_of(3, calls.double, 2)
    assert code == _subinterpreter.FAILED
    assert type(error) is treadle.TaskInterrupted


def test_an_interruption_that_comes_late_hits_nobody(listener: Listener) -> None:
    assert outcome_of(7, calls.double, 1) == (_subinterpreter.RESULT, 2)
    listener.strike(7)
    wait_until(7)
    assert outcome_of(8, calls.double, 2) == (_subinterpreter.RESULT, 4)


def test_an_interruption_at_the_end_is_settled_before_the_next_call(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes between the call's return and the look at the next one: either of the two outcomes, and never in another call."""
    monkeypatch.setattr(sys.modules[__name__], "_striking", listener)
    for number in range(10, 310):
        code, told = outcome_of(number, strike_and_return, number)
        assert told == "returned" or type(told) is treadle.TaskInterrupted, code
        wait_until(number)
        assert [k for k in range(50)] == list(range(50))


class Stepping:
    """The module ``time`` for a call that waits for the listener: its first nap lets the listener go on.

    By a plain attribute: an exception that is raised anywhere in this thread must leave no lock behind.
    """

    perf_counter = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self.go_on = False

    def sleep(self, seconds: float) -> None:
        self.go_on = True


_entered = threading.Event()


def strike_and_return_meanwhile(number: int) -> str:
    """Returns when the listener has seen that this call runs, and has not raised yet."""
    _striking.strike(number)
    assert _entered.wait(60)
    return "returned"


def test_a_call_that_ends_while_it_is_being_interrupted_waits_for_that(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepping, over = Stepping(), []
    raise_in = _subinterpreter._raise_in

    def hesitate(worker: int) -> None:
        _entered.set()
        while not stepping.go_on and not over:
            time.sleep(0.001)
        if not over:
            raise_in(worker)

    monkeypatch.setattr(sys.modules[__name__], "_striking", listener)
    monkeypatch.setattr(_subinterpreter, "_raise_in", hesitate)
    monkeypatch.setattr(_subinterpreter, "time", stepping)
    _, told = outcome_of(4, strike_and_return_meanwhile, 4)
    over.append(True)
    assert type(told) is treadle.TaskInterrupted


def test_futures_wait_and_as_completed_see_them() -> None:
    if not HAS_INTERPRETERS:
        pytest.skip("plans of interpreters need CPython 3.14")
    with treadle.Executor(interpreters=2) as pool:
        futures = {pool.submit(calls.double, k): k for k in range(50)}
        for future in concurrent.futures.as_completed(futures, timeout=60):
            assert future.result() == 2 * futures[future]
