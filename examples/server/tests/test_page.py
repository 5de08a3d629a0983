"""The page in a real browser: it fits a telephone and a screen, and its buttons do what they say.

Needs Chromium; without it the test is skipped. The pictures in the README are those that it takes with TREADLE_PICTURES.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from pages import FAINT, WRONG, Tab, browse, browser

from live.measure import running_server, talking
from tests.test_server import TWO, WATCHDOG_S, busy_worker

pytestmark = pytest.mark.skipif(browser() is None, reason="there is no Chromium here")

SCHEDULE = ("-s", "1h=overview", "-s", "*/10 * * * *=forecast")
LONG = {"report": "forecast", "parameters": {"rounds": 20_000}}


#: Single words that are broken over two lines, as a long name may be and a button may not.
BROKEN = """[...document.querySelectorAll('button, td:not(.client), th, small, h2')]
  .filter(e => !e.children.length && e.getClientRects().length && /^\\S+$/.test(e.textContent))
  .filter(e => {
    const range = document.createRange();
    range.selectNodeContents(e);
    return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1;
  })
  .map(e => 'broken: ' + e.textContent)"""


async def until(tab: Tab, condition: str) -> None:
    """Waits until a JavaScript expression is true in the page."""
    while not await tab.evaluate(condition):
        await asyncio.sleep(0.05)


def test_the_page_fits_everywhere_and_its_buttons_work(tmp_path: Path) -> None:
    kept = os.environ.get("TREADLE_PICTURES")

    async def looks(tab: Tab, address: str, name: str) -> dict[str, Any]:
        """The page in windows of several widths: what is wrong with it."""
        wrong = {}
        for width, dark in ((360, False), (360, True), (760, False), (1200, False), (1200, True)):
            await tab.open(address, width=width, dark=dark)
            await until(tab, "document.querySelectorAll('#jobs button').length > 2")
            where = f"{name}-{width}-{'dark' if dark else 'light'}"
            if found := [
                word for look in (WRONG, FAINT, BROKEN) for word in await tab.evaluate(look)
            ]:
                wrong[where] = found
            if kept:
                Path(kept, f"{where}.png").write_bytes(await tab.picture())
        return wrong

    async def visit(tab: Tab, address: str) -> None:
        async with talking(address, "ann") as ann, talking(address, "page") as page:
            await page.ask("watch")
            done = (await ann.ask("submit", report="overview"))["job"]
            await ann.event("done", job=done)
            ended = (await ann.ask("submit", **LONG))["job"]
            await ann.ask("cancel", job=ended)
            first = (await ann.ask("submit", report="forecast"))["job"]
            # One that was tried twice, with the reason.
            os.kill(await busy_worker(page, first), signal.SIGKILL)
            await ann.event("waiting", job=first)
            async with talking(
                address, "a-client-whose-name-is-as-long-as-the-server-lets-it"
            ) as bob:
                jobs = [(await one.ask("submit", **LONG))["job"] for one in (bob, ann, bob, ann)]
                wrong = await looks(tab, address, "page")
                assert not wrong, json.dumps(wrong, indent=1, ensure_ascii=False)

                # The button of a job that waits, then of one that runs.
                for job in (jobs[-1], jobs[0]):
                    await tab.evaluate(f"document.querySelector('[data-job=\"{job}\"]').click()")
                    owner = ann if job == jobs[-1] else bob
                    await owner.event("cancelled", job=job)

                # The form.
                await tab.evaluate("document.getElementById('report').value = 'overview'")
                await tab.evaluate("document.querySelector('button.first').click()")
                await until(tab, "/^job [0-9]+ is in the queue$/.test($('said').textContent)")
                number = await tab.evaluate("$('said').textContent.match(/[0-9]+/)[0]")
                for job in jobs[1:3]:
                    await (ann if job == jobs[1] else bob).ask("cancel", job=job)
                state = ""
                while state != "done":
                    state = (await page.ask("result", job=int(number)))["state"]
                    assert state in ("waiting", "running", "done")
                    await asyncio.sleep(0.05)

    program = browser()
    assert program is not None
    with running_server(tmp_path / "queue.sqlite", *TWO, *SCHEDULE) as (process, address):
        browse(program, lambda tab: asyncio.wait_for(visit(tab, address), 2 * WATCHDOG_S))
        # The page says so when the server is gone.

        async def alone(tab: Tab) -> None:
            await tab.open(address, width=1200)
            await until(tab, "/^Workers are idle/.test($('verdict').textContent)")
            process.send_signal(signal.SIGTERM)
            await until(tab, "/does not answer/.test($('verdict').textContent)")

        browse(program, lambda tab: asyncio.wait_for(alone(tab), WATCHDOG_S))
