"""The conversion as a whole: recognise, convert into a temporary folder, rename."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matrix_video.data.convert.from_authors import from_authors
from matrix_video.data.convert.recognise import Layout, recognise
from matrix_video.data.convert.to_authors import to_authors
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import atomic_dir


@dataclass(frozen=True)
class ConvertSummary:
    """``masks`` counts PNG files; ``extra`` are files that neither layout knows, carried along."""

    source: Path
    target: Path
    to: Layout
    clips: int
    masks: int
    extra: tuple[str, ...]
    notes: tuple[str, ...]


def convert(source: Path, target: Path, to: Layout | None = None) -> ConvertSummary:
    """Convert a data set into the other layout (or into ``to``, which must be the other).

    Nothing is lost either way, see this package's page. ``target`` appears whole or not at all.
    Raises ``MatrixError`` where the source is in neither layout or already in ``to``, where the
    target holds something, and for the first file that cannot be converted.
    """
    origin = recognise(source)
    wanted: Layout = ("authors" if origin == "matrix" else "matrix") if to is None else to
    if origin == wanted:
        raise MatrixError(
            f"the data set is in the layout {wanted!r} already",
            remedy="Copy the folder, or ask for the other layout",
            file=source,
        )
    if target.resolve().is_relative_to(source.resolve()):
        raise MatrixError(
            f"the target {target} lies inside the source",
            remedy="Give a folder outside of it",
            file=source,
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise MatrixError(
            "the target exists already and is not empty",
            remedy="Give a new folder, or remove this one",
            file=target,
        )
    with atomic_dir(target) as temporary:
        kept = (from_authors if wanted == "matrix" else to_authors)(source, temporary)
    return ConvertSummary(
        source, target, wanted, kept.clips, kept.masks, tuple(kept.extra), tuple(kept.notes)
    )
