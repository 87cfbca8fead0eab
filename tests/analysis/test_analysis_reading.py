"""Reading maps of models that are set up in other ways: broken, offloaded, with an adapter."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from peft import LoraConfig

import matrix_video.analysis.run as run_module
from matrix_video.analysis.collect import Measured, measure_clip, sample_phrases
from matrix_video.analysis.config import AnalyzeConfig
from matrix_video.analysis.probe import Probe
from matrix_video.analysis.records import read_table, to_table
from matrix_video.analysis.run import analyze
from matrix_video.backbones.adapter import load_adapter, save_adapter
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.condition import Condition, paint_ids
from matrix_video.backbones.fingerprint import fingerprint
from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.seeds import keyed_generator
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.clip import Clip
from matrix_video.data.dataset import Dataset
from matrix_video.data.tracks import first_masks
from matrix_video.services.errors import MatrixError


@pytest.fixture
def clip(data: Path) -> Clip:
    return Dataset(data)[0]


def _layer(measured: Measured, layer: int) -> list[dict[str, Any]]:
    rows = [asdict(row) for row in measured.rows if row.layer == layer]
    return [{name: value for name, value in row.items() if value == value} for row in rows]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_numbers_that_are_none_name_layer_and_level(clip: Clip, value: float) -> None:
    backbone = backbone_for(tiny_pipeline(layers=3))
    late: Any = backbone.transformer
    norm = late.transformer_blocks[1].attn1.norm_k

    def spoil(module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
        output[1, 0, 3, 0] = value  # one key of the second noise level
        return output

    norm.register_forward_hook(spoil)
    match = (
        r"layer 1: sample clip0: queries or keys of layer 1 \(transformer_blocks\.1\.attn1\) are "
        r"NaN or infinite at noise level 1 \(timestep \d+\)\. Measure with --precision no"
    )
    with pytest.raises(MatrixError, match=match):
        measure_clip(backbone, clip, Probe(levels=3))


def test_an_offloaded_model_gives_the_same_rows(clip: Clip) -> None:
    plain, moved = (backbone_for(tiny_pipeline()) for _ in range(2))
    mark, key = fingerprint(moved.transformer), moved.encoders_key()
    parts: Any = moved.pipe
    for part in (parts.transformer, parts.vae, parts.text_encoder):
        cpu_offload(part, execution_device=torch.device("cpu"), offload_buffers=False)
        assert next(part.parameters()).is_meta
    assert moved.device == torch.device("cpu")
    assert (fingerprint(moved.transformer), moved.encoders_key()) == (mark, key)
    expected, found = (measure_clip(b, clip, Probe(levels=2)) for b in (plain, moved))
    for layer in range(2):
        assert _layer(found, layer) == _layer(expected, layer)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """LoRA on layer 1 and an id-map projection, both of random weights."""
    other: Any = backbone_for(tiny_pipeline(layers=3))
    config = LoraConfig(r=4, target_modules=other.lora_targets([1]), init_lora_weights=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        other.transformer.add_adapter(config)
        site, channels = other.condition_site(), other.latent_channels
        condition = Condition(other.transformer, site, channels, (1, 2, 2))
        torch.nn.init.normal_(condition.projection.conv.weight, std=0.5)
    save_adapter(tmp_path / "adapter", other.transformer, condition=condition)
    return tmp_path / "adapter"


def test_an_adapter_is_measured_with_its_id_map(
    data: Path, tmp_path: Path, clip: Clip, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "draw_plots", lambda *_: None)  # slow, and of no interest here
    backbone = backbone_for(tiny_pipeline(layers=3))
    probe = Probe(levels=1)
    base = measure_clip(backbone, clip, probe)
    loaded = load_adapter(backbone.pipe, adapter)
    assert loaded.condition is not None
    lora = measure_clip(backbone, clip, probe)
    # As training gives it: painted from the first frame's masks, in colours drawn by the id.
    masks = torch.stack([torch.from_numpy(m) for m in first_masks(clip.tracks).values()])
    painted = paint_ids(masks.numpy(), keyed_generator(0, "clip0", "colours"), "clip0")
    latents = backbone.encode_image(torch.from_numpy(painted)[None], len(clip.video))
    with loaded.condition.given(latents):
        both = measure_clip(backbone, clip, probe)
    loaded.detach()
    assert _layer(lora, 0) == _layer(base, 0)  # before the first layer that LoRA is on
    assert _layer(lora, 1) != _layer(base, 1)
    assert _layer(both, 0) != _layer(lora, 0)

    config = AnalyzeConfig(
        data=data, out=tmp_path / "run", adapter=adapter, levels=1, overlays=0, limit=1, draws=100
    )
    analyze(config, backbone)
    table = read_table(tmp_path / "run" / "attention.parquet")
    assert table.data.equals(to_table(both.rows).data)
    again = measure_clip(backbone, clip, probe)  # it was taken off
    assert [_layer(again, i) for i in range(3)] == [_layer(base, i) for i in range(3)]


def test_a_caption_longer_than_the_model_reads(clip: Clip) -> None:
    short: Backbone = backbone_for(tiny_pipeline(text_length=6))
    match = r"clip0: caption: the phrase 'blue ball' is cut off: .* 12 tokens, .* reads 6,"
    with pytest.raises(MatrixError, match=match):
        sample_phrases(short, clip.sample, "full")


def test_bad_captions_are_named_before_anything_is_measured(
    data: Path, tmp_path: Path, backbone: Backbone
) -> None:
    lines = (data / "metadata.jsonl").read_text().splitlines()
    silent = Dataset(data).samples[2].model_copy(update={"interactions": ()})
    (data / "metadata.jsonl").write_text("\n".join([*lines[:2], silent.model_dump_json()]) + "\n")
    config = AnalyzeConfig(data=data, out=tmp_path / "run", levels=1)
    match = r"1 of 3 clips cannot be measured: clip2: .* no phrase of an interaction .* --leave-out"
    with pytest.raises(MatrixError, match=match):
        analyze(config, backbone)
    assert not (tmp_path / "run" / "parts").exists()


def test_a_trajectory_is_as_it_was(tmp_path: Path) -> None:
    values = {"data": tmp_path, "out": tmp_path / "run", "trajectory": tmp_path / "generated"}
    for changes, name in (({"adapter": tmp_path}, "adapter"), ({"fps": 4.0}, "fps")):
        match = rf"{name}: {name} is given, but a sampling is repeated .* leave out the trajectory"
        with pytest.raises(MatrixError, match=match):
            AnalyzeConfig.model_validate({**values, **changes})
    with pytest.raises(ValueError, match="belong together"):
        analyze(AnalyzeConfig.model_validate(values))
