"""The measurement: the same crawl under several plans, each in a process and against a site of its own.

    python -m crawler measure

prints the table that the README shows. The first crawls are samples, ended after some visits: one visit at a time, and so
few at once that the plan is the bound and not the site. The others are whole, and checked: each page that the site can
serve is in the store, and the site served none of them twice.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from crawler import trial
from crawler.errors import CrawlError
from crawler.site import RATE, Site
from crawler.store import open_store

LOCAL = r"^http://127\.0\.0\.\d+:\d+$"


class Result(NamedTuple):
    """A crawl and what the site and the store say of it."""

    plan: str
    store: str
    crawl: dict[str, Any]
    logs: list[dict[str, Any]]  # of each host
    whole: bool  # whether it was let go on to the end
    missing: int  # pages that are not in the store although the site can serve them
    twice: int  # pages that the site served more than once


def crawl_once(
    plan: str, site: Site, place: str, deadline: float, max_pages: int | None = None
) -> Result:
    """Crawls a fresh site of this size into an empty store at `place`."""
    sizes = ["--hosts", site.hosts, "--pages", site.pages, "--seed", site.seed, "--port", 0]
    sizes += [] if site.endless else ["--no-endless"]
    with trial.running_site(*map(str, sizes)) as address:
        command = [sys.executable, "-m", "crawler", "crawl", address, "--hosts", LOCAL]
        command += ["--deadline", f"{deadline:g}", "--retries", "3", "--backoff", "0.25"]
        command += ["--plan", plan, "--store", place, "--json"]
        command += ["--max-pages", str(max_pages)] if max_pages else []
        done = subprocess.run(
            command, cwd=trial.FOLDER, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode != 0:
            raise CrawlError(f"the crawl under {plan} failed", "its message is above")
        port = int(address.rstrip("/").rpartition(":")[2])
        logs = [log_of(number, port) for number in range(site.hosts)]
    expected = {
        f"http://127.0.0.{host + 1}:{port}{site.path(page)}" for host, page in site.storable()
    }
    with closing(open_store(place, crawling=False)) as store:
        missing = len(expected - store.stored())
    twice = sum(times > 1 for log in logs for times in log["served"].values())
    kind = "PostgreSQL" if "://" in place else "SQLite"
    return Result(plan, kind, json.loads(done.stdout), logs, max_pages is None, missing, twice)


def log_of(number: int, port: int) -> dict[str, Any]:
    """What a host of the site counted."""
    with urllib.request.urlopen(f"http://127.0.0.{number + 1}:{port}/-/log", timeout=10) as answer:
        log: dict[str, Any] = json.load(answer)
        return log


def empty(dsn: str) -> None:
    """Removes a former crawl from a PostgreSQL database."""
    with closing(open_store(dsn)) as store:
        store._run("TRUNCATE pages, links, hosts")


def table(results: list[Result], site: Site) -> str:
    """The results in Markdown; the first is the serial one."""
    limit = site.hosts * RATE
    serial = results[0].crawl["visits_per_s"]
    lines = [
        f"The site: {site.pages:,} pages on {site.hosts} hosts, each of which allows {RATE} visits a second, so {limit} in"
        f" all. One visit at a time makes {serial:.1f} a second, so n at once can make at most n times that, and"
        f" {limit / serial:.0f} times is the site's own limit.",
        "",
        "| plan | store | visits | pages stored | last page after | visits/s | x serial | possible | peak memory | lost | twice |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        crawl = result.crawl
        times = crawl["visits_per_s"] / serial
        possible = min(crawl["concurrency"], limit / serial)
        lost, twice = (result.missing, result.twice) if result.whole else ("", "")
        lines.append(
            f"| {result.plan} | {result.store} | {crawl['visits']:,} | {crawl['outcomes'].get('stored', 0):,}"
            f" | {crawl['stored_s']:.1f} s | {crawl['visits_per_s']:.0f} | {times:.1f} | {possible:.1f}"
            f" | {crawl['peak_rss_bytes'] / 2**20:.0f} MiB | {lost} | {twice} |"
        )
    crowded = sum(log["crowded"] for result in results for log in result.logs)
    lines += ["", f"The hosts answered {crowded} times that they were asked too fast (429)."]
    return "\n".join(lines)


def main(options: argparse.Namespace) -> int:
    """`python -m crawler measure`: the table on stdout; exit code 1 if a page was lost or served twice."""
    # In short form nothing hangs, and no deadline is near: a slow machine makes no difference to what is found.
    site = Site(pages=160, endless=False) if options.short else Site(pages=options.pages)
    deadline = 60.0 if options.short else 3.0
    samples = {"serial": 10} if options.short else {"serial": 120, "threads=10": 400}
    plans = ["threads=50", "coroutines=100"]
    plans += [] if options.short else ["threads=100"]
    results = []
    with tempfile.TemporaryDirectory(prefix="crawler-") as folder:

        def crawled(plan: str, place: str = "", max_pages: int | None = None) -> None:
            what = f"the first {max_pages} visits" if max_pages else "all pages"
            print(f"{plan}: {what}", file=sys.stderr)
            place = place or str(Path(folder) / f"{plan}.sqlite")
            results.append(crawl_once(plan, site, place, deadline, max_pages))

        for plan, visits in samples.items():
            crawled(plan, max_pages=visits)
        for plan in plans:
            crawled(plan)
        if options.store:
            empty(options.store)
            crawled(plans[0], options.store)
    print(table(results, site))
    return int(any(result.whole and (result.missing or result.twice) for result in results))
