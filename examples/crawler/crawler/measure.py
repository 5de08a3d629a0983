"""The measurement: the same crawl under several plans, each in a process and against a site of its own.

    python -m crawler measure

prints the table that the README shows. Every crawl but the serial one is checked: each page that the site can serve is in
the store, and the site served none of them twice.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
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
    missing: int  # pages that are not in the store although the site can serve them
    twice: int  # pages that the site served more than once


def crawl_once(plan: str, site: Site, place: str, max_pages: int | None = None) -> Result:
    """Crawls a fresh site of this size into an empty store at `place`."""
    sizes = ("--hosts", site.hosts, "--pages", site.pages, "--seed", site.seed, "--port", 0)
    with trial.running_site(*map(str, sizes)) as address:
        command = [sys.executable, "-m", "crawler", "crawl", address, "--hosts", LOCAL]
        command += ["--deadline", "3", "--retries", "3", "--backoff", "0.25"]
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
    store = open_store(place, crawling=False)
    try:
        missing = len(expected - store.stored())
    finally:
        store.close()
    twice = sum(times > 1 for log in logs for times in log["served"].values())
    kind = "PostgreSQL" if "://" in place else "SQLite"
    return Result(plan, kind, json.loads(done.stdout), logs, missing, twice)


def log_of(number: int, port: int) -> dict[str, Any]:
    """What a host of the site counted."""
    with urllib.request.urlopen(f"http://127.0.0.{number + 1}:{port}/-/log", timeout=10) as answer:
        log: dict[str, Any] = json.load(answer)
        return log


def empty(dsn: str) -> None:
    """Removes a former crawl from a PostgreSQL database."""
    store = open_store(dsn)
    try:
        store._run("TRUNCATE pages, links, hosts")
    finally:
        store.close()


def table(results: list[Result], site: Site) -> str:
    """The results in Markdown."""
    serial = next((r.crawl["pages_per_s"] for r in results if r.plan == "serial"), None)
    lines = [
        f"The site: {site.hosts} hosts, {RATE} requests a second each, so {site.hosts * RATE} a second at most.",
        "",
        "| plan | store | pages stored | last page after | all done after | visits/s | pages/s | x serial | peak memory | lost | twice | 429 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        crawl = result.crawl
        times = f"{crawl['pages_per_s'] / serial:.1f}" if serial else ""
        partly = "not asked" if result.plan == "serial" else str(result.missing)
        lines.append(
            f"| {result.plan} | {result.store} | {crawl['outcomes'].get('stored', 0):,} | {crawl['stored_s']:.1f} s | {crawl['seconds']:.1f} s"
            f" | {crawl['visits_per_s']:.0f} | {crawl['pages_per_s']:.1f} | {times} | {crawl['peak_rss_bytes'] / 2**20:.0f} MiB"
            f" | {partly} | {result.twice} | {sum(log['crowded'] for log in result.logs)} |"
        )
    return "\n".join(lines)


def main(options: argparse.Namespace) -> int:
    """`python -m crawler measure`: the table on stdout; exit code 1 if a page was lost or served twice."""
    site = Site(pages=240 if options.short else options.pages)
    plans = ["threads=50"] if options.short else ["threads=50", "threads=100", "coroutines=100"]
    results = []
    with tempfile.TemporaryDirectory(prefix="crawler-") as folder:
        sample = 20 if options.short else 120
        print(f"serial, the first {sample} visits", file=sys.stderr)
        results.append(crawl_once("serial", site, str(Path(folder) / "serial.sqlite"), sample))
        for plan in plans:
            print(plan, file=sys.stderr)
            results.append(crawl_once(plan, site, str(Path(folder) / f"{plan}.sqlite")))
        if options.store:
            print(f"{plans[0]} into PostgreSQL", file=sys.stderr)
            empty(options.store)
            results.append(crawl_once(plans[0], site, options.store))
    print(table(results, site))
    whole = results[1:]
    return int(any(result.missing or result.twice for result in whole))
