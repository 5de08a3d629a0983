"""Errors of the batch: those that end it, and the one that costs a file."""

from __future__ import annotations


class BatchError(Exception):
    """The batch cannot go on. `hint` says what the user can do; what was developed stays."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class Damaged(Exception):
    """This file cannot be developed; the batch goes on. The text is the reason."""
