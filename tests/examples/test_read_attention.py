"""The example, as it is run: a child process, and a picture that holds the maps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples" / "read_attention.py"


def test_it_is_short() -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 60


def test_it_paints_two_maps_for_each_token_frame(tmp_path: Path) -> None:
    out = tmp_path / "overlay.png"
    command = [sys.executable, SCRIPT, "--out", out, "--phrase", "box", "--steps", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    picture = np.asarray(Image.open(out))
    rows, columns, _ = picture.shape
    assert rows % 3 == 0  # three token frames
    left, right = picture[:, : columns // 2], picture[:, columns // 2 :]
    assert left.std() > 1
    assert not np.array_equal(left, right)
    # Random maps lie above chance somewhere, and are painted there in the colours of their panels.
    assert int(np.ptp(left.astype(int), axis=-1).max()) > 30
