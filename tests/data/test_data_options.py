"""The clip options that every command shares."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from matrix_video.data.options import ClipOptions
from matrix_video.data.transform import ClipTransform
from matrix_video.services.errors import MatrixError


def test_options_become_a_transform() -> None:
    assert ClipOptions().transform() == ClipTransform()
    chosen = ClipOptions(fps=4, num_frames=3, height=8, width=6)
    assert chosen.transform() == ClipTransform(fps=4, num_frames=3, size=(8, 6))
    assert ClipOptions().size is None


@pytest.mark.parametrize(("given", "missing"), [("height", "width"), ("width", "height")])
def test_half_a_size_is_refused(given: str, missing: str) -> None:
    with pytest.raises(MatrixError, match=f"{missing}: only one of height and width.*Give both"):
        ClipOptions.model_validate({given: 8})


@pytest.mark.parametrize("name", ["fps", "num_frames", "height", "limit"])
def test_numbers_below_their_least_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        ClipOptions.model_validate({"width": 8, "height": 8, name: 0})
