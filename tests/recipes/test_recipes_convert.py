"""``matrix convert``: the wire, and what it says."""

from pathlib import Path

import pytest

from matrix_video.recipes.convert import ConvertCommand, run
from matrix_video.services.errors import MatrixError
from matrix_video.world.write import write_split


def test_there_and_back_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs, again = (tmp_path / name for name in ("ours", "theirs", "again"))
    write_split(ours, 2, 0, "val")
    assert run(ConvertCommand(ours, theirs)) == 0
    assert capsys.readouterr().out.startswith(f"{theirs}: 2 clips and ")
    assert (theirs / "mask_annotation").is_dir()
    assert run(ConvertCommand(theirs, again, to="matrix")) == 0
    files = {path.relative_to(ours) for path in ours.rglob("*") if path.is_file()}
    assert files == {path.relative_to(again) for path in again.rglob("*") if path.is_file()}
    for file in files:
        assert (ours / file).read_bytes() == (again / file).read_bytes(), file


def test_the_same_layout_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path / "ours", 1, 0, "val")
    with pytest.raises(MatrixError, match="in the layout 'matrix' already"):
        run(ConvertCommand(tmp_path / "ours", tmp_path / "out", to="matrix"))
    assert not (tmp_path / "out").exists()
