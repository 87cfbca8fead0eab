"""Rules of the house, kept by tests: imports, file sizes, mirrored tests, dependencies."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/matrix_video"
SOURCES = sorted(PACKAGE.rglob("*.py"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = {"huggingface_hub": "huggingface-hub", "PIL": "pillow", "yaml": "pyyaml"}
"""Where a package is not imported by its distribution's name."""
NOT_IMPORTED = {"ftfy", "protobuf", "sentencepiece"}
"""What others import for us: transformers (published tokenizers), diffusers (Wan's captions)."""
TESTED_EXTRAS = {"openai", "tenacity"}
"""Imported where their extra is installed; the suite needs no more than them to test it."""
OPTIONAL = {"torchao"} | TESTED_EXTRAS
"""Imported where their extra is installed."""
TOOLS = {"import-linter", "pre-commit", "pyright", "pytest-xdist", "ruff"}
"""What is run, not imported."""


def test_imports_point_downwards() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_rooms_are_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_every_room_has_tests() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    tested = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert rooms <= tested, rooms - tested


def _imported(files: Iterable[Path]) -> set[str]:
    """Distributions, neither the standard library nor our own, that the files import."""
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    found -= {*sys.stdlib_module_names, "matrix_video"}
    return {DISTRIBUTIONS.get(name, name) for name in found}


def _names(requirements: Iterable[str]) -> set[str]:
    return {re.split(r"[^\w.-]", one, maxsplit=1)[0] for one in requirements}


def test_dependencies_are_what_is_imported() -> None:
    assert _names(PROJECT["dependencies"]) == _imported(SOURCES) - OPTIONAL | NOT_IMPORTED


def test_development_needs_what_tests_import_and_tools() -> None:
    files = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    more = _imported(files) - _names(PROJECT["dependencies"])
    assert _names(PROJECT["optional-dependencies"]["dev"]) == more | TOOLS | TESTED_EXTRAS


def test_every_dependency_has_its_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    pinned = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    optional = PROJECT["optional-dependencies"].values()
    wanted = _names([*PROJECT["dependencies"], *(one for group in optional for one in group)])
    assert wanted <= pinned, wanted - pinned
