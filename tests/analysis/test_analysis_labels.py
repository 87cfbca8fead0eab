"""Labels from people and from scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from matrix_video.analysis.labels import read_labels
from matrix_video.services.errors import MatrixError


def _scores(path: Path, *videos: dict[str, object]) -> Path:
    path.write_text(json.dumps({"format": 1, "videos": list(videos)}))
    return path


def test_scores_are_cut_at_the_threshold_and_propagation_does_not_count(tmp_path: Path) -> None:
    path = _scores(
        tmp_path / "scores.json",
        {"id": "a", "sgi_raw": 1.0, "spi": 0.0},
        {"id": "b", "sgi_raw": 0.75, "spi": 0.0},
        {"id": "c", "sgi_raw": 0.5, "spi": 1.0},
        {"id": "d", "sgi_raw": None, "spi": 1.0},
    )
    assert read_labels(path) == {"a": True, "b": True, "c": False}
    assert read_labels(path, success_at=1.0) == {"a": True, "b": False, "c": False}


def test_csv_of_people(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,who,success\na,x,Yes\nb,y,0\nc,z,\nd,z,failure\n")
    assert read_labels(path) == {"a": True, "b": False, "d": False}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("id,verdict\na,1\n", r"its columns are \['id', 'verdict'\]"),
        ("id,success\na,maybe\n", r"line 2: success: 'maybe' is not a label"),
        ("id,success\na,1\na,0\n", r"line 3: id: a is labelled twice"),
        ("id,success\na,\n", r"no video has a label"),
    ],
)
def test_broken_csv(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(MatrixError, match=match):
        read_labels(path)


def test_broken_scores(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text("[]")
    with pytest.raises(MatrixError, match="videos: it holds no list of videos"):
        read_labels(path)
    with pytest.raises(MatrixError, match=r"videos\[0\]\.sgi_raw: 2 is not a share"):
        read_labels(_scores(path, {"id": "a", "sgi_raw": 2}))
    with pytest.raises(MatrixError, match=r"videos\[0\]\.id: it has no id"):
        read_labels(_scores(path, {"sgi_raw": 1}))
    path.write_text(json.dumps({"videos": [{"id": "a", "sgi_raw": 1}, 3]}))
    with pytest.raises(MatrixError, match=r"videos\[1\]: it is no object"):
        read_labels(path)


def test_missing_files(tmp_path: Path) -> None:
    for name in ("labels.csv", "scores.json"):
        with pytest.raises(MatrixError, match=name):
            read_labels(tmp_path / name)
