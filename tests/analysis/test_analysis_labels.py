"""Labels from people and from scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from matrix_video.analysis.labels import read_labels
from matrix_video.services.errors import MatrixError


def _scores(path: Path, *videos: dict[str, object]) -> Path:
    path.write_text(json.dumps({"format": 2, "videos": list(videos)}))
    return path


def test_scores_are_cut_at_the_threshold_and_propagation_does_not_count(tmp_path: Path) -> None:
    path = _scores(
        tmp_path / "scores.json",
        {"id": "a", "sgi_raw": 1.0, "margin": 0.4, "spi": 0.0},
        {"id": "b", "sgi_raw": 0.75, "margin": 0.1, "spi": 0.0},
        {"id": "c", "sgi_raw": 0.5, "margin": 0.3, "spi": 1.0},
        {"id": "d", "sgi_raw": None, "margin": None, "spi": 1.0},
        {"id": "people", "sgi_raw": 1.0, "margin": None, "spi": 1.0},
        {"id": "another verb", "sgi_raw": 1.0, "margin": -0.2, "spi": 1.0},
        {"id": "any verb", "sgi_raw": 1.0, "margin": 0.0, "spi": 1.0},
    )
    failed = {"c": False, "another verb": False, "any verb": False}
    assert read_labels(path) == {"a": True, "b": True, "people": True, **failed}
    strict = {"a": True, "b": False, "people": True, **failed}
    assert read_labels(path, success_at=1.0) == strict


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
    with pytest.raises(MatrixError, match="not the scores of an evaluation"):
        read_labels(path)
    good = {"id": "a", "sgi_raw": 1, "margin": 0.5}
    for change, place in (
        ({"sgi_raw": 2}, r"sgi_raw: .*less than or equal to 1"),
        ({"id": None}, r"id: .*valid string"),
        ({"margin": "high"}, r"margin: .*valid number"),
    ):
        with pytest.raises(MatrixError, match=rf"videos\.0\.{place}"):
            read_labels(_scores(path, {**good, **change}))
    old = {"id": "a", "sgi_raw": 1}
    with pytest.raises(MatrixError, match=r"videos\.0\.margin: .*Field required.*this version"):
        read_labels(_scores(path, old))


def test_missing_files(tmp_path: Path) -> None:
    for name in ("labels.csv", "scores.json"):
        with pytest.raises(MatrixError, match=name):
            read_labels(tmp_path / name)
