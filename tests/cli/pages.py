"""A headless Chromium for the tests of pages: how one is found and driven, and what it sees to be wrong with a page."""

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

#: What is wrong with the layout of the page as it is shown: a list of sentences.
WRONG = """(() => {
  const wrong = [], wide = document.documentElement;
  if (wide.scrollWidth > innerWidth) wrong.push(`scrolls sideways: ${wide.scrollWidth} of ${innerWidth}`);
  const shown = e => e.getClientRects().length && !e.closest('.hidden, defs, title, desc');
  const name = e => `${e.tagName}.${e.className.baseVal ?? e.className} '${e.textContent.slice(0, 40)}'`;
  for (const e of document.querySelectorAll('body *')) {
    if (!shown(e)) continue;
    const box = e.getBoundingClientRect();
    if (box.right > innerWidth + 0.5 || box.left < -0.5) wrong.push('beyond the window: ' + name(e));
    if (e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 && !e.closest('svg') &&
        !['inline', 'contents'].includes(getComputedStyle(e).display)) wrong.push('cut off: ' + name(e));
  }
  for (const chart of document.querySelectorAll('svg.chart')) {
    if (!shown(chart)) continue;
    const frame = chart.getBoundingClientRect();
    const texts = [...chart.querySelectorAll('text')].map(e => [e, e.getBoundingClientRect()]);
    texts.forEach(([e, box], index) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        wrong.push('leaves its chart: ' + name(e));
      if (parseFloat(getComputedStyle(e).fontSize) * frame.width / chart.viewBox.baseVal.width < 9)
        wrong.push('too small to read: ' + name(e));
      for (const [other, place] of texts.slice(index + 1)) {
        const width = Math.min(box.right, place.right) - Math.max(box.left, place.left);
        const height = Math.min(box.bottom, place.bottom) - Math.max(box.top, place.top);
        if (width > 1 && height > 3) wrong.push(`${name(e)} overlaps ${name(other)}`);
      }
    });
  }
  return wrong;
})()"""

#: Text whose contrast with its background is under 4.5 to 1 (WCAG 2.2, 1.4.3).
FAINT = """(() => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([red, green, blue]) => [red, green, blue].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const under = e => { for (; e; e = e.parentElement) {
    const colour = channels(getComputedStyle(e).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  } return [255, 255, 255]; };
  const faint = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length || e.closest('title, desc, style')) continue;
    const style = getComputedStyle(e);
    const ink = light(channels(e.closest('svg') ? style.fill : style.color)), paper = light(under(e));
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (ratio < 4.5) faint.push(`${ratio.toFixed(1)}: ${e.tagName}.${e.className.baseVal ?? e.className} '${e.textContent.slice(0, 30)}'`);
  }
  return faint;
})()"""


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

    async def open(self, page: Path | str, *, width: int, dark: bool = False) -> None:
        """Loads a page, a file or an address, in a window of this width and waits until it is laid out."""
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
        await self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
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
