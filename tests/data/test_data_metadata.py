from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.data.metadata import dump_line, scan_metadata
from matrix_video.data.sample import Sample
from matrix_video.services.errors import MatrixError

text = st.text(st.characters(exclude_categories=["Cs"]))
floats = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.builds(tuple, st.tuples(text, text, st.dictionaries(text, floats)))))
def test_any_text_survives(parts: list[tuple[str, str, dict[str, float]]]) -> None:
    samples = [
        Sample(id=f"c{i}", file_name=f"videos/{i}.mp4", caption=caption, scene=scene, scores=scores)
        for i, (caption, scene, scores) in enumerate(parts)
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "metadata.jsonl"
        path.write_bytes("".join(map(dump_line, samples)).encode())
        scan = scan_metadata(path)
    assert scan.samples == samples
    assert scan.lines == list(range(1, len(samples) + 1))
    assert scan.problems == []


def test_line_separators_of_unicode_do_not_end_a_line(tmp_path: Path) -> None:
    sample = Sample(id="a", file_name="a.mp4", caption="one\u2028two\u0085three\nfour")
    (tmp_path / "m").write_bytes((dump_line(sample) + "\r\n \n" + dump_line(sample)).encode())
    scan = scan_metadata(tmp_path / "m")
    assert scan.samples == [sample]
    assert [problem.field for problem in scan.problems] == ["line 4: id"]


def test_every_problem_is_found(tmp_path: Path, make_sample: Callable[[str], Sample]) -> None:
    lines = [
        dump_line(make_sample("0001")),
        '{"id": "0002"}\n',
        "{not json}\n",
        dump_line(make_sample("0001")),
        dump_line(make_sample("0005")).replace('"object":"id2"', '"object":"id8"'),
        dump_line(make_sample("0006")).replace("videos/0006.mp4", "/etc/passwd"),
        dump_line(make_sample("0007")),
        '{"id":"0008","file_name":"a.mp4","caption":"\xff"}\n',
    ]
    path = tmp_path / "metadata.jsonl"
    path.write_bytes("".join(lines).encode("latin-1"))
    scan = scan_metadata(path)
    assert [sample.id for sample in scan.samples] == ["0001", "0007"]
    assert scan.lines == [1, 7]
    texts = [str(problem) for problem in scan.problems]
    for text, wanted in zip(
        texts,
        [
            f"{path}: line 2: file_name: Field required. Correct this line, or remove it.",
            f"{path}: line 2: caption: Field required",
            f"{path}: line 3: Invalid JSON",
            f"{path}: line 4: id: '0001' is already the id of line 1. Give every sample an id",
            f"{path}: line 5: interactions[0].object: 'id8' is not among the instances",
            f"{path}: line 6: file_name: '/etc/passwd' is no path inside the data set",
            f"{path}: line 8: Invalid JSON",
        ],
        strict=True,
    ):
        assert text.startswith(wanted)


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match=r"m: cannot be read \(No such file"):
        scan_metadata(tmp_path / "m")
