from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.data.metadata import dump_line, read_samples, scan_metadata
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
        assert read_samples(path) == tuple(samples)
        assert [line.number for line in scan_metadata(path).lines] == [
            number for number, _ in enumerate(samples, start=1)
        ]


def test_line_separators_of_unicode_do_not_end_a_line(tmp_path: Path) -> None:
    sample = Sample(id="a", file_name="a.mp4", caption="one\u2028two\u0085three\nfour")
    (tmp_path / "m").write_bytes((dump_line(sample) + "\r\n \n" + dump_line(sample)).encode())
    scan = scan_metadata(tmp_path / "m")
    assert [line.draft.caption for line in scan.lines] == [sample.caption]
    assert [problem.field for problem in scan.problems] == ["line 4: id"]


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match=r"m: cannot be read \(No such file"):
        scan_metadata(tmp_path / "m")
