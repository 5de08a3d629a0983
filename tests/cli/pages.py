"""What the tests of the HTML page share: a comparison and its page, made once, and what a browser sees of a page."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

#: The names under which systems install it.
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def browser() -> str | None:
    """The path of a Chromium, or None; the variable TREADLE_CHROMIUM names another."""
    named = os.environ.get("TREADLE_CHROMIUM")
    return named or next(filter(None, map(shutil.which, BROWSERS)), None)


class Tab:
    """A tab of a headless Chromium, spoken to by its debugging protocol."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._number = 0
        self._events: list[dict[str, Any]] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its reply."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = json.loads((await self._socket.receive()).data)
            if message.get("id") == self._number:
                assert "error" not in message, (method, message["error"])
                result: dict[str, Any] = message["result"]
                return result
            self._events.append(message)

    async def open(self, page: Path, *, width: int, dark: bool = False) -> None:
        """Loads a page in a window of this width and waits until it is laid out."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        await self.call("Page.enable")
        self._events.clear()
        await self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(json.loads((await self._socket.receive()).data))

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        reply = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    async def picture(self) -> bytes:
        """The whole page as PNG."""
        reply = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(reply["data"])

    async def printed(self) -> bytes:
        """The page as PDF, as its style sheet wants paper, without colour of backgrounds."""
        reply = await self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=False)
        return base64.b64decode(reply["data"])


def browse(program: str, visit: Any) -> Any:
    """Runs the coroutine function `visit` with a tab of `program`; the browser is gone afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        started = subprocess.Popen(
            [
                program,
                "--headless=new",
                "--no-sandbox",  # in a container, where its own sandbox cannot start
                "--disable-gpu",
                "--hide-scrollbars",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert started.stderr is not None
            for line in started.stderr:
                if found := re.search(r"ws://([^/\s]+)/", line):
                    return asyncio.run(_visit(found[1], visit))
            raise AssertionError(f"{program} ended without a debugging address")
        finally:
            started.kill()
            started.wait()
            if started.stderr is not None:
                started.stderr.close()


async def _visit(address: str, visit: Any) -> Any:
    import aiohttp

    async with aiohttp.ClientSession() as session:
        async with session.put(f"http://{address}/json/new?about:blank") as reply:
            tab = await reply.json()
        async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            work: Coroutine[Any, Any, Any] = visit(Tab(socket))
            return await work
