"""What cannot be pickled is named by its path, its type and what to do."""

from __future__ import annotations

import functools
import io
import pickle
import socket
import threading
import types
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from treadle._pickling import (
    explain_call,
    explain_result,
    find_problem,
    find_round_trip_problem,
)


class Session:
    def __init__(self) -> None:
        self.name = "s"
        self._lock = threading.Lock()


class Client:
    def __init__(self) -> None:
        self.session = Session()

    def fetch(self, url: str) -> str:
        return url


@dataclass(frozen=True)
class Frozen:
    inner: Any


class Slotted:
    __slots__ = ("first", "second")

    def __init__(self, first: Any, second: Any) -> None:
        self.first, self.second = first, second


class Pair(NamedTuple):
    left: Any
    right: Any


class Refusing:
    def __reduce_ex__(self, protocol: Any) -> Any:
        raise ValueError("not me")


class OwnList(list):  # type: ignore[type-arg]
    pass


class TwoArguments(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


class KeepsArguments(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)


class Unloadable:
    def __setstate__(self, state: Any) -> None:
        raise RuntimeError("cannot come back")

    def __getstate__(self) -> dict[str, int]:
        return {"a": 1}


def plain(value: int) -> int:
    return value


def replaced(value: int) -> int:
    return value


original_replaced = replaced


def replaced(value: int) -> int:  # type: ignore[no-redef]  # noqa: F811
    return -value


named_lambda = lambda value: value  # noqa: E731


def local() -> Any:
    def inner(value: int) -> int:
        return value

    return inner


def lock() -> Any:
    return threading.Lock()


@pytest.mark.parametrize(
    "value",
    [
        1,
        "text",
        [1, {"a": (2, 3)}],
        plain,
        Pair(1, 2),
        Frozen([1]),
        b"x" * 100,
        Client.fetch,
        ValueError("x"),
    ],
)
def test_what_can_be_pickled_has_no_problem(value: Any) -> None:
    assert find_problem(value) is None
    assert find_round_trip_problem(value) is None


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        ((Client(),), "args[0].session._lock", "_thread.lock"),
        ((1, {"deep": [0, Session()]}), "args[1]['deep'][1]._lock", "_thread.lock"),
        ((Frozen(lock()),), "args[0].inner", "_thread.lock"),
        ((Slotted(1, lock()),), "args[0].second", "_thread.lock"),
        ((Pair(1, lock()),), "args[0].right", "_thread.lock"),
        ((OwnList([1, lock()]),), "args[0][1]", "_thread.lock"),
        ((functools.partial(plain, lock()),), "args[0].args[0]", "_thread.lock"),
        ((functools.partial(plain, key=lock()),), "args[0].keywords['key']", "_thread.lock"),
        ((functools.partial(local()),), "args[0].func", "local function"),
        ((Client().fetch,), "args[0].__self__.session._lock", "_thread.lock"),
        ((ValueError("x", lock()),), "args[0].args[1]", "_thread.lock"),
        ((named_lambda,), "args[0]", "lambda"),
        ((Refusing(),), "args[0]", f"{__name__}.Refusing"),
        ((types,), "args[0]", "module"),
        (((x for x in "a"),), "args[0]", "generator"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_culprit_is_named_by_its_path(value: Any, path: str, kind: str) -> None:
    problem = find_problem(value, "args")
    assert problem is not None
    assert (problem.path, problem.type) == (path, kind)
    assert problem.hint and problem.message


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lock, "__getstate__"),
        (lambda: (x for x in "a"), "list("),
        (lambda: named_lambda, "def"),
        (local, "defined inside local"),
        (lambda: types, "import it inside"),
        (lambda: original_replaced, "functools.wraps"),
        (lambda: {}.keys(), "list("),
        (lambda: memoryview(b"abc"), "bytes("),
        (lambda: threading.Condition(), "__getstate__"),
        (Refusing, "__reduce__"),
    ],
)
def test_the_advice_fits_the_type(make: Any, word: str) -> None:
    problem = find_problem(make())
    assert problem is not None
    assert word in problem.hint


def test_open_files_and_sockets_are_to_be_opened_in_the_worker(tmp_path: Any) -> None:
    path = tmp_path / "f"
    path.write_text("x")
    with open(path) as text, open(path, "rb") as binary, io.FileIO(path) as raw:
        for file in (text, binary, raw):
            problem = find_problem(file)
            assert problem is not None and "path" in problem.hint
    with socket.socket() as connection:
        problem = find_problem(connection)
        assert problem is not None and "initializer" in problem.hint


def test_a_value_that_holds_itself_ends_the_walk() -> None:
    value: list[Any] = []
    value.append(value)
    value.append({"back": value, "lock": lock()})
    problem = find_problem(value, "args")
    assert problem is not None
    assert problem.path == "args[1]['lock']"


def test_deep_nesting_is_called_so() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    problem = find_problem(value, "args")
    assert problem is not None
    assert "deep" in problem.hint
    while value:  # taken apart by hand: the interpreter's own way would nest as deep
        value = value[0]


def test_an_exception_that_cannot_be_rebuilt_is_found_by_the_round_trip_only() -> None:
    broken, sound = TwoArguments(1, "x"), KeepsArguments(1, "x")
    assert find_problem(broken) is None
    problem = find_round_trip_problem(broken, "exception")
    assert problem is not None
    assert problem.path == "exception" and "super().__init__" in problem.hint
    assert find_round_trip_problem(sound) is None


def test_what_cannot_be_read_back_is_named() -> None:
    problem = find_round_trip_problem(Unloadable(), "result")
    assert problem is not None
    assert "cannot come back" in problem.message and "__setstate__" in problem.hint


def test_the_answer_agrees_with_pickle() -> None:
    values = [1, plain, lock(), named_lambda, Client(), Pair(1, [2]), types, Refusing(), object()]
    for value in values:
        try:
            pickle.dumps(value, protocol=5)
            works = True
        except Exception:
            works = False
        assert (find_problem(value) is None) == works, value


def test_large_buffers_are_not_copied() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.zeros(10_000_000)
    assert find_problem({"array": array}) is None
    problem = find_problem({"array": array, "lock": lock()}, "args[0]")
    assert problem is not None and problem.path == "args[0]['lock']"


def test_the_sentence_reads() -> None:
    problem = find_problem((Client(),), "args")
    assert problem is not None
    assert problem.sentence() == "args[0].session._lock is a _thread.lock, which cannot be pickled"


def test_the_executors_errors_name_the_part_and_the_way_out() -> None:
    pytest.importorskip("treadle.errors")
    error = explain_call(plain, (1, Client()), {}, TypeError("no"), have_cloudpickle=False)
    assert isinstance(error, pickle.PicklingError)
    assert "args[1].session._lock" in str(error) and "plain" in str(error)
    assert "\n\nhint: " in str(error) and "cloudpickle" not in str(error)
    error = explain_call(plain, (), {"client": Client()}, TypeError("no"), have_cloudpickle=False)
    assert "kwargs['client'].session._lock" in str(error)
    error = explain_call(named_lambda, (1,), {}, TypeError("no"), have_cloudpickle=False)
    assert "the function is a lambda" in str(error) and "install cloudpickle" in str(error)
    error = explain_call(named_lambda, (1,), {}, TypeError("no"), have_cloudpickle=True)
    assert "install cloudpickle" not in str(error)
    error = explain_result({"client": Client()}, TypeError("no"))
    assert isinstance(error, pickle.PicklingError)
    assert "result['client'].session._lock" in str(error)
    assert "unknown" in str(explain_result(1, TypeError("unknown")))
