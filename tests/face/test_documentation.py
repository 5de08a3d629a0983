"""The documentation and the code say the same: links, commands, names, headings of modules."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "crates/*/*.md", "examples/**/*.md", "demo/*.md")
    for path in ROOT.glob(pattern)
)
RUST = sorted(ROOT.glob("crates/*/src/**/*.rs"))
PYTHON = sorted(
    path
    for folder in ("python", "tests", "demo", "benches", "examples")
    for path in (ROOT / folder).rglob("*.py")
    if "data" not in path.relative_to(ROOT).parts
)
REFERENCE = ROOT / "docs" / "reference" / "python.md"


def identity(path: Path) -> str:
    """How a test names a file: its path in the tree."""
    return path.relative_to(ROOT).as_posix()


def anchor(heading: str) -> str:
    """The fragment that a heading gets on the web."""
    text = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return text.replace(" ", "-")


def anchors(path: Path) -> set[str]:
    """The fragments of all headings in a document."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {anchor(heading) for heading in headings}


def code(path: Path) -> list[str]:
    """All code in a document: fenced blocks, indented blocks and spans, as lines."""
    text = path.read_text(encoding="utf-8")
    lines: list[str] = []
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines += block.splitlines()
    text = re.sub(r"^```[^\n]*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    lines += re.findall(r"`([^`\n]+)`", text)
    return lines


def targets() -> set[str]:
    """The targets that `make` lists."""
    listed = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "test" in listed
    return set(listed)


def treadle_command() -> str:
    """The installed command, beside this interpreter or on the PATH."""
    beside = Path(sys.executable).with_name("treadle")
    found = str(beside) if beside.exists() else shutil.which("treadle")
    assert found, "the treadle command is not installed: run `make build`"
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=identity)
def test_links_resolve(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        file, _hash, fragment = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{identity(path)} links to {link}, which does not exist"
        assert target.is_relative_to(ROOT), f"{identity(path)} links out of the tree: {link}"
        if fragment and target.suffix == ".md":
            assert fragment in anchors(target), f"{identity(target)} has no heading for #{fragment}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=identity)
def test_make_targets_exist(path: Path) -> None:
    for line in code(path):
        for target in re.findall(r"\bmake ([a-z-]+)", line):
            assert target in targets(), f"{identity(path)} names `make {target}`"


def test_commands_named_in_the_documents_exist() -> None:
    named = {
        match.group(1): identity(path)
        for path in DOCUMENTS
        # Design notes and records tell of their own time.
        if not path.is_relative_to(ROOT / "docs" / "design")
        and not path.is_relative_to(ROOT / "docs" / "decisions")
        for line in code(path)
        if (match := re.match(r"(?:\$ )?treadle ([a-z]+)\b", line))
    }
    assert "compare" in named
    for command, document in named.items():
        shown = subprocess.run(
            [treadle_command(), command, "--help"], capture_output=True, text=True, check=False
        )
        assert shown.returncode == 0, f"{document} names `treadle {command}`: {shown.stderr}"


@pytest.mark.parametrize("command", ["compare", "check"])
def test_options_in_the_reference_are_the_command_s(command: str) -> None:
    shown = subprocess.run(
        [treadle_command(), command, "--help"], capture_output=True, text=True, check=True
    )
    # Help texts name options of other commands in prose; an option of this one starts its line.
    offered = set(re.findall(r"^ +(--[a-z][a-z-]+)", shown.stdout, re.MULTILINE)) - {"--help"}
    reference = (ROOT / "docs" / "reference" / "command.md").read_text(encoding="utf-8")
    section = reference.partition(f"`treadle {command}")[2].partition("\n## ")[0]
    described = set(re.findall(r"--[a-z][a-z-]+", section)) - {"--help"}
    assert described == offered


def test_public_names_are_in_the_reference() -> None:
    treadle = importlib.import_module("treadle")
    reference = REFERENCE.read_text(encoding="utf-8")
    for name in treadle.__all__:
        assert hasattr(treadle, name), f"__all__ lists {name}, which is not there"
        assert name.startswith("__") or f"`treadle.{name}`" in reference, (
            f"{identity(REFERENCE)} does not describe treadle.{name}"
        )


@pytest.mark.parametrize("path", DOCUMENTS, ids=identity)
def test_names_in_the_documents_exist(path: Path) -> None:
    treadle = importlib.import_module("treadle")
    for line in code(path):
        for name in re.findall(r"\btreadle\.([A-Za-z]\w*)", line):
            if name in {"toml", "git"}:  # treadle.toml is a file
                continue
            assert hasattr(treadle, name), f"{identity(path)} names treadle.{name}"


def test_public_names_have_docstrings() -> None:
    treadle = importlib.import_module("treadle")
    for name in treadle.__all__:
        value = getattr(treadle, name)
        if not name.startswith("__") and callable(value):
            assert value.__doc__, f"treadle.{name} has no docstring"


def test_stub_lists_what_the_extension_exports() -> None:
    extension = importlib.import_module("treadle._core")
    stub = ROOT / "python" / "treadle" / "_core.pyi"
    declared: set[str] = set()
    for statement in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            declared.add(statement.name)
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            declared.add(statement.target.id)
    exported = {name for name in dir(extension) if not re.fullmatch(r"__\w+__", name)}
    assert {name for name in declared if not re.fullmatch(r"__\w+__", name)} == exported


@pytest.mark.parametrize("path", PYTHON, ids=identity)
def test_python_modules_say_what_they_are(path: Path) -> None:
    module = ast.parse(path.read_text(encoding="utf-8"))
    heading = (ast.get_docstring(module) or "").partition("\n")[0]
    assert heading, f"{identity(path)} opens without a line that says what it is"


@pytest.mark.parametrize("path", RUST, ids=identity)
def test_rust_modules_say_what_they_are(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next(line for line in lines if line and not line.startswith("#!["))
    assert re.match(r"//! \S", first), f"{identity(path)} opens without a line that says what it is"
