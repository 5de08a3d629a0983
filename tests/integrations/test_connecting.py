"""How Executor(dask=…) and Executor(ray=…) find, start and leave a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import engine_calls as calls
import pytest
import treadle

#: Ray starts in seconds when the machine is busy; this only turns a hang into a failure.
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(("engine", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_engine_names_the_extra(engine: str, module: str) -> None:
    program = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "import treadle\n"
        "try:\n"
        f"    treadle.Executor({engine}='local')\n"
        "except treadle.PlanError as error:\n"
        "    print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert f"pip install 'treadle[{engine}]'" in told.stdout, told.stderr


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_a_local_cluster_lives_as_long_as_its_executor(engine: str, tmp_path: Path) -> None:
    pytest.importorskip({"dask": "distributed"}.get(engine, engine))
    program = tmp_path / "program.py"
    program.write_text(
        "import os, treadle\n"
        "def main():\n"
        f"    with treadle.Executor({engine}='local') as pool:\n"
        "        pid = pool.submit(os.getpid).result()\n"
        "        assert pid != os.getpid()\n"
        "        print(sum(pool.map(abs, range(100))), pid)\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )
    told = subprocess.run([sys.executable, str(program)], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    total, pid = told.stdout.split()
    assert total == "4950"
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize(("engine", "address"), [("dask", "tcp://127.0.0.1:9"), ("ray", "auto")])
def test_no_cluster_is_told(engine: str, address: str) -> None:
    pytest.importorskip({"dask": "distributed"}.get(engine, engine))
    program = (
        "import os, treadle\n"
        "os.environ['DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT'] = '1s'\n"
        "try:\n"
        f"    treadle.Executor({engine}={address!r})\n"
        "except treadle.PoolBroken as error:\n"
        "    print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert address in told.stdout, told.stderr
    assert f"{engine}='local'" in told.stdout


def test_a_dask_client_of_the_users_own() -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    with distributed.Client(processes=False, n_workers=1, dashboard_address=None) as client:
        with treadle.Executor(dask=client) as pool:
            assert pool.plan == treadle.Plan(dask=client.scheduler.address)
            assert pool.submit(calls.double, 2).result() == 4
            with treadle.Executor(dask=client) as second:
                # Each hears of its own calls.
                for other in (pool, second):
                    future = other.submit(calls.run_on)
                    while not future.running():
                        os.sched_yield()  # the worker's word is on its way
                    assert future.interrupt()
                    with pytest.raises(treadle.TaskInterrupted):
                        future.result()
            # A future of Dask's own arrives as its value.
            assert pool.submit(calls.double, client.submit(calls.double, 3)).result() == 12
        assert client.status == "running"
        assert client.submit(calls.double, 2).result() == 4
    with pytest.raises(treadle.PlanError, match="not connected"):
        treadle.Executor(dask=client)
    with pytest.raises(treadle.PlanError, match=r"distributed\.Client"):
        treadle.Executor(dask=5)


def test_a_lost_scheduler_fails_what_waits(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed")
    program = (
        "import sys, time\n"
        "from distributed import LocalCluster\n"
        "cluster = LocalCluster(processes=False, protocol='tcp', n_workers=1, dashboard_address=None)\n"
        "print(cluster.scheduler_address, flush=True)\n"
        "sys.stdin.read()\n"
    )
    cluster = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert cluster.stdout is not None
    with treadle.Executor(dask=cluster.stdout.readline().strip()) as pool:
        running = pool.submit(calls.run_on)
        waiting = pool.submit(calls.double, 1)
        while not running.running():
            os.sched_yield()  # the worker's word is on its way
        cluster.kill()
        cluster.wait()
        for future in (running, waiting):
            with pytest.raises(treadle.EngineLostTask, match="Dask lost the task"):
                future.result()
