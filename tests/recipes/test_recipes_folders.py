"""Output folders of all commands: places that cannot be, and folders that are something else."""

import shutil
from pathlib import Path

import pytest

from matrix_video import cli
from matrix_video.services.config import read_config
from matrix_video.services.run import RunFolder
from matrix_video.world.write import write_split

Files = dict[str, bytes]
OUTS = ("demo", "world", "convert", "analyze", "train", "generate", "evaluate", "report")
"""Commands that write a folder; `plan` writes a file, `check` nothing."""


def test_every_command_with_a_folder_is_here() -> None:
    fields = {n: getattr(cli._config_class(n), "model_fields", {"out": 0}) for n in cli.COMMANDS}
    assert {n for n in fields if "out" in fields[n]} - {"check"} | {"plan"} == {*OUTS, "plan"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "clips"
    write_split(folder, 2, 0, "val")
    return folder


def _options(command: str, clips: Path, out: Path) -> list[str]:
    """A command line that is in order but for its folder."""
    run = clips.parent / "run"
    run.mkdir(exist_ok=True)
    (run / "config.yaml").write_text("command: train\n")
    given = {
        "convert": [str(clips), str(out)],
        "analyze": ["--data", str(clips)],
        "train": ["--data", str(clips), "--v2t", "0", "--v2v", "0"],
        "generate": ["--prompts", str(clips)],
        "evaluate": ["--prompts", str(clips), "--videos", str(clips)],
        "report": ["--runs", str(run)],
        "world": ["--clips", "1", "--split", "val"],
    }.get(command, [])
    return [command, *given, *([] if command == "convert" else ["--out", str(out)])]


def _refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command ends with."""
    with pytest.raises(SystemExit) as end:
        cli.main(options)
    told = capsys.readouterr().err.splitlines()
    assert end.value.code == 1, told
    assert told[-1].startswith(f"matrix {options[0]}: ")
    return told[-1]


def _files(folder: Path) -> Files:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize(
    "place", ["file", "file/deep", "x" * 300, "loop/deep", "dangling", "/proc/x"]
)
@pytest.mark.parametrize("command", [*OUTS, "plan"])
def test_a_place_that_cannot_be_made_is_one_line(
    command: str, place: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("/proc/nowhere/x")
    if command == "plan":  # it writes a file
        place = f"{'file' if place == '/proc/x' else place}/plan.json"
    told = _refused(_options(command, clips, tmp_path / place), capsys)
    named = place if place[0] == "/" else f"/{Path(place).parts[0]}"
    assert named in told or "/proc/nowhere" in told
    assert _files(tmp_path) == {"file": b""}


@pytest.mark.parametrize("kind", ["run", "data set", "report"])
@pytest.mark.parametrize("command", OUTS)
def test_a_folder_of_another_kind_is_refused_and_left_alone(
    command: str, kind: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    if kind == "data set":
        shutil.copytree(clips, out)
        if command == "world":  # its own kind, but of another seed
            (out / "metadata.jsonl").write_text(
                (out / "metadata.jsonl").read_text().replace("val-0-", "val-1-")
            )
            for file in [*out.rglob("val-0-*")]:
                file.rename(file.with_name(file.name.replace("val-0-", "val-1-")))
    elif kind == "run":
        out.mkdir()
        (out / "config.yaml").write_text("command: other\nsteps: 3\n")
        (out / "result").write_text("")
    elif command == "report":
        return  # its own kind
    else:
        out.mkdir()
        (out / "index.html").write_text("")
    before = _files(out)
    told = _refused(_options(command, clips, out), capsys)
    assert "another output folder" in told or "new folder" in told
    assert _files(out) == before


LOST = {
    "no data": "analyze --data CLIPS/none",
    "labels of others": "analyze --data CLIPS --labels CLIPS/../l.csv",
    "no layers": "train --data CLIPS --heldout-samples 0",
    "no such layer": "train --data CLIPS --heldout-samples 0 --v2t 99 --v2v 99",
    "no adapter": "generate --prompts CLIPS --adapter CLIPS/none",
    "no videos": "evaluate --prompts CLIPS --videos CLIPS/none",
}
"""Command lines whose checks fail, at different depths."""


@pytest.mark.parametrize("name", list(LOST))
def test_checks_that_fail_leave_no_claim(
    name: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clips.parent / "l.csv").write_text("id,success\nnobody,1\n")
    out = tmp_path / "deep" / "out"
    line = [*LOST[name].replace("CLIPS", str(clips)).split(), "--out", str(out)]
    _refused(line, capsys)
    assert not out.exists()
    out.mkdir(parents=True)
    (out / "log.txt").write_text("of the user")
    _refused(line, capsys)
    assert _files(out) == {"log.txt": b"of the user"}


VIDEO, TRACKS, TABLE = "videos/val-0-000001.mp4", "tracks/val-0-000000.json", "metadata.jsonl"


@pytest.mark.parametrize(
    ("options", "replace", "told"),
    [
        ("generate --prompts OWN", TABLE, "prompts"),
        ("generate --prompts OTHER --adapter OWN", TABLE, "adapter"),
        ("generate --prompts OTHER --adapter OTHER --id-maps OWN", VIDEO, "id_maps"),
        ("train --data OWN", TRACKS, "data"),
        ("train --data OTHER --layers OWN/metadata.jsonl", TABLE, "layers"),
        ("train --data OTHER --val-data OWN", VIDEO, "val_data"),
        ("analyze --data OWN", VIDEO, "data"),
        ("analyze --data OTHER --labels OWN/metadata.jsonl", TABLE, "labels"),
        ("analyze --data OTHER --trajectory OWN", TABLE, "trajectory"),
        ("analyze --data OTHER --model OWN", TABLE, "model"),
    ],
)
def test_a_finished_run_is_not_repeated_on_other_contents(
    options: str,
    replace: str,
    told: str,
    clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The run is made without working: what the command compares comes before it. `evaluate` is not
    here: it judges the videos that changed."""
    own, other, out = tmp_path / "own", tmp_path / "other", tmp_path / "out"
    shutil.copytree(clips, own)
    shutil.copytree(clips, other)
    words = options.replace("OWN", str(own)).replace("OTHER", str(other)).split()
    line, command = [*words, "--out", str(out)], words[0]
    _, config = cli.parse(line)
    with RunFolder.open(out, config, command=command) as run:
        run.mark_done(command)
    (own / replace).write_bytes((own / replace).read_bytes() + b" ")
    refused = _refused(line, capsys)
    assert f"{told}: " in refused
    assert "has changed since this run began" in refused
    assert read_config(out)["command"] == command
