"""Errors that end a crawl, each with what to do next."""

from __future__ import annotations


class CrawlError(Exception):
    """The crawl cannot go on. `hint` says what the user can do; what was stored stays."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class StoreError(CrawlError):
    """The database cannot be opened, read or written; nothing of the failed step is in it."""
