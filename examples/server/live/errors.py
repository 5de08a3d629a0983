"""Errors: what keeps the server from starting, and what a client is told."""

from __future__ import annotations


class ServerError(Exception):
    """The server cannot start or go on. `hint` says what its operator can do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Refused(Exception):
    """A request that cannot be granted; the text goes to the client."""


class QueueError(ServerError):
    """The queue's file cannot be opened, read or written; nothing of the failed step is in it."""
