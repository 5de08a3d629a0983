"""The environment of a measurement, as a record keeps it: interpreter, build, packages, pools of native threads."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import platform
import sys
import sysconfig
from typing import Any

from treadle._laboratory import source

#: Variables that size the thread pools of native libraries.
_POOL_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def describe(distributions: list[str] | None = None) -> dict[str, Any]:
    """The protocol's ``environment`` object; versions of the imported `distributions` unless some are named.

    A named distribution that is not installed has the version None.
    """
    extensions: list[str] = []
    if distributions is None:
        distributions, extensions = _imported()
    return {
        "python": ".".join(map(str, sys.version_info[:3])) + _release_level(),
        "implementation": sys.implementation.name,
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "build": _build(),
        "start_method": multiprocessing.get_start_method(allow_none=True) or _default_start(),
        "distributions": {name: _version(name) for name in distributions},
        "extensions": extensions,
        "native_pools": _pools(),
    }


def _release_level() -> str:
    level, serial = sys.version_info[3:]
    return "" if level == "final" else f"{level[0]}{serial}"


def _default_start() -> str:
    return multiprocessing.get_all_start_methods()[0]


def _build() -> dict[str, str]:
    """How the interpreter was built, as far as it makes code faster or slower."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return {
        "compiler": platform.python_compiler(),
        "debug": _yes(hasattr(sys, "gettotalrefcount")),
        "free_threaded": _yes(bool(sysconfig.get_config_var("Py_GIL_DISABLED"))),
        "optimisations": _yes("--enable-optimizations" in arguments),
        "lto": _yes("--with-lto" in arguments),
        "platform": sysconfig.get_platform(),
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _imported() -> tuple[list[str], list[str]]:
    """(distributions, extension modules) behind what has been imported, beyond Python, the project and Treadle."""
    own = {"treadle"} | set(sys.stdlib_module_names)
    names, extensions = set(), set()
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        file = getattr(module, "__file__", None)
        if not file or top in own or top.startswith("_"):
            continue
        if file.endswith((".so", ".pyd", ".dylib")):
            extensions.add(name)
            names.add(top)
        elif not source.is_first_party(file):
            names.add(top)
    if not names:
        return [], []
    known = importlib.metadata.packages_distributions()
    found = {distribution for name in names for distribution in known.get(name, ())}
    return sorted(found - {"treadle"}), sorted(extensions)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _pools() -> dict[str, str]:
    """Sizes of native thread pools: what the environment asks for, and what threadpoolctl sees if it is there."""
    pools = {name: os.environ[name] for name in _POOL_VARIABLES if os.environ.get(name)}
    try:
        import threadpoolctl
    except ImportError:
        return pools
    for pool in threadpoolctl.threadpool_info():
        pools[str(pool.get("internal_api"))] = str(pool.get("num_threads"))
    return pools
