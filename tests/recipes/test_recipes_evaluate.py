"""``matrix evaluate``: the table, what has no score, and the paired differences it prints."""

import re
from pathlib import Path

import pytest
from rich.console import Console

from matrix_video.cli import parse
from matrix_video.data.dataset import Dataset
from matrix_video.evaluation.estimates import Estimate
from matrix_video.evaluation.scores import METRICS, JudgeFacts, Scores, VideoScore
from matrix_video.recipes.evaluate import (
    EvaluateCommand,
    distinct_names,
    run,
    show_differences,
)
from matrix_video.services.errors import MatrixError
from matrix_video.world.write import write_split


def test_table_null_rows_and_differences_of_two_folders_of_one_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    data = tmp_path / "val"
    write_split(data, 3, 0, "val")
    first = EvaluateCommand(videos=data, prompts=data, out=tmp_path / "one/scores")
    assert run(first) == 0
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
        prompts=data,
        out=tmp_path / "two/scores",
        nulls=False,
        against=(tmp_path / "one/scores", tmp_path / "one/scores"),
        tracked=True,
    )
    assert run(second) == 0
    assert len(Dataset(tmp_path / "two/scores/tracked")) == 2
    printed = capsys.readouterr().out
    assert "3 delivered, 2 scored, 0 unscored, 1 quarantined" in printed
    assert f"{name} is quarantined: " in printed
    line = "two/scores − one/scores: IF 0.000 over 2 videos, too few videos for a verdict (2 of 20)"
    assert printed.count(line) == 1
    write_split(tmp_path / "other", 3, 1, "val")
    other = EvaluateCommand(
        videos=tmp_path / "other",
        prompts=tmp_path / "other",
        out=tmp_path / "three",
        nulls=False,
        against=(tmp_path / "one/scores",),
    )
    with pytest.raises(MatrixError, match="it scores other prompts"):
        run(other)


def test_names_are_as_long_as_they_need_be(tmp_path: Path) -> None:
    paths = [tmp_path / part for part in ("a/x/scores", "b/x/scores", "a/y/scores", "base")]
    assert distinct_names(paths) == ["a/x/scores", "b/x/scores", "y/scores", "base"]
    assert distinct_names([tmp_path, tmp_path]) == [tmp_path.name] * 2


def _scores(values: list[float], seed: int = 0) -> Scores:
    videos = tuple(
        VideoScore.model_validate(
            {"id": f"v{i}", "if": v, "role_gap": v / 2, "state": "scored", "prompt": "p"}
        )
        for i, v in enumerate(values)
    )
    count = len(values)
    return Scores(
        judge=JudgeFacts(name="j", version="1"),
        prompts="p",
        seed=0,
        video_seed=seed,
        asked=count,
        delivered=count,
        scored=count,
        unscored=0,
        quarantined=0,
        summary=dict.fromkeys(METRICS, Estimate()),
        references={},
        videos=videos,
    )


def test_one_difference_is_the_headline_and_the_rest_are_corrected() -> None:
    base = _scores([0.2] * 24, seed=1)
    clear = _scores([0.3 + 0.01 * (i % 3) for i in range(24)])
    # Resolved alone (p about 0.03), not among eight others.
    faint = _scores([0.2 + (0.1 if i % 2 else -0.058) for i in range(24)])
    console = Console(width=200, record=True, markup=False)
    show_differences({"clear [/b]": (clear, base), "faint": (faint, base)}, console)
    lines = console.export_text().splitlines()
    assert lines[0].startswith("clear [/b]: IF +0.110 [+0.1")
    assert lines[0].endswith("over 24 videos, resolved (headline)")
    assert lines[1].startswith("clear [/b]: role gap +0.055")
    assert lines[2] == "clear [/b]: verb gap no video has it in both"
    assert "not resolved" in lines[3]
    assert lines[-1] == "the videos were generated with different seeds: their noise differs too"


def test_the_command_line_gives_the_settings() -> None:
    name, config = parse(
        ["evaluate", "--videos", "a", "--prompts", "b", "--out", "c", "--against", "d", "e"]
    )
    assert name == "evaluate"
    assert config.against == (Path("d"), Path("e"))
