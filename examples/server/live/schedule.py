"""Jobs that come by themselves: every so often, or by a cron expression."""

from __future__ import annotations

import logging
import re
from datetime import timezone
from typing import Any, NamedTuple

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from live.desk import Desk
from live.errors import Refused, ServerError
from live.reports import REPORTS

LOG = logging.getLogger("live")
SECONDS = {"s": 1, "min": 60, "h": 3600}


class Entry(NamedTuple):
    """A report and when it is made."""

    rule: str
    report: str
    trigger: BaseTrigger


def parse(text: str) -> Entry:
    """The entry of `30s=overview`, `5min=forecast` or `*/10 * * * *=forecast` (cron, in UTC).

    Raises:
        ServerError: it is none.
    """
    rule, mark, report = text.rpartition("=")
    if not mark or report not in REPORTS:
        raise ServerError(
            f"{text!r} names no report", f"write RULE=REPORT; reports are {', '.join(REPORTS)}"
        )
    every = re.fullmatch(r"([1-9][0-9]*)(s|min|h)", rule)
    if every is not None:
        seconds = int(every[1]) * SECONDS[every[2]]
        return Entry(
            f"every {every[1]} {every[2]}",
            report,
            IntervalTrigger(seconds=seconds, timezone=timezone.utc),
        )
    try:
        return Entry(rule, report, CronTrigger.from_crontab(rule, timezone=timezone.utc))
    except ValueError as error:
        raise ServerError(
            f"{rule!r} is no time: {error}", "write 30s, 5min, 2h, or five fields of cron"
        ) from error


class Schedule:
    """Submits reports when their time has come. One that still waits or runs is not submitted again."""

    def __init__(self, desk: Desk, entries: list[Entry]) -> None:
        self._desk = desk
        # Its word on each job that it runs is not needed beside our own.
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        self._scheduler = AsyncIOScheduler(timezone=timezone.utc)
        for entry in entries:
            # A time that was missed, because the loop or the machine slept, counts once.
            self._scheduler.add_job(
                self._submit,
                entry.trigger,
                args=[entry],
                coalesce=True,
                max_instances=1,
                misfire_grace_time=None,
            )

    def start(self) -> None:
        """Begins; needs the running loop."""
        self._scheduler.start()

    def stop(self) -> None:
        """Submits no more."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def coming(self) -> list[dict[str, Any]]:
        """Each entry and when it comes next (seconds since 1970)."""
        found = []
        for job in self._scheduler.get_jobs():
            entry = job.args[0]
            when = job.next_run_time.timestamp() if job.next_run_time else None
            found.append({"rule": entry.rule, "report": entry.report, "next": when})
        return found

    async def _submit(self, entry: Entry) -> None:
        client = f"schedule: {entry.rule}"
        try:
            if await self._desk.disk(self._desk.queue.unfinished, client):
                LOG.info("%s: the %s before has not ended", client, entry.report)
                return
            await self._desk.submit(client, entry.report, {})
        except (Refused, ServerError) as error:
            LOG.error("%s: %s", client, error)
