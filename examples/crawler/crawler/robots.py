"""What a host allows to robots, and how many requests a second."""

from __future__ import annotations

from urllib.robotparser import RobotFileParser

from crawler.visiting import AGENT


class Rules:
    """The rules in a robots.txt. `rate` is requests a second, never above the crawler's own."""

    def __init__(self, text: str, fastest: float) -> None:
        self._parser = RobotFileParser()
        self._parser.parse(text.splitlines())
        self.rate = fastest
        wanted = self._parser.request_rate(AGENT)
        if wanted is not None and wanted.requests > 0:
            self.rate = min(self.rate, wanted.requests / max(wanted.seconds, 1))
        pause = self._parser.crawl_delay(AGENT)
        if pause is not None and float(pause) > 0:
            self.rate = min(self.rate, 1 / float(pause))

    def allow(self, address: str) -> bool:
        """Whether the page may be fetched."""
        return self._parser.can_fetch(AGENT, address)
