"""Run folders: settings, metrics, stages, resume, one process at a time."""

import errno
import json
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, Field

from matrix_video.services.config import read_config
from matrix_video.services.errors import MatrixError
from matrix_video.services.run import RunFolder


class Config(BaseModel):
    steps: int = 3
    name: str = "ä"
    out: Path = Path("run")


def _worked(path: Path, config: BaseModel, **options: Any) -> None:
    """Open a run and leave something in it: one that did nothing holds nothing."""
    with RunFolder.open(path, config, command="train", **options) as run:
        run.log(step=0)


def test_a_new_run_writes_settings_and_environment(tmp_path: Path) -> None:
    _worked(tmp_path / "run", Config())
    stored = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert stored == {"command": "train", "steps": 3, "name": "ä", "out": "run"}
    environment = json.loads((tmp_path / "run/environment.json").read_text())
    assert environment["packages"]["torch"].startswith("2.")


def test_equal_settings_resume_and_others_are_refused(tmp_path: Path) -> None:
    _worked(tmp_path, Config())
    _worked(tmp_path, Config(out=tmp_path))
    with pytest.raises(MatrixError, match=r"config\.yaml: steps: .*steps = 3, this one has 4"):
        RunFolder.open(tmp_path, Config(steps=4), command="train")
    with pytest.raises(MatrixError, match=r"command = 'train', this one has 'analyze'\. use the"):
        RunFolder.open(tmp_path, Config(), command="analyze")
    _worked(tmp_path, Config())  # a refusal keeps no lock


def test_what_may_change_is_stored_anew(tmp_path: Path) -> None:
    _worked(tmp_path, Config())
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(MatrixError, match=r"steps = 3, this one has 4"):
        _worked(tmp_path, Config(name="b", steps=4), may_change={"name"})
    assert (tmp_path / "config.yaml").read_bytes() == before
    _worked(tmp_path, Config(name="b"), may_change={"name"})
    assert read_config(tmp_path) == {"command": "train", "steps": 3, "name": "b", "out": "run"}
    with pytest.raises(MatrixError, match=r"name = 'b', this one has 'ä'"):
        _worked(tmp_path, Config())


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]",
        "[" * 1000,
        "n: " + "9" * 5000,
        "t: 2026-13-45",
        "t: 2026-12-24",
        "n: 1" + ":30" * 3000,
        "n: !!set {x}",
        "\xff",
        "# " + "x" * 2**20,
        "- a list",
        "text",
    ],
)
def test_broken_settings_name_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(MatrixError, match=r"config\.yaml: this is not valid YAML"):
        RunFolder.open(tmp_path, Config(), command="train")


def test_equal_lists_are_stored_without_aliases(tmp_path: Path) -> None:
    class Twice(BaseModel):
        one: list[int]
        two: list[int]

    same = [1, 2]
    for _ in range(2):
        _worked(tmp_path, Twice.model_construct(one=same, two=same))


class Fed(BaseModel):
    data: Path


def test_a_run_goes_on_only_with_the_same_contents(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / "a.mp4").write_text("old")
    _worked(out, Fed(data=data))
    data.rename(tmp_path / "away")
    _worked(out, Fed(data=data))  # nothing to compare
    moved = (tmp_path / "away").rename(tmp_path / "moved")
    _worked(out, Fed(data=moved))
    assert read_config(out)["data"] == str(moved)
    (moved / "a.mp4").write_text("new")
    with pytest.raises(
        MatrixError, match=r"moved: data: a\.mp4 has changed since .*or give another"
    ):
        _worked(out, Fed(data=moved))
    _worked(out, Fed(data=moved), may_change={"data"})
    (out / "inputs.json").write_text('{"format": 2}')
    with pytest.raises(MatrixError, match=r"inputs\.json: format: not a list of a run's inputs"):
        _worked(out, Fed(data=moved))


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("worked", [False, True])
def test_a_run_that_did_nothing_claims_nothing(tmp_path: Path, killed: bool, worked: bool) -> None:
    out, kept = tmp_path / "out", tmp_path / "kept"
    with suppress(KeyError), RunFolder.open(out, Config(steps=1), command="train") as run:
        if worked:
            run.log(step=0)
        shutil.copytree(out, kept)
        raise KeyError("a check")
    assert out.exists() == worked
    folder = kept if killed else out
    if worked:
        with pytest.raises(MatrixError, match="steps = 1, this one has 2"):
            RunFolder.open(folder, Config(steps=2), command="train")
    else:
        RunFolder.open(folder, Config(steps=2), command="analyze").close()
        assert read_config(folder)["command"] == "analyze"


def test_metrics_are_cut_back_and_half_lines_and_half_files_dropped(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, Config(), command="train") as run:
        for step in range(5):
            run.log(step=step, loss=step / 2)
    with run.metrics_path.open("a") as file:
        file.write('{"step": 5, "lo')  # a kill in the middle of a line
    (tmp_path / "deep").mkdir()
    (tmp_path / f"deep/.partial-{os.getpid()}-x.safetensors").write_text("of an earlier process")
    assert [line["step"] for line in run.metrics()] == [0, 1, 2, 3, 4]
    with RunFolder.open(tmp_path, Config(), command="train") as run:
        run.truncate_metrics(lambda line: line["step"] < 3)
        run.log(step=3, loss=9.0)
        assert [line["loss"] for line in run.metrics()] == [0, 0.5, 1, 9.0]
    assert [*tmp_path.rglob(".partial-*")] == []


@pytest.mark.parametrize(
    "line",
    [
        "oops",
        "[1]",
        "5",
        '{"loss": null}',
        '{"loss": [1]}',
        '{"loss": ' + "9" * 400 + "}",
        "[" * 9999,
    ],
)
def test_a_broken_line_in_the_middle_is_no_end(tmp_path: Path, line: str) -> None:
    run = RunFolder(tmp_path)
    run.log(step=0)
    with run.metrics_path.open("a") as file:
        file.write(f"{line}\n")
    run.log(step=1)
    with pytest.raises(MatrixError, match=r"metrics\.jsonl: line 2 is not valid JSON of numbers"):
        run.metrics()


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    run.log(step=0)

    def half_written(values: object) -> str:
        with run.metrics_path.open("a") as file:
            file.write('{"st')
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("matrix_video.services.run.json.dumps", half_written)
    with pytest.raises(MatrixError, match=r"metrics\.jsonl: no space is left"):
        run.log(step=1)
    assert run.metrics_path.read_text() == '{"step": 0}\n'


def test_one_process_at_a_time_and_a_kill_frees_the_folder(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        RunFolder.open(tmp_path, Config(), command="train")
        os.write(writing, b"open")
        time.sleep(60)
        os._exit(0)
    assert os.read(reading, 4) == b"open"
    with pytest.raises(MatrixError, match=rf"process {child} is using this folder"):
        RunFolder.open(tmp_path, Config(), command="train")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / ".lock").exists()  # left behind, and no hindrance
    RunFolder.open(tmp_path, Config(), command="train").close()
    assert not (tmp_path / ".lock").exists()


def test_a_run_of_before_an_option_had_its_default(tmp_path: Path) -> None:
    class Old(BaseModel):
        steps: int

    class New(BaseModel):
        steps: int
        folder: Path | None = None
        levels: tuple[int, ...] = (1, 2)
        names: dict[str, float] = Field(default_factory=dict[str, float])

    _worked(tmp_path, Old(steps=3))
    _worked(tmp_path, New(steps=3))
    with pytest.raises(
        MatrixError, match=r"holds a run with levels = \[1, 2\], this one has \[3\]"
    ):
        _worked(tmp_path, New(steps=3, levels=(3,)))
