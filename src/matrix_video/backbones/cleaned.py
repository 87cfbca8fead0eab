"""Phrases of a caption that a pipeline cleans before it reads it.

Cleaning (HTML entities, typographic quotes, repeated spaces) changes the number of characters and
of tokens, so spans of the caption as written would point beside the words that the model saw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from matrix_video.data.sample import Sample, Span
from matrix_video.data.spans import Phrase
from matrix_video.services.errors import MatrixError


def cleaned_phrases(
    sample: Sample, found: Sequence[Phrase], clean: Callable[[str], str]
) -> tuple[Sample, tuple[Phrase, ...]]:
    """``sample`` with its caption cleaned, and ``found`` with their spans there.

    A span goes from where the cleaned text before it ends to where the cleaned text up to its end
    ends. Only the caption and the phrases are carried over, the spans of the sample's instances and
    interactions are not. `MatrixError` naming the sample where a
    caption's beginning is not the beginning of what is cleaned as a whole.
    """
    caption = clean(sample.caption)
    if caption == sample.caption:
        return sample, tuple(found)

    def carried(span: Span) -> Span:
        before, through = (clean(sample.caption[:end]) for end in (span.start, span.end))
        start, end = len(before), len(through)
        if not (caption.startswith(before) and caption.startswith(through) and start < end):
            raise MatrixError(
                f"the phrase {span.of(sample.caption)!r} is not found again in the caption as the "
                f"pipeline cleans it ({caption!r})",
                remedy="write the caption as the pipeline reads it, and its spans for that",
                field=f"{sample.id}: caption",
            )
        reads = caption[start:end]
        return Span(start=start + len(reads) - len(reads.lstrip()), end=end)

    phrases = tuple(replace(p, spans=tuple(carried(span) for span in p.spans)) for p in found)
    return sample.model_copy(update={"caption": caption}), phrases
