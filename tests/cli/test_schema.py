"""The schema itself: it takes what the contract allows and refuses what it does not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

FOUND: dict[str, Any] = {
    "schema": 1,
    "target": "jobs:f",
    "items": {"count": 3, "spec": "range:3", "more": True},
    "machine": {"usable_cores": 2.0, "python": "3.11.7", "gil": True, "noise": "quiet"},
    "profile": {
        "wall_s": 0.1,
        "gil_cpu_s": None,
        "gil_blocked_s": None,
        "free_cpu_s": None,
        "wait_s": 0.1,
        "native_cpu_s": 0.0,
        "argument_bytes": 5,
        "result_bytes": 5,
        "pickle_s": 1e-6,
        "peak_rss_bytes": 10_000_000,
        "class": "io-bound",
    },
    "candidates": [
        {
            "plan": {},
            "predicted_per_s": 10.0,
            "measured_per_s": 9.5,
            "interval_per_s": [9.0, 10.0],
            "p50_s": 0.1,
            "p99_s": 0.2,
            "cpu_cores": 0.1,
            "peak_memory_bytes": 10_000_000,
            "errors": 0,
            "limit": "waiting",
            "outcome": "chosen",
            "reason": "simplest",
        }
    ],
    "decision": {"plan": {}, "reason": "simplest", "confidence": "high"},
}


def changed(path: list[Any], value: Any) -> dict[str, Any]:
    """The object with one place changed."""
    found = copy.deepcopy(FOUND)
    place = found
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return found


def test_the_example_fits(validate: Any) -> None:
    validate(FOUND)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["schema"], 2),
        (["target"], "no colon"),
        (["items", "count"], 0),
        (["machine", "noise"], "loud"),
        (["profile", "class"], "fast"),
        (["profile", "wall_s"], None),
        (["candidates"], []),
        (["candidates", 0, "plan"], {"fibers": 2}),
        (["candidates", 0, "outcome"], "best"),
        (["candidates", 0, "interval_per_s"], [1.0]),
        (["decision", "confidence"], "sure"),
        (["decision", "plan"], None),
    ],
)
def test_a_breach_is_refused(path: list[Any], value: Any, validate: Any) -> None:
    with pytest.raises(AssertionError):
        validate(changed(path, value))
