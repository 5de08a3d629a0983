"""One client: a websocket, a name, and what it is told of its jobs."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

from aiohttp import WSCloseCode, web

OUTBOX = 1000  # messages that may wait for a client; one that is slower is let go


class Client:
    """A connected client. Clients of one name share their jobs."""

    def __init__(self, socket: web.WebSocketResponse, name: str) -> None:
        self.socket = socket
        self.name = name
        self.watches = False  # whether it is shown everything, as the page is
        self._outbox: deque[str] = deque()
        self._writer: asyncio.Task[None] | None = None

    def tell(self, message: dict[str, Any]) -> None:
        """Sends something that the client did not ask for, without waiting for it."""
        if self.socket.closed:
            return
        if len(self._outbox) >= OUTBOX:
            self._outbox.clear()
            self._writer = asyncio.create_task(self._let_go())
            return
        self._outbox.append(json.dumps(message))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._outbox:
                await self.socket.send_str(self._outbox.popleft())
        except (ConnectionError, RuntimeError):
            self._outbox.clear()  # it has gone; whoever reads from it sees that too

    async def _let_go(self) -> None:
        await self.socket.close(
            code=WSCloseCode.TRY_AGAIN_LATER, message=b"you do not read what you are sent"
        )
