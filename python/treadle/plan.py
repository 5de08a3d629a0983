"""Plan: a strategy and its sizes, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from treadle.errors import PlanError

__all__ = ["Plan"]

_SIZES = ("threads", "processes", "coroutines", "interpreters")
_WAYS = (*_SIZES, "dask", "ray")
_COMBINATIONS = (
    frozenset(),
    *(frozenset((name,)) for name in _WAYS),
    frozenset(("processes", "threads")),
    frozenset(("processes", "coroutines")),
)


# Written out rather than a dataclass: importing dataclasses would cost as much as the rest of the package.
class Plan:
    """How tasks are run; immutable. ``Plan()`` is serial: each call runs in the thread that submits it.

    Args:
        threads: threads in this process; with ``processes``, threads in each of them.
        processes: worker processes.
        coroutines: tasks at a time on one event loop; with ``processes``, on a loop in each of them.
        interpreters: sub-interpreters with a lock of their own (CPython 3.14 and later).
        dask: address of a Dask scheduler, or ``"local"``: a cluster on this machine that lives as long as the executor.
        ray: address of a Ray cluster, ``"auto"`` (the one that is there), or ``"local"`` as for Dask.
        chunk: inputs that ``map`` hands to a worker at a time; ``None`` means measured.

    Raises:
        PlanError: for a size below 1 or a combination that does not exist.
    """

    __slots__ = ("chunk", "coroutines", "dask", "interpreters", "processes", "ray", "threads")

    threads: int | None
    processes: int | None
    coroutines: int | None
    interpreters: int | None
    dask: str | None
    ray: str | None
    chunk: int | None

    def __init__(
        self,
        threads: int | None = None,
        processes: int | None = None,
        coroutines: int | None = None,
        interpreters: int | None = None,
        dask: str | None = None,
        ray: str | None = None,
        chunk: int | None = None,
    ) -> None:
        sizes = {
            "threads": threads,
            "processes": processes,
            "coroutines": coroutines,
            "interpreters": interpreters,
            "chunk": chunk,
        }
        for name, size in sizes.items():
            object.__setattr__(self, name, whole_number(name, size))
        for name, address in (("dask", dask), ("ray", ray)):
            if address is not None and not isinstance(address, str):
                raise PlanError(f"{name} must be an address as text, not {address!r}")
            object.__setattr__(self, name, address)
        used = [name for name in _WAYS if getattr(self, name) is not None]
        if frozenset(used) not in _COMBINATIONS:
            raise PlanError(
                f"there is no plan of {' and '.join(used)} together\n\n"
                "hint: the hybrids are processes with threads, and processes with coroutines"
            )

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a plan cannot be changed; make another: Plan({name}=…)")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a plan cannot be changed")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return self.to_mapping() == other.to_mapping()

    def __hash__(self) -> int:
        return hash(tuple(self.to_mapping().items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return Plan.from_mapping, (self.to_mapping(),)

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.to_mapping().items())
        return f"Plan({inside})"

    @property
    def strategy(self) -> str:
        """The strategy's name: serial, threads, processes, coroutines, interpreters, hybrid, dask or ray."""
        used = [name for name in _WAYS if getattr(self, name) is not None]
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
        unknown = sorted(set(mapping) - {*_WAYS, "chunk"})
        if unknown:
            raise PlanError(
                f"a plan has no {', '.join(unknown)}; it has {', '.join((*_WAYS, 'chunk'))}"
            )
        return cls(**mapping)

    def to_mapping(self) -> dict[str, int | str]:
        """The plan as a table without what is not set."""
        values = ((name, getattr(self, name)) for name in (*_WAYS, "chunk"))
        return {name: value for name, value in values if value is not None}

    def __str__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.to_mapping().items())
        return inside or "serial"


def whole_number(name: str, value: Any, least: int = 1) -> int | None:
    """A size or a count, or None.

    Raises:
        PlanError: when it is no whole number, or below ``least``.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise PlanError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise PlanError(f"{name} must be at least {least}, not {value!r}")
    return int(value)
