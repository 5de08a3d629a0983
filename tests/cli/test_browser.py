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
from pages import FAINT, WRONG, Tab, browse, browser
from test_page import made, rendered

pytest.importorskip("aiohttp", reason="speaks to the browser")
pytestmark = pytest.mark.skipif(browser() is None, reason="there is no Chromium here")

__all__ = ["made"]


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
