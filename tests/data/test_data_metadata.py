from __future__ import annotations

import json
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.data.check.wording import check_words
from matrix_video.data.metadata import dump_line, read_samples, scan_metadata
from matrix_video.data.sample import Instance, Interaction, Sample, Span
from matrix_video.services.errors import MatrixError

# Line feeds, and what other programs take for some.
text = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\n\r\u2028\x85"))
NAMES = (
    "format id file_name caption instances interactions scene scores noun phrase mentions "
    "noun_spans doubtful subject verb object verb_span contact start end"
)
fields = st.sampled_from(NAMES.split())
floats = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.builds(tuple, st.tuples(text, text, st.dictionaries(text, floats)))))
def test_any_text_survives(parts: list[tuple[str, str, dict[str, float]]]) -> None:
    samples = [
        Sample(id=f"c{i}", file_name=f"videos/{i}.mp4", caption=caption, scene=scene, scores=scores)
        for i, (caption, scene, scores) in enumerate(parts)
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "metadata.jsonl"
        path.write_bytes("".join(map(dump_line, samples)).encode())
        assert read_samples(path) == tuple(samples)
        assert [line.number for line in scan_metadata(path)[0]] == [
            number for number, _ in enumerate(samples, start=1)
        ]


SAMPLE = Sample(
    id="a",
    file_name="a.mp4",
    caption="a red ball hits it",
    instances=(
        Instance(
            id="id1",
            noun="ball",
            phrase="red ball",
            mentions=(Span(start=2, end=10), Span(start=16, end=18)),
            noun_spans=(Span(start=6, end=10),),
        ),
    ),
    interactions=(
        Interaction(subject="id1", verb="hit", object="id1", verb_span=Span(start=11, end=15)),
    ),
    scores={"quality": 1.0},
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields | text, inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.tuples(fields, anything), min_size=1, max_size=4), st.randoms())
def test_a_line_with_anything_in_any_place_is_told(
    changes: list[tuple[str, object]], random: Random
) -> None:
    value = json.loads(dump_line(SAMPLE))
    for name, new in changes:
        holder = value
        while isinstance(holder, dict | list) and holder and random.random() < 0.7:
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            inner = holder[random.choice(keys)]
            if not isinstance(inner, dict | list):
                break
            holder = inner
        if isinstance(holder, dict):
            holder[name] = new
        else:
            holder.append(new)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "metadata.jsonl"
        path.write_text(json.dumps(value) + "\n")
        lines, problems = scan_metadata(path)
    assert problems or len(lines) == 1
    for line in lines:
        check_words(line.draft)


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match=r"m: cannot be read \(No such file"):
        scan_metadata(tmp_path / "m")
