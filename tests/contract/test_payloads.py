"""What travels between processes: values of every kind and size, functions of every kind, and what cannot travel."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import functools
import math
import operator
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import contract_calls as calls
import pytest
import treadle

numpy = pytest.importorskip("numpy", reason="arrays are tested with NumPy")


@pytest.fixture(scope="module")
def pool() -> Iterator[treadle.Executor]:
    """One pool for every payload: one after another, they must not harm each other."""
    with treadle.Executor(processes=2) as pool:
        yield pool
        # Whatever was sent, nobody died of it.
        assert pool.stats().worker_deaths == 0


class Number(int):
    """A subclass must come back as itself."""


class Text(str):
    pass


class Pair(tuple):
    pass


class Level(enum.IntEnum):
    LOW = 1


class Flag(enum.Enum):
    RED = "red"


Point = collections.namedtuple("Point", "x y")

SCALARS = [
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**63 - 1,
    2**63,
    -(2**63),
    -(2**63) - 1,
    2**64,
    10**300,
    0.0,
    -0.0,
    1e-320,
    math.inf,
    -math.inf,
    sys.float_info.max,
    1 + 2j,
    "",
    "text",
    "ä€😀\0",
    "\ud800",
    "x\udcff",
    "x" * 100_000,
    b"",
    b"\0\xff",
    (),
    (1, ("two", (3.0, (None, b"5")))),
    (((((((((((((((((((((1,),),),),),),),),),),),),),),),),),),),),),
    tuple(range(1000)),
    [],
    [1, [2]],
    {},
    {"a": {1: 2}},
    set(),
    {1, 2},
    frozenset({1}),
    ...,
    NotImplemented,
    range(5),
    slice(1, 2, 3),
    bytearray(b"abc"),
    Number(5),
    Text("own"),
    Pair((1, 2)),
    Level.LOW,
    Flag.RED,
    Point(1, 2),
    decimal.Decimal("1.10"),
    datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone.utc),
    int,
    len,
]


def identical(one: Any, other: Any) -> bool:
    if isinstance(one, float):
        return math.copysign(1, one) == math.copysign(1, other) and one == other
    return bool(one == other)


@pytest.mark.parametrize(
    "value", SCALARS, ids=lambda value: repr(value)[:30].encode("ascii", "replace").decode()
)
def test_a_value_comes_back_as_it_was(pool: treadle.Executor, value: Any) -> None:
    for result in (
        pool.submit(calls.give, value).result(),
        pool.submit(calls.give, value=value).result(),
        pool.submit(calls.give, [value]).result()[0],
        next(pool.map(calls.give, [value, value], chunksize=2)),
        next(pool.map(calls.give, [value, [1]], chunksize=2)),
    ):
        assert type(result) is type(value)
        assert identical(result, value)


def test_not_a_number_comes_back(pool: treadle.Executor) -> None:
    assert math.isnan(pool.submit(calls.give, math.nan).result())


@pytest.mark.parametrize("size", [0, 1, 200, 4096, 16_383, 16_384, 65_536, 1 << 20, 5_000_000])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_of_every_size(pool: treadle.Executor, size: int, kind: Any) -> None:
    value = kind(bytes(range(256)) * (size // 256 + 1))[:size]
    result = pool.submit(calls.give, value).result()
    assert type(result) is kind
    assert result == value


@pytest.mark.parametrize("count", [0, 1, 10, 2047, 2048, 8192, 131_072, 2_500_000])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_size(pool: treadle.Executor, count: int, order: Any) -> None:
    array = numpy.arange(count, dtype="f8").reshape(
        (-1, 2) if count % 2 == 0 else (-1, 1), order=order
    )
    result = pool.submit(calls.give, array).result()
    assert result.dtype == array.dtype
    assert result.shape == array.shape
    assert (result == array).all()
    result += 1
    assert (result == array + 1).all()


def change(array: Any) -> Any:
    array[...] = 7
    return float(array.sum())


def test_an_argument_may_be_written_to_and_stays_as_it_was_here(pool: treadle.Executor) -> None:
    for count in (10, 100_000):
        array = numpy.ones(count)
        for _ in range(3):
            assert pool.submit(change, array).result() == 7 * count
        assert array.sum() == count


def test_a_read_only_array_stays_read_only(pool: treadle.Executor) -> None:
    array = numpy.ones(100_000)
    array.flags.writeable = False
    result = pool.submit(calls.give, array).result()
    assert not result.flags.writeable
    assert result.sum() == 100_000


def test_odd_arrays(pool: treadle.Executor) -> None:
    base = numpy.arange(200_000).reshape(400, 500)
    for array in (
        base[::2, ::3],
        base.T,
        base[0],
        numpy.array(["a", "bcd"]),
        numpy.array([object, 1], dtype=object),
        numpy.array(5),
        numpy.zeros((3, 0)),
        numpy.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        numpy.arange(5, dtype=">i4"),
    ):
        result = pool.submit(calls.give, array).result()
        assert result.dtype == array.dtype
        assert (result == array).all()


def test_many_arrays_are_kept_and_stay_right(pool: treadle.Executor) -> None:
    futures = [pool.submit(numpy.full, 5000, number, "f8") for number in range(300)]
    kept = [future.result() for future in futures]
    del futures
    for _ in range(300):
        pool.submit(numpy.zeros, 5000).result()
    assert all((array == number).all() for number, array in enumerate(kept))


def test_arrays_outlive_their_pool() -> None:
    with treadle.Executor(processes=1) as pool:
        kept = [pool.submit(numpy.full, 200_000, number).result() for number in range(5)]
        view = kept[3][10:20]
    del pool
    assert all((array == number).all() for number, array in enumerate(kept))
    kept.clear()
    assert (view == 3).all()
    view += 1
    assert (view == 4).all()


def test_a_value_with_many_buffers(pool: treadle.Executor) -> None:
    arrays = [numpy.full(3000, number) for number in range(5000)]
    results = pool.submit(calls.give, arrays).result()
    assert all((array == number).all() for number, array in enumerate(results))


def test_a_big_pickle(pool: treadle.Executor) -> None:
    value = {number: str(number) * 10 for number in range(50_000)}
    assert pool.submit(calls.give, value).result() == value


def test_an_array_of_twenty_megabytes_there_and_back(pool: treadle.Executor) -> None:
    array = numpy.random.default_rng(1).random(2_500_000)
    futures = [pool.submit(calls.give, array) for _ in range(4)]
    assert all((future.result() == array).all() for future in futures)


# ---- functions


class Accumulator:
    """A callable whose state changes between submits."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, value: int) -> int:
        return self.total + value

    def method(self, value: int) -> int:
        return self.total * value

    @classmethod
    def made(cls, total: int) -> Accumulator:
        made = cls()
        made.total = total
        return made

    @staticmethod
    def plain(value: int) -> int:
        return -value


def test_callables_carry_the_state_that_they_have_at_submit(pool: treadle.Executor) -> None:
    accumulator = Accumulator()
    for total in range(5):
        accumulator.total = total
        assert pool.submit(accumulator, 10).result() == total + 10
        assert pool.submit(accumulator.method, 10).result() == 10 * total
        assert pool.submit(functools.partial(accumulator, 3)).result() == total + 3
        assert list(pool.map(accumulator, range(3))) == [total, total + 1, total + 2]
    futures = []
    for total in range(50):
        accumulator.total = total
        futures.append(pool.submit(accumulator, 0))
    assert [future.result() for future in futures] == list(range(50))


def test_functions_of_every_kind(pool: treadle.Executor) -> None:
    assert pool.submit(len, "abc").result() == 3
    assert pool.submit(str.upper, "abc").result() == "ABC"
    assert pool.submit("abc".upper).result() == "ABC"
    assert pool.submit(int, "12").result() == 12
    assert pool.submit(functools.partial(calls.add, 1, third=5), 2).result() == 8
    assert pool.submit(operator.attrgetter("real"), 3).result() == 3
    assert pool.submit(Accumulator.made, 4).result().total == 4
    assert pool.submit(Accumulator.plain, 4).result() == -4
    assert pool.submit(numpy.add, 1, 2).result() == 3


def test_a_lambda_or_closure_travels_with_cloudpickle_or_is_explained(
    pool: treadle.Executor,
) -> None:
    offset = 5

    def closure(value: int) -> int:
        return value + offset

    try:
        import cloudpickle  # noqa: F401
    except ImportError:
        for function in (closure, lambda value: value):
            with pytest.raises(treadle.PayloadError, match="cloudpickle") as caught:
                pool.submit(function, 1).result()
            assert isinstance(caught.value, pickle.PicklingError)
    else:
        assert pool.submit(closure, 1).result() == 6
        assert pool.submit(lambda value: value * 3, 2).result() == 6
        offset = 7
        assert pool.submit(closure, 1).result() == 8
        assert list(pool.map(lambda value: value + offset, range(3))) == [7, 8, 9]


# ---- what cannot travel


class Holder:
    def __init__(self, held: Any) -> None:
        self.inner = {"handles": [1, held]}


def test_an_argument_that_does_not_pickle_fails_one_future_and_names_the_path(
    pool: treadle.Executor,
) -> None:
    with open("/dev/null", "rb") as handle:
        good = [pool.submit(calls.double, k) for k in range(5)]
        bad = pool.submit(calls.give, Holder(handle))
        named = pool.submit(calls.keywords_of, config=Holder(handle))
        error = bad.exception()
        assert isinstance(error, treadle.PayloadError)
        assert isinstance(error, pickle.PicklingError)
        assert ".inner['handles'][1]" in str(error)
        assert "BufferedReader" in str(error)
        assert "config" in str(named.exception())
        assert [future.result() for future in good] == [0, 2, 4, 6, 8]


def open_handle(_: int = 0) -> Any:
    return Holder(open("/dev/null", "rb"))


def test_a_result_that_does_not_pickle_fails_one_future_and_names_the_path(
    pool: treadle.Executor,
) -> None:
    error = pool.submit(open_handle).exception()
    assert isinstance(error, treadle.PayloadError)
    assert ".inner['handles'][1]" in str(error)
    assert pool.submit(calls.double, 1).result() == 2


class Unreadable:
    """Pickles, and cannot be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return refuse, ()


def refuse() -> None:
    raise calls.Complaint("not rebuilt")


def make_unreadable() -> Unreadable:
    return Unreadable()


def test_what_cannot_be_unpickled_fails_one_future(pool: treadle.Executor) -> None:
    for future in (pool.submit(calls.give, Unreadable()), pool.submit(make_unreadable)):
        with pytest.raises(treadle.TreadleError, match="not rebuilt"):
            future.result()
    assert pool.submit(calls.double, 1).result() == 2


class Demanding(Exception):
    """Its arguments are not what ``args`` says: it pickles and cannot be unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class WithHandle(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.handle = open("/dev/null", "rb")  # noqa: SIM115  (kept open on purpose)


class WithoutText(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def raise_by_name(name: str) -> None:
    if name == "demanding":
        raise Demanding("one", "two")
    if name == "handle":
        raise WithHandle("has a handle")
    if name == "local":

        class Local(Exception):
            pass

        raise Local("from inside")
    raise WithoutText()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("demanding", "one and two"),
        ("handle", "has a handle"),
        ("local", "from inside"),
        ("without text", "WithoutText"),
    ],
)
def test_an_exception_that_does_not_travel_is_told(
    pool: treadle.Executor, name: str, told: str
) -> None:
    error = pool.submit(raise_by_name, name).exception()
    assert error is not None
    assert told in f"{type(error).__name__}{calls_text(error)}"
    assert "raise_by_name" in str(error.__cause__)
    assert pool.submit(calls.double, 1).result() == 2


def calls_text(error: BaseException) -> str:
    try:
        return str(error)
    except ValueError:
        return ""


def test_an_exception_of_a_chunk_that_does_not_travel(pool: treadle.Executor) -> None:
    results = pool.map(raise_by_name, ["demanding"] * 10, chunksize=10)
    with pytest.raises(Exception, match="one and two"):
        next(results)


class Endless:
    """Refers to itself."""

    def __init__(self) -> None:
        self.me = self


def test_circles_travel(pool: treadle.Executor) -> None:
    value: list[Any] = [1]
    value.append(value)
    result = pool.submit(calls.give, value).result()
    assert result[1] is result
    assert isinstance(pool.submit(calls.give, Endless()).result().me, Endless)


def test_a_value_too_deep_for_pickle_fails_one_future(pool: treadle.Executor) -> None:
    value: list[Any] = []
    for _ in range(200_000):
        value = [value]
    error = pool.submit(calls.give, value).exception()
    assert isinstance(error, (treadle.PayloadError, RecursionError))
    assert pool.submit(calls.double, 1).result() == 2
    while value:
        value = value.pop()
