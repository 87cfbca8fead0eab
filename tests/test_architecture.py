"""Rules of the house, kept by tests: imports, file sizes, mirrored tests, documented commands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from matrix_video.cli import COMMANDS, parse

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src/matrix_video").rglob("*.py"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_imports_point_downwards() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_rooms_are_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_every_room_has_tests() -> None:
    rooms = {path.parent.name for path in (ROOT / "src/matrix_video").glob("*/__init__.py")}
    tested = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert rooms <= tested, rooms - tested


def _shown_commands(program: str) -> list[tuple[str, str]]:
    """Every ``program …`` line of a fenced block in the documents, continuation lines joined."""
    found: list[tuple[str, str]] = []
    for document in DOCUMENTS:
        for block in re.findall(r"```(?:bash|sh)\n(.*?)```", document.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                command = line.split("#")[0].strip().removeprefix(".venv/bin/")
                if command.startswith(f"{program} "):
                    found.append((document.name, command))
    return found


def test_documents_show_every_command() -> None:
    shown = {shlex.split(command)[1] for _, command in _shown_commands("matrix")}
    assert set(COMMANDS) <= shown, set(COMMANDS) - shown


@pytest.mark.parametrize(("document", "command"), _shown_commands("matrix"))
def test_shown_commands_parse(document: str, command: str) -> None:
    name, _ = parse(shlex.split(command)[1:])
    assert name == shlex.split(command)[1], document


def test_shown_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    shown = {command.split()[1] for _, command in _shown_commands("make")}
    for document in DOCUMENTS:
        shown.update(re.findall(r"`make ([a-z-]+)`", document.read_text()))
    assert {"demo", "test"} <= shown <= targets


def test_shown_files_exist() -> None:
    for document in DOCUMENTS:
        for path in re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text()):
            assert (document.parent / path).exists(), f"{document.name}: {path}"
