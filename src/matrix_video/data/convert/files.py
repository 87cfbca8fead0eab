"""Copying what neither layout knows, and what a conversion counts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from matrix_video.services.files import is_temporary


@dataclass
class Kept:
    """What a conversion did, as it goes."""

    clips: int = 0
    masks: int = 0
    extra: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])


def others(root: Path, claimed: set[Path]) -> Iterator[Path]:
    """Files below ``root`` that are not claimed, sorted; temporary ones are left out."""
    for file in sorted(root.rglob("*")):
        left = is_temporary(file.relative_to(root))
        if file.is_file() and file not in claimed and not left:
            yield file


def copy_file(source: Path, target: Path, kept: Kept) -> None:
    """Copy, making folders; a file that is there already wins, and that is noted."""
    if target.exists():
        kept.notes.append(f"{source} was not copied: {target.name} is made from the data itself")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
