"""The command: `python -m crawler {crawl,status,site,decide,measure}`."""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import treadle

from crawler import measure, site, trial
from crawler.addresses import host_of, normal
from crawler.crawl import Crawl, Settings
from crawler.errors import CrawlError
from crawler.store import open_store


def plan_of(text: str) -> treadle.Plan | None:
    """A plan as it is written on the command line; None for the decided one."""
    if text == "decided":
        return None
    try:
        sizes = [part.partition("=") for part in text.split(",") if text != "serial"]
        return treadle.Plan.from_mapping({name.strip(): int(size) for name, _, size in sizes})
    except treadle.PlanError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not decided, serial, threads=N, coroutines=N or processes=N,coroutines=N"
        ) from error


def pattern_of(text: str) -> re.Pattern[str]:
    """A regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no pattern: {error}") from error


def port_of(text: str) -> int:
    """A number of a port."""
    number = int(text)
    if not 0 <= number < 2**16:
        raise argparse.ArgumentTypeError(f"{text} is no port; there are 1 to 65535")
    return number


class Progress:
    """A line about the crawl on stderr: each second in a terminal, each ten seconds in a log."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._next = 0.0

    def show(self, outcomes: Counter[str], seconds: float) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (1 if self._terminal else 10)
        told = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
        rate = outcomes["stored"] / seconds if seconds else 0
        line = f"{seconds:6.1f} s  {rate:5.1f} pages/s  {told}"
        print(f"\r\x1b[K{line}" if self._terminal else line, end="", file=sys.stderr)
        print(end="" if self._terminal else "\n", file=sys.stderr, flush=True)


def crawl(options: argparse.Namespace) -> None:
    """Crawls from the seeds, or goes on with what waits in the store."""
    seeds = []
    for seed in options.seeds:
        address = normal(seed)
        if address is None:
            raise CrawlError(
                f"{seed} is no address of a page", "write http://host/ or https://host/"
            )
        seeds.append(address)
    settings = Settings(
        deadline=options.deadline,
        retries=options.retries,
        backoff=options.backoff,
        rate=options.rate,
        max_pages=options.max_pages,
    )
    # The plan before the store: a wrong one leaves no file behind.
    if options.plan is None:
        executor = treadle.Executor.decided(trial.DECISION, options.decisions)
    else:
        executor = treadle.Executor(options.plan)
    with executor, closing(open_store(options.store)) as store:
        store.add(seeds)
        seeded = {host_of(seed) for seed in seeds} or set(store.waiting_hosts())

        def allowed(host: str) -> bool:
            return options.hosts.search(host) is not None if options.hosts else host in seeded

        tally = Crawl(store, executor, allowed, settings, Progress().show).run()
        counts = store.counts()
        failures = store.failures()
        memory = memory_of(executor)
    if options.json:
        result = {
            "plan": str(executor.plan),
            "concurrency": executor.plan.concurrency,
            "seconds": tally.seconds,
            "stored_s": tally.stored_seconds,
            "visits": tally.stored_visits,
            "visits_per_s": tally.stored_visits / max(tally.stored_seconds, 1e-9),
            "pages_per_s": tally.pages_per_second,
            "outcomes": dict(tally.outcomes),
            "repeats": tally.repeats,
            "store": counts,
            "peak_rss_bytes": memory,
        }
        print(json.dumps(result))
        return
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(
        f"{tally.outcomes['stored']} pages stored in {tally.seconds:.1f} s"
        f" ({tally.pages_per_second:.1f} a second) under {executor.plan}"
    )
    show(counts)
    for address, reason in failures:
        print(f"  given up: {address}: {reason}")


def memory_of(executor: treadle.Executor) -> int:
    """The most bytes that this process had in memory, and what each worker process has now."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if executor.plan.processes is None:
        return own
    return own + sum(worker.memory_bytes or 0 for worker in executor.stats().workers)


def show(counts: dict[str, int]) -> None:
    """What a store holds, on stdout."""
    for name in ("stored", "redirected", "refused", "failed", "waiting", "links"):
        print(f"  {name:10} {counts.get(name, 0):8,}")


def status(options: argparse.Namespace) -> None:
    """What a store holds; works while a crawl runs."""
    with closing(open_store(options.store, crawling=False)) as store:
        show(store.counts())


def positive(text: str) -> float:
    """A number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def parser() -> argparse.ArgumentParser:
    """All that can be said on the command line."""
    whole = argparse.ArgumentParser(prog="python -m crawler", description=__doc__)
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB")
    store = argparse.ArgumentParser(add_help=False)
    store.add_argument("--store", default="crawl.sqlite", metavar="FILE|DSN")

    one = verbs.add_parser("crawl", parents=[store], help="crawl, or go on with a crawl")
    one.add_argument("seeds", nargs="*", metavar="ADDRESS", help="where to begin")
    one.add_argument(
        "--hosts", type=pattern_of, metavar="REGEX", help="hosts to follow; those of the seeds"
    )
    one.add_argument(
        "--plan", type=plan_of, default="decided", help="decided, serial, threads=N, …"
    )
    one.add_argument("--decisions", type=Path, default=trial.FOLDER, help=argparse.SUPPRESS)
    one.add_argument("--deadline", type=positive, default=5.0, help="seconds for a page (5)")
    one.add_argument("--retries", type=int, default=4, help="repeats of a failed visit (4)")
    one.add_argument("--backoff", type=positive, default=0.5, help="seconds before the first (0.5)")
    one.add_argument("--rate", type=positive, default=50.0, help="requests a second and host (50)")
    one.add_argument("--max-pages", type=int, metavar="N", help="end after so many visits")
    one.add_argument("--json", action="store_true", help="the result as JSON")
    one.set_defaults(run=crawl)

    one = verbs.add_parser("status", parents=[store], help="what a store holds")
    one.set_defaults(run=status)

    one = verbs.add_parser("site", help="the site that is crawled here")
    one.add_argument("--port", type=port_of, default=8700, help="8700; 0 finds a free one")
    one.add_argument("--hosts", type=int, default=8, choices=range(1, 255), metavar="N")
    one.add_argument("--pages", type=int, default=3000, metavar="N")
    one.add_argument("--seed", type=int, default=5, metavar="N")
    one.add_argument("--patient", action="store_true", help="answers late instead of 429")
    one.add_argument(
        "--endless",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="pages that never end or never begin (there are some)",
    )
    one.set_defaults(run=site.main)

    one = verbs.add_parser("decide", help="have treadle compare the plans, and keep the decision")
    one.add_argument("--budget", type=positive, default=60.0, metavar="SECONDS")
    one.set_defaults(run=lambda options: trial.decide(options.budget))

    one = verbs.add_parser("measure", help="crawl the site under several plans; print the table")
    one.add_argument("--pages", type=int, default=2000, metavar="N")
    one.add_argument("--short", action="store_true", help="few pages, two plans")
    one.add_argument("--store", metavar="DSN", help="a PostgreSQL to measure too; it is emptied")
    one.set_defaults(run=measure.main)
    return whole


def main() -> int:
    """Runs a verb; turns what went wrong into one message and an exit code."""
    options = parser().parse_args()
    if options.verb == "crawl" and options.plan == "decided":
        options.plan = None
    try:
        return options.run(options) or 0
    except (CrawlError, treadle.TreadleError) as error:
        print(f"error: {error}", file=sys.stderr)
        hint = getattr(error, "hint", "")
        if hint:
            print(f"hint: {hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
