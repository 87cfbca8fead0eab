"""Spans of a caption as written, in the caption as a pipeline cleaned it."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.backbones.cleaned import cleaned_phrases
from matrix_video.data.sample import Span
from matrix_video.services.errors import MatrixError


def clean(caption: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(caption).replace("\u2019", "'")).strip()


def carried(written: str, *spans: tuple[int, int]) -> list[str]:
    """What the spans of ``written`` read in the cleaned caption."""
    given_spans = [Span(start=start, end=end) for start, end in spans]
    caption, (moved,) = cleaned_phrases(written, [given_spans], clean)
    assert caption == clean(written)
    return [span.of(caption) for span in moved]


def test_a_clean_caption_stays() -> None:
    cat = (Span(start=2, end=5),)
    assert cleaned_phrases("a cat", [cat], clean) == ("a cat", (cat,))


@pytest.mark.parametrize(
    ("written", "phrase", "expected"),
    [
        ("a  cat   runs", "cat", "cat"),
        ("a  cat   runs", "cat   runs", "cat runs"),
        ("the  man\u2019s hat", "man\u2019s", "man's"),
        ("&lt;b&gt; the ball", "ball", "ball"),
        ("salt &amp; pepper", "salt &amp; pepper", "salt & pepper"),
        ("salt &amp; pepper", "&amp;", "&"),
        (" cat ", "cat", "cat"),
    ],
)
def test_rewritten_captions(written: str, phrase: str, expected: str) -> None:
    start = written.index(phrase)
    assert carried(written, (start, start + len(phrase))) == [expected]


@given(words=st.lists(st.sampled_from(["cat", "dog", "&amp;", "ball"]), min_size=1, max_size=12))
def test_repeated_words(words: list[str]) -> None:
    written = "   ".join(words)
    starts = [match.start() for match in re.finditer(r"\S+", written)]
    spans = [(start, start + len(word)) for start, word in zip(starts, words, strict=True)]
    assert carried(written, *spans) == [html.unescape(word) for word in words]


@pytest.mark.parametrize(("written", "span"), [("a &amp; b  c", (3, 5)), ("a   cat", (1, 3))])
def test_spans_that_cleaning_cuts_or_removes(written: str, span: tuple[int, int]) -> None:
    with pytest.raises(MatrixError, match=r"^caption: the phrase .* is not found again in the"):
        carried(written, span)
