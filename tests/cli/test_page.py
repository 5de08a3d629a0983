"""``treadle compare --html``: a page that is valid, needs nothing else and holds every number of the JSON."""

from __future__ import annotations

import copy
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

html5lib = pytest.importorskip("html5lib")

#: Elements and attributes that would fetch something.
FETCHING = {
    "script",
    "img",
    "link",
    "iframe",
    "object",
    "embed",
    "video",
    "audio",
    "source",
    "base",
}
REFERRING = {"src", "href", "srcset", "action", "poster", "data", "background", "xlink:href"}


@pytest.fixture(scope="session")
def made(treadle_once: Any) -> dict[str, Any]:
    """One comparison by the command: its JSON object, its page and what it said."""
    folder = treadle_once.folder
    finished = treadle_once(
        "compare", "jobs:nap", "--items", "range:400", "--budget", "4",
        "--target", "throughput=1/s,p99=1us", "--json", "found.json", "--html", "page.html",
    )  # fmt: skip
    assert finished.code == 0, finished
    return {
        "json": json.loads((folder / "found.json").read_text()),
        "page": (folder / "page.html").read_text(encoding="utf-8"),
        "said": finished,
        "files": sorted(os.listdir(folder)),
    }


def parsed(page: str) -> Any:
    """The tree of a page; the parser is strict: what a browser would have to repair is an error."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)


def elements(tree: Any) -> Iterator[tuple[str, Any]]:
    """All elements with their names, without the namespace of drawings."""
    for element in tree.iter():
        if isinstance(element.tag, str):
            yield element.tag.rpartition("}")[2], element


def check(page: str) -> Any:
    """Valid, self-contained, with unique identifiers that all references meet; gives the tree."""
    tree = parsed(page)
    identifiers: list[str] = []
    named: list[str] = []
    for name, element in elements(tree):
        assert name not in FETCHING, name
        for key, value in element.attrib.items():
            assert not key.startswith("on"), (name, key)
            assert key not in REFERRING, (name, key, value)
            if key == "id":
                identifiers.append(value)
            if key == "aria-labelledby":
                named += value.split()
            named += re.findall(r"url\(#([^)]+)\)", value)
            assert "NaN" not in value, (name, key, value)
        if name == "svg":
            assert element.get("aria-hidden") == "true" or element.get("role") == "img"
        if name == "th":
            assert element.get("scope") in ("col", "row")
        if name == "table":
            assert any(inner == "caption" for inner, _ in elements(element))
    assert len(identifiers) == len(set(identifiers)), identifiers
    assert set(named) <= set(identifiers), set(named) - set(identifiers)
    style = "".join(element.text for name, element in elements(tree) if name == "style")
    assert "@import" not in style
    assert "url(" not in style
    levels = [int(name[1]) for name, _ in elements(tree) if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1, "the verdict is the first heading"
    assert levels.count(1) == 1
    return tree


def values(tree: Any) -> set[float]:
    """The unrounded numbers of a page."""
    return {float(element.get("value")) for name, element in elements(tree) if name == "data"}


def numbers(found: Any) -> Iterator[float]:
    """The numbers of a JSON value; true and false are none."""
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list):
        for one in found:
            yield from numbers(one)
    elif isinstance(found, (int, float)) and not isinstance(found, bool):
        yield float(found)


def rendered(found: dict[str, Any]) -> str:
    """The page of a JSON object."""
    from treadle import _core

    page: str = _core.page(json.dumps(found))
    return page


def test_the_page_is_valid_and_needs_nothing_else(made: dict[str, Any]) -> None:
    check(made["page"])
    assert "Content-Security-Policy" in made["page"]
    assert "wrote the page" in made["said"].stderr
    assert "Use it" in made["said"].stdout, "the report is still there"
    assert made["files"] == ["__pycache__", "found.json", "jobs.py", "page.html"] or made[
        "files"
    ] == ["found.json", "jobs.py", "page.html"], "nothing temporary is left"


def test_all_numbers_are_there(made: dict[str, Any]) -> None:
    found = made["json"]
    shown = values(check(made["page"]))
    wanted: dict[str, float] = {}
    for one in found["candidates"]:
        label = str(one["plan"])
        for key in (
            "predicted_per_s", "measured_per_s", "interval_per_s", "speedup", "p50_s", "p99_s",
            "cpu_cores", "peak_memory_bytes",
        ):  # fmt: skip
            for index, number in enumerate(numbers(one[key])):
                wanted[f"{label} {key} {index}"] = number
    profile = found["profile"]
    keys = ["count", "wall_s", "wall_p50_s", "wall_p99_s", "wall_max_s", "wait_s", "pickle_s"]
    for key in [*keys, "first_call_s"]:
        for number in numbers(profile[key]):
            wanted[key] = number
    for key in ("usable_cores", "memory_available_bytes", "memory_limit_bytes"):
        wanted[key] = found["machine"][key]
    for key, number in found["machine"]["readings"].items():
        if number is not None:
            wanted[key] = number
    for key in ("elapsed_s", "budget_s"):
        wanted[key] = found["race"][key]
    missing = {key: number for key, number in wanted.items() if number not in shown}
    assert not missing
    words = "".join(parsed(made["page"]).itertext())
    for text in (
        found["target"], found["decision"]["reason"], found["decision"]["code"], found["items"]["spec"],
        found["source_hash"], str(found["race"]["seed"]), *found["decision"]["missed_targets"],
        *found["targets"], *(one["reason"] for one in found["candidates"]),
    ):  # fmt: skip
        assert text in words, text


def test_a_split_is_shown_with_its_intervals(made: dict[str, Any]) -> None:
    found = copy.deepcopy(made["json"])
    wall = found["profile"]["wall_s"]

    def estimate(share: float) -> dict[str, float]:
        return {"mean_s": share * wall, "low_s": 0.9 * share * wall, "high_s": 1.1 * share * wall}

    found["profile"]["split"] = {
        "samples": 1987, "late": 12, "rate_hz": 998.5, "gil_cpu": estimate(0.31), "gil_blocked": estimate(0.11),
        "free_cpu": estimate(0.23), "wait": estimate(0.35), "native_cpu": estimate(0.7),
        "run_queue": estimate(0.0), "releases_per_task": 4.25, "overhead": 0.0042,
    }  # fmt: skip
    shown = values(check(rendered(found)))
    split = found["profile"]["split"]
    # Through JSON and back, the last bit of a number may differ.
    missing = [
        number
        for number in numbers(split)
        if not any(math.isclose(number, one, rel_tol=1e-12) for one in shown)
    ]
    assert [number for number in missing if number != 0] == []


def test_all_readings_of_noise_are_there(made: dict[str, Any]) -> None:
    """Also those that this machine had no cause to take."""
    found = copy.deepcopy(made["json"])
    readings = found["machine"]["readings"]
    for index, name in enumerate(readings):
        readings[name] = 0.0125 + index / 64
    shown = values(check(rendered(found)))
    assert {name: number for name, number in readings.items() if number not in shown} == {}


def test_hostile_names_stay_text(made: dict[str, Any]) -> None:
    hostile = "<script>alert('&amp;')</script>\"><b onclick=x>"
    found = copy.deepcopy(made["json"])
    found["target"] = f"module:{hostile}"
    found["items"]["spec"] = hostile
    found["decision"]["reason"] = hostile
    found["decision"]["code"] = hostile
    for one in found["candidates"]:
        one["reason"] = one["limit"] = hostile
    tree = check(rendered(found))
    assert "".join(tree.itertext()).count(hostile) > 2 * len(found["candidates"])


@pytest.mark.parametrize(
    "change", ["no race", "profile only", "nothing", "one curve point", "extremes"]
)
def test_pages_of_odd_comparisons(change: str, made: dict[str, Any]) -> None:
    found = copy.deepcopy(made["json"])
    if change in ("no race", "profile only"):
        found["race"] = None
        found["profile_only"] = change == "profile only"
        found["decision"].update(plan=None, code=None, confidence="none", missed_targets=[])
        for one in found["candidates"]:
            one.update(
                measured_per_s=None, interval_per_s=None, speedup=None, p50_s=None, p99_s=None,
                cpu_cores=None, peak_memory_bytes=None, outcome="not-raced",
            )  # fmt: skip
    elif change == "nothing":
        found.update(candidates=[], curves=[], race=None)
        found["decision"].update(plan=None, code=None, confidence="none")
    elif change == "one curve point":
        found["curves"] = [{"strategy": "threads", "points": [[2, 1.0]]}]
    else:
        found["profile"]["walls"] = [10.0**exponent for exponent in range(-9, 5)]
        found["curves"][0]["points"] = [[1, 1e-9], [1_000_000, 1e12]]
        found["candidates"][0]["interval_per_s"] = [-1e9, 1e15]
    tree = check(rendered(found))
    for name, element in elements(tree):
        if name in ("rect", "line", "circle", "text"):
            places = [
                element.get(key) for key in ("x", "y", "x1", "y1", "cx", "cy", "width", "height")
            ]
            assert all(math.isfinite(float(place)) for place in places if place is not None)


def test_a_comparison_saves_its_page(made: dict[str, Any], tmp_path: Path) -> None:
    from treadle import Comparison

    comparison = Comparison.of(made["json"])
    comparison.save_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    check(page)
    assert "treadle.compare(nap, items" in page
    assert os.listdir(tmp_path) == ["page.html"]
    with pytest.raises(OSError, match="absent"):
        comparison.save_html(str(tmp_path / "absent" / "page.html"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        comparison.save_html(tmp_path / "folder")
    assert sorted(os.listdir(tmp_path)) == ["folder", "page.html"]


def test_a_page_that_cannot_be_written_is_told_first(treadle: Any) -> None:
    for file in ("absent/page.html", "-", "jobs.py/page.html"):
        finished = treadle("compare", "jobs:nap", "--items", "range:9", "--html", file)
        assert finished.code == 2, finished
        assert "cannot write the page" in finished.stderr
        assert "hint" in finished.stderr
        assert finished.stdout == ""
