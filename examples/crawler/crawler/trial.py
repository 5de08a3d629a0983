"""What `treadle compare` measures for the crawl: `visit` over ordinary and slow pages of a patient site.

    python -m crawler decide

starts that site and has the plan decided. The pages that fail are left out: a plan is chosen for its speed at work.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crawler.errors import CrawlError
from crawler.site import Site

FOLDER = Path(__file__).resolve().parents[1]
PORT = 8700
DECISION = "crawl"


def pages() -> list[str]:
    """The addresses of the pages of the site on `PORT` that a crawl stores at its first visit, host by host in turn."""
    site = Site()
    return [
        f"http://127.0.0.{host + 1}:{PORT}{site.path(page)}"
        for page in range(site.pages // site.hosts)
        for host in range(site.hosts)
        if site.nature(host, page).kind in ("ordinary", "slow")
    ]


@contextmanager
def running_site(*options: str) -> Iterator[str]:
    """Runs `python -m crawler site` with these options; gives the address of its first page.

    Raises:
        CrawlError: it did not start; it has said why on stderr.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "crawler", "site", *options],
        stdout=subprocess.PIPE,
        text=True,
        cwd=FOLDER,
    )
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address:
            raise CrawlError("the site did not start", "its message is above")
        yield address
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def decide(budget: float) -> int:
    """Compares the plans and keeps the decision in this folder; returns the exit code of `treadle compare`."""
    command = shutil.which("treadle", path=os.path.dirname(sys.executable)) or "treadle"
    with running_site("--port", str(PORT), "--patient"):
        return subprocess.run(
            [
                *(command, "compare", "crawler.visiting:visit"),
                *("--items", "crawler.trial:pages", "--budget", f"{budget:g}"),
                *("--target", "errors=0", "--save", DECISION),
            ],
            cwd=FOLDER,
            env=os.environ | {"PYTHONPATH": str(FOLDER)},
            check=False,
        ).returncode
