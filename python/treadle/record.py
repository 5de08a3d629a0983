"""Decisions kept in files: the plan that ``treadle compare --save NAME`` wrote, found again by its name."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treadle.plan import Plan


def decided(name: str, directory: str | os.PathLike[str] | None = None) -> Plan:
    """The plan recorded under `name` in the nearest ``treadle.toml``.

    The file is looked for in `directory` (default: the current one) and in the folders above it. Raises
    the engine's error (a `treadle.TreadleError`) when there is no such file, no such name, or the plan in
    it cannot be read; the message says which, and what names there are.
    """
    from treadle.plan import Plan

    from treadle import _core

    folder = os.getcwd() if directory is None else os.fspath(directory)
    plan = json.loads(_core.load_decision(folder, name))
    return Plan.from_mapping({key: size for key, size in plan.items() if size is not None})
