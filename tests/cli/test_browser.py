"""The HTML page in a real browser: nothing overflows, overlaps or is cut off, on a telephone, a screen and paper.

Needs Chromium and aiohttp; without them it is skipped.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from pages import Tab, browse, browser
from test_page import made, rendered

pytest.importorskip("aiohttp", reason="speaks to the browser")
pytestmark = pytest.mark.skipif(browser() is None, reason="there is no Chromium here")

__all__ = ["made"]

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


def comparisons(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The comparison as it is, and what strains a layout: long names, many curves, no race."""
    long = copy.deepcopy(found)
    long["target"] = "package." * 12 + ":" + "function_whose_name_does_not_end_" * 3
    long["target_file"] = "/srv/" + "folder/" * 30 + "file.py"
    long["items"]["spec"] = "x" * 200
    long["profile"]["split"] = {
        key: {"mean_s": 0.002, "low_s": 0.0019, "high_s": 0.0021}
        for key in ("gil_cpu", "gil_blocked", "free_cpu", "wait", "native_cpu", "run_queue")
    } | {"samples": 2000, "rate_hz": 1000.0, "releases_per_task": 3.0, "overhead": 0.004}
    many = copy.deepcopy(found)
    many["curves"] = [
        {"strategy": name, "points": [[size, 200.0 * min(size, most)] for size in sizes]}
        for name, sizes, most in (
            ("threads", (1, 2, 4, 8, 16, 32, 64, 100), 40),
            ("processes", (1, 2, 3, 4, 8), 2),
            ("coroutines", (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024), 700),
            ("interpreters", (1, 2, 3, 4, 8), 2),
            ("processes+coroutines", (8, 64, 512, 2000), 1000),
        )
    ]
    none = copy.deepcopy(found)
    none.update(race=None, targets=[])
    none["decision"].update(plan=None, code=None, confidence="none", missed_targets=[])
    for one in none["candidates"]:
        one.update(measured_per_s=None, interval_per_s=None, speedup=None, outcome="not-raced")
    return {"real": found, "long": long, "many": many, "none": none}


def test_the_page_fits_everywhere(made: dict[str, Any], tmp_path: Path) -> None:
    pages = {}
    for name, found in comparisons(made["json"]).items():
        pages[name] = tmp_path / f"{name}.html"
        pages[name].write_text(rendered(found), encoding="utf-8")
    kept = os.environ.get("TREADLE_PICTURES")

    async def visit(tab: Tab) -> dict[str, Any]:
        wrong: dict[str, Any] = {}
        for name, page in pages.items():
            for width, dark in (
                (360, False),
                (360, True),
                (620, False),
                (1280, False),
                (1280, True),
            ):
                await tab.open(page, width=width, dark=dark)
                found = await tab.evaluate(WRONG) + await tab.evaluate(FAINT)
                if found:
                    wrong[f"{name} at {width}, {'dark' if dark else 'light'}"] = found
                if kept:
                    file = f"{name}-{width}-{'dark' if dark else 'light'}.png"
                    Path(kept, file).write_bytes(await tab.picture())
            await tab.call(
                "Emulation.setDeviceMetricsOverride",
                width=680,
                height=900,
                deviceScaleFactor=1,
                mobile=False,
            )
            await tab.call("Emulation.setEmulatedMedia", media="print")
            if found := await tab.evaluate(WRONG) + await tab.evaluate(FAINT):
                wrong[f"{name} on paper"] = found
            printed = await tab.printed()
            assert printed.startswith(b"%PDF")
            if kept:
                Path(kept, f"{name}.pdf").write_bytes(printed)
        return wrong

    program = browser()
    assert program is not None
    wrong = browse(program, visit)
    assert not wrong, json.dumps(wrong, indent=1, ensure_ascii=False)
