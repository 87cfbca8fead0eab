"""From run folders, written as the other rooms write them, to content."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from matrix_video.analysis.layers import LayerChoice, write_choice
from matrix_video.data.video import write_video
from matrix_video.report.collect import collect
from matrix_video.report.page import build_report
from matrix_video.report.runs import open_runs
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import write_json
from matrix_video.services.run import RunFolder

from .conftest import layer_choice


class Settings(BaseModel):
    model: str = "tiny"
    data: Path | None = None
    prompts: Path | None = None
    videos: Path | None = None
    seed: int = 3
    layers: tuple[int, ...] = ()
    id_map: bool = True


def analysis(path: Path, choice: LayerChoice | None = None) -> Path:
    with RunFolder.open(path, Settings(data=Path("clips")), command="analyze") as run:
        write_choice(run.path / "layers.json", choice or layer_choice())
        run.mark_done("analyze", samples=70, seconds=12.5)
    return path


def training(path: Path, *, aligned: bool = True, finished: bool = True) -> Path:
    with RunFolder.open(path, Settings(data=Path("train")), command="train") as run:
        run.log(step=0, **{"heldout_aas/5/v2t": 0.3, "heldout_aas/1/v2v": 0.2})
        for step in (1, 2, 3):
            values = {"loss": 1.0, "diffusion": 0.2 / step}
            if aligned:
                values |= {"sga": 1.5 / step, "spa": math.nan if step == 2 else 1.2}
            run.log(step=step, **values)
        heldout = {"heldout_aas/10/v2v": 0.1, "heldout_aas/5/v2t": 0.4, "heldout_aas/1/v2v": 0.25}
        run.log(step=4, diffusion=0.04, **heldout)
        if finished:
            (run.path / "adapter").mkdir()
            run.mark_done("train", steps=4, absorbed=True)
    return path


def test_runs_say_what_they_were(tmp_path: Path) -> None:
    one, two = analysis(tmp_path / "one"), training(tmp_path / "two")
    environment = json.loads((two / "environment.json").read_text())
    write_json(two / "environment.json", {**environment, "python": "3.99"})
    content = collect([("A", one), ("B", two)], title="t")
    assert [(r.label, r.command, r.model, r.data, r.seed) for r in content.runs] == [
        ("A", "matrix analyze", "tiny", "clips", "3"),
        ("B", "matrix train", "tiny", "train", "3"),
    ]
    assert content.runs[0].seconds == 12.5
    assert content.runs[1].seconds == pytest.approx(0, abs=5)
    settings = dict(content.runs[0].settings)
    assert settings["layers"] == "none"
    assert settings["id_map"] == "yes"
    assert settings["prompts"] == "–"
    found = dict(content.versions)
    assert found["python"] == f"{environment['python']} (A); 3.99 (B)"
    assert found["numpy"] == np.__version__


def test_an_analysis_is_read_with_the_type_that_wrote_it(tmp_path: Path) -> None:
    content = collect([("A", analysis(tmp_path / "a"))], title="t")
    (found,) = content.layers
    assert (found.label, found.choice) == ("A", layer_choice())


@pytest.mark.parametrize("kinds", [("v2t",), ("v2v",)])
def test_an_analysis_of_one_kind_alone_has_a_page(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    choice = layer_choice()
    groups = tuple(g for g in choice.evidence.groups if g.kind in kinds)
    basis = {k: b if k in kinds else "none" for k, b in choice.evidence.basis.items()}
    lost = next(k for k in ("v2t", "v2v") if k not in kinds)
    evidence = choice.evidence.model_copy(update={"groups": groups, "basis": basis})
    choice = layer_choice(evidence=evidence, **{lost: ()})
    content = collect([("A", analysis(tmp_path / "a", choice))], title="t")
    page = build_report(tmp_path / "report", content).read_text(encoding="utf-8")
    assert "<b>none</b>: no sample could be scored." in page


def test_training_gives_every_term_and_says_what_is_no_number(tmp_path: Path) -> None:
    content = collect([("M", training(tmp_path / "m"))], title="t")
    (run,) = content.curves
    assert set(run.terms) == {"diffusion", "sga", "spa"}
    assert run.terms["sga"].steps == (1.0, 2.0, 3.0)
    assert run.terms["sga"].values == (1.5, 0.75, 0.5)
    assert run.terms["spa"].steps == (1.0, 3.0)
    assert content.missing["training"] == ("1 values of the SPA loss of M: no numbers",)
    assert [(h.kind, h.layer, h.curve.values) for h in run.heldout] == [
        ("v2t", 5, (0.3, 0.4)),
        ("v2v", 1, (0.2, 0.25)),
        ("v2v", 10, (0.1,)),
    ]
    assert run.absorbed is True


@pytest.mark.parametrize("value", ["abc", 1e400])
def test_what_is_no_number_in_the_metrics_is_counted(tmp_path: Path, value: object) -> None:
    run = training(tmp_path / "m", aligned=False)
    lines = [{"step": 5, "diffusion": value}, {"step": value, "diffusion": 1.0}]
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    content = collect([("M", run)], title="t")
    assert len(content.curves[0].terms["diffusion"].values) == 4
    assert "2 values of the diffusion loss of M: no numbers" in content.missing["training"]


def test_unfinished_runs_are_named(tmp_path: Path) -> None:
    training(tmp_path / "m", finished=False)
    for command in ("analyze", "generate", "evaluate", "train"):
        RunFolder.open(tmp_path / command, Settings(), command=command).close()
    named = [(n, tmp_path / n) for n in ("m", "analyze", "generate", "evaluate", "train")]
    content = collect(named, title="t")
    assert content.curves[0].absorbed is None
    assert content.missing["training"][1:] == (
        "the end of m: the run is not finished",
        "loss curves of train: it logged no step",
    )
    assert content.missing["layers"] == ("analyze: the analysis has no layers.json yet",)
    assert content.missing["scores"] == ("evaluate: the evaluation has no scores.json yet",)
    assert content.missing["gallery"] == ("clips of generate: the run is not finished",)


def test_overlays_without_a_card_stand_with_their_analysis(tmp_path: Path) -> None:
    run = analysis(tmp_path / "a")
    frames = np.zeros((2, 16, 16, 3), dtype=np.uint8)
    for name in ("x_1_v2t_layer05", "x_1_v2v_layer01"):
        write_video(run / "overlays" / f"{name}.mp4", frames, 8.0)
    content = collect([("A", run)], title="t")
    assert [o.label for o in content.layers[0].overlays] == [
        "A, V2T, layer 5: x_1",
        "A, V2V, layer 1: x_1",
    ]


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match=r"gone: there is no such run folder\. Give the folder"):
        collect([("x", tmp_path / "gone")], title="t")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MatrixError, match=r"empty: it is no run folder"):
        collect([("x", tmp_path / "empty")], title="t")
    RunFolder.open(tmp_path / "world", Settings(), command="world").close()
    with pytest.raises(MatrixError, match="a run of 'world', which no report shows"):
        collect([("x", tmp_path / "world")], title="t")
    run = analysis(tmp_path / "a")
    with pytest.raises(MatrixError, match="two runs are called 'x'"):
        collect([("x", run), ("x", run)], title="t")
    stored = json.loads((run / "layers.json").read_text())
    del stored["evidence"]["groups"][0]["samples"]
    write_json(run / "layers.json", stored)
    with pytest.raises(
        MatrixError, match=r"evidence\.groups\.0\.samples: not a choice of .*Field req"
    ):
        collect([("x", run)], title="t")
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(MatrixError, match=r"config\.yaml: this is not valid YAML"):
        collect([("x", run)], title="t")


@pytest.mark.parametrize(
    ("command", "field"),
    [("analyze", "data"), ("train", "data"), ("generate", "prompts"), ("evaluate", "videos")],
)
def test_what_a_run_worked_on_depends_on_its_kind(tmp_path: Path, command: str, field: str) -> None:
    settings = Settings(data=Path("of/data"), prompts=Path("of/prompts"), videos=Path("of/videos"))
    RunFolder.open(tmp_path / "run", settings, command=command).close()
    (run,) = open_runs([("run", tmp_path / "run")])
    assert run.data == Path("of") / field
    assert collect([("run", tmp_path / "run")], title="t").runs[0].data == f"of/{field}"
    RunFolder.open(tmp_path / "bare", Settings(), command=command).close()
    (bare,) = open_runs([("bare", tmp_path / "bare")])
    assert bare.data is None
