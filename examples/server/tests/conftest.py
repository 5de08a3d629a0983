"""Lets the tests of the page use the browser that the repository's own tests use."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3] / "tests" / "cli"))
