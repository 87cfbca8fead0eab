"""``matrix convert``: between our folder layout and the authors', both ways without loss.

The authors' layout (their released code)::

    videos/000001.mp4
    mask_annotation/000001/<id1>/000.png ...     one mask a frame, background black
    mask_annotation/000001/merged/000.png        one colour an id
    metadata.csv | .json | .jsonl                video,prompt; prompts carry the ids inline

What one layout cannot hold goes into a sidecar that the other's tools ignore:

    authors.json, authors/     in ours: metadata file, prompts, PNG modes and palettes, overlaps
    matrix.jsonl, matrix/      in theirs: spans, interactions, scores, names, other files

Only what differs from the defaults is put there, so a data set that goes there and back is the
same files again.
"""

from matrix_video.data.convert.recognise import Layout, recognise
from matrix_video.data.convert.run import ConvertSummary, convert

__all__ = ["ConvertSummary", "Layout", "convert", "recognise"]
