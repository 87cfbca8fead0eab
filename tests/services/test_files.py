"""Atomic files: whole or not there."""

import errno
from pathlib import Path

import pytest

from matrix_video.services.errors import MatrixError
from matrix_video.services.files import (
    atomic_dir,
    atomic_path,
    read_json,
    sha256_file,
    sha256_text,
    write_atomic,
    write_json,
)


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "clip.mp4"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".mp4"
        assert temporary.parent == target.parent
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert [path.name for path in target.parent.iterdir()] == ["clip.mp4"]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_atomic(target, "old")
    with pytest.raises(RuntimeError, match="boom"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("boom")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_file_and_remedy(tmp_path: Path, code: int) -> None:
    target = tmp_path / "a.bin"
    with (
        pytest.raises(MatrixError, match=r"a\.bin: no space is left.*free some space"),
        atomic_path(target) as temporary,
    ):
        temporary.write_bytes(b"half")
        raise OSError(code, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_dir(target) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(RuntimeError, match="boom"), atomic_dir(target) as folder:
        (folder / "b").write_text("2")
        raise RuntimeError("boom")
    assert [path.name for path in target.iterdir()] == ["a"]
    with atomic_dir(target) as folder:
        (folder / "c").write_text("3")
    assert [path.name for path in target.iterdir()] == ["c"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_leaves_no_half_folder(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match="no space"), atomic_dir(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_json_goes_round(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"ä": [1, 2.5, None]})
    assert read_json(tmp_path / "x.json") == {"ä": [1, 2.5, None]}
    assert (tmp_path / "x.json").read_text().endswith("}\n")


def test_broken_and_missing_json_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(MatrixError, match=r"x\.json: this is not valid JSON.*restore the file"):
        read_json(tmp_path / "x.json")
    with pytest.raises(MatrixError, match=r"y\.json: the file does not exist\. check the path"):
        read_json(tmp_path / "y.json")


def test_hashes_see_boundaries(tmp_path: Path) -> None:
    assert sha256_text("ab", "c") != sha256_text("a", "bc")
    assert sha256_text("ab", "c") == sha256_text("ab", "c")
    (tmp_path / "f").write_bytes(b"")
    assert sha256_file(tmp_path / "f").startswith("e3b0c44298fc1c14")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MatrixError, match=r"file/deep/x\.json: a file stands where a folder"):
        write_json(tmp_path / "file/deep/x.json", 1)
    (tmp_path / "folder").mkdir()
    with pytest.raises(MatrixError, match=r"folder: a file stands .*or a folder where a file"):
        write_json(tmp_path / "folder", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_permission_is_asked_for_by_name(tmp_path: Path) -> None:
    target = tmp_path / "x"
    with (
        pytest.raises(MatrixError, match=r"x: it cannot be written \(Read-only.*permissions"),
        atomic_path(target) as temporary,
    ):
        raise OSError(errno.EROFS, "Read-only file system", str(temporary))


def test_what_goes_wrong_with_other_files_is_not_ours(tmp_path: Path) -> None:
    with (
        pytest.raises(PermissionError),
        atomic_path(tmp_path / "x"),
    ):
        raise OSError(errno.EACCES, "Permission denied", "/somewhere/else")
    assert list(tmp_path.iterdir()) == []
