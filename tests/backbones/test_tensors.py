"""Writing safetensors: what failed writes say, what is left, who may read."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from matrix_video.backbones.tensors import digest, save_tensors
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import atomic_dir, atomic_path, clear_temporary

TENSORS = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones((), dtype=torch.bfloat16)}

LIMITED = """
import resource, signal, sys
from pathlib import Path
import torch
from matrix_video.backbones.tensors import save_tensors

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save_tensors({"a": torch.zeros(4096)}, Path(sys.argv[1]), {})
except OSError as error:
    print(error.errno, error.filename)
"""

KILLED = """
import os, sys
from pathlib import Path
import torch
from matrix_video.backbones import tensors

tensors.save_file = lambda tensors, file, metadata: (file.write_bytes(b"half"), os._exit(9))
tensors.save_tensors({"a": torch.zeros(4)}, Path(sys.argv[1]), {})
"""


def test_a_file_goes_round_and_others_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_tensors(TENSORS, tmp_path / "x.safetensors", {"k": "v"})
    finally:
        os.umask(before)
    found = load_file(tmp_path / "x.safetensors")
    assert {name: value.dtype for name, value in found.items()} == {
        "a": torch.float32,
        "b": torch.bfloat16,
    }
    assert torch.equal(found["a"], TENSORS["a"])
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_write_that_fails_is_an_error_of_the_system(tmp_path: Path) -> None:
    """A real one, from the library's own writer: a limit on the size of files."""
    told = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "x.safetensors")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == [str(errno.EFBIG), str(tmp_path / "x.safetensors")]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", [False, True])
def test_a_full_disk_names_file_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr("matrix_video.backbones.tensors.save_file", full)
    target = tmp_path / "out"
    with pytest.raises(MatrixError, match=r"out: no space is left.*free some space"):
        if folder:
            with atomic_dir(target) as temporary:
                save_tensors(TENSORS, temporary / "x.safetensors", {})
        else:
            with atomic_path(target) as temporary:
                save_tensors(TENSORS, temporary, {})
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_library_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise SafetensorError("no such dtype")

    monkeypatch.setattr("matrix_video.backbones.tensors.save_file", broken)
    with pytest.raises(SafetensorError, match="no such dtype"):
        save_tensors(TENSORS, tmp_path / "x.safetensors", {})


def test_what_a_killed_process_leaves_is_cleared(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "x.safetensors")], check=False)
    assert len(list(tmp_path.rglob("x.safetensors"))) == 1  # half a file, under no final name
    assert not (tmp_path / "x.safetensors").exists()
    clear_temporary(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_digest_sees_names_types_shapes_and_bytes() -> None:
    base = {"a": torch.arange(4, dtype=torch.int32)}
    others = [
        {"b": base["a"]},
        {"a": base["a"].to(torch.int64)},
        {"a": base["a"].reshape(2, 2)},
        {"a": base["a"] + 1},
        {"a": base["a"].view(torch.float32)},
        {**base, "b": torch.zeros(0)},
        {**base, "b": torch.tensor(True)},
    ]
    found = {digest(one) for one in (base, *others)}
    assert len(found) == 1 + len(others)
    assert digest({"a": torch.arange(8)[::2]}) == digest({"a": torch.tensor([0, 2, 4, 6])})
