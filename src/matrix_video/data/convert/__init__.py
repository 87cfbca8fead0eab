"""``matrix convert``: from other layouts into ours, and between ours and the authors' without loss.

The authors' layout (their released code)::

    videos/000001.mp4
    mask_annotation/000001/<id1>/000.png ...     one mask a frame, background black
    mask_annotation/000001/merged/000.png        one colour an id
    metadata.csv | .json | .jsonl                video,prompt; prompts carry the ids inline

What one layout cannot hold lies beside the data, where the other's tools do not look:

    authors/                   in ours: their metadata, mask folders as archives, other files
    matrix.jsonl, matrix/      in theirs: spans, interactions, scores, names, other files

A data set that goes there and back is the same files again; a mask that was edited on the way is
drawn anew. run.py converts clip by clip, from_authors.py, to_authors.py and from_masks.py are its
directions.
"""

from __future__ import annotations

from functools import partial
from os.path import realpath
from pathlib import Path

from matrix_video.data.convert.from_authors import FromAuthors
from matrix_video.data.convert.from_masks import FromMasks, MaskOptions
from matrix_video.data.convert.layout import Layout, find_table, recognise
from matrix_video.data.convert.run import LEFT_OUT, STORE, ConvertSummary, run
from matrix_video.data.convert.to_authors import ToAuthors
from matrix_video.data.metadata import JOURNAL
from matrix_video.services.errors import MatrixError

__all__ = ["LEFT_OUT", "ConvertSummary", "Layout", "MaskOptions", "convert", "recognise"]


def convert(
    source: Path,
    target: Path,
    to: Layout | None = None,
    *,
    masks: MaskOptions | None = None,
) -> ConvertSummary:
    """Convert a data set into the other layout (or into ``to``, which must be the other), or, with
    ``masks``, a folder of videos with texts and masks (see from_masks.py) into ours.

    A clip that cannot be converted is left out and told. A stopped run goes on when it is called
    again. Raises ``MatrixError`` where the source is in neither layout or already in ``to``, where
    the target holds something else, and where no clip can be converted.
    """
    if Path(realpath(target)).is_relative_to(realpath(source)):
        raise MatrixError(
            f"the target {target} lies inside the source",
            remedy="Give a folder outside of it",
            file=source,
        )
    if masks is not None and to == "authors":
        raise MatrixError(
            "masks are made into our layout alone",
            remedy="Leave --to out, and convert the result once more",
            file=source,
        )
    if masks is not None:
        return run(partial(FromMasks, options=masks), source, target)
    whole = find_table(source) is not None
    left = [n for n in (JOURNAL, STORE) if (source / n).is_file() and (n == JOURNAL or not whole)]
    if left:
        raise MatrixError(
            f"the data set is unfinished: it still has {left[0]}",
            remedy="Give the command that writes it again; it goes on where it stopped",
            file=source,
        )
    origin = recognise(source)
    if origin == to:
        raise MatrixError(
            f"the data set is in the layout {to!r} already",
            remedy="Copy the folder, or ask for the other layout",
            file=source,
        )
    return run(FromAuthors if origin == "authors" else ToAuthors, source, target)
