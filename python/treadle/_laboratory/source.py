"""What a function's result and cost come from in its own project: normalised hashes, found without running anything.

A definition's hash is that of its syntax tree, without docstrings and other strings that stand alone; comments, line
breaks, quotes and parentheses are not in the tree. From the function the names that it uses are followed: functions,
classes and assignments at the top level of first-party modules, through imports, as far as names alone lead. A method of
an object whose class is not named, a callable taken from a table and the like cannot be followed.

*Guarantees*: the same source has the same hash on every supported version of Python; nothing is imported that is not
imported already, but for the packages above a module that is looked for.

*Assumes*: first-party is what has a source file outside the interpreter's own folders and those for installed packages.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator
from typing import Any

#: Most definitions that are followed: a project's core, and still parsed within a second.
MOST_PARTS = 500
#: Most files looked through for a function that has moved, and folders that are never part of a project's source.
MOST_FILES = 2000
_FOREIGN_FOLDERS = {"node_modules", "site-packages", "dist-packages", "__pycache__"}
#: Fields of syntax nodes that differ between versions of Python and say nothing.
_SILENT_FIELDS = {"kind", "type_comment", "type_ignores"}


def fingerprint(name: str) -> dict[str, Any]:
    """``{"function", "callees"}`` of ``module:function``: its hash (None without a source) and ``name -> hash`` of what it uses."""
    module, _, attribute = name.partition(":")
    parts = _Walk().follow(module, attribute.partition(".")[0])
    own = parts.pop(f"{module}:{attribute.partition('.')[0]}", None)
    return {"function": own, "callees": dict(sorted(parts.items()))}


def combined(name: str) -> str | None:
    """One hash of ``module:function`` and all that it uses; None without a source."""
    found = fingerprint(name)
    if found["function"] is None:
        return None
    return hashlib.sha256(
        repr(sorted(found["callees"].items())).encode() + found["function"].encode()
    ).hexdigest()


def digest(nodes: list[ast.stmt]) -> str:
    """The SHA-256 of definitions, formatting left out."""
    written: list[str] = []
    for node in nodes:
        _write(node, written)
    return hashlib.sha256("".join(written).encode()).hexdigest()


def _write(value: Any, out: list[str]) -> None:
    """Writes a syntax tree in a form of our own, for Python's differs from version to version."""
    if isinstance(value, ast.AST):
        out.append(f"({type(value).__name__}")
        for field, content in ast.iter_fields(value):
            if field in _SILENT_FIELDS or content is None or content == []:
                continue
            out.append(f" {field}=")
            _write(content, out)
        out.append(")")
    elif isinstance(value, list):
        out.append("[")
        for one in value:
            if not _is_remark(one):
                _write(one, out)
        out.append("]")
    else:
        out.append(f"{type(value).__name__}:{value!r};")


def _is_remark(node: Any) -> bool:
    """A docstring, or another string that stands alone."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


class _Module:
    """A first-party module's top level: definitions by name, imports by name, modules imported with a star."""

    def __init__(self, name: str, file: str, tree: ast.Module) -> None:
        self.name = name
        self.package = name if os.path.basename(file) == "__init__.py" else name.rpartition(".")[0]
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, tuple[str, str | None]] = {}
        self.stars: list[str] = []
        self._collect(tree.body)

    def _collect(self, body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self.definitions.setdefault(node.name, []).append(node)
            elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for name in {name for one in targets for name in _assigned(one)}:
                    self.definitions.setdefault(name, []).append(node)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                self.imports.update(self.imported(node))
                if isinstance(node, ast.ImportFrom) and any(one.name == "*" for one in node.names):
                    self.stars.append(self._absolute(node))
            else:  # if, try, with, for, while, match: their bodies are the top level too
                for field in ("body", "orelse", "finalbody", "handlers", "cases"):
                    for child in getattr(node, field, []):
                        inner = child.body if hasattr(child, "body") else None
                        self._collect([child] if isinstance(child, ast.stmt) else inner or [])

    def imported(self, node: ast.Import | ast.ImportFrom) -> dict[str, tuple[str, str | None]]:
        """The names that an import statement binds: to a module, or to a name in one."""
        if isinstance(node, ast.Import):
            return {
                one.asname or one.name.partition(".")[0]: (
                    one.name if one.asname else one.name.partition(".")[0],
                    None,
                )
                for one in node.names
            }
        module = self._absolute(node)
        return {one.asname or one.name: (module, one.name) for one in node.names if one.name != "*"}

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.package.split(".")
        base = parts[: len(parts) - node.level + 1]
        return ".".join([*base, node.module] if node.module else base)


def _assigned(node: ast.expr) -> Iterator[str]:
    """The names at the root of an assignment's target."""
    if isinstance(node, (ast.Tuple, ast.List)):
        for one in node.elts:
            yield from _assigned(one)
    elif isinstance(node, (ast.Starred, ast.Attribute, ast.Subscript)):
        yield from _assigned(node.value)
    elif isinstance(node, ast.Name):
        yield node.id


class _Walk:
    """Follows names from definition to definition."""

    def __init__(self) -> None:
        self._modules: dict[str, _Module | None] = {}
        self._parts: dict[str, str] = {}

    def follow(self, module: str, name: str) -> dict[str, str]:
        """``module:name -> hash`` of the definition and of all that it leads to."""
        waiting: list[tuple[str, str, tuple[str, ...]]] = [(module, name, ())]
        while waiting and len(self._parts) < MOST_PARTS:
            waiting.extend(self._visit(*waiting.pop()))
        return self._parts

    def _visit(
        self, name: str, root: str, attributes: tuple[str, ...]
    ) -> list[tuple[str, str, tuple[str, ...]]]:
        module = self._module(name)
        if module is None:  # perhaps a package without a file of its own
            return self._inside(name, root, attributes)
        if root in module.definitions:
            key = f"{name}:{root}"
            if key in self._parts:
                return []
            nodes = module.definitions[root]
            self._parts[key] = digest(nodes)
            return [place for node in nodes for place in _references(module, node)]
        if root in module.imports:
            return self._imported(module.imports[root], attributes)
        inside = self._inside(name, root, attributes)
        return inside or [
            (star, root, attributes) for star in module.stars if self._module(star) is not None
        ]

    def _inside(
        self, name: str, root: str, attributes: tuple[str, ...]
    ) -> list[tuple[str, str, tuple[str, ...]]]:
        """What ``name.root`` leads to when it is a module."""
        if not attributes or self._module(f"{name}.{root}") is None:
            return []
        return [(f"{name}.{root}", attributes[0], attributes[1:])]

    def _imported(
        self, found: tuple[str, str | None], attributes: tuple[str, ...]
    ) -> list[tuple[str, str, tuple[str, ...]]]:
        module, name = found
        if name is None:
            return [(module, attributes[0], attributes[1:])] if attributes else []
        return [(module, name, attributes)]

    def _module(self, name: str) -> _Module | None:
        if name not in self._modules:
            self._modules[name] = _read(name)
        return self._modules[name]


def _references(module: _Module, node: ast.stmt) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(module, name, attributes) of what a definition names outside itself."""
    bound, declared = set(), set()
    local: dict[str, tuple[str, str | None]] = {}
    for one in ast.walk(node):
        if isinstance(one, ast.arg):
            bound.add(one.arg)
        elif isinstance(one, ast.Global):
            declared.update(one.names)
        elif isinstance(one, (ast.Import, ast.ImportFrom)):
            local.update(module.imported(one))
        elif (
            isinstance(one, ast.Name)
            and isinstance(one.ctx, ast.Store)
            and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        ):
            bound.add(one.id)
    bound -= declared
    inner: set[int] = set()
    for one in ast.walk(node):  # the outermost attribute comes first
        if id(one) in inner or not isinstance(one, (ast.Name, ast.Attribute)):
            continue
        attributes: list[str] = []
        root: ast.expr = one
        while isinstance(root, ast.Attribute):
            attributes.insert(0, root.attr)
            root = root.value
            inner.add(id(root))
        if not isinstance(root, ast.Name) or root.id in bound:
            continue
        if root.id in local:
            place, name = local[root.id]
            if name is not None:
                yield place, name, tuple(attributes)
            elif attributes:
                yield place, attributes[0], tuple(attributes[1:])
        elif root.id in module.definitions or root.id in module.imports or not _is_builtin(root.id):
            yield module.name, root.id, tuple(attributes)


def _is_builtin(name: str) -> bool:
    return hasattr(builtins, name)


def _read(name: str) -> _Module | None:
    """The module `name` if it is first-party and can be parsed."""
    file = _file(name)
    if file is None or not is_first_party(file):
        return None
    tree = _parse(file)
    return None if tree is None else _Module(name, file, tree)


def _parse(file: str) -> ast.Module | None:
    try:
        with open(file, "rb") as source:
            return ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):
        return None


def _file(name: str) -> str | None:
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if module is None and name:
        try:
            spec = importlib.util.find_spec(name)
        except Exception:  # a package above it may raise anything
            spec = None
        file = None if spec is None else spec.origin
    return os.path.realpath(file) if file and file.endswith(".py") else None


def _installed_folders() -> tuple[str, ...]:
    paths = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(os.path.realpath(path) + os.sep for path in paths if path)


_INSTALLED = _installed_folders()
_OWN = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + os.sep


def is_first_party(file: str) -> bool:
    """Whether a source file belongs to the project rather than to Python, to a package, or to Treadle."""
    file = os.path.realpath(file)
    parts = file.split(os.sep)
    return not (file.startswith((*_INSTALLED, _OWN)) or _FOREIGN_FOLDERS & set(parts))


def locate(name: str, expected: str | None) -> list[dict[str, Any]]:
    """Where below this folder a function called `name` is defined: ``[{"target", "same"}]``, the same source first."""
    found = []
    wanted = name.rpartition(":")[2].partition(".")[0]
    for path in _sources(os.getcwd()):
        tree = _parse(path)
        nodes = _Module("moved", path, tree).definitions.get(wanted, []) if tree else []
        if any(not isinstance(node, (ast.Assign, ast.AugAssign)) for node in nodes):
            shown = f"{os.path.relpath(path)}:{name.rpartition(':')[2]}"
            found.append({"target": shown, "same": digest(nodes) == expected})
    return sorted(found, key=lambda one: (not one["same"], one["target"]))[:8]


def _sources(folder: str) -> Iterator[str]:
    count = 0
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            one
            for one in folders
            if not one.startswith(".")
            and one not in _FOREIGN_FOLDERS
            and not os.path.isfile(os.path.join(place, one, "pyvenv.cfg"))
        )
        for file in sorted(files):
            if file.endswith(".py"):
                count += 1
                if count > MOST_FILES:
                    return
                yield os.path.join(place, file)
