"""A whole analysis with the random tiny pipeline, stopped and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import matrix_video.analysis.run as run_module
from matrix_video.analysis.collect import Measured, Probe, measure_clip
from matrix_video.analysis.config import AnalyzeConfig
from matrix_video.analysis.layers import read_choice
from matrix_video.analysis.records import read_table
from matrix_video.analysis.run import analyze
from matrix_video.analysis.sink_records import read_sinks
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.fingerprint import fingerprint
from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.clip import Clip
from matrix_video.data.dataset import DatasetWriter
from matrix_video.data.sample import Sample
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.video import read_video
from matrix_video.services.errors import MatrixError

from .conftest import make_clip, make_sample


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the plots, which take longer than the rest, where no test looks at them."""

    def none(*_: object) -> list[Path]:
        return []

    monkeypatch.setattr(run_module, "draw_plots", none)


def _config(data: Path, out: Path, **changes: object) -> AnalyzeConfig:
    values: dict[str, object] = {"data": data, "out": out, "levels": 2, "draws": 100}
    return AnalyzeConfig.model_validate({**values, **changes})


def test_everything_is_written(
    data: Path,
    tmp_path: Path,
    backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "runs" / "attention"
    choice = analyze(_config(data, out, overlays=1), backbone)
    assert read_choice(out / "layers.json") == choice
    assert choice.model.fingerprint == fingerprint(backbone.transformer)
    assert choice.data.samples == 3
    table = read_table(out / "attention.parquet")
    assert sorted(set(table.text("sample"))) == ["clip0", "clip1", "clip2"]
    assert len(table) == 3 * 3 * 2 * 3 * 2  # samples, layers, levels, phrases, kinds
    sinks = read_sinks(out / "sinks.parquet")
    assert len(sinks) == 3 * 3 * 2 * 4  # samples, layers, levels; word, special, padding, video
    assert [s.layer for s in choice.evidence.sinks] == [0, 1, 2]
    plots = {path.name for path in (out / "plots").iterdir()}
    groups = [f"{kind}_{words}" for kind in ("v2t", "v2v") for words in ("nouns", "verbs")]
    assert plots == {  # no gaps: dominance was not measured
        *(f"layers_{group}.svg" for group in groups),
        "levels_v2t.svg",
        "levels_v2v.svg",
        "sinks.svg",
    }
    names = sorted(path.name for path in (out / "overlays").iterdir())
    expected = [f"clip0_v2t_layer{choice.v2t[0]:02d}", f"clip0_v2v_layer{choice.v2v[0]:02d}"]
    assert names == sorted(f"{name}{end}" for name in expected for end in (".mp4", ".png", ".gif"))
    video = read_video(out / "overlays" / f"{expected[0]}.mp4")
    assert len(video) == 9
    # The snippet of the document reads these very files.
    text = (Path(__file__).parents[2] / "docs/analysis.md").read_text()
    monkeypatch.chdir(tmp_path)
    exec(text.split("```python\n")[1].split("```")[0], {})
    shown = capsys.readouterr().out
    assert f"{choice.v2t}\n{choice.v2v}\n" in shown
    assert f"words get {np.mean([s.shares['word'] for s in choice.evidence.sinks]):.1%}" in shown


@pytest.mark.usefixtures("undrawn")
def test_a_stopped_run_goes_on_to_the_same_result(
    data: Path, tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = analyze(_config(data, tmp_path / "whole", overlays=0), backbone)
    out = tmp_path / "stopped"
    measured: list[str] = []

    def dying(backbone: Backbone, clip: Clip, probe: Probe) -> Measured:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(clip.sample.id)
        return measure_clip(backbone, clip, probe)

    monkeypatch.setattr(run_module, "measure_clip", dying)
    with pytest.raises(KeyboardInterrupt):
        analyze(_config(data, out, overlays=0), backbone)
    assert not (out / "layers.json").exists()

    def counting(backbone: Backbone, clip: Clip, probe: Probe) -> Measured:
        measured.append(clip.sample.id)
        return measure_clip(backbone, clip, probe)

    monkeypatch.setattr(run_module, "measure_clip", counting)
    assert analyze(_config(data, out, overlays=0), backbone) == whole
    assert measured == ["clip0", "clip1", "clip2"]
    one, two = (read_table(p / "attention.parquet").data for p in (tmp_path / "whole", out))
    assert one.equals(two)


@pytest.mark.usefixtures("undrawn")
def test_a_changed_clip_is_refused_by_name(data: Path, tmp_path: Path, backbone: Backbone) -> None:
    config = _config(data, tmp_path / "run", overlays=0)
    analyze(config, backbone)
    track = data / "tracks" / "clip1.json"
    track.write_bytes((data / "tracks" / "clip2.json").read_bytes())
    with pytest.raises(MatrixError, match=r"data: tracks/clip1\.json has changed since this run"):
        analyze(config, backbone)


@pytest.mark.usefixtures("undrawn")
def test_another_model_is_measured_again(data: Path, tmp_path: Path, backbone: Backbone) -> None:
    """Other weights under the same name: old measurements must not stand for them."""
    out = tmp_path / "run"
    before = analyze(_config(data, out, overlays=0), backbone)
    other = backbone_for(tiny_pipeline(1, layers=3))
    after = analyze(_config(data, out, overlays=0), other)
    assert after == analyze(_config(data, tmp_path / "fresh", overlays=0), other)
    assert after.evidence != before.evidence
    decoded: Any = backbone_for(tiny_pipeline(1, layers=3))
    decoded.pipe.vae.encoder.conv_in.conv.weight.data.mul_(2)
    assert analyze(_config(data, out, overlays=0), decoded).evidence != after.evidence


@pytest.mark.usefixtures("undrawn")
def test_labels_reach_the_evidence(data: Path, tmp_path: Path, backbone: Backbone) -> None:
    labels = tmp_path / "scores.json"
    videos = [{"id": f"clip{i}", "sgi_raw": i / 2, "margin": 0.5} for i in range(3)]
    labels.write_text(json.dumps({"format": 1, "videos": videos}))
    choice = analyze(_config(data, tmp_path / "run", labels=labels, overlays=0), backbone)
    for group in choice.evidence.groups:
        assert (group.successes, group.failures) == (1, 2)
        assert group.dominance == "not measured"
        assert group.reason == "1 successes and 2 failures; at least 3 of each are needed"
    labels.write_text(
        json.dumps({"format": 1, "videos": [{"id": "other", "sgi_raw": 1.0, "margin": 0.5}]})
    )
    with pytest.raises(MatrixError, match=r"none of its videos \(other, …\) is among"):
        analyze(_config(data, tmp_path / "run2", labels=labels, overlays=0), backbone)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("length", "a clip of 7 frames"),
        ("size", "frames of 30 x 30 pixels"),
        ("cut", "the phrase 'red ball' is cut off"),
        ("no phrase", "no phrase of an interaction to look for"),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_clips_that_cannot_be_measured_are_told_before_the_first(
    fault: str, told: str, tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    frames, side = {"length": (7, 32), "size": (9, 30)}.get(fault, (9, 32))
    with DatasetWriter(folder) as writer:
        for index in range(4):
            (pixels, tracks), sample = make_clip(index), make_sample(f"clip{index}")
            if index % 2:
                pixels = pixels[:frames, :side, :side]
                masks = {n: t.masks()[:frames, :side, :side] for n, t in tracks.items()}
                tracks = {n: MaskTrack.from_masks(m) for n, m in masks.items()}
                sample = _moved(sample, "the " * 40 * (fault == "cut"))
                if fault == "no phrase":
                    sample = sample.model_copy(update={"interactions": ()})
            writer.add(sample, pixels, 8.0, tracks, lossless=True)
    measured: list[str] = []

    def counting(backbone: Backbone, clip: Clip, probe: Probe) -> Measured:
        measured.append(clip.sample.id)
        return measure_clip(backbone, clip, probe)

    monkeypatch.setattr(run_module, "measure_clip", counting)
    asked = {"overlays": 0, "levels": 1}
    problem = rf"2 of 4 clips cannot be measured: .*clip1.*clip3.*{told}.*--leave-out"
    with pytest.raises(MatrixError, match=problem):
        analyze(_config(folder, tmp_path / "a", **asked), backbone)
    assert not measured
    with pytest.warns(UserWarning, match=f"left out: 2 of 4 .*{told}"):
        analyze(_config(folder, tmp_path / "b", leave_out=True, **asked), backbone)
    assert measured == ["clip0", "clip2"]


def _moved(sample: Sample, words: str) -> Sample:
    """The sample with so many words in front of its caption."""
    line = sample.model_dump()
    line["caption"] = words + line["caption"]
    spans = [span for i in line["instances"] for span in i["mentions"]]
    for span in (*spans, *(act["verb_span"] for act in line["interactions"])):
        span |= {"start": span["start"] + len(words), "end": span["end"] + len(words)}
    return Sample.model_validate(line)


@pytest.mark.usefixtures("undrawn")
def test_tiling_is_a_setting_of_the_run(data: Path, tmp_path: Path) -> None:
    own, asked = backbone_for(tiny_pipeline(layers=2)), {"overlays": 0, "levels": 1, "limit": 1}
    whole = analyze(_config(data, tmp_path / "whole", **asked), own)
    tiled = analyze(_config(data, tmp_path / "tiled", tiling=True, **asked), own)
    assert own.tiled
    assert tiled.evidence != whole.evidence
    with pytest.raises(MatrixError, match="tiling: the folder holds a run with tiling = False"):
        analyze(_config(data, tmp_path / "whole", tiling=True, **asked), own)


def test_settings_that_contradict_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match="width: only one of height and width is given"):
        _config(data, tmp_path / "run", height=32)


def test_a_pipeline_held_in_bfloat16(
    data: Path, tmp_path: Path, backbone: Backbone, undrawn: None
) -> None:
    backbone.pipe.save_pretrained(tmp_path / "model")
    asked = {"model": str(tmp_path / "model"), "limit": 1, "overlays": 0}
    analyze(_config(data, tmp_path / "float32", **asked))
    analyze(_config(data, tmp_path / "bf16", weights="bf16", **asked))
    ours, theirs = (
        read_table(tmp_path / name / "attention.parquet").number("aas")
        for name in ("bf16", "float32")
    )
    assert not np.array_equal(ours, theirs)
    np.testing.assert_allclose(ours, theirs, atol=0.02)
