"""Plan: a strategy and its sizes, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from treadle.errors import PlanError

__all__ = ["Plan"]

_SIZES = ("threads", "processes", "coroutines", "interpreters")


@dataclass(frozen=True)
class Plan:
    """How tasks are run. ``Plan()`` is serial: each call runs in the thread that submits it.

    Args:
        threads: threads in this process; with ``processes``, threads in each of them.
        processes: worker processes.
        coroutines: tasks at a time on one event loop; with ``processes``, on a loop in each of them.
        interpreters: sub-interpreters with a lock of their own (CPython 3.14 and later).
        dask: address of a Dask scheduler.
        ray: address of a Ray cluster, or ``"auto"``.
        chunk: inputs that ``map`` hands to a worker at a time; ``None`` means measured.

    Raises:
        PlanError: for a size below 1 or a combination that does not exist.
    """

    threads: int | None = None
    processes: int | None = None
    coroutines: int | None = None
    interpreters: int | None = None
    dask: str | None = None
    ray: str | None = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        for name in (*_SIZES, "chunk"):
            size = getattr(self, name)
            if size is None:
                continue
            if isinstance(size, bool) or not hasattr(size, "__index__"):
                raise PlanError(f"{name} must be a whole number, not {size!r}")
            if size < 1:
                raise PlanError(f"{name} must be at least 1, not {size}")
            object.__setattr__(self, name, int(size))
        used = [name for name in (*_SIZES, "dask", "ray") if getattr(self, name) is not None]
        allowed = [
            set(),
            *({name} for name in (*_SIZES, "dask", "ray")),
            {"processes", "threads"},
            {"processes", "coroutines"},
        ]
        if set(used) not in allowed:
            raise PlanError(
                f"there is no plan of {' and '.join(used)} together\n\n"
                "hint: the hybrids are processes with threads, and processes with coroutines"
            )

    @property
    def strategy(self) -> str:
        """The strategy's name: serial, threads, processes, coroutines, interpreters, hybrid, dask or ray."""
        used = [name for name in (*_SIZES, "dask", "ray") if getattr(self, name) is not None]
        if not used:
            return "serial"
        return used[0] if len(used) == 1 else "hybrid"

    @property
    def concurrency(self) -> int:
        """How many tasks run at the same time."""
        product = 1
        for name in _SIZES:
            product *= getattr(self, name) or 1
        return product

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Plan:
        """The plan of a table such as the one in ``treadle.toml``.

        Raises:
            PlanError: for a name that no plan has.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(mapping) - known)
        if unknown:
            raise PlanError(
                f"a plan has no {', '.join(unknown)}; it has {', '.join(sorted(known))}"
            )
        return cls(**mapping)

    def to_mapping(self) -> dict[str, int | str]:
        """The plan as a table without what is not set."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) is not None
        }

    def __str__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.to_mapping().items())
        return inside or "serial"
