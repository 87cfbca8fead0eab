"""Videos sampled again: the same videos, and refused where they could not be."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from matrix_video.backbones.base import Backbone
from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.dataset import Dataset
from matrix_video.generation.config import GenerateConfig
from matrix_video.generation.replay import replay
from matrix_video.generation.run import generate
from matrix_video.services.errors import MatrixError


def _run(prompts: Path, out: Path, backbone: Backbone, **changes: object) -> Path:
    values: dict[str, object] = {"prompts": prompts, "out": out, "steps": 2, "batch": 3, "limit": 3}
    return generate(GenerateConfig.model_validate({**values, **changes}), backbone)


def test_each_video_is_made_again(prompts: Path, tmp_path: Path, backbone: Backbone) -> None:
    made = Dataset(_run(prompts, tmp_path / "run", backbone, num_frames=17, width=16, height=16))
    steps: list[int] = []
    with replay(tmp_path / "run", backbone, made.samples[1:]) as again:
        assert again.steps == 2
        for i in (2, 1):
            video = again.sample(made.sample(i).id, lambda step, _: steps.append(step))
            stored = made.video(i).frames_THWC
            assert np.abs(video.astype(int) - stored.astype(int)).max() <= 1  # rounding
    assert steps == [0, 1, 0, 1]


def test_adapter_and_id_map_are_the_runs(
    prompts: Path, tmp_path: Path, backbone: Backbone, adapter: Path
) -> None:
    own = shutil.copytree(adapter, tmp_path / "adapter")
    keys: set[str] = set()
    for name, changes in (("map", {}), ("none", {"id_map": False}), ("half", {"lora_scale": 0.5})):
        out = tmp_path / name
        made = Dataset(_run(prompts, out, backbone, adapter=own, limit=1, **changes))
        with replay(out, backbone, made.samples) as again:
            keys.add(again.key)
            video = again.sample("p0", lambda *_: None)
        stored = made.video(0).frames_THWC
        assert np.abs(video.astype(int) - stored.astype(int)).max() <= 1
    assert len(keys) == 3
    base = Dataset(_run(prompts, tmp_path / "base", backbone, limit=1))  # it was taken off
    with replay(tmp_path / "base", backbone, base.samples) as again:
        video = again.sample("p0", lambda *_: None)
    assert np.abs(video.astype(int) - base.video(0).frames_THWC.astype(int)).max() <= 1

    weights = own / "pytorch_lora_weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    match = r"pytorch_lora_weights\.safetensors: this adapter is not the one .* Restore it"
    with pytest.raises(MatrixError, match=match), replay(tmp_path / "map", backbone, made.samples):
        pass
    shutil.copy(adapter / weights.name, weights)
    content = bytearray((own / "matrix_cond.safetensors").read_bytes())
    content[-1] ^= 1
    (own / "matrix_cond.safetensors").write_bytes(content)
    match = r"matrix_cond\.safetensors: this adapter is not the one .* Restore it"
    with pytest.raises(MatrixError, match=match), replay(tmp_path / "map", backbone, made.samples):
        pass
    assert not getattr(backbone.transformer, "peft_config", {})


def test_other_clips_and_models_are_refused(
    prompts: Path, tmp_path: Path, backbone: Backbone
) -> None:
    out = tmp_path / "run"
    made = Dataset(_run(prompts, out, backbone, limit=1)).samples
    stranger = made[0].model_copy(update={"id": "p9"})
    silent = made[0].model_copy(update={"caption": "the box", "instances": ()})
    deeper = backbone_for(tiny_pipeline(layers=3))
    other = backbone_for(tiny_pipeline(1, layers=2))
    for model, samples, match in (
        (backbone, [stranger], r"run: prompts: sample p9 is none of its videos\. Analyse the"),
        (backbone, [silent], r"sample p0 has another caption than the prompt of this name"),
        (deeper, made, r"model\.fingerprint: .* made by tiny .* this model's architecture is"),
        (other, made, r"generation\.json: .* this model's weights is .* Give --model tiny"),
    ):
        with pytest.raises(MatrixError, match=match), replay(out, model, samples):
            pass


def test_a_folder_that_is_no_finished_run_is_named(
    prompts: Path, tmp_path: Path, backbone: Backbone
) -> None:
    out = tmp_path / "run"
    made = Dataset(_run(prompts, out, backbone, limit=1)).samples

    def refused(folder: Path, match: str) -> None:
        with pytest.raises(MatrixError, match=match), replay(folder, backbone, made):
            pass

    refused(tmp_path / "nowhere", r"nowhere: this is no finished run of matrix generate")
    facts = out / "generation.json"
    facts.write_text(facts.read_text().replace('"steps": 2', '"steps": "two"'))
    refused(out, r"generation\.json: steps: not a record of generated videos")
    config = out / "config.yaml"
    config.write_text(config.read_text() + "speed: 3\n")
    refused(out, r"config\.yaml: speed: not the settings of a run of matrix generate")
    (out / "done" / "generate.json").unlink()
    refused(out, r"run: this is no finished run of matrix generate\. Give the run folder")
