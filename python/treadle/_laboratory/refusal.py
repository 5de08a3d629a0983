"""A request that cannot be served: what happened, to what, and what to do next."""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    """One clear error for the user, carried back as ``{"error": {...}}``.

    ``kind`` is one of the protocol's words (``target-module``, ``items-empty``, ...); ``hint`` is the next
    step; ``detail`` is a short traceback of the user's own code.
    """

    def __init__(
        self, kind: str, message: str, hint: str | None = None, detail: str | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint
        self.detail = detail

    def to_json(self) -> dict[str, Any]:
        """The protocol's error object."""
        return {
            "kind": self.kind,
            "message": self.message,
            "hint": self.hint,
            "detail": self.detail,
        }
