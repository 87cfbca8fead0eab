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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(file_name="../a.mp4"), "'../a.mp4' is no path inside the data set"),
        (lambda v: v["instances"][1].update(id="id1"), "'id1' is the id of 2 instances"),
    ],
)
def test_contradictions_are_refused(
    sample: Sample, change: Callable[[Any], object], message: str
) -> None:
    stored = sample.model_dump(mode="json")
    change(stored)
    with pytest.raises(ValidationError, match=message):
        Sample.model_validate(stored)
