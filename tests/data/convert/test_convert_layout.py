"""Which layout a folder is in, and its metadata file."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix_video.data.convert import recognise
from matrix_video.data.convert.layout import find_table
from matrix_video.data.convert.table import Table, read_table, render_table
from matrix_video.services.errors import MatrixError


@pytest.mark.parametrize(
    ("files", "layout"),
    [
        ({"metadata.jsonl": '\n{"file_name": "a.mp4", "caption": ""}\n'}, "matrix"),
        ({"metadata.jsonl": '{"prompt": "", "video": "a.mp4"}\n'}, "authors"),
        ({"metadata.jsonl": '{"file_name": "a.mp4"}', "metadata.csv": ""}, "matrix"),
        ({"metadata.jsonl": "{broken"}, "matrix"),
        ({"metadata.jsonl": ""}, "matrix"),
        ({"metadata.jsonl": "[1]", "mask_annotation/x": ""}, "authors"),
        ({"metadata.csv": ""}, "authors"),
        ({"metadata.json": "[]"}, "authors"),
        ({"mask_annotation/x": ""}, "authors"),
    ],
)
def test_layouts(tmp_path: Path, files: dict[str, str], layout: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert recognise(tmp_path) == layout


def test_the_first_of_several_tables_is_read(tmp_path: Path) -> None:
    for name in ("metadata.jsonl", "metadata.json"):
        (tmp_path / name).write_text("")
    assert find_table(tmp_path) == "metadata.json"


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_rendered_tables_are_read_back(tmp_path: Path, kind: str) -> None:
    other = "" if kind == "csv" else [1, None, 0.1]
    rows = (
        {"video": "a.mp4", "prompt": 'ü "quoted", and\r\n\r\rlines\u2028', "note": other},
        {"video": "b.mp4", "prompt": " , ", "note": "'"},
    )
    table = Table(kind, ("video", "prompt", "note"), rows)  # type: ignore[arg-type]
    path = tmp_path / f"metadata.{kind}"
    path.write_bytes(render_table(table))
    assert read_table(path).rows == rows


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("metadata.json", "{", r"metadata\.json: this is not valid JSON"),
        ("metadata.json", '{"video": 1}', r"expected a list of objects with 'video' and 'prompt'"),
        ("metadata.json", "[3]", r"row 0: expected an object with 'video' and 'prompt'"),
        ("metadata.json", '[{"video": "a"}]', r"row 0: prompt: expected text, found None"),
        ("metadata.jsonl", '\n{"video": 1}', r"line 2: video: expected text, found 1"),
        ("metadata.jsonl", "\n{", r"line 2: this is not valid JSON"),
        ("metadata.csv", "", r"line 1: expected one column 'video' among the columns \[\]"),
        ("metadata.csv", "file,prompt\na.mp4,x\n", r"line 1: expected one column 'video' among"),
        ("metadata.csv", "video,prompt\na,b, c\n", r"line 2: 3 cells under 2 columns; a comma in"),
        ("metadata.csv", 'video,prompt\na,"a" b\n', r"line 2: this is not CSV"),
        ("metadata.csv", "video,prompt,video\n", r"expected one column 'video'"),
        ("metadata.csv", "video,prompt,x,x\n", r"two columns have the same name"),
    ],
)
def test_broken_tables(tmp_path: Path, name: str, text: str, problem: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(MatrixError, match=problem):
        read_table(tmp_path / name)
