"""Paths in strangers' files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from matrix_video.data.dataset import DatasetWriter
from matrix_video.data.paths import VideoPath, check_stored, inside
from matrix_video.data.sample import Sample
from matrix_video.services.errors import MatrixError

OUTSIDE = (
    "", ".", "..", "/", "/etc/passwd", "../a.mp4", "videos/../../a.mp4", "videos/..", "./a.mp4",
    "videos//a.mp4", "videos/./a.mp4", "videos/", "a\0b.mp4", "a\nb.mp4", "\x7f.mp4", "C:/a.mp4",
    "..\\a.mp4", "videos\\a.mp4", "\ud800.mp4", "x" * 241 + ".mp4", "videos/.partial-1-a.mp4",
    "videos/.replaced-a.mp4", ".lock/a.mp4", "/".join(["d" * 200] * 6) + "/a.mp4",
)  # fmt: skip
OURS = (
    "metadata.jsonl", "metadata.partial.jsonl", "Metadata.JSONL", "tracks/0001.json",
    "tracks/a.mp4", "TRACKS/a.mp4", "authors/a.mp4", "questions.jsonl", "videos/a.sqlite",
    "videos/a.mp4.lock", "videos/config.yaml", "index.html",
    ".a.mp4", "videos/.trash/a.mp4",
)  # fmt: skip


VIDEO: TypeAdapter[str] = TypeAdapter(VideoPath)


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("check", [check_stored, VIDEO.validate_python])
def test_paths_that_are_refused(path: str, check: Callable[[str], str]) -> None:
    with pytest.raises(
        ValueError, match=r"path inside|temporary name|has \d+ bytes|string_unicode"
    ):
        check(path)


@pytest.mark.parametrize("path", ["a.mp4", "part 1/größe.MP4", "at 3.04\u202fPM.mov", "ab:c/d.mp4"])
def test_names_of_any_kind_are_taken(path: str) -> None:
    assert VIDEO.validate_python(path) == path


@pytest.mark.parametrize("path", OURS)
def test_a_video_never_takes_the_name_of_a_file_of_ours(path: str) -> None:
    with pytest.raises(ValidationError, match="is the name of a file of the data set's own"):
        Sample(id="a", file_name=path, caption="")
    check_stored(path)


@given(st.text(max_size=8) | st.lists(st.sampled_from(["a", "..", "/", ".", "\0"])).map("".join))
def test_whatever_is_taken_lies_inside(path: str) -> None:
    try:
        check_stored(path)
    except ValueError:
        return
    assert inside(Path("/root of it"), path).is_relative_to("/root of it")


def test_links_out_of_the_folder(tmp_path: Path, sample: Sample, frames_THWC: Any) -> None:
    (tmp_path / "elsewhere").mkdir()
    root = tmp_path / "set"
    root.mkdir()
    (root / "videos").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MatrixError, match=r"set/videos/a\.mp4: this is a link out of .*\(cp -L\)"):
        inside(root, "videos/a.mp4")
    with DatasetWriter(root) as writer, pytest.raises(MatrixError, match="a link out of"):
        writer.add(sample, frames_THWC, 8.0, {}, lossless=True)
    assert not any((tmp_path / "elsewhere").iterdir())
    (root / "clips").mkdir()
    (root / "linked").symlink_to("clips")  # a link that stays inside does no harm
    assert inside(root, "linked/a.mp4") == root / "linked/a.mp4"
    (root / "loop").symlink_to("loop")
    with pytest.raises(MatrixError):
        inside(root, "loop/a.mp4")
