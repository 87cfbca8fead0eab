"""Pipelines from configuration alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from matrix_video.backbones.blueprint import blueprint, presets
from matrix_video.backbones.loading import backbone_for, load_pipeline
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.services.errors import MatrixError


def _sizes(pipe: Any) -> dict[str, int]:
    modules = {n: m for n, m in pipe.components.items() if isinstance(m, nn.Module)}
    return {name: sum(p.numel() for p in m.parameters()) for name, m in modules.items()}


def test_a_blueprint_has_the_parameters_of_its_model_and_no_memory() -> None:
    built = blueprint("tiny").build(torch.bfloat16)
    assert _sizes(built) == _sizes(load_pipeline("tiny"))
    transformer = backbone_for(built).transformer
    assert all(p.is_meta and p.dtype == torch.bfloat16 for p in transformer.parameters())
    assert backbone_for(built).num_text_tokens == 32


BILLIONS = {
    "cogvideox-5b-i2v": {"transformer": 5.57, "text_encoder": 4.76, "vae": 0.216},
    "wan2.1-t2v-14b": {"transformer": 14.29, "text_encoder": 5.68, "vae": 0.127},
    "wan2.1-i2v-14b-480p": {"transformer": 16.40, "image_encoder": 0.632},
    "wan2.1-i2v-14b-720p": {"transformer": 16.40, "image_encoder": 0.632},
}


@pytest.mark.parametrize("name", presets())
def test_presets_have_their_published_sizes(name: str) -> None:
    found = blueprint(name)
    assert found.clip is not None
    pipe = found.build(torch.bfloat16)
    assert backbone_for(pipe).grid(*found.clip).num_tokens > 17_000
    sizes = _sizes(pipe)
    for part, billions in BILLIONS[name].items():
        assert sizes[part] / 1e9 == pytest.approx(billions, rel=0.005)


def test_a_preset_answers_to_its_hub_id() -> None:
    assert blueprint("THUDM/CogVideoX-5b-i2v").source == blueprint("cogvideox-5b-i2v").source


def test_text_may_be_shorter() -> None:
    assert backbone_for(blueprint("tiny").build(torch.float32, 16)).num_text_tokens == 16


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("no/such-model", "model: the model 'no/such-model' was not found.*wan2.1"),
        ("unknown", "a transformer of an unknown family .Other3DModel.*CogVideoX"),
        ("foreign", "class os.path, which is not known"),
        ("half", "vae/config.json: the file does not exist"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, model: str, problem: str) -> None:
    if "/" not in model:
        tiny_pipeline(0).save_pretrained(tmp_path / model)
        index = tmp_path / model / "model_index.json"
        text = json.loads(index.read_text())
        if model == "unknown":
            text["transformer"] = ["diffusers", "Other3DModel"]
        elif model == "foreign":
            text["scheduler"] = ["os", "path"]
        else:
            (tmp_path / model / "vae/config.json").unlink()
        index.write_text(json.dumps(text))
        model = str(tmp_path / model)
    with pytest.raises(MatrixError, match=problem):
        blueprint(model).build(torch.float32)
