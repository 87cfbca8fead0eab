"""Phrases of a caption that a pipeline cleans before it reads it.

Cleaning (HTML entities, typographic quotes, repeated spaces) changes the number of characters and
of tokens, so spans of the caption as written would point beside the words that the model saw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matrix_video.data.sample import Span
from matrix_video.services.errors import MatrixError


def cleaned_phrases(
    written: str, phrases: Sequence[Sequence[Span]], clean: Callable[[str], str]
) -> tuple[str, tuple[tuple[Span, ...], ...]]:
    """The caption ``written`` as it is cleaned, and the spans of ``phrases`` there.

    A span goes from where the cleaned text before it ends to where the cleaned text up to its end
    ends. `MatrixError` where a caption's beginning is not the beginning of what is cleaned as a
    whole.
    """
    caption = clean(written)

    def carried(span: Span) -> Span:
        before, through = (clean(written[:end]) for end in (span.start, span.end))
        start, end = len(before), len(through)
        if not (caption.startswith(before) and caption.startswith(through) and start < end):
            raise MatrixError(
                f"the phrase {span.of(written)!r} is not found again in the caption as the "
                f"pipeline cleans it ({caption!r})",
                remedy="write the caption as the pipeline reads it, and its spans for that",
                field="caption",
            )
        reads = caption[start:end]
        return Span(start=start + len(reads) - len(reads.lstrip()), end=end)

    if caption == written:
        return caption, tuple(map(tuple, phrases))
    return caption, tuple(tuple(carried(span) for span in spans) for spans in phrases)
