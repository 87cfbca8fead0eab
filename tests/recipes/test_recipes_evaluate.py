"""``matrix evaluate``: the table, what has no score, and the paired differences it prints."""

import re
from pathlib import Path

import pytest
from rich.console import Console

from matrix_video.data.dataset import Dataset
from matrix_video.evaluation.scores import read_scores
from matrix_video.recipes.evaluate import EvaluateCommand, distinct_names, run, show_differences
from matrix_video.services.errors import MatrixError
from matrix_video.world.write import write_split


def test_table_null_rows_and_differences_of_two_folders_of_one_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    data, one, two = (tmp_path / name for name in ("val", "one/scores", "two/scores"))
    write_split(data, 3, 0, "val")
    assert run(EvaluateCommand(videos=data, prompts=data, out=one)) == 0
    printed = capsys.readouterr().out
    rows = re.findall(r"^([a-z ]+?) +\d+ ", printed, re.MULTILINE)
    assert rows[:3] == ["another verb", "scores", "straight drift"]  # the strongest null is first
    assert {"roles exchanged", "frozen first frame", "ground truth"} < set(rows)
    # The same prompts elsewhere, one video torn, and the other run of this name.
    write_split(tmp_path / "copy", 3, 0, "val")
    name = Dataset(data).samples[1].id
    (tmp_path / f"copy/videos/{name}.mp4").write_text("torn [/b]")
    second = EvaluateCommand(
        videos=tmp_path / "copy",
        prompts=tmp_path / "copy",
        out=two,
        nulls=False,
        against=(one, one),
        tracked=True,
    )
    assert run(second) == 0
    assert len(Dataset(two / "tracked")) == 2
    printed = capsys.readouterr().out
    assert "two/scores, of 3: 1 quarantined" in printed
    assert f"{name} is quarantined: " in printed
    line = "two/scores − one/scores: IF 0.000 over 2 videos, no verdict below 20 videos\n"
    assert printed.count(line) == 1
    write_split(tmp_path / "other", 3, 1, "val")
    update = {"videos": tmp_path / "other", "prompts": tmp_path / "other", "out": tmp_path / "3"}
    with pytest.raises(MatrixError, match="it scores other prompts"):
        run(second.model_copy(update=update))

    console = Console(width=200, record=True, markup=False)
    own = read_scores(one)
    named = {"a [/b]": own, "b": own.model_copy(update={"video_seed": 7})}
    show_differences(named, [("a [/b]", "b"), ("b", "a [/b]")], console)
    lines = console.export_text().splitlines()
    verdict = "IF 0.000 over 3 videos, no verdict below 20 videos"
    assert lines[:2] == [f"a [/b] − b: {verdict} (headline)", f"b − a [/b]: {verdict}"]
    assert lines[-1] == "the videos were generated with different seeds: their noise differs too"


def test_names_are_as_long_as_they_need_be(tmp_path: Path) -> None:
    paths = [tmp_path / part for part in ("a/x/scores", "b/x/scores", "a/y/scores", "base")]
    assert distinct_names(paths) == ["a/x/scores", "b/x/scores", "y/scores", "base"]
    assert distinct_names([tmp_path, tmp_path]) == [tmp_path.name] * 2
