from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from matrix_video.data.sample import Sample, Span


def test_json_round_trip(sample: Sample) -> None:
    assert Sample.model_validate_json(sample.model_dump_json()) == sample


def test_instance_by_id(sample: Sample) -> None:
    assert sample.instance("id2").noun == "box"
    with pytest.raises(KeyError, match="'id9' not among"):
        sample.instance("id9")


def test_span_reads_its_text(sample: Sample) -> None:
    assert sample.instances[0].mentions[0].of(sample.caption) == "small red ball"
    with pytest.raises(ValidationError, match=r"span .3, 3. is empty"):
        Span(start=3, end=3)


def put(value: dict[str, Any], path: list[str | int], new: object) -> None:
    place: Any = value
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = new


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["file_name"], "../a.mp4", "'../a.mp4' is no path inside the data set"),
        (["instances", 1, "id"], "id1", "'id1' is the id of 2 instances"),
        (["interactions", 0, "object"], "id7", "object: 'id7' is not among the instances"),
        (["interactions", 0, "verb_span", "end"], 999, "verb_span: span .* ends after the"),
        (
            ["instances", 0, "noun_spans", 0, "end"],
            999,
            r"instances.0..noun_spans.0.: span .* ends after",
        ),
    ],
)
def test_contradictions_are_refused(
    make_sample: Callable[[str], Sample], path: list[str | int], value: object, message: str
) -> None:
    stored = make_sample("0001").model_dump(mode="json")
    put(stored, path, value)
    with pytest.raises(ValidationError, match=message):
        Sample.model_validate(stored)
