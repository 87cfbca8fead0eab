"""Clips that several tests look at."""

import pytest

from matrix_video.world.clips import WorldClip, make_clip


@pytest.fixture(scope="session")
def val_clips() -> list[WorldClip]:
    return [make_clip(0, "val", index) for index in range(120)]


@pytest.fixture(scope="session")
def base_clips() -> list[WorldClip]:
    return [make_clip(0, "base", index) for index in range(120)]
