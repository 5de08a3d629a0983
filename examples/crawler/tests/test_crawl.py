"""Whole crawls of a small site: the same result under every plan, after kill -9, and when something is in the way."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import treadle

from crawler import measure
from crawler.addresses import host_of
from crawler.crawl import Crawl, Settings
from crawler.errors import StoreError
from crawler.measure import LOCAL, log_of
from crawler.site import Site
from crawler.store import Store, open_store
from crawler.trial import FOLDER, running_site
from crawler.visiting import Unavailable, visit, visit_robots
from tests.conftest import SMALL

PLANS = [treadle.Plan(), treadle.Plan(threads=8), treadle.Plan(coroutines=40)]
QUICK = Settings(deadline=60, retries=6, backoff=0.05)


def port_of(address: str) -> int:
    return int(address.rstrip("/").rpartition(":")[2])


def expected(address: str) -> set[str]:
    """The addresses of the pages of the small site that a crawl stores."""
    port = port_of(address)
    return {
        f"http://127.0.0.{host + 1}:{port}{SMALL.path(page)}" for host, page in SMALL.storable()
    }


def logs(address: str) -> list[dict[str, Any]]:
    return [log_of(number, port_of(address)) for number in range(SMALL.hosts)]


def page_of_kind(kind: str) -> tuple[int, int]:
    site = Site(hosts=4, pages=2000, seed=3)
    return next((h, p) for p in range(1, 500) for h in range(4) if site.nature(h, p).kind == kind)


@pytest.fixture(scope="module")
def large_site() -> Iterator[int]:
    """The port of a site with pages of every kind."""
    options = ("--hosts", "4", "--pages", "2000", "--seed", "3", "--port", "0")
    with running_site(*options) as address:
        yield port_of(address)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_visit_is_the_same_under_every_plan(plan: treadle.Plan, large_site: int) -> None:
    def go(executor: treadle.Executor, kind: str, deadline: float = 10.0) -> Any:
        host, page = page_of_kind(kind)
        address = f"http://127.0.0.{host + 1}:{large_site}/page/{page}"
        return executor.submit(visit, address, deadline)

    with treadle.Executor(plan) as executor:
        page = go(executor, "ordinary").result()
        assert (page.state, page.status) == ("stored", 200)
        assert page.title.startswith("Page")
        assert page.links
        assert page.size > len(page.text) > 500
        assert go(executor, "missing").result().reason == "the server answered 404"
        assert go(executor, "moved").result().target.startswith("http://127.0.0.")
        assert go(executor, "picture").result().reason == "not a page: image/jpeg"
        for kind in ("hanging", "silent"):
            error = go(executor, kind, 0.5).exception()
            assert isinstance(error, Unavailable)
            assert str(error) == "no whole answer within 0.5 s"
        assert isinstance(go(executor, "cut").exception(), Unavailable)
        robots = executor.submit(visit_robots, f"http://127.0.0.1:{large_site}").result()
        assert "Disallow: /private/" in robots
        refused = executor.submit(visit, "http://127.0.0.1:1/").exception()
        assert isinstance(refused, Unavailable)


@pytest.mark.parametrize("plan", PLANS[1:], ids=str)
def test_no_page_is_lost_or_stored_twice(plan: treadle.Plan, store: Store, small_site: str) -> None:
    store.add([small_site])
    with treadle.Executor(plan) as executor:
        tally = Crawl(store, executor, lambda host: host.startswith("http://127."), QUICK).run()
    assert store.stored() == expected(small_site)
    assert tally.outcomes["stored"] == len(expected(small_site))
    assert tally.repeats == 0
    assert "waiting" not in store.counts()
    for log in logs(small_site):
        assert all(times == 1 for times in log["served"].values())
        assert not any("private" in path for path in log["asked"])
        assert log["asked"]["/robots.txt"] == 1


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_pages_that_never_come_are_given_up(
    plan: treadle.Plan, tmp_path: Path, large_site: int
) -> None:
    places = {kind: page_of_kind(kind) for kind in ("hanging", "silent", "cut", "missing")}
    addresses = {
        kind: f"http://127.0.0.{host + 1}:{large_site}/page/{page}"
        for kind, (host, page) in places.items()
    }
    with closing(open_store(str(tmp_path / "crawl.sqlite"))) as store:
        store.add(addresses.values())
        for host in {host_of(address) for address in addresses.values()}:
            store.keep_robots(host, "")
        settings = Settings(deadline=0.4, retries=1, backoff=0.01)
        with treadle.Executor(plan) as executor:
            tally = Crawl(store, executor, lambda host: False, settings).run()
        counts, failures = store.counts(), dict(store.failures())
    # What never comes fails whenever the deadline falls; what is missing might come late on a busy machine.
    for kind in ("hanging", "silent"):
        assert failures[addresses[kind]] == "no whole answer within 0.4 s"
    assert addresses["cut"] in failures
    assert counts["failed"] + counts.get("refused", 0) == 4
    assert tally.outcomes["again"] >= 3
    assert tally.outcomes["stored"] == 0


def test_a_killed_worker_costs_the_visit_that_it_was_at(tmp_path: Path) -> None:
    site = Site(hosts=2, pages=40, seed=3, endless=False)
    options = ("--hosts", "2", "--pages", "40", "--seed", "3", "--port", "0", "--no-endless")
    killed: list[int] = []

    def kill_one(outcomes: Counter[str], seconds: float) -> None:
        busy = [worker.ident for worker in executor.stats().workers if worker.state == "busy"]
        if busy and not killed:
            killed.append(busy[0])
            os.kill(busy[0], signal.SIGKILL)

    with running_site(*options) as address, closing(open_store(str(tmp_path / "x"))) as store:
        store.add([address])
        with treadle.Executor(processes=2) as executor:
            crawl = Crawl(store, executor, lambda host: host.startswith("http"), QUICK, kill_one)
            tally = crawl.run()
            deaths = executor.stats().worker_deaths
        stored = store.stored()
    assert killed
    assert deaths == 1
    assert len(stored) == len(site.storable())
    assert tally.repeats == 0


def test_serial_crawls_too(tmp_path: Path, small_site: str) -> None:
    store = open_store(str(tmp_path / "crawl.sqlite"))
    store.add([small_site])
    with treadle.Executor(treadle.Plan()) as executor:
        settings = QUICK._replace(max_pages=15)
        tally = Crawl(store, executor, lambda host: host.startswith("http://127."), settings).run()
    assert 0 < tally.outcomes["stored"] <= 15
    assert store.stored() <= expected(small_site)
    assert store.counts()["waiting"] > 0
    store.close()


def test_a_host_without_robots_is_left_alone(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        store = open_store(str(tmp_path / "crawl.sqlite"))
        store.add([address])
        with treadle.Executor(threads=2) as executor:
            Crawl(store, executor, lambda host: True, QUICK._replace(backoff=0.01)).run()
    assert store.counts() == {"refused": 1, "links": 0}
    assert store._read("SELECT reason FROM pages") == [("robots.txt forbids it",)]
    store.close()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "crawler", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=FOLDER, capture_output=True, text=True, check=False
    )


QUICK_OPTIONS = ("--deadline", "60", "--retries", "6", "--backoff", "0.05", "--hosts", LOCAL)


def stored(place: str) -> set[str]:
    """What a store holds; nothing while it is not made."""
    try:
        reader = open_store(place, crawling=False)
    except StoreError:
        return set()
    try:
        return reader.stored()
    except StoreError:
        return set()
    finally:
        reader.close()


def test_kill_9_costs_no_page_and_fetches_none_again(place: str, small_site: str) -> None:
    crawl = ("crawl", small_site, "--store", place, "--plan", "threads=8", *QUICK_OPTIONS)
    before: set[str] = set()
    for wanted in (20, 60):
        process = subprocess.Popen(command(*crawl), cwd=FOLDER, stderr=subprocess.PIPE)
        # The crawl makes the store before it asks for the first page. On a busy machine it may end before it is killed.
        while len(before) < wanted and process.poll() is None:
            before = stored(place)
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        _out, said = process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0), said
        before = stored(place)
        served = {
            f"http://127.0.0.{number + 1}:{port_of(small_site)}{path}": times
            for number, log in enumerate(logs(small_site))
            for path, times in log["served"].items()
        }
    done = run(*crawl, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["repeats"] == 0
    assert result["outcomes"].get("stored", 0) == len(expected(small_site)) - len(before)
    after = {
        f"http://127.0.0.{number + 1}:{port_of(small_site)}{path}": times
        for number, log in enumerate(logs(small_site))
        for path, times in log["served"].items()
    }
    assert [page for page in before if after[page] != served[page]] == []
    reader = open_store(place, crawling=False)
    assert reader.stored() == expected(small_site)
    assert "waiting" not in reader.counts()
    reader.close()


def test_ctrl_c_stores_what_has_come(tmp_path: Path) -> None:
    place = str(tmp_path / "crawl.sqlite")
    options = ("--store", place, "--plan", "coroutines=20", *QUICK_OPTIONS)
    # A site so large that its rate keeps the crawl busy for a minute.
    with running_site("--hosts", "2", "--pages", "3000", "--port", "0", "--no-endless") as address:
        process = subprocess.Popen(
            command("crawl", address, *options), cwd=FOLDER, stderr=subprocess.PIPE, text=True
        )
        while sum(log_of(0, port_of(address))["served"].values()) < 5:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _out, said = process.communicate()
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "stopped; the same command goes on from here"
    reader = open_store(place, crawling=False)
    assert reader.counts()["stored"] >= 1
    reader.close()


def test_the_command_tells_what_is_wrong(tmp_path: Path) -> None:
    wrong = run("crawl", "http://127.0.0.1:1/", "--store", "postgresql://me:secret@127.0.0.1:1/db")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: cannot connect to postgresql://me:…@127.0.0.1:1/db")
    assert "\nhint: " in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert "secret" not in wrong.stderr

    wrong = run("crawl", "not an address", "--store", str(tmp_path / "x.sqlite"))
    assert "error: not an address is no address of a page" in wrong.stderr
    assert not (tmp_path / "x.sqlite").exists()

    options = ("--store", str(tmp_path / "y.sqlite"), "--decisions", str(tmp_path))
    wrong = run("crawl", "http://127.0.0.1:1/", *options)
    assert wrong.returncode == 1
    assert "treadle.toml" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert not (tmp_path / "y.sqlite").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("crawl", "http://127.0.0.1:1/", "--plan", "many"), "is not decided, serial, threads=N"),
        (("crawl", "http://127.0.0.1:1/", "--plan", "threads=0"), "threads must be"),
        (("crawl", "http://127.0.0.1:1/", "--plan", "fibres=3"), "a plan has no fibres"),
        (("crawl", "http://127.0.0.1:1/", "--hosts", "("), "'(' is no pattern"),
        (("crawl", "http://127.0.0.1:1/", "--deadline", "0"), "0 is not above 0"),
        (("site", "--port", "70000"), "70000 is no port"),
    ],
)
def test_wrong_arguments_are_told(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    wrong = run(*arguments, *(("--store", str(tmp_path / "x")) if "crawl" in arguments else ()))
    assert wrong.returncode == 2
    assert said in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert not list(tmp_path.iterdir())


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        wrong = run("site", "--port", port)
    assert wrong.returncode == 1
    assert f"error: cannot listen on 127.0.0.1:{port}: " in wrong.stderr
    assert "Address already in use\nhint: another program has the port" in wrong.stderr


def test_the_decided_plan_runs(tmp_path: Path, small_site: str) -> None:
    options = ("--store", str(tmp_path / "crawl.sqlite"), "--max-pages", "5", *QUICK_OPTIONS)
    done = run("crawl", small_site, *options, "--json")
    assert done.returncode == 0, done.stderr
    decided = treadle.Executor.decided("crawl", FOLDER)
    assert json.loads(done.stdout)["plan"] == str(decided.plan)
    decided.shutdown()


def test_the_site_limits_who_asks_too_fast(small_site: str) -> None:
    answers = []
    for _request in range(40):
        request = urllib.request.Request(small_site + "page/99999")
        try:
            urllib.request.urlopen(request).close()
        except urllib.error.HTTPError as error:
            answers.append(error.code)
            error.close()
    assert set(answers) == {404}  # what does not exist costs the site nothing
    with treadle.Executor(coroutines=200) as executor:
        calls = [executor.submit(visit, small_site) for _request in range(200)]
        errors = [call.exception() for call in calls]
    crowded = [error for error in errors if isinstance(error, Unavailable) and error.crowded]
    assert crowded
    assert crowded[0].wait == 1.0


def test_the_measurement_tells_what_was_possible_and_what_was_lost() -> None:
    crawl = {
        "concurrency": 1,
        "visits": 60,
        "outcomes": {"stored": 50},
        "stored_s": 12.0,
        "visits_per_s": 5.0,
        "peak_rss_bytes": 50 * 2**20,
    }
    logs = [{"served": {"/": 1}, "crowded": 2}]
    serial = measure.Result("serial", "SQLite", crawl, logs, False, 9, 0)
    few = serial._replace(
        plan="threads=10", crawl=crawl | {"concurrency": 10, "visits_per_s": 49.0}
    )
    many = few._replace(crawl=crawl | {"concurrency": 50, "visits_per_s": 190.0})
    told = measure.table([serial, few, many._replace(plan="threads=50", whole=True)], Site())
    assert "so 200 in all. One visit at a time makes 5.0 a second" in told
    assert "| serial | SQLite | 60 | 50 | 12.0 s | 5 | 1.0 | 1.0 | 50 MiB |  |  |" in told
    assert "| 49 | 9.8 | 10.0 | 50 MiB |  |  |" in told
    assert "| 190 | 38.0 | 40.0 | 50 MiB | 9 | 0 |" in told
    assert "The hosts answered 6 times" in told
