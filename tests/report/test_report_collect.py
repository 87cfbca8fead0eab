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


def training(path: Path, *, finished: bool = True) -> Path:
    with RunFolder.open(path, Settings(data=Path("train")), command="train") as run:
        run.log(step=0, **{"heldout_aas/5/v2t": 0.3, "heldout_aas/1/v2v": 0.2})
        for step in (1, 2, 3):
            spa = math.nan if step == 2 else 1.2
            run.log(step=step, loss=1.0, diffusion=0.2 / step, sga=1.5 / step, spa=spa)
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
    assert [(r.label, r.kind, r.named_data) for r in content.runs] == [
        ("A", "analyze", "clips"),
        ("B", "train", "train"),
    ]
    assert content.runs[0].seconds == 12.5
    assert content.runs[1].seconds == pytest.approx(0, abs=5)
    found = content.runs[0].settings
    assert [found[name] for name in ("model", "seed", "layers", "id_map", "prompts")] == [
        *("tiny", "3", "none", "yes", "–")
    ]
    versions = dict(content.versions)
    assert versions["python"] == f"{environment['python']} (A); 3.99 (B)"
    assert versions["numpy"] == np.__version__
    assert [(a.label, a.choice) for a in content.layers] == [("A", layer_choice())]


@pytest.mark.parametrize(("kept", "lost"), [("v2t", "v2v"), ("v2v", "v2t")])
def test_an_analysis_of_one_kind_alone_has_a_page(tmp_path: Path, kept: str, lost: str) -> None:
    choice = layer_choice()
    groups = tuple(g for g in choice.evidence.groups if g.kind == kept)
    basis = {**choice.evidence.basis, lost: "none"}
    evidence = choice.evidence.model_copy(update={"groups": groups, "basis": basis})
    choice = layer_choice(evidence=evidence, **{lost: ()})
    content = collect([("A", analysis(tmp_path / "a", choice))], title="t")
    page = build_report(tmp_path / "report", content).read_text(encoding="utf-8")
    assert "<b>none</b>: no sample could be scored." in page


def test_training_gives_every_term_and_counts_what_is_no_number(tmp_path: Path) -> None:
    run = training(tmp_path / "m")
    lines = ['{"step": 5, "diffusion": "abc"}', '{"step": 1e400, "diffusion": 1.0}']
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(f"{line}\n" for line in lines)
    content = collect([("M", run)], title="t")
    (found,) = content.curves
    assert {**found.terms, "diffusion": ()} == {
        "diffusion": (),
        "sga": ((1.0, 1.5), (2.0, 0.75), (3.0, 0.5)),
        "spa": ((1.0, 1.2), (3.0, 1.2)),
    }
    assert len(found.terms["diffusion"]) == 4
    assert content.missing["training"] == (
        "2 values of the diffusion loss of M: no numbers",
        "1 values of the SPA loss of M: no numbers",
    )
    assert list(found.heldout.items()) == [
        (("v2t", 5), ((0.0, 0.3), (4.0, 0.4))),
        (("v2v", 1), ((0.0, 0.2), (4.0, 0.25))),
        (("v2v", 10), ((4.0, 0.1),)),
    ]
    assert found.absorbed is True


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
    assert [(o.label, o.sample) for o in content.layers[0].overlays] == [
        ("A, V2T, layer 5", "x_1"),
        ("A, V2V, layer 1", "x_1"),
    ]


def test_mistakes_are_named(tmp_path: Path) -> None:
    def refused(*runs: Path, match: str) -> None:
        with pytest.raises(MatrixError, match=match):
            collect([("x", run) for run in runs], title="t")

    refused(tmp_path / "gone", match=r"gone: there is no such run folder\. Give the folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", match=r"empty: it is no run folder")
    RunFolder.open(tmp_path / "world", Settings(), command="world").close()
    refused(tmp_path / "world", match="a run of 'world', which no report shows")
    run = analysis(tmp_path / "a")
    refused(run, run, match="two runs are called 'x'")
    stored = json.loads((run / "layers.json").read_text())
    del stored["evidence"]["groups"][0]["samples"]
    write_json(run / "layers.json", stored)
    refused(run, match=r"evidence\.groups\.0\.samples: not a choice of .*Field req")
    (run / "config.yaml").write_text("a: [")
    refused(run, match=r"config\.yaml: this is not valid YAML")
