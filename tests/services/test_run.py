"""Run folders: settings, metrics, stages, resume, one process at a time."""

import errno
import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

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


def test_a_new_run_writes_settings_and_environment(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", Config(), command="train") as run:
        stored = yaml.safe_load((run.path / "config.yaml").read_text())
        assert stored == {"command": "train", "steps": 3, "name": "ä", "out": "run"}
        environment = json.loads((run.path / "environment.json").read_text())
        assert environment["packages"]["torch"].startswith("2.")


def test_equal_settings_resume_and_others_are_refused(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, Config(), command="train").close()
    RunFolder.open(tmp_path, Config(out=tmp_path), command="train").close()
    with pytest.raises(MatrixError, match=r"config\.yaml: steps: .*steps = 3, this one has 4"):
        RunFolder.open(tmp_path, Config(steps=4), command="train")
    with pytest.raises(MatrixError, match=r"command = 'train', this one has 'analyze'\. use the"):
        RunFolder.open(tmp_path, Config(), command="analyze")
    RunFolder.open(tmp_path, Config(), command="train").close()  # a refusal keeps no lock


def test_what_may_change_is_stored_anew(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, Config(), command="train", may_change={"name"}).close()
    before = (tmp_path / "config.yaml").read_bytes()
    RunFolder.open(tmp_path, Config(), command="train", may_change={"name"}).close()
    assert (tmp_path / "config.yaml").read_bytes() == before
    with pytest.raises(MatrixError, match=r"steps = 3, this one has 4"):
        changed = Config(name="b", steps=4)
        RunFolder.open(tmp_path, changed, command="train", may_change={"name"})
    assert (tmp_path / "config.yaml").read_bytes() == before
    RunFolder.open(tmp_path, Config(name="b"), command="train", may_change={"name"}).close()
    stored = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert stored == {"command": "train", "steps": 3, "name": "b", "out": "run"}
    with pytest.raises(MatrixError, match=r"name = 'b', this one has 'ä'"):
        RunFolder.open(tmp_path, Config(), command="train")


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]",
        "[" * 5000,
        "n: " + "9" * 5000,
        "t: 2026-13-45",
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


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(MatrixError, match=r"taken: a file stands where a folder belongs"):
        RunFolder.open(tmp_path / "taken", Config(), command="train")


def test_equal_lists_are_stored_without_aliases(tmp_path: Path) -> None:
    class Twice(BaseModel):
        one: list[int]
        two: list[int]

    same = [1, 2]
    for _ in range(2):
        RunFolder.open(tmp_path, Twice.model_construct(one=same, two=same), command="c").close()


class Fed(BaseModel):
    data: Path


def test_a_run_goes_on_only_with_the_same_contents(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / "a.mp4").write_text("old")
    with RunFolder.open(out, Fed(data=data), command="evaluate") as run:
        run.mark_done("evaluate")
    RunFolder.open(out, Fed(data=data), command="evaluate").close()
    data.rename(tmp_path / "away")
    RunFolder.open(out, Fed(data=data), command="evaluate").close()  # nothing to compare
    moved = (tmp_path / "away").rename(tmp_path / "moved")
    RunFolder.open(out, Fed(data=moved), command="evaluate").close()
    assert read_config(out)["data"] == str(moved)
    (moved / "a.mp4").write_text("new")
    with pytest.raises(
        MatrixError, match=r"moved: data: a\.mp4 has changed since .*or give another"
    ):
        RunFolder.open(out, Fed(data=moved), command="evaluate")
    RunFolder.open(out, Fed(data=moved), command="evaluate", may_change={"data"}).close()


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("worked", [False, True])
def test_a_run_that_did_nothing_claims_nothing(tmp_path: Path, killed: bool, worked: bool) -> None:
    out = tmp_path / "out"
    with suppress(KeyError), RunFolder.open(out, Config(steps=1), command="train") as run:
        if worked:
            run.log(step=0)
        if killed:
            shutil.copytree(out, tmp_path / "kept")
        raise KeyError("a check")
    if killed:
        shutil.rmtree(out, ignore_errors=True)
        (tmp_path / "kept").rename(out)
    else:
        assert out.exists() == worked
    if worked:
        with pytest.raises(MatrixError, match="steps = 1, this one has 2"):
            RunFolder.open(out, Config(steps=2), command="train")
    else:
        RunFolder.open(out, Config(steps=2), command="analyze").close()
        assert read_config(out)["command"] == "analyze"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("metadata.jsonl", "a data set"),
        ("metadata.partial.jsonl", "a data set"),
        ("metadata.csv", "a data set"),
        ("index.html", "a report"),
    ],
)
def test_a_folder_of_another_kind_is_refused(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(MatrixError, match=f"the folder is {what} already. choose another"):
        RunFolder.open(tmp_path, Config(), command="train")
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_metrics_are_cut_back(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, Config(), command="train") as run:
        for step in range(5):
            run.log(step=step, loss=step / 2)
        with run.metrics_path.open("a") as file:
            file.write('{"step": 5, "lo')  # a kill in the middle of a line
        assert [line["step"] for line in run.metrics()] == [0, 1, 2, 3, 4]
        run.truncate_metrics(lambda line: line["step"] < 3)
        run.log(step=3, loss=9.0)
        assert [line["loss"] for line in run.metrics()] == [0, 0.5, 1, 9.0]


def test_resuming_drops_half_lines_and_half_files(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, Config(), command="train") as run:
        run.log(step=0)
    with run.metrics_path.open("a") as file:
        file.write('{"step": 1')
    command = [sys.executable, "-c", "import os; print(os.getpid())"]
    dead = subprocess.run(command, capture_output=True, text=True, check=True)
    (tmp_path / "deep").mkdir()
    (tmp_path / f"deep/.partial-{dead.stdout.strip()}-x.safetensors").write_text("half")
    living = tmp_path / ".partial-1-x.json"
    living.write_text("half")  # process 1 is always alive
    with RunFolder.open(tmp_path, Config(), command="train") as run:
        run.log(step=7)
        assert [line["step"] for line in run.metrics()] == [0, 7]
    assert [path.name for path in tmp_path.rglob(".partial-*")] == [living.name]


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


def test_stages_keep_their_facts(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, Config(), command="demo") as run:
        assert not run.done("render")
        run.mark_done("render", seconds=1.5)
        assert run.done("render")
        assert run.facts("render") == {"seconds": 1.5}


_HOLDER = """
import sys
from pathlib import Path
from pydantic import BaseModel
from matrix_video.services.config import read_config
from matrix_video.services.run import RunFolder

class Config(BaseModel):
    steps: int = 3
    name: str = "ä"
    out: Path = Path("run")

with RunFolder.open(Path(sys.argv[1]), Config(), command="train"):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time_and_a_kill_frees_the_folder(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(MatrixError, match=rf"process {holder.pid} is using this folder"):
            RunFolder.open(tmp_path, Config(), command="train")
        holder.kill()
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

    RunFolder.open(tmp_path, Old(steps=3), command="c").close()
    RunFolder.open(tmp_path, New(steps=3), command="c").close()
    with pytest.raises(
        MatrixError, match=r"holds a run with levels = \[1, 2\], this one has \[3\]"
    ):
        RunFolder.open(tmp_path, New(steps=3, levels=(3,)), command="c")
