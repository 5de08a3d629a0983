"""joblib's backend "treadle", and scikit-learn on it."""

from __future__ import annotations

import glob
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import treadle

joblib = pytest.importorskip("joblib", reason="joblib is not installed")
numpy = pytest.importorskip("numpy", reason="numpy is not installed")

from joblib import Parallel, delayed, parallel_config  # noqa: E402
from treadle.integrations.joblib import TreadleBackend  # noqa: E402

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def two() -> Iterator[None]:
    """Two processes of treadle's."""
    with parallel_config(backend="treadle", n_jobs=2):
        yield


def mapped_files() -> list[str]:
    return glob.glob(f"/dev/shm/treadle-joblib-{os.getpid()}-*")


def double_in(value: int) -> tuple[int, int]:
    return value * 2, os.getpid()


def complain_at(bad: int, value: int) -> int:
    if value == bad:
        raise LookupError(f"{value} is bad")
    return value


def about(array: Any, row: int) -> tuple[float, str, bool]:
    return float(array[row].sum()), type(array).__name__, bool(array.flags.writeable)


def test_batches_run_in_worker_processes_in_order(two: None) -> None:
    results = Parallel()(delayed(double_in)(number) for number in range(500))
    assert [value for value, _ in results] == list(range(0, 1000, 2))
    processes = {process for _, process in results}
    assert os.getpid() not in processes
    assert len(processes) <= 2
    # The next call finds the same pool.
    again = Parallel()(delayed(double_in)(number) for number in range(50))
    assert {process for _, process in again} <= processes


def test_what_is_by_value_and_generators(two: None) -> None:
    outside = 3
    assert Parallel()(delayed(lambda value: value + outside)(k) for k in range(4)) == [3, 4, 5, 6]
    told = Parallel(return_as="generator")(delayed(abs)(-k) for k in range(20))
    assert next(told) == 0
    assert list(told) == list(range(1, 20))
    told = Parallel(return_as="generator_unordered")(delayed(abs)(-k) for k in range(20))
    assert sorted(told) == list(range(20))


def test_an_exception_arrives_as_itself_and_the_pool_goes_on(two: None) -> None:
    with pytest.raises(LookupError, match="7 is bad") as caught:
        Parallel()(delayed(complain_at)(7, number) for number in range(100))
    assert "in complain_at" in str(caught.value.__cause__)
    assert Parallel()(delayed(abs)(-k) for k in range(5)) == list(range(5))


def test_a_call_over_its_time_is_stopped(two: None) -> None:
    with pytest.raises(multiprocessing.TimeoutError):
        Parallel(timeout=0.5)(delayed(time.sleep)(seconds) for seconds in (0, 600))
    assert Parallel()(delayed(abs)(-k) for k in range(5)) == list(range(5))


def test_large_arrays_are_mapped_once_and_leave_nothing(two: None) -> None:
    array = numpy.random.default_rng(0).random((300, 1000))
    told = Parallel()(delayed(about)(array, row) for row in range(300))
    assert numpy.allclose([total for total, *_ in told], array.sum(axis=1))
    assert {kind for _, kind, _ in told} == {"memmap"}
    assert not any(writeable for *_, writeable in told)
    assert mapped_files() == []
    # What changed between two calls is seen by the second.
    array[0] = 0
    assert Parallel()([delayed(about)(array, 0)])[0][0] == 0
    ordered = numpy.asfortranarray(array)
    (layout,) = Parallel()([delayed(layout_of)(ordered)])
    assert layout == (False, True)
    (small,) = Parallel()([delayed(about)(array[:2], 0)])
    assert small[1] == "ndarray"
    assert {kind for _, kind, _ in Parallel(max_nbytes=None)([delayed(about)(array, 0)])} == {
        "ndarray"
    }


def layout_of(array: Any) -> tuple[bool, bool]:
    return array.flags.c_contiguous, array.flags.f_contiguous


def nested(number: int) -> tuple[list[int], str, str]:
    inner = Parallel(n_jobs=2)
    inside = Parallel(n_jobs=2)(delayed(lowest_backend)() for _ in range(2))
    return (
        inner(delayed(abs)(-k) for k in range(number)),
        type(inner._backend).__name__,
        inside[0],
    )


def lowest_backend() -> str:
    return type(Parallel(n_jobs=2)._backend).__name__


def test_nested_calls_use_threads_then_nothing(two: None) -> None:
    told = Parallel()(delayed(nested)(number) for number in range(4))
    assert [values for values, *_ in told] == [list(range(number)) for number in range(4)]
    assert {names for _, *names in map(tuple, told) for names in [tuple(names)]} == {
        ("ThreadingBackend", "SequentialBackend")
    }


def nested_in_treadle() -> tuple[list[int], int]:
    with parallel_config(backend="treadle", n_jobs=-1):
        inner = Parallel()
        return inner(delayed(abs)(-k) for k in range(4)), inner._effective_n_jobs()


def test_a_worker_has_its_share_of_the_cores(two: None) -> None:
    cores = int(treadle.usable_cores())
    for values, jobs in Parallel()(delayed(nested_in_treadle)() for _ in range(2)):
        assert values == [0, 1, 2, 3]
        assert jobs == max(1, cores // 2)


def native_threads() -> list[int]:
    numpy.dot(numpy.ones((2, 2)), numpy.ones((2, 2)))
    import threadpoolctl

    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]


def test_native_threads_are_limited() -> None:
    pytest.importorskip("threadpoolctl")
    with parallel_config(backend="treadle", n_jobs=2):
        limit = max(1, int(treadle.usable_cores()) // 2)
        for threads in Parallel()(delayed(native_threads)() for _ in range(2)):
            assert threads
            assert set(threads) == {limit}
    with parallel_config(backend="treadle", n_jobs=2, inner_max_num_threads=2):
        for threads in Parallel()(delayed(native_threads)() for _ in range(2)):
            assert set(threads) == {min(2, os.cpu_count() or 1)}


def test_an_executor_of_the_users_own() -> None:
    with treadle.Executor(processes=2) as pool:
        with parallel_config(backend="treadle", executor=pool):
            assert Parallel()(delayed(abs)(-k) for k in range(5)) == list(range(5))
        assert pool.stats().completed > 0
        assert pool.submit(abs, -1).result() == 1
    with treadle.Executor(threads=3) as pool, parallel_config(backend="treadle", executor=pool):
        mine = threading.Lock()  # threads need no pickle
        told = Parallel(require="sharedmem")(delayed(holds)(mine) for _ in range(9))
        assert told == [True] * 9
    with parallel_config(backend="treadle", plan=treadle.Plan(threads=2)):
        assert Parallel()(delayed(os.getpid)() for _ in range(2)) == [os.getpid()] * 2


def holds(lock: Any) -> bool:
    with lock:
        return lock.locked()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(treadle.PlanError, match="threads or processes"):
        TreadleBackend(plan=treadle.Plan(coroutines=3))
    with treadle.Executor(threads=1, max_pending=2) as pool:
        with pytest.raises(treadle.PlanError, match="max_pending"):
            TreadleBackend(executor=pool)
        with pytest.raises(treadle.PlanError, match="not both"):
            TreadleBackend(executor=pool, plan=treadle.Plan(threads=2))
    with treadle.Executor(threads=1) as pool, pytest.raises(treadle.PlanError, match="native"):
        TreadleBackend(executor=pool, inner_max_num_threads=2)
    with pytest.raises(ValueError, match="n_jobs == 0"):
        Parallel(n_jobs=0, backend="treadle")([delayed(abs)(1)])
    with parallel_config(backend="treadle", n_jobs=2):
        for before in (0, 30):
            # The first is found where joblib is called, the second in a callback, where nobody hears what is raised.
            tasks = [delayed(str)(k) for k in range(before)]
            with pytest.raises(treadle.PayloadError, match="lock"):
                Parallel(batch_size=1)([*tasks, delayed(str)(threading.Lock())])


def test_a_missing_joblib_names_the_extra() -> None:
    program = "import sys; sys.modules['joblib'] = None; import treadle.integrations.joblib"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'treadle[joblib]'" in told.stderr


# ---- scikit-learn


@pytest.fixture(scope="module")
def data() -> tuple[Any, Any]:
    """2,000 rows of 100 columns: 1.6 MB, above the size from which arrays are mapped."""
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    made: tuple[Any, Any] = datasets.make_classification(2000, 100, random_state=0)
    return made


def forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(10, max_depth=6, random_state=1)


def on_both(work: Any) -> tuple[Any, Any]:
    """What the work gives on loky and on treadle."""
    told = []
    for backend in ("loky", "treadle"):
        with parallel_config(backend=backend, n_jobs=2):
            told.append(work())
    return told[0], told[1]


def test_a_grid_search_gives_what_loky_gives(data: tuple[Any, Any]) -> None:
    from sklearn.model_selection import GridSearchCV

    def search() -> Any:
        return GridSearchCV(forest(), {"max_depth": [2, 5]}, cv=3).fit(*data)

    loky, ours = on_both(search)
    assert ours.best_params_ == loky.best_params_
    for name in ("mean_test_score", "std_test_score", "rank_test_score"):
        assert numpy.array_equal(ours.cv_results_[name], loky.cv_results_[name])
    assert numpy.array_equal(ours.predict_proba(data[0]), loky.predict_proba(data[0]))


def test_a_forest_gives_what_loky_gives(data: tuple[Any, Any]) -> None:
    def fit() -> Any:
        made = forest().fit(*data)
        # In threads, for which scikit-learn asks itself; their sum depends on their order in the last bit.
        return made, made.predict_proba(data[0])

    (loky, loky_told), (ours, told) = on_both(fit)
    assert numpy.allclose(told, loky_told, rtol=1e-12)
    # Here, in one thread, to the last bit.
    assert numpy.array_equal(ours.predict_proba(data[0]), loky.predict_proba(data[0]))


def test_cross_validation_gives_what_loky_gives(data: tuple[Any, Any]) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    loky, ours = on_both(lambda: cross_val_score(LogisticRegression(max_iter=500), *data, cv=5))
    assert numpy.array_equal(loky, ours)


def test_an_error_of_a_fit_is_told(data: tuple[Any, Any]) -> None:
    from sklearn.model_selection import cross_val_score

    wrong = forest().set_params(max_depth=-1)
    with (
        parallel_config(backend="treadle", n_jobs=2),
        pytest.raises(ValueError, match="max_depth"),
    ):
        cross_val_score(wrong, *data, cv=3, error_score="raise")
